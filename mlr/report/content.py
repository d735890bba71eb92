# SPDX-License-Identifier: Apache-2.0
"""What the pages say about a run: plain values from the files that it left."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from mlr.losses.space import FAMILIES, KINDS, SCALES
from mlr.models.checkpoints import load_checkpoint
from mlr.report.encoding import encode_sample
from mlr.report.samples import read_samples
from mlr.training.run import Run
from mlr.training.scores import score_names
from mlr.training.settings import GROUPS, TrainingSettings
from mlr.training.tables import Row, read_balancing, read_metrics
from mlr.utils.flags import flag
from mlr.utils.renamed import current_metrics

#: Rebalancings that a page shows; of more it takes as many, evenly spread, so that its size is bounded.
PERIODS = 200
#: Rows of metrics.csv that a page shows, likewise.
EPOCHS = 1000
#: Loss by epoch that can be compared over rebalancings.
LOSS = "train/equal_loss_epoch"


def run_content(run: Run, config: TrainingSettings, page: Path) -> dict[str, Any]:
    """What the page of a run shows, for JSON.

    Args:
        run: the run.
        config: its settings.
        page: the page's file, which its links start from.
    """
    samples = read_samples(run.path)
    return {
        "name": run.path.resolve().name,
        "facts": facts(run, config),
        "metrics": list(score_names(config.task, config.set_names).names),
        "scores": {moment: _finite(scores) for moment, scores in scores_by_moment(run).items()},
        "curves": _curves(run, score_names(config.task, config.set_names).names),
        "balancing": _balancing(read_balancing(run.path / "balancing.csv")),
        # the page shows metres, which relative depth has none of; samples.png shows it
        "samples": [encode_sample(*sample) for sample in zip(*samples, strict=True)]
        if samples and config.task != "relative"
        else [],
        "settings": _settings(config),
        "command": command(config),
        "files": _files(run.path, page),
    }


def comparison_content(runs: Sequence[tuple[Run, TrainingSettings]], page: Path) -> dict[str, Any]:
    """What the page of several runs shows, for JSON."""
    names = _unlike_names([run.path for run, _ in runs])
    settings = [config.as_dict() | {"out": None} for _, config in runs]
    differing = [name for name in TrainingSettings.names() if len({str(values[name]) for values in settings}) > 1]
    metrics = list(
        dict.fromkeys(name for _, config in runs for name in score_names(config.task, config.set_names).names)
    )
    return {
        "metrics": metrics,
        "runs": [
            {
                "name": name,
                "page": _link(run.path / "report.html", page) if (run.path / "report.html").is_file() else None,
                "scores": {moment: _finite(scores) for moment, scores in scores_by_moment(run).items()},
                "curves": _curves(run, metrics),
                "facts": facts(run, config),
                "command": command(config),
            }
            for name, (run, config) in zip(names, runs, strict=True)
        ],
        "differing": {flag(name): [_shown(values[name]) for values in settings] for name in differing},
    }


def scores_by_moment(run: Run) -> dict[str, dict[str, float]]:
    """Scores of a constant depth, before training, and of the two networks that the run kept."""
    record = run.recorded()
    return {
        "constant depth": record.get("constant", {}),
        "before training": record.get("before", {}),
        "best epoch": _metrics(run.path / "best.pt"),
        "last epoch": _metrics(run.path / "last.pt"),
    }


def facts(run: Run, config: TrainingSettings) -> dict[str, str]:
    """How far the run went, what it started from and where it ran."""
    record = run.recorded()
    finished = sum(bool(row.get("train/loss_epoch")) for row in read_metrics(run.path / "metrics.csv"))
    known = {
        "epochs finished": f"{finished} of {config.epochs}",
        "parameters": f"{record['parameters'] / 1e6:.1f} M" if "parameters" in record else None,
        "backbone from": record.get("weights_source"),
        "loss backend": "; ".join(record.get("loss_backend", record.get("loss_engine", []))),  # the older name
        "versions": ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items()),
        "machine": ", ".join(f"{name} {value}" for name, value in record.get("machine", {}).items() if value),
    }
    return {name: value for name, value in known.items() if value}


def command(config: TrainingSettings) -> str:
    """The command line that starts another run with these settings, for a shell."""
    plain, default = config.as_dict(), TrainingSettings().as_dict()
    words = [
        word
        for name, value in plain.items()
        if name != "out" and value is not None and value != default[name]
        for word in (flag(name), str(value).lower() if isinstance(value, bool) else str(value))
    ]
    return shlex.join(["mlr", "train", *words])


def _metrics(checkpoint: Path) -> dict[str, float]:
    # no model is the best where every score is NaN
    return current_metrics(load_checkpoint(checkpoint).metrics) if checkpoint.is_file() else {}


def _curves(run: Run, metrics: Sequence[str]) -> dict[str, Any]:
    """Columns of metrics.csv by their names; None where a row lacks a value."""
    rows = _spread(read_metrics(run.path / "metrics.csv"), EPOCHS)
    columns = {name: f"val/{name}" for name in metrics} | {"loss": LOSS}
    return {
        "epoch": [int(row["epoch"]) for row in rows],
        **{name: [_number(row.get(column)) for row in rows] for name, column in columns.items()},
    }


def _balancing(rows: list[Row]) -> dict[str, Any] | None:
    """The grid of losses and, period by period, lambda and what balancing.csv has of every loss."""
    periods: dict[int, dict[str, Row]] = {}
    for row in rows:
        periods.setdefault(int(row["period"]), {})[row["term"]] = row
    shown = _spread(list(periods.values()), PERIODS)
    if not shown:
        return None
    losses = [f"{kind}/{scale}" for scale in range(SCALES) for kind in KINDS if f"{kind}/{scale}" in shown[0]]
    if not losses:  # heads and pairs have no place in the grid
        return None
    first = [next(iter(period.values())) for period in shown]
    return {
        "kinds": list(KINDS),
        "scales": SCALES,
        "families": {family: list(kinds) for family, kinds in FAMILIES.items()},
        "losses": losses,
        "periods": len(periods),
        **{name: [int(row[name]) for row in first] for name in ("period", "step", "epoch")},
        "lambda": [_number(row["lambda"]) for row in first],
        **{
            name: [[_number(period[loss][name]) if loss in period else None for loss in losses] for period in shown]
            for name in ("mean", "weight", "contribution")
        },
    }


def _settings(config: TrainingSettings) -> dict[str, list[list[Any]]]:
    """Flag, value and whether the value is not the default, group by group."""
    default = TrainingSettings().as_dict()
    return {
        group: [
            [flag(item.name), _shown(value), value != default[item.name]]
            for item in fields(settings)
            if (value := config.as_dict()[item.name]) is not None
        ]
        for group, settings in GROUPS.items()
    }


def _files(folder: Path, page: Path) -> list[dict[str, Any]]:
    """The files of a run, without those that are hidden and the page itself."""
    return [
        {"name": path.name, "link": _link(path, page), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and path.name != page.name
    ]


def _link(path: Path, page: Path) -> str:
    """A relative address, with the signs that mean something in addresses escaped."""
    relative = os.path.relpath(path.resolve(), page.parent.resolve())
    return "./" + quote(Path(relative).as_posix())


def _unlike_names(paths: Sequence[Path]) -> list[str]:
    """Names of the folders; where two are alike, with the folders they lie in."""
    whole = [path.resolve() for path in paths]
    for depth in range(1, max(len(path.parts) for path in whole) + 1):
        names = ["/".join(path.parts[-depth:]) for path in whole]
        if len(set(names)) == len(set(whole)):
            return names
    return [str(path) for path in whole]


def _spread(items: list[Any], most: int) -> list[Any]:
    """At most so many items, evenly spread, with the first and the last."""
    if len(items) <= most:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]


def _shown(value: Any) -> str:
    return "" if value is None else str(value)


def _number(text: str | None) -> float | None:
    """A cell as a number of five digits; None if it is empty or not finite, which JSON cannot hold."""
    value = float(text) if text else math.nan
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _finite(scores: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if math.isfinite(value)}
