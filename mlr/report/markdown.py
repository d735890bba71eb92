# SPDX-License-Identifier: Apache-2.0
"""The page of a run as text, report.md."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from mlr.report.content import facts, scores_by_moment
from mlr.training.run import Run
from mlr.training.scores import score_names
from mlr.training.settings import TrainingSettings
from mlr.training.tables import read_balancing
from mlr.utils.console import shown
from mlr.utils.counted import counted

#: Settings that the page shows; config.yaml has all.
SETTINGS = (
    "task", "data", "root", "size", "backbone", "decoder_channels", "losses", "balancer", "epochs", "batch_size",
    "accumulate", "learning_rate", "precision", "augment", "seed",
)  # fmt: skip
#: Losses that the page lists.
LARGEST = 10


def page(run: Run, config: TrainingSettings) -> str:
    """The page without its figures, in Markdown."""
    columns = scores_by_moment(run)
    known = score_names(config.task, config.set_names)
    scores = [[name, *(_number(column.get(name)) for column in columns.values())] for name in known.names]
    settings = [[name, str(value)] for name in SETTINGS if (value := getattr(config, name)) is not None]
    parts = [
        f"# {_verbatim(run.path.resolve().name)}",
        _table(["setting", "value"], settings + [list(fact) for fact in facts(run, config).items()]),
        "## Scores",
        "On the validation images at the working size, over measured pixels; `mlr evaluate` scores under published "
        f"protocols. The best epoch is the one of the highest {known.best}.",
        _table(["metric", *columns], scores),
        *_balancing(run.path),
    ]
    return "\n\n".join(parts)


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
        f"Weights changed {counted(changes, 'time')}. The largest of {counted(len(last), 'loss')}:",
        _table(["loss", "contribution at first", "at last", "weight"], lines),
    ]


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    first, *rest = ("| " + " | ".join(map(_verbatim, line)) + " |" for line in [header, *rows])
    return "\n".join([first, "|" + " --- |" * len(header), *rest])


def _verbatim(text: str) -> str:
    """A text that Markdown shows as it is: stars, brackets and bars escaped, and underscores but those within words."""
    return re.sub(r"[\\`*\[\]<>|#]|(?<!\w)_|_(?!\w)", lambda match: "\\" + match[0], shown(text).replace("\n", " "))
