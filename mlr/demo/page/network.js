// SPDX-License-Identifier: Apache-2.0
// The worker that runs the network, so that the page stays alive meanwhile.
//
// It is sent {id, pixels, height, width, inputHeight, inputWidth} and answers {kind: "depth", id, map, range,
// milliseconds}: depth at the network's size, and its range at the photo's. Before, it reports {kind: "loading", bytes,
// total} and {kind: "ready", threads, megabytes, seconds}; {kind: "failed", reason} says what went wrong.

import * as ort from "./runtime/ort.wasm.bundle.min.mjs";
import { rangeOf } from "./colours.js";
import { networkInput, resizeMap } from "./resize.js";

ort.env.wasm.wasmPaths = { wasm: new URL("runtime/ort-wasm-simd-threaded.wasm", import.meta.url).href };
// threads need memory that is shared, which browsers give to isolated pages alone
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;

async function fetched(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${answer.statusText}`);
  const total = Number(answer.headers.get("Content-Length")) || 0;
  const parts = [];
  let bytes = 0;
  for (const reader = answer.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    bytes += value.length;
    self.postMessage({ kind: "loading", bytes, total });
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function load() {
  const start = performance.now();
  const bytes = await fetched("model.onnx");
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  self.postMessage({
    kind: "ready",
    threads: ort.env.wasm.numThreads,
    megabytes: bytes.length / 1e6,
    seconds: (performance.now() - start) / 1000,
  });
  return session;
}

const loaded = load();
loaded.catch((error) => self.postMessage({ kind: "failed", reason: error.message || String(error) }));

let waiting = Promise.resolve(); // a session runs one photo at a time

self.onmessage = ({ data }) => {
  waiting = waiting.then(() => run(data)).catch((error) => {
    self.postMessage({ kind: "failed", reason: error.message || String(error) });
  });
};

async function run({ id, pixels, height, width, inputHeight, inputWidth }) {
  const session = await loaded;
  const start = performance.now();
  const image = networkInput(pixels, height, width, inputHeight, inputWidth);
  const { depth } = await session.run({ image: new ort.Tensor("float32", image, [1, 3, inputHeight, inputWidth]) });
  const map = { height: inputHeight, width: inputWidth, values: depth.data };
  const milliseconds = performance.now() - start;
  self.postMessage({ kind: "depth", id, map, range: rangeOf(resizeMap(map, height, width).values), milliseconds });
}
