// SPDX-License-Identifier: Apache-2.0
// Depth as files, the same as `mlr predict` writes them.

const UNIT = "mm";
const PER_METRE = 1000;

/** Polynomial of the checksum of PNG's chunks, bits reversed. */
const CRC = 0xedb88320;
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? CRC ^ (byte >>> 1) : byte >>> 1;
  return byte;
});

function checksum(bytes) {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = CRC_TABLE[(sum ^ byte) & 255] ^ (sum >>> 8);
  return ~sum >>> 0;
}

function chunk(name, content) {
  const bytes = new Uint8Array(12 + content.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set(new TextEncoder().encode(name), 4);
  bytes.set(content, 8);
  view.setUint32(8 + content.length, checksum(bytes.subarray(4, 8 + content.length)));
  return bytes;
}

async function deflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** A 16-bit grey PNG in millimetres, which says so; 0 = unknown, deeper than 65.535 m becomes 65.535 m. */
export async function pngFile({ height, width, values }) {
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 16); // bits; all that follows is 0: grey, deflate, filter per row, not interlaced
  const rows = new DataView(new ArrayBuffer(height * (1 + 2 * width))); // a row begins with its filter, 0 = none
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const steps = Math.round(Math.min(65535, Math.max(0, values[y * width + x] * PER_METRE)));
      rows.setUint16(y * (1 + 2 * width) + 1 + 2 * x, steps);
    }
  }
  const parts = [
    Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a),
    chunk("IHDR", new Uint8Array(header.buffer)),
    chunk("tEXt", new TextEncoder().encode(`depth_unit\0${UNIT}`)),
    chunk("IDAT", await deflated(new Uint8Array(rows.buffer))),
    chunk("IEND", new Uint8Array(0)),
  ];
  return new Blob(parts, { type: "image/png" });
}

/** A float32 array [H, W] in metres for numpy.load. */
export function npyFile({ height, width, values }) {
  const text = `{'descr': '<f4', 'fortran_order': False, 'shape': (${height}, ${width}), }`;
  const length = Math.ceil((10 + text.length + 1) / 64) * 64; // the numbers begin at a multiple of 64 bytes
  const head = new Uint8Array(length);
  head.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0]);
  new DataView(head.buffer).setUint16(8, length - 10, true);
  head.set(new TextEncoder().encode(text.padEnd(length - 11) + "\n"), 10);
  const numbers = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((value, i) => numbers.setFloat32(4 * i, Math.max(0, value), true));
  return new Blob([head, numbers], { type: "application/octet-stream" });
}

/** Where a pixel of a map lies in space, in metres: x right, y down, z forward; `angle` is the horizontal one of view. */
export function pointsOf({ height, width, values }, angle) {
  const focal = width / 2 / Math.tan((angle * Math.PI) / 360);
  const points = new Float32Array(3 * values.length);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      points[3 * i] = ((x - (width - 1) / 2) / focal) * values[i];
      points[3 * i + 1] = ((y - (height - 1) / 2) / focal) * values[i];
      points[3 * i + 2] = values[i];
    }
  }
  return points;
}

/** Coloured points of every pixel of known depth, binary little endian. */
export function plyFile(map, rgba, angle) {
  const points = pointsOf(map, angle);
  const known = map.values.reduce((count, value) => count + (value > 0), 0);
  const properties = ["float x", "float y", "float z", "uchar red", "uchar green", "uchar blue"];
  const head =
    "ply\nformat binary_little_endian 1.0\ncomment metres; x right, y down, z forward\n" +
    `element vertex ${known}\n${properties.map((name) => `property ${name}\n`).join("")}end_header\n`;
  const body = new DataView(new ArrayBuffer(15 * known));
  let at = 0;
  for (let i = 0; i < map.values.length; i++) {
    if (!(map.values[i] > 0)) continue;
    for (let axis = 0; axis < 3; axis++) body.setFloat32(at + 4 * axis, points[3 * i + axis], true);
    for (let channel = 0; channel < 3; channel++) body.setUint8(at + 12 + channel, rgba[4 * i + channel]);
    at += 15;
  }
  return new Blob([head, body], { type: "application/octet-stream" });
}

/** Let the browser save a file. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
