# SPDX-License-Identifier: Apache-2.0
"""The table of docs/relative.md: short trainings on built-in rooms, three seeds each.

``python docs/relative_scores.py`` makes the runs that docs/results/relative.json lacks, one after the other, and writes
the table. Runs take about half a minute each on an idle core.
"""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mlr.data import open_dataset
from mlr.evaluation import Scores
from mlr.evaluation.order import OrderScores
from mlr.models.depth_model import open_model
from mlr.training.settings import TrainingSettings
from mlr.training.train import train

DOCS = Path(__file__).parent
RESULTS, PAGE = DOCS / "results" / "relative.json", DOCS / "relative.md"
START, END = "<!-- scores:start -->\n", "<!-- scores:end -->\n"
RUNS = Path("runs") / "relative"
SEEDS = (0, 1, 2)
SIZE = (64, 96)
SETTINGS: dict[str, Any] = {
    "size": "64x96", "train_length": 960, "val_length": 16, "augment": "none", "workers": 0, "threads": 1,
    "device": "cpu", "backbone": "tf_efficientnet_lite0", "pretrained": "true", "freeze": "encoder",
    "decoder_channels": 128, "epochs": 3, "steps_per_epoch": 24, "learning_rate": 1e-3,
}  # fmt: skip
#: Trainings, and what is scored of each: its label, and the network's output.
ROWS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "fusion": (
        {"task": "fusion"},
        {
            "twelve heads, 78 losses rebalanced a head: ordinary head D8 alone": "ordinary",
            "twelve heads, 78 losses rebalanced a head: fusion": "fused",
        },
    ),
    "relative": ({"task": "relative"}, {"relative depth, ranking and 78 losses rebalanced": ""}),
    "rank": ({"task": "relative", "losses": "rank"}, {"relative depth, ranking loss alone": ""}),
}
COLUMNS = {"delta1": 100, "rmse": 1, "abs_rel": 1, "silog": 1, "whdr": 100, "wkdr": 100, "kendall": 1, "spearman": 1}
HEADINGS = ("δ1 %", "RMSE m", "ARD", "RMSE si", "WHDR %", "WKDR %", "Kendall", "Spearman")


@torch.no_grad()
def score(path: Path, output: str, metric: bool) -> dict[str, float]:
    """Scores of the last network of a run on 150 rooms that no run trains on."""
    model = open_model(path / "last.pt", "cpu").model
    if output:
        model.output = output  # type: ignore[assignment]
    frames = open_dataset("rooms", split="val", length=150, seed=0, height=SIZE[0], width=SIZE[1])
    order, depth = OrderScores(), Scores("full")
    for samples in DataLoader(cast("Dataset[Any]", frames), batch_size=10, collate_fn=list):
        image, target = (torch.stack([s[name].as_subclass(Tensor) for s in samples]) for name in ("image", "depth"))
        names, pred = [s["id"] for s in samples], model.infer(image)
        order.add(names, pred, target)
        if metric:
            depth.add(names, pred, target)
    return order.means() | (depth.means() if metric else {})


def missing_runs(results: dict[str, dict[str, float]]) -> None:
    """Make them, and keep the scores of each as soon as they are there."""
    for name, (changes, outputs) in ROWS.items():
        for seed in SEEDS:
            if all(f"{label}, seed {seed}" in results for label in outputs):
                continue
            out = RUNS / f"{name}-{seed}"
            shutil.rmtree(out, ignore_errors=True)
            train(TrainingSettings(**{**SETTINGS, **changes, "seed": seed, "out": out}), console=Console(quiet=True))
            for label, output in outputs.items():
                results[f"{label}, seed {seed}"] = score(out, output, changes["task"] != "relative")
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            write_table(results)
            print(f"{name}, seed {seed}", flush=True)


def table(results: dict[str, dict[str, float]]) -> str:
    """Means and standard deviations over the seeds."""
    lines = ["| trained, scored | " + " | ".join(HEADINGS) + " |", "|---|" + "---:|" * len(HEADINGS)]
    for _, outputs in ROWS.values():
        for label in outputs:
            found = [results[key] for seed in SEEDS if (key := f"{label}, seed {seed}") in results]
            if not found:
                continue
            cells = []
            for column, factor in COLUMNS.items():
                values = [factor * scores[column] for scores in found if column in scores]
                digits = 1 if factor == 100 else 3
                spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.{digits}f}{spread}" if values else "–")
            seeds = "" if len(found) == len(SEEDS) else f" ({len(found)} of {len(SEEDS)} seeds)"
            lines.append(f"| {label}{seeds} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_table(results: dict[str, dict[str, float]]) -> None:
    """Put the table into its page."""
    before, rest = PAGE.read_text().split(START)
    PAGE.write_text(before + START + table(results) + END + rest.split(END)[1])


if __name__ == "__main__":
    missing_runs(json.loads(RESULTS.read_text()) if RESULTS.is_file() else {})
