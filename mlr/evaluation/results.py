# SPDX-License-Identifier: Apache-2.0
"""Scores as people and programs read them: a table on the screen, a folder of JSON and CSV."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlr.evaluation.frames import Evaluation
from mlr.evaluation.metrics import METRICS
from mlr.evaluation.order import ORDER_METRICS
from mlr.utils.counted import counted
from mlr.utils.files import atomic_write

#: The file that holds everything but the single frames' scores.
SUMMARY = "scores.json"
#: Metrics of structure on the screen; scores.json holds the edges of the other thresholds too.
STRUCTURE_SHOWN = ("edge25_precision", "edge25_recall", "edge25_f1", "normal_angle")
CAPTION = "below each mean the ends of its 95 % bootstrap interval over the images"


def require_new_folder(path: Path) -> None:
    """See that a folder can be made, before the work whose results it is to hold.

    Raises:
        FileExistsError: there is something of that name already; an empty folder will do.
        OSError: its place cannot be written.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise FileExistsError(f"{path} is there already and is not overwritten: choose another --out, or remove it")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OSError(
            f"cannot make the folder {path}: {parent} is no folder that you may write to; choose another --out"
        )


def save(path: Path, record: dict[str, Any], evaluation: Evaluation) -> None:
    """Write a folder of scores.json, and of <protocol>.csv with a row a frame; it appears complete or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_write(path) as partial:
        partial.mkdir(parents=True)
        for name, scores in evaluation.scores.items():
            scores.save_csv(partial / f"{name}.csv")
        (partial / SUMMARY).write_text(dumps(record) + "\n")


def dumps(record: Any) -> str:
    """JSON as every program reads it: a score that does not exist is null."""
    return json.dumps(_without_nan(record), indent=2, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, (list, tuple)) else value


def show(record: dict[str, Any], console: Console) -> None:
    """Print a protocol a row with its means, and below them, dim, the ends of their intervals; then the same of edges
    and normals, and of the order of depth."""
    tables = (
        ("metrics", METRICS, ""), ("structure", STRUCTURE_SHOWN, "edges and normals, "), ("order", ORDER_METRICS, ""),
    )  # fmt: skip
    for key, metrics, heading in tables:
        protocols = {name: scores for name, scores in record["protocols"].items() if key in scores}
        if not protocols:
            continue
        table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False, caption=None if key == "metrics" else CAPTION)
        table.add_column("protocol" if key == "metrics" else "", no_wrap=True)
        for metric in metrics:
            table.add_column(metric, justify="right", no_wrap=True)
        for name, scores in protocols.items():
            cells = (scores[key][metric] for metric in metrics)
            rows = [f"{_number(c['mean'])}\n[dim]{_number(c['low'])}\n{_number(c['high'])}[/dim]" for c in cells]
            table.add_row(f"{heading}{name}\n[dim]{counted(scores['images'], 'image')}[/dim]", *rows)
        console.print(table)
    data = record["data"]
    for name, scores in record["protocols"].items():
        if excluded := scores["excluded"]:
            console.print(
                Text(f"{name}: {counted(len(excluded), 'frame')} without a pixel to score left out", "yellow")
            )
    if broken := data["broken"]:
        console.print(Text(f"{len(broken)} of {counted(data['frames'], 'frame')} left out as broken:", "yellow"))
        for line in broken[:20]:
            console.print(Text(f"  {line}", "yellow"), soft_wrap=True)
    for name, reason in record["refused"].items():
        console.print(Text(f"refused {name}: {reason}", "red"), soft_wrap=True)
    left_out: dict[str, list[str]] = {}
    for name, reason in record["left_out"].items():
        left_out.setdefault(reason, []).append(name)
    for reason, names in left_out.items():
        console.print(Text(f"left out {', '.join(names)}: {reason}", "dim"), soft_wrap=True)


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.3f}"
