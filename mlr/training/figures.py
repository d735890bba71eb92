# SPDX-License-Identifier: Apache-2.0
"""Pictures of a run, drawn from the files it left: curves, samples, and the paper's Fig. 3."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no window, whatever the machine
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from mlr.losses.space import KINDS, SCALES
from mlr.models import DepthModel
from mlr.training.tables import read_balancing, read_metrics
from mlr.utils.files import atomic_write

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
    parts = sorted({name.split("/")[1] for name in series if name.count("/") == 2})
    panels = {
        # the total under the weights in force falls and rises with them
        "training loss under equal weights": {"mean of the losses": "train/equal_loss_epoch"},
        "accuracy (higher is better)": {f"delta_{k}": f"val/delta{k}" for k in (1, 2, 3)},
        "errors in metres": {"RMSE": "val/rmse", "SRD": "val/sq_rel"},
        "relative errors": {
            "ARD": "val/abs_rel", "log10": "val/log10", "RMSE log": "val/rmse_log", "RMSE si": "val/silog",
        },
    }  # fmt: skip
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.5), layout="constrained")
    for axis, (title, lines) in zip(axes.flat, panels.items(), strict=True):
        for number, (label, name) in enumerate(lines.items()):
            if series[name]:
                axis.plot(*zip(*series[name], strict=True), marker="o", markersize=3, label=label, color=f"C{number}")
            for style, part in zip(cycle(SET_STYLES), parts, strict=False):
                if number == 0 and (own := series[name.replace("val/", f"val/{part}/")]):
                    axis.plot(*zip(*own, strict=True), style, color="C0", label=f"{label}, {part}")
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return _save(figure, run / "curves.png")


def samples(
    run: Path, model: DepthModel, batches: Iterable[dict[str, Any]], count: int = 4, sets: Sequence[str] = ("",)
) -> Path:
    """Image, true and predicted depth of the first images of a data set, or of each of several; returns samples.png."""
    rows: list[tuple[str, Tensor, Tensor, Tensor]] = []
    left = dict.fromkeys(range(len(sets)), max(1, count // len(sets)))
    for batch in batches:
        numbers = batch["set"].tolist() if "set" in batch else [0] * len(batch["image"])
        if any(left[number] for number in numbers):
            pred = model.infer(batch["image"])
            truth = batch["depth"].where(batch["valid"], torch.nan)
            for number, *maps in zip(numbers, batch["image"], truth[:, 0], pred[:, 0], strict=True):
                if left[number]:
                    left[number] -= 1
                    rows.append((sets[number], *maps))
        if not any(left.values()):
            break
    figure, axes = plt.subplots(len(rows), 3, figsize=(9, 2.25 * len(rows)), layout="constrained", squeeze=False)
    for (left_axis, middle, right), (name, image, truth, pred) in zip(axes, rows, strict=True):
        shown = truth if truth.isfinite().any() else pred
        limits = dict(zip(("vmin", "vmax"), np.nanpercentile(shown.numpy(), (1, 99)), strict=True))
        left_axis.text(-0.04, 0.5, name, transform=left_axis.transAxes, rotation=90, ha="right", va="center")
        left_axis.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy())
        middle.imshow(truth.numpy(), cmap=DEPTH_COLOURS, **limits)
        picture = right.imshow(pred.numpy(), cmap=DEPTH_COLOURS, **limits)
        figure.colorbar(picture, ax=right, shrink=0.85, label="metres")
        for axis in (left_axis, middle, right):
            axis.set_axis_off()
    for axis, title in zip(axes[0], ("image", "true depth", "prediction"), strict=True):
        axis.set_title(title)
    return _save(figure, run / "samples.png")


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
