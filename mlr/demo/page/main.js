// SPDX-License-Identifier: Apache-2.0
// The page: photos in, depth out.

import { coloured, drawScale } from "./colours.js";
import { npyFile, plyFile, pngFile, pointsOf, save } from "./files.js";
import { Relief } from "./relief.js";
import { mapAt, resizeMap, within } from "./resize.js";

/** Pixels of the pictures on the page, of the relief's points and of the points in a file. */
const SHOWN = 1_000_000;
const RELIEF = 80_000;
const PLY = 1_000_000;

const page = new Proxy({}, { get: (_, id) => document.getElementById(id) });

/**
 * What the page shows: the network, and of the last photo that was computed the picture, its depth at the network's
 * size, the range of it, its colours at the page's size and the place that is measured. `latest` counts what was opened.
 */
const state = { about: null, ready: null, latest: 0, pending: null, photo: null, map: null, range: null, painted: null, probe: null };

const network = new Worker("network.js", { type: "module" });
const relief = new Relief(page.relief, ({ yaw, pitch, zoom }) => {
  page.turn.value = `turned ${yaw.toFixed(0)}°, ${pitch.toFixed(0)}°, zoom ${zoom.toFixed(2)}`;
});

function say(text, wrong = false) {
  page.status.textContent = text;
  page.status.classList.toggle("wrong", wrong);
}

const metres = (depth) => `${depth.toFixed(depth < 10 ? 3 : 2)} m`;

// --- the network ------------------------------------------------------------------------------------------------------

network.onerror = (event) => say(`The network's program did not start: ${event.message || "a file is missing"}.`, true);

network.onmessage = ({ data }) => {
  if (data.kind === "loading") {
    const part = data.total ? ` of ${(data.total / 1e6).toFixed(0)}` : "";
    if (!state.latest) say(`loading the network: ${(data.bytes / 1e6).toFixed(0)}${part} MB`);
  } else if (data.kind === "ready") {
    state.ready = data;
    if (!state.latest) say(`ready after ${data.seconds.toFixed(1)} s`);
    describe();
  } else if (data.kind === "failed") {
    say(`The network does not run in this browser: ${data.reason}.`, true);
  } else if (data.id === state.latest) {
    showDepth(data);
  }
};

function describe() {
  const { about, ready } = state;
  if (!about) return;
  const threads = ready ? `, ${ready.threads} ${ready.threads === 1 ? "thread" : "threads"} of WebAssembly` : "";
  const size = ready ? `, ${ready.megabytes.toFixed(1)} MB` : "";
  page.runs.textContent =
    `${about.backbone} at ${about.height} × ${about.width} pixels (${about.checkpoint}${size}${threads}), mlr ${about.mlr_version}.`;
}

async function start() {
  drawScale(page.scale);
  const answer = await fetch("model.json");
  if (!answer.ok) throw new Error(`model.json: ${answer.status}`);
  state.about = await answer.json();
  describe();
  for (const { file, title, notice } of state.about.examples) page.examples.append(exampleItem(file, title, notice));
}

function exampleItem(file, title, notice) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const picture = document.createElement("img");
  Object.assign(picture, { src: file, alt: "" });
  button.append(picture, title);
  button.addEventListener("click", async () => open(await (await fetch(file)).blob(), file.split("/").pop()));
  item.append(button);
  if (notice) item.append(Object.assign(document.createElement("a"), { href: notice, textContent: "source and licence" }));
  return item;
}

// --- photos -----------------------------------------------------------------------------------------------------------

/** Take a file as the photo, or say why not. */
async function open(file, name) {
  if (!state.about) return; // the page has said what it lacks
  const id = ++state.latest;
  say(`reading ${name} ...`);
  let bitmap;
  try {
    // as mlr reads it: upright by EXIF, colours as they are stored
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    const formats = "choose a PNG, JPEG or WebP file";
    if (id === state.latest) say(`${name} is not a picture that this browser can read: ${formats}.`, true);
    return;
  }
  if (id === state.latest) take(bitmap, name, id);
}

function take(bitmap, name, id) {
  const { height, width } = bitmap;
  let pixels;
  try {
    pixels = drawn(bitmap, height, width).data;
  } catch {
    say(`${name} has ${height} × ${width} pixels, more than this browser can hold: reduce it.`, true);
    return;
  }
  state.pending = { bitmap, name, height, width, opaque: isOpaque(pixels) };
  say(`computing the depth of ${name} ...`);
  const { height: inputHeight, width: inputWidth } = state.about;
  network.postMessage({ id, pixels, height, width, inputHeight, inputWidth }, [pixels.buffer]);
}

/** A bitmap's pixels at a size. */
function drawn(bitmap, height, width) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

function isOpaque(rgba) {
  for (let i = 3; i < rgba.length; i += 4) if (rgba[i] !== 255) return false;
  return true;
}

// --- depth ------------------------------------------------------------------------------------------------------------

function showDepth({ map, range, milliseconds }) {
  const photo = state.pending;
  if (!map.values.every(Number.isFinite)) {
    say(`The network gives no depth for ${photo.name}: NaN or infinite.`, true);
    return;
  }
  const [height, width] = within(photo.height, photo.width, SHOWN);
  const painted = new ImageData(coloured(resizeMap(map, height, width).values, range), width, height);
  Object.assign(state, { photo, map, range, painted, probe: null });
  for (const canvas of [page.photo, page.depth]) Object.assign(canvas, { height, width });
  page.result.hidden = false;
  drawMaps();
  showRelief();
  page["photo-name"].textContent = `${photo.name}, ${photo.height} × ${photo.width} pixels`;
  const [near, far] = range;
  page.near.textContent = metres(near);
  page.middle.textContent = metres((near + far) / 2);
  page.far.textContent = metres(far);
  page.reading.value = "Point at either picture: the distance there appears here.";
  const clear = photo.opaque ? "" : " Its transparent parts count as black here; mlr predict ignores transparency.";
  say(`${photo.name}: depth after ${milliseconds.toFixed(0)} ms, ${metres(near)} to ${metres(far)}.${clear}`);
}

