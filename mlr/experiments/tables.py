# SPDX-License-Identifier: Apache-2.0
"""Tables of a plan from its records: the paper's layout, paired differences, all metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlr.evaluation.metrics import METRICS
from mlr.evaluation.scoring import STRUCTURE
from mlr.experiments.plan import Plan, Row
from mlr.experiments.statistics import Difference, mean, paired
from mlr.losses.space import LossSpace
from mlr.training.settings import TrainingSettings

#: How a metric is printed: heading, factor, decimals.
HEADINGS: dict[str, tuple[str, float, int]] = {
    **{f"delta{k}": (f"δ{k} %", 100.0, 1) for k in (1, 2, 3)},
    "rmse": ("RMSE", 1.0, 3),
    "abs_rel": ("ARD", 1.0, 3),
    "log10": ("log10", 1.0, 3),
    "rmse_log": ("RMSE log", 1.0, 3),
    "silog": ("RMSE si", 1.0, 3),
    "sq_rel": ("SRD", 1.0, 3),
    **{
        f"edge{cm}_{name}": (f"edge {name if name != 'f1' else 'F1'} {metres} m %", 100.0, 1)
        for cm, metres in (("25", "0.25"), ("50", "0.5"), ("100", "1"))
        for name in ("precision", "recall", "f1")
    },
    "normal_angle": ("normals °", 1.0, 2),
}

#: Metrics that are better when higher.
HIGHER = ("delta1", "delta2", "delta3", *(name for name in STRUCTURE if name.startswith("edge")))


@dataclass(frozen=True)
class RowResult:
    """A row with what is known of its runs.

    Attributes:
        row: the row.
        scores: metric -> seed -> value; only metrics that every finished seed has.
    """

    row: Row
    scores: dict[str, dict[int, float]] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        """Seeds whose runs have finished."""
        return sorted(self.scores.get("rmse", {}))


def gather(plan: Plan, records: dict[str, dict[str, Any]]) -> dict[str, RowResult]:
    """The rows of a plan by name, with the scores of their finished runs.

    Args:
        plan: the plan.
        records: of a results file, by digest.
    """
    results = {}
    for row in plan.rows:
        found = {seed: record["scores"] for seed in row.seeds if (record := records.get(plan.run(row, seed).digest))}
        scores = {
            name: {seed: float(values[name]) for seed, values in found.items()}
            for name in (*METRICS, *STRUCTURE)
            if found and all(values.get(name) is not None for values in found.values())
        }
        results[row.name] = RowResult(row, scores)
    return results


def difference(results: dict[str, RowResult], name: str, reference: str, metric: str) -> Difference | None:
    """Paired difference of a metric between two rows; None where they have no finished seed in common."""
    values, against = (results[row].scores.get(metric, {}) for row in (name, reference))
    return paired(values, against) if values.keys() & against.keys() else None


def paper_table(plan: Plan, results: dict[str, RowResult], rows: Sequence[Row]) -> str:
    """A part in the paper's layout: mean ± deviation over seeds here, the paper's NYUv2 numbers beside."""
    paper = [name for name in plan.columns if any(name in row.paper for row in rows)]
    head = ["", "# losses", "I", "R", "λ", "seeds", *(HEADINGS[m][0] for m in plan.columns)]
    head += [f"paper, NYUv2: {HEADINGS[m][0]}" for m in paper]
    lines = []
    for row in rows:
        result, config = results[row.name], TrainingSettings(**{**plan.settings, **row.settings})
        start, rebalanced, lam = _balancing(config)
        cells = [row.label, str(len(LossSpace(config.losses))), start, rebalanced, lam]
        cells += [f"{len(result.seeds)} of {len(row.seeds)}"]
        cells += [_mean(result, metric) for metric in plan.columns]
        cells += [_paper(row, metric) for metric in paper]
        lines.append(cells)
    return markdown(head, lines)


def plan_tables(plan: Plan, records: dict[str, dict[str, Any]]) -> str:
    """All parts of a plan as Markdown: the paper's layout, then paired differences to the reference."""
    results, lines = gather(plan, records), [f"# {plan.title}\n"]
    for title, rows in plan.parts:
        lines += [f"## {title}\n", paper_table(plan, results, rows), ""]
        if text := difference_table(results, rows, plan.reference, plan.columns):
            lines += [text, ""]
    return "\n".join(lines)


def difference_table(results: dict[str, RowResult], rows: Sequence[Row], reference: str, metrics: Sequence[str]) -> str:
    """Paired differences to a row with Student's 95 % interval; bold where the interval leaves out 0.

    Rows that share no finished seed with it are left out.
    """
    head = ["minus " + results[reference].row.label, "seeds", *(HEADINGS[m][0] for m in metrics)]
    lines = []
    for row in rows:
        if row.name == reference or results[row.name].row.settings == results[reference].row.settings:
            continue
        found = [difference(results, row.name, reference, metric) for metric in metrics]
        if any(found):
            count = max(d.count for d in found if d)
            lines.append([row.label, str(count), *map(show_difference, found, metrics)])
    return markdown(head, lines) if lines else ""


def metric_table(results: dict[str, RowResult], rows: Iterable[Row], metrics: Sequence[str]) -> str:
    """Mean ± deviation of metrics, a row a line."""
    lines = [
        [row.label, str(len(results[row.name].seeds)), *(_mean(results[row.name], m) for m in metrics)] for row in rows
    ]
    return markdown(["", "seeds", *(HEADINGS[m][0] for m in metrics)], lines)


def show_difference(found: Difference | None, metric: str) -> str:
    """A difference as text, in the metric's unit."""
    if found is None:
        return "–"
    _, factor, digits = HEADINGS[metric]
    centre = f"{factor * found.mean:+.{digits}f}"
    if math.isnan(found.t[0]):
        return centre
    text = f"{centre} [{factor * found.t[0]:+.{digits}f}, {factor * found.t[1]:+.{digits}f}]"
    return f"**{text}**" if found.clear else text


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    rule = ["---", *(["---:"] * (len(head) - 1))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


def _mean(result: RowResult, metric: str) -> str:
    values = list(result.scores.get(metric, {}).values())
    if not values:
        return "–"
    _, factor, digits = HEADINGS[metric]
    found = mean(values)
    deviation = "" if math.isnan(found.deviation) else f" ± {factor * found.deviation:.{digits}f}"
    return f"{factor * found.mean:.{digits}f}{deviation}"


def _paper(row: Row, metric: str) -> str:
    """The paper's number; it gives delta in per cent already."""
    if metric not in row.paper:
        return "–"
    return f"{row.paper[metric]:.{HEADINGS[metric][2]}f}"


def _balancing(config: TrainingSettings) -> tuple[str, str, str]:
    """The paper's columns I, R and λ; other balancers have no λ."""
    if config.balancer == "fixed":
        return "-", "-", "0"
    if config.balancer == "equal":
        return "✓", "-", "0"
    if config.balancer != "rebalancing":
        return "✓", config.balancer, "-"
    start = "-" if "equal_start=false" in config.balancer_options else "✓"
    if config.lambda_slope == 0 or config.lambda_start == config.lambda_floor:
        return start, "✓", f"{config.lambda_start:g}"
    return start, "✓", f"{config.lambda_start:g} → {config.lambda_floor:g}"
