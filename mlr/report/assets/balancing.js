/* The paper's Fig. 3 as an animation: a circle a loss, its radius in proportion to its share of the total. */

const CELL = 30;
const MARGIN = { left: 42, top: 24 };
/** A contribution that changed by less than this share of itself counts as unchanged, as in contributions.png. */
const UNCHANGED = 0.01;
const SECONDS = 8; // of the whole animation, if no period is shorter than FASTEST or longer than SLOWEST
const [FASTEST, SLOWEST] = [0.05, 0.7];
const FAMILY_NAMES = { depth: "depth", mean: "mean-removed", gradient: "gradient", normal: "normal" };

/** Change of a contribution since the period before; null in the first. */
function change(data, period, i) {
  const [before, now] = [period ? data.contribution[period - 1][i] : null, data.contribution[period][i]];
  return before === null || now === null || before === 0 ? null : now / before - 1;
}

function moment(data, period) {
  return `period ${data.period[period]}, epoch ${data.epoch[period]}, step ${data.step[period]}`;
}

function lambdaText(value) {
  return value === null ? "none" : (value > 0 ? "+" : "") + digits(value);
}

/** The grid of circles; show(period) draws a period, choose(i) marks a loss and calls back. */
function bubbles(data, onChoose) {
  const largest = Math.max(...data.contribution.flat().filter((share) => share !== null), 1e-9);
  const cells = data.losses.map((name, i) => {
    const [kind, scale] = name.split("/");
    const [column, row] = [Number(scale), data.kinds.indexOf(kind)];
    const [x, y] = [MARGIN.left + column * CELL, MARGIN.top + row * CELL];
    const box = svg("rect", { class: "cell", x, y, width: CELL, height: CELL, "data-loss": name,
      pointerenter: () => choose(i), pointerdown: () => choose(i) });
    return { box, column, row, circle: svg("circle", { cx: x + CELL / 2, cy: y + CELL / 2 }) };
  });
  let chosen = 0;
  const choose = (i) => {
    cells[chosen].box.classList.remove("chosen");
    chosen = i;
    cells[chosen].box.classList.add("chosen");
    onChoose(chosen);
  };
  const keys = (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const [right, down] = steps[event.key];
    const from = cells[chosen];
    const ahead = cells.map((cell, i) => ({ i, far: (cell.column - from.column) * right + (cell.row - from.row) * down,
      aside: Math.abs((cell.column - from.column) * down) + Math.abs((cell.row - from.row) * right) }))
      .filter(({ far, aside }) => far > 0 && aside === 0).sort((a, b) => a.far - b.far);
    if (ahead.length) choose(ahead[0].i);
  };
  const [width, height] = [MARGIN.left + data.scales * CELL + 2, MARGIN.top + data.kinds.length * CELL + 2];
  const picture = svg("svg", { class: "bubbles", viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img", keydown: keys,
    "aria-label": "contributions of the losses: kinds from top to bottom, scales from left to right; arrow keys choose a loss" },
  ...Array.from({ length: data.scales }, (_, k) =>
    svg("text", { x: MARGIN.left + (k + 0.5) * CELL, y: MARGIN.top - 8, "text-anchor": "middle" }, String(k))),
  ...data.kinds.map((kind, k) => svg("text", { x: MARGIN.left - 8, y: MARGIN.top + (k + 0.5) * CELL + 4, "text-anchor": "end" }, kind)),
  ...cells.map((cell) => cell.box), ...cells.map((cell) => cell.circle));
  const show = (period) => cells.forEach(({ circle }, i) => {
    const moved = change(data, period, i) ?? 0;
    circle.setAttribute("r", (0.48 * CELL * Math.max(data.contribution[period][i] ?? 0, 0)) / largest);
    circle.setAttribute("class", Math.abs(moved) <= UNCHANGED ? "same" : moved > 0 ? "up" : "down");
  });
  return { picture, show, choose };
}

/** Contributions of groups of losses over the periods. */
function stacked(data, groups, options) {
  const series = groups.map(({ label, has }, k) => ({ label, colour: colour(k),
    values: data.contribution.map((shares) => shares.reduce((sum, share, i) => sum + (has(data.losses[i]) ? share ?? 0 : 0), 0)) }))
    .filter((group) => group.values.some((value) => value > 0));
  return series.length ? stackedChart({ ...options, series }) : null;
}

