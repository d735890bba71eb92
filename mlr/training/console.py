# SPDX-License-Identifier: Apache-2.0
"""What a training run prints, and what it keeps Lightning from printing."""

from __future__ import annotations

import warnings

from rich.console import Console
from rich.table import Table

from mlr.data import DepthData
from mlr.data.mixture import MixedData, is_sparse
from mlr.losses import LossSpace, backend_report
from mlr.training.settings import TrainingSettings
from mlr.utils.console import plain, quiet_third_parties


def say(console: Console, what: str, text: str) -> None:
    """Print a line of the introduction: a word, and what there is to say about it."""
    plain(console, f"{what:<9} {text}")


def introduce(console: Console, config: TrainingSettings, data: DepthData | MixedData) -> None:
    """Print the run's data, losses and backend; explain defaults that the user did not choose."""
    for line in data.describe().splitlines():
        say(console, "data", line)
    if config.data == "rooms":
        why = "built-in scenes, which need no files: --data nyu:FOLDER trains on NYU Depth v2"
        say(console, "", f"({why})")
    for name, part in data.parts.items():
        say(console, "holes", (f"{name}: " if name else "") + _holes(part))
    if config.task == "metric":
        count = f"{len(config.space)} of {len(LossSpace())}"
    else:
        count = f"{config.task} depth, {len(config.loss_names)}"
    say(console, "losses", f"{count} ({config.losses}), {config.balancer}")
    for entry in config.sets:
        own = sum(factor > 0 for factor in entry.loss_factors(config.space))
        factor = f", times {entry.loss_weight:g}" if entry.loss_weight != 1 else ""
        say(console, "losses", f"{entry.name}: {own} ({entry.losses or config.losses}){factor}")
        if config.downsample == "bicubic" and is_sparse(data.parts[entry.name]):
            warnings.warn(
                f"most losses find no position with known depth in data set {entry.name}: --downsample area keeps "
                "sparse depth, as of a LiDAR",
                stacklevel=2,
            )
    for line in backend_report().splitlines():
        say(console, "backend", line)


def _holes(data: DepthData) -> str:
    """How depth with holes is treated, and how much of it there is."""
    if data.datasets["train"].dense:
        uncovered = "" if data.augment == "none" else "; what a rotation uncovers is filled from beside it"
        return f"none: the depth of every pixel is known{uncovered}"
    if data.datasets["train"].truth == "pairs":
        return "there is no depth, but a labelled pair of points an image"
    ways = {
        "mask": "the losses leave the others out",
        "colorize": "the others are filled along the image",
        "nearest": "the others take the nearest depth",
        "error": "a frame with a hole stops the run",
    }
    known = f"{100 * data.known_share():.1f} % of the pixels have a known depth"
    return f"{known}; {ways[data.holes]} (--holes {data.holes})"


def score_line(console: Console, what: str, scores: str) -> None:
    """Print a few scores on a line."""
    plain(console, f"{what:<16} {scores}")


def summary(*columns: dict[str, float]) -> Table:
    """The table of a finished run: scores of a constant depth, before and after."""
    table = Table("metric", *(f"[bold]{name}" for name in ("constant depth", "before", "after")))
    for name in columns[0]:
        table.add_row(name, *(f"{scores[name]:.4f}" for scores in columns))
    return table


def quiet() -> None:
    """Keep Lightning's advertisements and notes on settings chosen on purpose out of the output."""
    quiet_third_parties()
    # Lightning attributes these to whatever called it
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")  # within Lightning
    warnings.filterwarnings("ignore", message=".*Experiment logs directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # a frozen encoder
    warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than the logging interval.*")
