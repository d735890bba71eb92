# SPDX-License-Identifier: Apache-2.0
"""The frames of an experiment: built-in rooms packed once, so that no run pays for drawing them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from mlr.data.datasets.base import DepthDataset
from mlr.data.datasets.packed import Frame, write_frames
from mlr.data.datasets.registry import check_options, open_dataset, parse_options
from mlr.experiments.plan import RESULTS_VERSION, Evaluation, PlannedRun
from mlr.experiments.records import locked
from mlr.training.settings import TrainingSettings
from mlr.utils.sizes import parse_size


def packed_training(config: TrainingSettings, folder: Path, console: Console) -> TrainingSettings:
    """The same settings with the frames of "rooms" in a packed file, which is written if it is not there.

    The scenes must not depend on the run's seed: the plan fixes theirs by ``data_options: seed=...``.

    Raises:
        ValueError: it does not.
    """
    options = parse_options(config.data_options)
    if "seed" not in options:
        raise ValueError("pack: the scenes of every seed would differ; fix them by data_options: seed=0")
    height, width = config.height_width
    sizes = {"height": str(height), "width": str(width)}
    lengths = {"train": config.train_length, "val": config.val_length}
    sources = {
        split: open_dataset("rooms", None, split, **check_options("rooms", {"length": str(length)} | sizes | options))
        for split, length in lengths.items()
    }
    # a packed file does not say that all its depth is known; without holes there is nothing to mask
    return replace(config, data="packed", root=_packed(sources, folder, console), data_options="", holes="error")


def open_evaluation(run: PlannedRun, folder: Path, pack: bool, console: Console) -> DepthDataset:
    """The frames that a run is scored on; those of "rooms" packed if the plan says so."""
    spec: Evaluation = run.evaluation
    options = parse_options(spec.options)
    if spec.data == "rooms":
        height, width = parse_size(spec.size) if spec.size else run.config.height_width
        options = {"height": str(height), "width": str(width)} | options
    source = open_dataset(spec.data, spec.root, "val", **check_options(spec.data, options))
    if not pack:
        return source
    return open_dataset("packed", str(_packed({"val": source}, folder, console)), "val")


def _packed(sources: dict[str, DepthDataset], folder: Path, console: Console) -> Path:
    """The file of these frames."""
    contents = [[split, repr(source), _size(source)] for split, source in sources.items()]
    described = json.dumps([RESULTS_VERSION, *contents])
    path = folder / f"frames-{hashlib.sha256(described.encode()).hexdigest()[:12]}.h5"
    with locked(folder / f".{path.stem}.lock"):
        if not path.is_file():
            count = sum(map(len, sources.values()))
            console.print(f"packing {count} frames into {path}", highlight=False, soft_wrap=True)
            write_frames(path, _frames(sources), "none", {"holes": "error"})
    return path


def _size(source: DepthDataset) -> list[int]:
    return list(source.read(0)[1].shape)


def _frames(sources: dict[str, DepthDataset]) -> Iterator[Frame]:
    for split, source in sources.items():
        for index in range(len(source)):
            image, depth = source.read(index)
            depth = depth.astype(np.float32)
            yield Frame(source.name(index), "rooms", split, image, depth, (depth > 0).astype(np.uint8))
