/* The page from its data: one run, or several compared. */

const LABELS = { delta1: "δ1", delta2: "δ2", delta3: "δ3", rmse: "RMSE", abs_rel: "abs rel", log10: "log10", rmse_log: "RMSE log", silog: "silog", sq_rel: "sq rel" };
const higherIsBetter = (metric) => /^(delta|kendall)/.test(metric.split("/").pop()); // "set/metric" where there are several sets

/** Rows of a table of scores, with the best of the compared columns marked. */
function scoreRows(metrics, columns, compared) {
  return metrics.map((metric) => {
    const values = columns.map((scores) => scores[metric] ?? null);
    const known = values.filter((value, i) => value !== null && compared(i));
    const best = higherIsBetter(metric) ? Math.max(...known) : Math.min(...known);
    const cell = (value, i) => ({ text: value === null ? "–" : value.toFixed(4), class: compared(i) && value === best && known.length > 1 ? "best" : "" });
    return [LABELS[metric] ?? metric, ...values.map(cell)];
  });
}

function curvesSection(data) {
  const { epoch, loss } = data.curves;
  if (!epoch.length) return null;
  const axis = { label: "epoch", values: epoch, name: (i) => (epoch[i] ? `epoch ${epoch[i]}` : "before training") };
  const lines = (...metrics) => metrics.map((metric, k) => ({ label: LABELS[metric], colour: colour(k), values: data.curves[metric] }));
  return section("Learning curves", element("div", { class: "panels" },
    lineChart({ title: "training loss under equal weights", axis, series: [{ label: "mean of the losses", colour: colour(0), values: loss }] }),
    lineChart({ title: "accuracy (higher is better)", axis, series: lines("delta1", "delta2", "delta3") }),
    lineChart({ title: "errors in metres", axis, series: lines("rmse", "sq_rel") }),
    lineChart({ title: "relative errors", axis, series: lines("abs_rel", "log10", "rmse_log", "silog") })));
}

function factsTable(facts) {
  return table(["", ""], Object.entries(facts), false);
}

function runPage(data) {
  const moments = Object.keys(data.scores).filter((moment) => Object.keys(data.scores[moment]).length);
  const settings = Object.entries(data.settings).map(([group, rows]) =>
    [element("h3", {}, group), table(["setting", "value"], rows.map(([name, value, changed]) => [name, { text: value, class: changed ? "changed" : "" }]), false)]);
  return [
    element("h1", {}, data.name),
    element("p", { class: "quiet" }, `epochs finished: ${data.facts["epochs finished"]}`),
    section("Scores",
      element("p", {}, "On the validation images at the working size, over measured pixels; mlr evaluate scores under published protocols. " +
        "A constant depth is the best that one can do without looking. The best epoch is the one of the highest δ1."),
      table(["metric", ...moments], scoreRows(data.metrics, moments.map((moment) => data.scores[moment]), () => true))),
    data.samples.length ? samplesSection(data.samples) : null,
    curvesSection(data),
    data.balancing ? balancingSection(data.balancing) : null,
    section("Command", element("p", {}, "This command starts another run like it:"), element("pre", {}, data.command)),
    section("Environment", factsTable(data.facts)),
    section("Settings", element("details", {}, element("summary", {}, "all settings; those that are not the default are bold"), ...settings.flat())),
    section("Files", table(["file", "size"], data.files.map((file) => [{ text: file.name, link: file.link }, bytes(file.bytes)]))),
  ];
}

function comparisonPage(data) {
  const epochs = [...new Set(data.runs.flatMap((run) => run.curves.epoch))].sort((a, b) => a - b);
  const axis = { label: "epoch", values: epochs, name: (i) => `epoch ${epochs[i]}` };
  const line = (run, k, metric) => ({ label: run.name, colour: colour(k), dashed: k >= COLOURS,
    values: epochs.map((epoch) => run.curves[metric][run.curves.epoch.indexOf(epoch)] ?? null) });
  const charts = epochs.length ? data.metrics.map((metric) => lineChart({
    title: `${LABELS[metric] ?? metric} (${higherIsBetter(metric) ? "higher" : "lower"} is better)`, axis,
    series: data.runs.map((run, k) => line(run, k, metric)) })) : [];
  const scores = (moment) => table(["metric", ...data.runs.map((run) => run.name)],
    scoreRows(data.metrics, data.runs.map((run) => run.scores[moment]), () => true));
  const differing = Object.entries(data.differing).map(([name, values]) => [name, ...values]);
  return [
    element("h1", {}, `${data.runs.length} runs`),
    section("Scores", element("p", {}, "On the validation images of each run at its working size; the best is bold."),
      element("h3", {}, "last epoch"), scores("last epoch"), element("h3", {}, "best epoch by δ1"), scores("best epoch")),
    section("Learning curves", element("div", { class: "panels" }, ...charts)),
    section("Settings that differ", differing.length ? table(["setting", ...data.runs.map((run) => run.name)], differing, false)
      : element("p", {}, "None.")),
    section("Runs", ...data.runs.flatMap((run) => [element("h3", {}, run.page ? element("a", { href: run.page }, run.name) : run.name),
      factsTable(run.facts), element("pre", {}, run.command)])),
  ];
}

const content = JSON.parse(document.getElementById("content").textContent);
document.getElementById("page").append(...(content.runs ? comparisonPage(content) : runPage(content)).filter((part) => part !== null));
