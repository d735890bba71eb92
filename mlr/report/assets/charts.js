/* Charts with a cursor: the pointer or the arrow keys move it, and the legend shows the values where it stands. */

const CHART = { width: 420, left: 52, right: 10, top: 8, bottom: 34 };

/** Round numbers that span a range. */
function ticks(low, high, count = 5) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= raw) * power;
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) values.push(Number((i * step).toPrecision(12)));
  return values;
}

/**
 * The frame that all charts share.
 *
 * @param title what is shown.
 * @param axis { label, values, name }: numbers below the chart; name(i) is what the legend calls point i.
 * @param series [{ label, colour, values, dashed }]: values may be null.
 * @param range [low, high] of the vertical axis.
 * @param draw (x, y) -> elements; x(i) and y(value) are places.
 * @param format a value as text.
 * @param onMove called when the pointer or a key has moved the cursor, with its point.
 * @returns the figure; its method move(i) moves the cursor.
 */
function chart({ title, axis, series, range, draw, format = digits, height = 250, onMove = () => {} }) {
  const { width, left, right, top, bottom } = CHART;
  const [first, last] = [axis.values[0], axis.values[axis.values.length - 1]];
  const [low, high] = range[0] < range[1] ? range : [range[0] - 0.5, range[0] + 0.5];
  const across = (value) => left + ((value - first) / (last - first || 1)) * (width - left - right);
  const x = (i) => across(axis.values[i]);
  const y = (value) => top + ((high - value) / (high - low)) * (height - top - bottom);
  const cursor = svg("line", { class: "cursor", y1: top, y2: height - bottom });
  const shown = series.map((line) => element("span", {}));
  const place = element("li", { class: "place" });
  const legend = element("ul", { class: "legend", "aria-live": "polite" }, place, ...series.map((line, k) => {
    const swatch = element("span", { class: "swatch" });
    swatch.style.background = line.colour;
    return element("li", { "data-series": line.label }, swatch, `${line.label} `, shown[k]);
  }));
  let at = axis.values.length - 1;
  const move = (i) => {
    at = Math.max(0, Math.min(axis.values.length - 1, i));
    cursor.setAttribute("x1", x(at));
    cursor.setAttribute("x2", x(at));
    place.textContent = axis.name(at);
    series.forEach((line, k) => { shown[k].textContent = format(line.values[at]); });
  };
  const choose = (i) => { move(i); onMove(at); };
  const follow = (event) => {
    const box = picture.getBoundingClientRect();
    const position = ((event.clientX - box.left) / box.width) * width;
    let nearest = 0;
    axis.values.forEach((_, i) => { if (Math.abs(x(i) - position) < Math.abs(x(nearest) - position)) nearest = i; });
    choose(nearest);
  };
  const keys = (event) => {
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: axis.values.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    choose(moves[event.key]);
  };
  const picture = svg("svg", {
    viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img", "aria-label": `${title}; arrow keys move the cursor`,
    pointermove: follow, pointerdown: follow, keydown: keys,
  },
  ...ticks(low, high).flatMap((value) => [
    svg("line", { class: "axis", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
    svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, format(value)),
  ]),
  ...ticks(first, last).filter(Number.isInteger).map((value) =>
    svg("text", { x: across(value), y: height - bottom + 16, "text-anchor": "middle" }, String(value))),
  svg("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, axis.label),
  ...draw(x, y), cursor);
  move(at);
  const figure = element("figure", { class: "panel chart" }, element("h3", {}, title), picture, legend);
  figure.move = move;
  return figure;
}

/** Lines; null where there is nothing to draw. */
function lineChart({ series, ...options }) {
  const known = series.filter((line) => line.values.some((value) => value !== null));
  const all = known.flatMap((line) => line.values.filter((value) => value !== null));
  if (!all.length) return null;
  const draw = (x, y) => known.flatMap((line) => {
    const points = line.values.flatMap((value, i) => (value === null ? [] : [[x(i), y(value)]]));
    const dots = points.length > 60 ? [] : points.map(([cx, cy]) => svg("circle", { cx, cy, r: 2.5, style: `fill: ${line.colour}` }));
    const path = points.map(([px, py]) => `${px.toFixed(1)},${py.toFixed(1)}`).join(" ");
    return [svg("polyline", { class: "curve", points: path, style: `stroke: ${line.colour}`,
      "stroke-dasharray": line.dashed ? "6 3" : null }), ...dots];
  });
  return chart({ ...options, series: known, range: [Math.min(...all), Math.max(...all)], draw });
}

/** Areas on top of one another that sum to 1, the first at the bottom. */
function stackedChart({ series, ...options }) {
  const draw = (x, y) => {
    const under = series[0].values.map(() => 0);
    return series.map((layer) => {
      const lower = under.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`);
      layer.values.forEach((value, i) => { under[i] += value; });
      const upper = under.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`);
      return svg("polygon", { points: [...upper, ...lower.reverse()].join(" "), style: `fill: ${layer.colour}; fill-opacity: .75` });
    });
  };
  return chart({ ...options, series, range: [0, 1], draw, format: (value) => percent(value) });
}
