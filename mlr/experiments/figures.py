# SPDX-License-Identifier: Apache-2.0
"""The paper's Figures 2, 3 and 4, drawn from run folders, and the figure of the results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no window, whatever the machine
import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlr.data.datasets.base import DepthDataset
from mlr.experiments.statistics import Difference
from mlr.losses.space import FAMILIES, KINDS, SCALES
from mlr.models.depth_model import open_model
from mlr.report.figures import DEPTH_COLOURS, DOWN, NAMES, SAME, UP, bubbles
from mlr.training.tables import read_balancing

#: Width of a page of text, inches: text of 8 points is legible on it.
PAGE = 7.5
STYLE: dict[Any, Any] = {"font.size": 8, "axes.titlesize": 8, "svg.hashsalt": "mlr"}

#: A colour a family of losses and a mark a kind within it.
FAMILY_COLOURS = {"depth": "#d62728", "mean": "#ff7f0e", "gradient": "#1f77b4", "normal": "#2ca02c"}
MARKS = ("o", "s", "^", "D", "v")


def loss_vectors(run: Path) -> tuple[list[str], NDArray[np.float64]]:
    """The vectors t_i of section 3.1: the output of every loss over a run, one number a period.

    Returns:
        Names of the losses that are not 0 throughout, and their means [losses, periods].

    Raises:
        ValueError: the run recorded fewer than three losses or periods.
    """
    series: dict[str, list[float]] = {}
    for row in read_balancing(run / "balancing.csv"):
        series.setdefault(row["term"], []).append(float(row["mean"]))
    # a loss that is 0 throughout, as second differences of a map two pixels wide may be, has no tendency
    series = {name: values for name, values in series.items() if any(values)}
    vectors = np.array(list(series.values()), dtype=np.float64)
    if vectors.ndim != 2 or min(vectors.shape) < 3:
        raise ValueError(f"{run} recorded {len(series)} losses; Fig. 2 needs three losses over three periods or more")
    return list(series), vectors


def principal_components(vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates on the two principal axes, and the share of the variance that each axis explains.

    Args:
        vectors: [n, d], one vector a row; they are centred.

    Returns:
        Coordinates [n, 2] and shares [2]. Each axis points to where its largest loading is positive.
    """
    centred = vectors - vectors.mean(0)
    left, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])
    return (left * sizes * signs)[:, :2], (sizes**2 / (sizes**2).sum())[:2]


def loss_space(run: Path) -> Any:
    """Fig. 2: principal components of the losses of a run with equal weights, coloured by type and by scale.

    Every vector is divided by its mean over the run, so that not the size of a loss decides but how it decreases.
    """
    names, vectors = loss_vectors(run)
    points, shares = principal_components(vectors / vectors.mean(1, keepdims=True))
    place = dict(zip(names, points, strict=True))
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 3.9), layout="constrained", sharex=True, sharey=True)
        for family, kinds in FAMILIES.items():
            for kind, mark in zip(kinds, MARKS, strict=False):
                line = np.array([place[f"{kind}/{s}"] for s in range(SCALES) if f"{kind}/{s}" in place])
                if len(line):
                    colour = FAMILY_COLOURS[family]
                    left.plot(*line.T, "--", color=colour, linewidth=0.6, alpha=0.6)
                    left.plot(*line.T, mark, color=colour, markersize=4.5, markeredgecolor="white", label=kind)
                    left.annotate("0", line[0], fontsize=6, xytext=(2, 2), textcoords="offset points")
        colours = plt.get_cmap("viridis")(np.linspace(0, 0.95, SCALES))
        for scale, (colour, mark) in enumerate(zip(colours, "os^DvP", strict=True)):
            dots = np.array([place[f"{kind}/{scale}"] for kind in KINDS if f"{kind}/{scale}" in place])
            if len(dots):
                right.plot(*dots.T, mark, color=colour, markersize=5, markeredgecolor="white", label=f"scale {scale}")
        titles = "(a) by type; dashed lines join the scales, 0 is the finest", "(b) by scale"
        for axis, title in zip((left, right), titles, strict=True):
            axis.set(title=title, xlabel=f"first axis ({100 * shares[0]:.0f} % of the variance)")
            axis.legend(fontsize=6.5, ncols=2, framealpha=0.7)
            axis.grid(alpha=0.2)
        left.set_ylabel(f"second axis ({100 * shares[1]:.0f} % of the variance)")
    return figure


def epoch_contributions(run: Path) -> list[dict[str, float]]:
    """Contributions after the first period, then at the end of every epoch."""
    last: dict[int, int] = {}
    shares: dict[int, dict[str, float]] = {}
    for row in read_balancing(run / "balancing.csv"):
        if row["term"] not in NAMES:
            continue
        period = int(row["period"])
        last[int(row["epoch"])] = period
        shares.setdefault(period, {})[row["term"]] = float(row["contribution"])
    if not shares:
        raise ValueError(f"{run} has no balancing.csv: Fig. 3 needs a run whose balancer took a step")
    return [shares[min(shares)], *(shares[period] for _, period in sorted(last.items()))]


