# SPDX-License-Identifier: Apache-2.0
"""Pictures of a run, drawn from the files it left: curves, samples, and the paper's Fig. 3."""

from __future__ import annotations

from collections import defaultdict
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no window, whatever the machine
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from mlr.losses.space import KINDS, SCALES, LossSpace
from mlr.report.samples import Samples
from mlr.training.tables import read_balancing, read_metrics
from mlr.utils.files import atomic_write

#: Losses that have a place in the grid of kinds and scales.
NAMES = frozenset(LossSpace("all").names)

#: Near is blue and far is red, as in the paper's Fig. 4.
DEPTH_COLOURS = "jet"

#: Lines of the data sets of a training on several.
SET_STYLES = ("--", ":", "-.")

#: Fig. 3: red where a contribution grew, blue where it shrank, green where it stayed.
UP, DOWN, SAME = "#d62728", "#1f5fd0", "#2ca02c"


def curves(run: Path) -> Path:
    """Loss of the training and scores of the validation by epoch, from metrics.csv; returns curves.png.

    Where there are several data sets, the first score of each panel is drawn for each of them too.
    """
    series: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in read_metrics(run / "metrics.csv"):
        for name, value in row.items():
            if value and name not in ("epoch", "step"):
                series[name].append((int(row["epoch"]), float(value)))
    parts = list(dict.fromkeys(name.split("/")[1] for name in series if name.count("/") == 2))
    panels = {
        # the total under the weights in force falls and rises with them
        "training loss under equal weights": {"mean of the losses": "train/equal_loss_epoch"},
        "accuracy (higher is better)": {f"delta_{k}": f"val/delta{k}" for k in (1, 2, 3)},
        "errors in metres": {"RMSE": "val/rmse", "sq rel": "val/sq_rel"},
        "relative errors": {
            "abs rel": "val/abs_rel", "log10": "val/log10", "RMSE log": "val/rmse_log", "silog": "val/silog",
        },
        "order of pairs": {"Kendall": "val/kendall", "disagreement": "val/disagreement"},
    }  # fmt: skip
    panels = {title: lines for title, lines in panels.items() if any(series[name] for name in lines.values())}
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.5), layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, lines) in zip(axes.flat, panels.items(), strict=False):
        for number, (label, name) in enumerate(lines.items()):
            if series[name]:
                axis.plot(*zip(*series[name], strict=True), marker="o", markersize=3, label=label, color=f"C{number}")
        label, name = next(iter(lines.items()))
        for style, part in zip(cycle(SET_STYLES), parts, strict=False):
            if name.startswith("val/") and (own := series[name.replace("val/", f"val/{part}/")]):
                axis.plot(*zip(*own, strict=True), style, color="C0", label=f"{label}, {part}")
        axis.set(title=title, xlabel="epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
    return _save(figure, run / "curves.png")


def samples(run: Path, shown: Samples, unit: str = "metres", count: int = 4) -> Path:
    """Image, true and predicted depth of the first samples; returns samples.png."""
    labels = [name.partition(": ")[0] if ": " in name else "" for name in shown.names.tolist()]
    count = min(count, len(labels))
    # of several data sets, which follow one another, some of each
    chosen = np.linspace(0, len(labels) - 1, count).astype(int) if any(labels) else range(count)
    figure, axes = plt.subplots(count, 3, figsize=(9, 2.25 * count), layout="constrained", squeeze=False)
    for (left, middle, right), i in zip(axes, chosen, strict=True):
        truth, pred = shown.truth[i], shown.prediction[i]
        limits = dict(zip(("vmin", "vmax"), colour_range(truth, pred), strict=True))
        left.imshow(shown.images[i])
        left.text(-0.03, 0.5, labels[i], transform=left.transAxes, rotation=90, ha="right", va="center")
        middle.imshow(truth, cmap=DEPTH_COLOURS, **limits)
        picture = right.imshow(pred, cmap=DEPTH_COLOURS, **limits)
        figure.colorbar(picture, ax=right, shrink=0.85, label=unit)
        for axis in (left, middle, right):
            axis.set_axis_off()
    for axis, title in zip(axes[0], ("image", "true depth", "prediction"), strict=True):
        axis.set_title(title)
    return _save(figure, run / "samples.png")


def colour_range(truth: np.ndarray, pred: np.ndarray) -> tuple[float, float]:
    """Depths at the ends of the colour scale: of the truth where there is one, without its extremes."""
    shown = truth if np.isfinite(truth).any() else pred
    low, high = np.nanpercentile(shown[np.isfinite(shown)], (1, 99)) if np.isfinite(shown).any() else (0.0, 1.0)
    return float(low), float(high)


def contributions(run: Path, columns: int = 5) -> Path | None:
    """The paper's Fig. 3: a circle a loss, 13 kinds by 6 scales, at up to ``columns`` rebalancings spread over the run.

    The radius is the share ``w_i L_i / sum_j w_j L_j``; red means that it grew since the panel before, blue that it
    shrank, green that it changed by less than one per cent of itself.

    Returns:
        contributions.png, or None if the balancer never took a step.
    """
    shares: dict[int, dict[str, float]] = defaultdict(dict)
    titles: dict[int, str] = {}
    for row in read_balancing(run / "balancing.csv"):
        if row["term"] not in NAMES:  # the ranking loss has no place in the grid
            continue
        period = int(row["period"])
        shares[period][row["term"]] = float(row["contribution"])
        note = f", λ = {float(row['lambda']):+.1f}" if row["lambda"] else ", initial" if period == 0 else ""
        titles[period] = f"period {period}{note}"
    if not shares:
        return None
    periods = sorted(shares)
    shown = [periods[i] for i in np.unique(np.linspace(0, len(periods) - 1, min(columns, len(periods))).astype(int))]
    largest = max(max(shares[p].values()) for p in shown)
    figure, axes = plt.subplots(
        1, len(shown), figsize=(2.1 * len(shown) + 0.6, 4.4), layout="constrained", squeeze=False, sharey=True
    )
    for axis, period, before in zip(axes[0], shown, [None, *shown], strict=False):
        bubbles(axis, shares[period], None if before is None else shares[before], largest)
        axis.set_xlabel("scale")
        axis.set_title(titles[period], fontsize=9)
    figure.suptitle("Contributions of the losses: radius by share; red grew, blue shrank, green unchanged", fontsize=9)
    return _save(figure, run / "contributions.png")


def bubbles(axis: Any, shares: dict[str, float], before: dict[str, float] | None, largest: float) -> None:
    """Draw the contributions of a moment as circles on the grid of 13 kinds by 6 scales.

    Args:
        axis: where.
        shares: contribution by loss; the radius is in proportion to it.
        before: contributions that the colours compare with; None = no change.
        largest: contribution whose circle fills a cell.
    """
    for term, share in shares.items():
        kind, scale = term.split("/")
        old = share if before is None else before.get(term, share)
        colour = SAME if abs(share - old) <= 0.01 * old else UP if share > old else DOWN
        centre = (int(scale), KINDS.index(kind))
        axis.add_patch(plt.Circle(centre, 0.48 * max(share / largest, 0.0), color=colour, alpha=0.8))
    axis.set(xlim=(-0.6, SCALES - 0.4), ylim=(len(KINDS) - 0.4, -0.6), aspect="equal")
    axis.set_xticks(range(SCALES))
    axis.set_yticks(range(len(KINDS)), KINDS)
    axis.grid(alpha=0.15)


def _save(figure: Any, path: Path) -> Path:
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=110, format="png")
    plt.close(figure)
    return path
