/* Samples: two maps of one image on top of each other, with a divider between them and depth under the pointer. */

/** Relative error at the ends of its colours. */
const ERROR = 0.25;
const LAYERS = { image: "image", truth: "true depth", prediction: "prediction", error: "error" };

/** Integers of 16 bits [rows * columns] from differences along rows, little endian, zlib, base64. */
async function unpack(text, columns) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const view = new DataView(await new Response(stream).arrayBuffer());
  const values = new Uint16Array(view.byteLength / 2);
  for (let i = 0; i < values.length; i++) values[i] = (i % columns ? values[i - 1] : 0) + view.getUint16(2 * i, true);
  return values;
}

/** Near is blue and far is red, as in the paper's Fig. 4. */
function jet(value) {
  const part = (centre) => 255 * Math.max(0, Math.min(1, 1.5 - Math.abs(4 * value - centre)));
  return [part(3), part(2), part(1)];
}

/** Too near is blue, right is white, too far is red. */
function diverging(value) {
  const pale = 255 * (1 - Math.min(1, Math.abs(value)));
  return value < 0 ? [pale, pale, 255] : [255, pale, pale];
}

function gradient(colours) {
  return `linear-gradient(to right, ${Array.from({ length: 17 }, (_, i) => `rgb(${colours(i / 16).map(Math.round)})`)})`;
}

/** A sample whose depth is unpacked: truth and prediction in metres by index, 0 = unknown. */
async function opened(sample) {
  const [height, width] = [sample.rows.length, sample.columns.length];
  const [truth, prediction] = await Promise.all([sample.truth, sample.prediction].map((text) => unpack(text, width)));
  const picture = new Image();
  picture.src = sample.image;
  await picture.decode();
  return { ...sample, height, width, picture, truth, prediction };
}

/** Depths of a pixel in metres; null where unknown. */
function depths(sample, i) {
  const metres = (map) => (map[i] ? map[i] * sample.step : null);
  const [truth, prediction] = [metres(sample.truth), metres(sample.prediction)];
  return { truth, prediction, error: truth === null || prediction === null ? null : (prediction - truth) / truth };
}

