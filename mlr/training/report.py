# SPDX-License-Identifier: Apache-2.0
"""``mlr report``: the figures of a run drawn again, and a page about it, from the files it left."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from mlr.data.mixture import training_data
from mlr.models.checkpoints import load_checkpoint
from mlr.models.depth_model import DepthModel
from mlr.training import figures
from mlr.training.run import Run
from mlr.training.sets import score_names
from mlr.training.settings import TrainingSettings
from mlr.training.tables import read_balancing, read_metrics
from mlr.utils.console import plain, shown
from mlr.utils.files import atomic_write
from mlr.utils.renamed import current_metrics

#: Settings that the page shows; config.yaml has all.
SETTINGS = (
    "data", "root", "size", "backbone", "decoder_channels", "losses", "balancer", "epochs", "batch_size", "accumulate",
    "learning_rate", "precision", "augment", "seed",
)  # fmt: skip
#: Losses that the page lists.
LARGEST = 10
FIGURES = ("curves", "contributions", "samples")


def report(run: Path) -> int:
    """Draw the figures of a run again and write a page about it, report.md, into its folder.

    The run may still go on or have been stopped. Its data is needed for the figure of samples alone, which otherwise
    stays as it is.

    Args:
        run: the run's folder.

    Returns:
        The exit code, 0.

    Raises:
        FileNotFoundError: it is no run folder, or no epoch was finished.
        ValueError: its settings are of another version.
        OSError: the page or a figure cannot be written.
    """
    console = Console(stderr=True)
    opened = Run.open(run)
    config = opened.training_settings()
    if not (run / "last.pt").is_file():
        raise FileNotFoundError(f"{run} has no last.pt: the run has not finished an epoch, there is nothing to report")
    figures.curves(run)
    figures.contributions(run)
    try:
        draw_samples(run, config)
    except (ValueError, OSError) as error:
        plain(console, f"samples.png is not drawn again: {error}", "yellow")
    text = page(opened, config)
    pictures = [f"![{name}]({name}.png)" for name in FIGURES if (run / f"{name}.png").is_file()]
    with atomic_write(run / "report.md") as partial:
        partial.write_text("\n\n".join([text, "## Figures", *pictures]) + "\n")
    Console().print(Markdown(text))
    plain(console, f"the page is {run / 'report.md'}")
    return 0


def draw_samples(run: Path, config: TrainingSettings) -> Path:
    """Predictions of the last model on the first images to validate on; returns samples.png."""
    data = training_data(replace(config, workers=0))
    data.setup("validate")
    model = DepthModel.from_checkpoint(run / "last.pt")
    return figures.samples(run, model, data.val_dataloader(), sets=tuple(data.parts))


def page(run: Run, config: TrainingSettings) -> str:
    """The page without its figures, in Markdown."""
    record = run.recorded()
    columns = {
        "constant depth": record.get("constant", {}),
        "before training": record.get("before", {}),
        "best epoch": _metrics(run.path / "best.pt"),
        "last epoch": _metrics(run.path / "last.pt"),
    }
    names = score_names([entry.name for entry in config.sets])
    scores = [[name, *(_number(column.get(name)) for column in columns.values())] for name in names]
    settings = [[name, str(value)] for name in SETTINGS if (value := getattr(config, name)) is not None]
    ran_on = {
        "epochs finished": f"{finished_epochs(run.path)} of {config.epochs}",
        "parameters": f"{record['parameters'] / 1e6:.1f} M" if "parameters" in record else None,
        "backbone from": record.get("weights_source"),
        "loss backend": "; ".join(record.get("loss_backend", record.get("loss_engine", []))),  # the older name
        "versions": ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items()),
        "machine": ", ".join(f"{name} {value}" for name, value in record.get("machine", {}).items() if value),
    }
    parts = [
        f"# {_verbatim(run.path.resolve().name)}",
        _table(["setting", "value"], settings + [[name, value] for name, value in ran_on.items() if value]),
        "## Scores",
        "On the validation images at the working size, over measured pixels; `mlr evaluate` scores under published "
        "protocols. The best epoch is the one of the highest delta1.",
        _table(["metric", *columns], scores),
        *_balancing(run.path),
    ]
    return "\n\n".join(parts)


def finished_epochs(run: Path) -> int:
    """Epochs in metrics.csv that have their mean loss, which is written at their end."""
    return sum(bool(row.get("train/loss_epoch")) for row in read_metrics(run / "metrics.csv"))


def _balancing(run: Path) -> list[str]:
    """The losses that contributed most at the last rebalancing, and how much at the first."""
    rows = list(read_balancing(run / "balancing.csv"))
    if not rows:
        return []
    first, last = ({r["term"]: r for r in rows if r["period"] == rows[i]["period"]} for i in (0, -1))
    weights = [tuple(r["weight"] for r in rows[i : i + len(last)]) for i in range(0, len(rows), len(last))]
    changes = (len(set(weights[0])) > 1) + sum(before != after for before, after in pairwise(weights))
    ordered = sorted(last, key=lambda term: -float(last[term]["contribution"]))[:LARGEST]
    lines = [
        [
            term,
            *(f"{100 * float(period[term]['contribution']):.2f} %" for period in (first, last)),
            f"{float(last[term]['weight']):.4g}",
        ]
        for term in ordered
    ]
    return [
        "## Rebalancing",
        f"Weights changed {changes} times. The largest of {len(last)} losses:",
        _table(["loss", "contribution at first", "at last", "weight"], lines),
    ]


def _metrics(checkpoint: Path) -> dict[str, float]:
    # no model is the best where every score is NaN
    return current_metrics(load_checkpoint(checkpoint).metrics) if checkpoint.is_file() else {}


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    first, *rest = ("| " + " | ".join(map(_verbatim, line)) + " |" for line in [header, *rows])
    return "\n".join([first, "|" + " --- |" * len(header), *rest])


def _verbatim(text: str) -> str:
    """A text that Markdown shows as it is: stars, brackets and bars escaped, and underscores but those within words."""
    return re.sub(r"[\\`*\[\]<>|#]|(?<!\w)_|_(?!\w)", lambda match: "\\" + match[0], shown(text).replace("\n", " "))
