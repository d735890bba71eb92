# SPDX-License-Identifier: Apache-2.0
"""What a training run prints, and what it keeps Lightning from printing."""

from __future__ import annotations

import warnings

from rich.console import Console
from rich.table import Table

from mlr.data import DepthData
from mlr.losses import LossSpace, backend_report
from mlr.training.settings import TrainingSettings
from mlr.utils.console import plain, quiet_third_parties


def say(console: Console, what: str, text: str) -> None:
    """Print a line of the introduction: a word, and what there is to say about it."""
    plain(console, f"{what:<9} {text}")


def introduce(console: Console, config: TrainingSettings, data: DepthData) -> None:
    """Print the run's data, losses and backend; explain defaults that the user did not choose."""
    say(console, "data", data.describe())
    if config.data == "rooms":
        why = "built-in scenes, which need no files: --data nyu --root FOLDER trains on NYU Depth v2"
        say(console, "", f"({why})")
    say(console, "holes", _holes(config, data))
    if config.task == "metric":
        count = f"{len(config.space)} of {len(LossSpace())}"
    else:
        count = f"{config.task} depth, {len(config.loss_names)}"
    say(console, "losses", f"{count} ({config.losses}), {config.balancer}")
    for line in backend_report().splitlines():
        say(console, "backend", line)


def _holes(config: TrainingSettings, data: DepthData) -> str:
    """How depth with holes is treated, and how much of it there is."""
    if data.datasets["train"].dense:
        uncovered = "" if config.augment == "none" else "; what a rotation uncovers is filled from beside it"
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
    return f"{known}; {ways[config.holes]} (--holes {config.holes})"


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