function drawMaps() {
  const { photo, painted, probe } = state;
  page.photo.getContext("2d").drawImage(photo.bitmap, 0, 0, painted.width, painted.height);
  page.depth.getContext("2d").putImageData(painted, 0, 0);
  if (probe) for (const canvas of [page.photo, page.depth]) drawCross(canvas, probe);
}

function showRelief() {
  const { photo, map } = state;
  const [height, width] = within(photo.height, photo.width, RELIEF);
  const small = resizeMap(map, height, width);
  const colours = page.paint.value === "photo" ? drawn(photo.bitmap, height, width).data : coloured(small.values, state.range);
  relief.show(pointsOf(small, viewAngle()), colours, width);
}

function viewAngle() {
  const angle = Number(page.angle.value);
  return angle >= 10 && angle <= 150 ? angle : 63;
}

/** Depth at the photo's own size, as `mlr predict` gives it. */
const fullDepth = () => resizeMap(state.map, state.photo.height, state.photo.width);

// --- measuring --------------------------------------------------------------------------------------------------------

/** Measure at a place of the pictures, each from 0 to 1. */
function measure(x, y) {
  if (!state.map) return;
  const { height, width } = state.photo;
  const column = Math.min(width - 1, Math.max(0, Math.floor(x * width)));
  const row = Math.min(height - 1, Math.max(0, Math.floor(y * height)));
  state.probe = { x: (column + 0.5) / width, y: (row + 0.5) / height };
  const depth = mapAt(state.map, height, width, row, column);
  page.reading.value = depth > 0 ? `${metres(depth)} at x = ${column}, y = ${row}` : `no depth at x = ${column}, y = ${row}`;
  drawMaps();
}

function drawCross(canvas, { x, y }) {
  const context = canvas.getContext("2d");
  const size = canvas.width / 40;
  const cross = new Path2D();
  cross.moveTo(x * canvas.width - size, y * canvas.height);
  cross.lineTo(x * canvas.width + size, y * canvas.height);
  cross.moveTo(x * canvas.width, y * canvas.height - size);
  cross.lineTo(x * canvas.width, y * canvas.height + size);
  for (const [colour, thickness] of [["white", 4], ["black", 1.5]]) {
    Object.assign(context, { strokeStyle: colour, lineWidth: (thickness * canvas.width) / 640 });
    context.stroke(cross);
  }
}

function measureAtPointer(event) {
  const box = event.currentTarget.getBoundingClientRect();
  measure((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
}

function measureByKey(event) {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const { x, y } = state.probe ?? { x: 0.5, y: 0.5 };
  const [right, down] = steps[event.key];
  measure(x + 0.02 * right, y + 0.02 * down);
}

// --- camera -----------------------------------------------------------------------------------------------------------

async function openCamera() {
  try {
    page.video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    await page.video.play();
    page.viewfinder.hidden = false; // there is a picture to take from now on
  } catch (error) {
    say(`The camera cannot be used: ${error.message || error.name}.`, true);
  }
}

function closeCamera() {
  page.video.srcObject?.getTracks().forEach((track) => track.stop());
  page.video.srcObject = null;
  page.viewfinder.hidden = true;
}

async function shoot() {
  const id = ++state.latest;
  const bitmap = await createImageBitmap(page.video);
  closeCamera();
  take(bitmap, "camera", id);
}

// --- events -----------------------------------------------------------------------------------------------------------

page.file.addEventListener("change", () => {
  const [file] = page.file.files;
  if (file) open(file, file.name);
  page.file.value = ""; // the same file can be chosen again
});

for (const event of ["dragenter", "dragover"]) {
  window.addEventListener(event, (drag) => {
    drag.preventDefault();
    document.body.classList.add("dropping");
  });
}
window.addEventListener("dragleave", (drag) => {
  if (!drag.relatedTarget) document.body.classList.remove("dropping");
});
window.addEventListener("drop", (drop) => {
  drop.preventDefault();
  document.body.classList.remove("dropping");
  const [file] = drop.dataTransfer.files;
  if (file) open(file, file.name);
  else say("What was dropped is not a file: save the picture first.", true);
});

page.camera.hidden = !navigator.mediaDevices?.getUserMedia;
page.camera.addEventListener("click", openCamera);
page.shoot.addEventListener("click", shoot);
page.close.addEventListener("click", closeCamera);

for (const canvas of [page.photo, page.depth]) {
  canvas.addEventListener("pointermove", measureAtPointer);
  canvas.addEventListener("pointerdown", measureAtPointer);
  canvas.addEventListener("keydown", measureByKey);
}

page.paint.addEventListener("change", showRelief);
page.angle.addEventListener("input", showRelief);
page.home.addEventListener("click", () => relief.reset());

const saved = (end) => `${state.photo.name.replace(/\.[^.]*$/, "")}-depth${end}`;
page["save-png"].addEventListener("click", async () => save(await pngFile(fullDepth()), saved(".png")));
page["save-npy"].addEventListener("click", () => save(npyFile(fullDepth()), saved(".npy")));
page["save-ply"].addEventListener("click", () => {
  const [height, width] = within(state.photo.height, state.photo.width, PLY);
  const colours = drawn(state.photo.bitmap, height, width).data;
  save(plyFile(resizeMap(state.map, height, width), colours, viewAngle()), saved(".ply"));
});

start().catch((error) => say(`The page is incomplete: ${error.message}.`, true));
