// SPDX-License-Identifier: Apache-2.0
// The filters by which mlr resizes: a network must be shown what it was trained on, and browsers' own filters differ.

/** Weights of every output along an axis: antialiased bilinear, as torchvision's resize(antialias=True). */
function tent(length, out) {
  const scale = length / out;
  const support = Math.max(scale, 1);
  return Array.from({ length: out }, (_, i) => {
    const centre = scale * (i + 0.5);
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const end = Math.min(Math.trunc(centre + support + 0.5), length);
    const weights = new Float64Array(end - first);
    for (let j = first; j < end; j++) {
      weights[j - first] = Math.max(0, 1 - Math.abs((j - centre + 0.5) / support));
    }
    const sum = weights.reduce((a, b) => a + b);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

/**
 * A photo as a network's input.
 *
 * Rows come first, then columns; both results are rounded to bytes, as in training.
 * @param {Uint8ClampedArray} rgba pixels [height, width, 4].
 * @returns {Float32Array} RGB in [0, 1], [3, outHeight, outWidth].
 */
export function networkInput(rgba, height, width, outHeight, outWidth) {
  const narrow = new Uint8ClampedArray(height * outWidth * 3); // a clamped array rounds what is stored
  tent(width, outWidth).forEach(({ first, weights }, x) => {
    for (let y = 0; y < height; y++) {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        let at = (y * width + first) * 4 + channel;
        for (let i = 0; i < weights.length; i++, at += 4) sum += weights[i] * rgba[at];
        narrow[(y * outWidth + x) * 3 + channel] = sum;
      }
    }
  });
  const bytes = new Uint8ClampedArray(outHeight * outWidth * 3);
  const row = outWidth * 3;
  tent(height, outHeight).forEach(({ first, weights }, y) => {
    for (let x = 0; x < row; x++) {
      let sum = 0;
      for (let i = 0; i < weights.length; i++) sum += weights[i] * narrow[(first + i) * row + x];
      bytes[y * row + x] = sum;
    }
  });
  const planes = new Float32Array(bytes.length);
  const plane = outHeight * outWidth;
  for (let i = 0; i < plane; i++) {
    for (let channel = 0; channel < 3; channel++) planes[channel * plane + i] = bytes[3 * i + channel] / 255;
  }
  return planes;
}

/** The two pixels that an output reads along an axis, and the share of the second: bilinear by pixel centres. */
function pair(i, length, out) {
  const place = Math.max(((i + 0.5) * length) / out - 0.5, 0);
  const low = Math.min(Math.floor(place), length - 1);
  return { low, high: Math.min(low + 1, length - 1), share: place - low };
}

function blended({ width, values }, row, column) {
  const along = (y) => values[y * width + column.low] * (1 - column.share) + values[y * width + column.high] * column.share;
  return along(row.low) * (1 - row.share) + along(row.high) * row.share;
}

/**
 * A map at another size, as mlr brings depth to a photo's size.
 * @param {{height: number, width: number, values: Float32Array}} map
 */
export function resizeMap(map, height, width) {
  const columns = Array.from({ length: width }, (_, x) => pair(x, map.width, width));
  const values = new Float32Array(height * width);
  for (let y = 0, i = 0; y < height; y++) {
    const row = pair(y, map.height, height);
    for (const column of columns) values[i++] = blended(map, row, column);
  }
  return { height, width, values };
}

/** One pixel of resizeMap's map. */
export function mapAt(map, height, width, y, x) {
  return blended(map, pair(y, map.height, height), pair(x, map.width, width));
}

/** Height and width reduced to at most so many pixels, in the same proportion. */
export function within(height, width, pixels) {
  const factor = Math.min(1, Math.sqrt(pixels / (height * width)));
  return [Math.max(1, Math.round(height * factor)), Math.max(1, Math.round(width * factor))];
}