function balancingSection(data) {
  const last = data.period.length - 1;
  const facts = Object.fromEntries(["loss", "mean", "weight", "contribution", "change"].map((name) => [name, element("dd", { "data-field": name })]));
  const names = { loss: "loss", mean: "mean of the period", weight: "weight from now on", contribution: "contribution", change: "change" };
  const readout = element("dl", { class: "readout", "aria-live": "polite" },
    ...Object.entries(facts).flatMap(([name, place]) => [element("dt", {}, names[name]), place]));
  const where = element("output", { class: "moment" });
  const slider = element("input", { type: "range", min: 0, max: last, value: last, step: 1, "aria-label": "period", input: () => show(Number(slider.value)) });
  const shared = { axis: { label: "period", values: data.period, name: (i) => moment(data, i) }, onMove: (i) => { pause(); show(i); } };
  const lambda = lineChart({ ...shared, title: "λ", series: [{ label: "λ", colour: colour(0), values: data.lambda }], format: lambdaText, height: 180 });
  const families = stacked(data, Object.entries(data.families).map(([family, kinds]) =>
    ({ label: FAMILY_NAMES[family], has: (name) => kinds.includes(name.split("/")[0]) })), { ...shared, title: "by family" });
  const scales = stacked(data, Array.from({ length: data.scales }, (_, k) =>
    ({ label: `scale ${k}`, has: (name) => name.split("/")[1] === String(k) })), { ...shared, title: "by scale" });
  const charts = [lambda, families, scales].filter((chart) => chart !== null);
  let [period, loss, timer] = [last, 0, null];

  const write = () => {
    const [kind, scale] = data.losses[loss].split("/");
    const family = Object.keys(data.families).find((name) => data.families[name].includes(kind));
    const moved = change(data, period, loss);
    facts.loss.textContent = `${kind}/${scale} (${FAMILY_NAMES[family]} loss, scale ${scale})`;
    facts.mean.textContent = digits(data.mean[period][loss]);
    facts.weight.textContent = digits(data.weight[period][loss]);
    facts.contribution.textContent = percent(data.contribution[period][loss], 4);
    facts.change.textContent = moved === null ? "–" : `${moved > 0 ? "+" : ""}${percent(moved)} of itself`;
  };
  const grid = bubbles(data, (i) => { loss = i; write(); });
  const show = (i) => {
    period = i;
    slider.value = i;
    where.textContent = `${moment(data, i)}, λ ${lambdaText(data.lambda[i])}`;
    grid.show(i);
    charts.forEach((chart) => chart.move(i));
    write();
  };
  const play = element("button", { type: "button", "aria-pressed": "false", click: () => (timer ? pause() : start()) }, "Play");
  const pause = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };
  const start = () => {
    if (period === last) show(0);
    timer = setInterval(() => (period < last ? show(period + 1) : pause()), 1000 * Math.min(SLOWEST, Math.max(FASTEST, SECONDS / (last + 1))));
    play.textContent = "Pause";
    play.setAttribute("aria-pressed", "true");
  };
  grid.choose(0);
  show(last);
  const thinned = data.periods > data.period.length ? ` Of ${data.periods} periods ${data.period.length} are shown, evenly spread; a change is since the one shown before.` : "";
  return section("Rebalancing",
    element("p", {}, "A circle is a loss: kinds from top to bottom, scales from left to right. Its radius is in proportion to its contribution, " +
      "the share w L of the total under the new weights w and the mean losses L of the period (Fig. 3 of the paper). " +
      `Red grew since the period before, blue shrank, green changed by less than one per cent of itself.${thinned}`),
    element("div", { class: "controls" }, play, slider, where),
    element("div", { class: "balance" }, element("div", { class: "panel" }, grid.picture),
      element("div", {}, element("div", { class: "panel" }, readout), lambda)),
    element("h3", {}, "Contributions over time"),
    element("div", { class: "panels" }, families, scales));
}
