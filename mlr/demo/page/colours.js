// SPDX-License-Identifier: Apache-2.0
// Depth in colours: near is blue and far is red, as in the pictures of `mlr predict --format color`.

/** Corners (place, value) of the three lines of the colour map "jet". */
const JET = [
  [[0, 0], [0.35, 0], [0.66, 1], [0.89, 1], [1, 0.5]],
  [[0, 0], [0.125, 0], [0.375, 1], [0.64, 1], [0.91, 0], [1, 0]],
  [[0, 0.5], [0.11, 1], [0.34, 1], [0.65, 0], [1, 0]],
];

function line(corners, place) {
  const i = Math.max(1, corners.findIndex(([x]) => x >= place));
  const [[x0, y0], [x1, y1]] = [corners[i - 1], corners[i]];
  return y0 + ((y1 - y0) * (place - x0)) / (x1 - x0);
}

/** 256 colours, 3 bytes each. */
const TABLE = new Uint8ClampedArray(256 * 3);
for (let i = 0; i < 256; i++) JET.forEach((corners, channel) => (TABLE[3 * i + channel] = 255 * line(corners, i / 255)));

/** Smallest and largest known depth of a map; [0, 1] if none is known. */
export function rangeOf(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value > 0) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  return low <= high ? [low, high] : [0, 1];
}

/** Colours of depth as pixels RGBA; depth of 0 and below is unknown and black. */
export function coloured(values, [low, high]) {
  const rgba = new Uint8ClampedArray(values.length * 4);
  const steps = 255 / (high - low || 1);
  for (let i = 0; i < values.length; i++) {
    rgba[4 * i + 3] = 255;
    if (!(values[i] > 0)) continue;
    const colour = 3 * Math.min(255, Math.max(0, Math.round((values[i] - low) * steps)));
    rgba.set(TABLE.subarray(colour, colour + 3), 4 * i);
  }
  return rgba;
}

/** Draw the scale from near to far over a canvas. */
export function drawScale(canvas) {
  const ramp = Float32Array.from({ length: canvas.width }, (_, i) => 1 + i / (canvas.width - 1));
  const row = new ImageData(coloured(ramp, [1, 2]), canvas.width, 1);
  const context = canvas.getContext("2d");
  for (let y = 0; y < canvas.height; y++) context.putImageData(row, 0, y);
}