function paint(canvas, sample, layer) {
  const context = canvas.getContext("2d");
  if (layer === "image") {
    [canvas.width, canvas.height] = [sample.picture.naturalWidth, sample.picture.naturalHeight];
    context.drawImage(sample.picture, 0, 0);
    return;
  }
  [canvas.width, canvas.height] = [sample.width, sample.height];
  const pixels = context.createImageData(sample.width, sample.height);
  const range = sample.high - sample.low || 1;
  for (let i = 0; i < sample.truth.length; i++) {
    const value = depths(sample, i)[layer];
    const shown = value === null ? [0, 0, 0] : layer === "error" ? diverging(value / ERROR)
      : jet(Math.max(0, Math.min(1, (value - sample.low) / range)));
    pixels.data.set([...shown, 255], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
}

function scaleBar(low, high, colours) {
  const bar = element("span", { class: "bar" });
  bar.style.background = gradient(colours);
  return element("div", { class: "scale" }, low, bar, high);
}

function samplesSection(samples) {
  const [under, over] = [element("canvas"), element("canvas")]; // right of the divider and left of it
  const divider = element("div", { class: "divider" });
  const spot = element("div", { class: "spot", hidden: "" }); // the pixel that is read
  const stage = element("div", { class: "stage", role: "group", tabindex: 0,
    "aria-label": "the sample, divided in two; arrow keys choose the pixel to read" }, under, over, divider, spot);
  const readout = element("p", { class: "pixel", "aria-live": "polite" }, "Point at the sample, or use the arrow keys, to read its depth.");
  const slider = element("input", { type: "range", min: 0, max: 100, step: "any", value: 50, "aria-label": "divider", input: () => split(Number(slider.value) / 100) });
  const select = (start, name) => {
    const options = Object.entries(LAYERS).map(([key, text]) => element("option", { value: key }, text));
    const box = element("select", { "aria-label": name, input: () => draw() }, ...options);
    box.value = start;
    return box;
  };
  const [left, right] = [select("truth", "left of the divider"), select("prediction", "right of the divider")];
  const scales = element("div", {});
  const caption = element("p", { class: "quiet" });
  let [current, pixel] = [null, [0, 0]]; // the sample, and row and column of the pixel that is read

  const split = (share) => {
    slider.value = 100 * share;
    divider.style.left = `${100 * share}%`;
    over.style.clipPath = `inset(0 ${100 - 100 * share}% 0 0)`;
  };
  const draw = () => {
    paint(under, current, right.value);
    paint(over, current, left.value);
    stage.style.aspectRatio = `${current.width} / ${current.height}`;
    const used = [left.value, right.value];
    scales.replaceChildren(
      ...(used.includes("truth") || used.includes("prediction") ? [scaleBar(`${digits(current.low, 3)} m`, `${digits(current.high, 3)} m`, jet)] : []),
      ...(used.includes("error") ? [scaleBar(`${-100 * ERROR} %`, `+${100 * ERROR} %`, (value) => diverging(2 * value - 1))] : []));
  };
  const at = (event) => {
    const box = stage.getBoundingClientRect();
    const share = (place, start, length) => Math.max(0, Math.min(1 - 1e-9, (place - start) / length));
    return [share(event.clientX, box.left, box.width), share(event.clientY, box.top, box.height)];
  };
  const read = (row, column) => {
    if (!current) return;
    pixel = [Math.max(0, Math.min(current.height - 1, row)), Math.max(0, Math.min(current.width - 1, column))];
    [row, column] = pixel;
    spot.hidden = false;
    spot.style.left = `${(100 * (column + 0.5)) / current.width}%`;
    spot.style.top = `${(100 * (row + 0.5)) / current.height}%`;
    const { truth, prediction, error } = depths(current, row * current.width + column);
    const metres = (depth) => (depth === null ? "unknown" : `${depth.toFixed(3)} m`);
    const off = error === null ? "" : `, error ${(prediction - truth).toFixed(3)} m (${(100 * error).toFixed(1)} %)`;
    readout.textContent = `row ${current.rows[row]}, column ${current.columns[column]}: truth ${metres(truth)}, prediction ${metres(prediction)}${off}`;
  };
  const follow = (event) => {
    const [across, down] = at(event);
    if (event.buttons) split(across);
    if (current) read(Math.floor(down * current.height), Math.floor(across * current.width));
  };
  stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); follow(event); });
  stage.addEventListener("pointermove", follow);
  stage.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (!(event.key in steps)) return;
    event.preventDefault();
    read(pixel[0] + steps[event.key][0], pixel[1] + steps[event.key][1]);
  });

  const buttons = samples.map((sample, i) => element("button", { type: "button", click: () => choose(i), "aria-label": `sample ${i + 1}: ${sample.name}` },
    element("img", { src: sample.image, alt: "" })));
  let wanted = 0;
  const choose = async (i) => {
    wanted = i;
    const sample = await opened(samples[i]);
    if (wanted !== i) return; // another was chosen meanwhile
    current = sample;
    buttons.forEach((button, k) => button.setAttribute("aria-current", String(k === i)));
    caption.textContent = `${sample.name}. Depth in steps of ${digits(1000 * sample.step, 3)} mm, one pixel of ` +
      `${digits((sample.rows[1] - sample.rows[0]) || 1, 2)} × ${digits((sample.columns[1] - sample.columns[0]) || 1, 2)}; black is unknown.`;
    draw();
    stage.dataset.sample = i;
  };
  split(0.5);
  choose(0).catch((error) => { readout.textContent = `The samples cannot be shown in this browser: ${error.message}`; });
  return section("Samples",
    element("p", {}, "The first images of the validation and what the network of the last epoch predicts. Drag the divider; the depth under the pointer is below."),
    element("div", { class: "thumbnails" }, ...buttons),
    element("div", { class: "controls" }, element("label", {}, "left", left), slider, element("label", {}, "right", right)),
    stage, readout, scales, caption);
}