def contribution_grid(runs: Sequence[tuple[str, Path]]) -> Any:
    """Fig. 3: contributions by epoch, a row of panels a run.

    The radius of a circle is the contribution of its loss; red grew since the epoch before, blue shrank, green changed
    by less than one per cent of itself.

    Args:
        runs: label and folder.
    """
    moments = [epoch_contributions(path) for _, path in runs]
    columns = max(map(len, moments)) - 1
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(runs), columns, figsize=(PAGE, 2.65 * len(runs)), layout="constrained", squeeze=False, sharey=True
        )
        for line, (label, _), shares in zip(axes, runs, moments, strict=True):
            largest = max(max(moment.values()) for moment in shares[1:])
            for column, axis in enumerate(line):
                if column + 1 >= len(shares):
                    axis.set_axis_off()
                    continue
                bubbles(axis, shares[column + 1], shares[column], largest)
                axis.tick_params(labelsize=6, length=2)
                axis.set_title(f"{label}, epoch {column + 1}" if column == 0 else f"epoch {column + 1}")
        for axis in axes[-1]:
            axis.set_xlabel("scale")
        handles = [plt.Line2D([], [], marker="o", linestyle="", color=c) for c in (UP, DOWN, SAME)]
        figure.legend(handles, ["grew", "shrank", "unchanged"], loc="outside lower center", ncols=3)
    return figure


@torch.no_grad()
def depth_maps(
    runs: Sequence[tuple[str, Path]], frames: DepthDataset, indices: Iterable[int], size: tuple[int, int]
) -> Any:
    """Fig. 4: image, true depth, and the depth that each run predicts; far is red, near blue.

    Args:
        runs: label and folder, whose last.pt is taken.
        frames: the frames.
        indices: which to show.
        size: (height, width) of the network's input.
    """
    from mlr.data.transforms import resize_sample

    samples = [resize_sample(frames[index], size) for index in indices]
    images = torch.stack([s["image"].as_subclass(Tensor).float() / 255 for s in samples])
    truths = [s["depth"].as_subclass(Tensor).where(s["valid"].as_subclass(Tensor) > 0, torch.nan)[0] for s in samples]
    predictions = [open_model(path / "last.pt", "cpu").model.eval()(images)[:, 0] for _, path in runs]
    titles = ["image", "true depth", *(label for label, _ in runs)]
    with plt.rc_context(STYLE):
        height = PAGE / len(titles) * size[0] / size[1]
        figure, axes = plt.subplots(
            len(samples), len(titles), figsize=(PAGE, height * len(samples) + 0.4), layout="constrained", squeeze=False
        )
        for row, (line, image, truth) in enumerate(zip(axes, images, truths, strict=True)):
            low, high = np.nanpercentile(truth.numpy(), (1, 99))
            line[0].imshow(image.permute(1, 2, 0).numpy())
            for axis, depth in zip(line[1:], [truth, *(p[row] for p in predictions)], strict=True):
                picture = axis.imshow(depth.numpy(), cmap=DEPTH_COLOURS, vmin=low, vmax=high)
            figure.colorbar(picture, ax=line[-1], shrink=0.9, label="m")
            for axis in line:
                axis.set_axis_off()
        for axis, title in zip(axes[0], titles, strict=True):
            axis.set_title(title, fontsize=7)
    return figure


def forest(rows: Sequence[tuple[str, Difference]], xlabel: str, title: str) -> Any:
    """Paired differences as points with Student's 95 % interval, a row a line; filled where the interval leaves out 0.

    Args:
        rows: label and difference, from top to bottom.
        xlabel: what is compared, with its unit; the differences are in it already.
        title: of the figure.
    """
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(PAGE, 0.6 + 0.24 * len(rows)), layout="constrained")
        for line, (_, found) in enumerate(rows):
            low, high = found.t if found.count > 1 else (found.mean, found.mean)
            colour = "#1f5fd0" if found.clear else "#777777"
            axis.plot([low, high], [line, line], color=colour, linewidth=1.5)
            axis.plot(found.mean, line, "o", color=colour, markerfacecolor=colour if found.clear else "white")
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_yticks(range(len(rows)), [f"{label} ({found.count})" for label, found in rows])
        axis.set(ylim=(len(rows) - 0.4, -0.6), xlabel=xlabel, title=title)
        axis.grid(axis="x", alpha=0.3)
    return figure


def save(figure: Any, path: Path) -> list[Path]:
    """Write a figure as PNG and SVG; ``path`` is without the ending. The SVG is the same for the same data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_suffix(ending) for ending in (".png", ".svg")]
    figure.savefig(files[0], dpi=110, metadata={"Software": None})
    with plt.rc_context(STYLE):
        figure.savefig(files[1], metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return files
