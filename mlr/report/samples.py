# SPDX-License-Identifier: Apache-2.0
"""Samples of a run, samples.npz: images of the validation, their true depth and what the network predicts."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mlr.models.depth_model import DepthModel
from mlr.relative.alignment import aligned
from mlr.utils.files import atomic_write

#: How many samples a run keeps and its page shows.
COUNT = 8
FILE = "samples.npz"


class Samples(NamedTuple):
    """Images with two depths each, at the working size.

    Attributes:
        names: ids of the frames, [n].
        images: [n, H, W, 3] uint8.
        truth: [n, H, W] float32 metres; NaN = unknown.
        prediction: [n, H, W] float32 metres; relative depth has the scale and shift of the truth.
    """

    names: np.ndarray
    images: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray

    def save(self, run: Path) -> Path:
        """Write samples.npz into the folder of a run."""
        path = run / FILE
        with atomic_write(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **self._asdict())
        return path


def take_samples(
    model: DepthModel, batches: Iterable[dict[str, Any]], count: int = COUNT, sets: Sequence[str] = ()
) -> Samples:
    """Predict the first images of a data set, or of each of several.

    Args:
        model: the network.
        batches: of :class:`mlr.data.DepthData`.
        count: the most samples.
        sets: names of the data sets, where there are several; they stand before the ids of their frames.
    """
    names: list[str] = []
    columns: list[list[torch.Tensor]] = [[], [], []]
    quota = max(1, count // len(sets)) if sets else count
    for batch in _first_of_each(batches, quota, sets) if sets else batches:
        names += batch["id"]
        image = (batch["image"].clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)
        truth = batch["depth"].where(batch["valid"], torch.nan)[:, 0]
        depth = model.infer(batch["image"])
        if "pairs" in batch:
            depth = aligned(depth, batch["depth"], batch["valid"])
        for column, values in zip(columns, (image, truth, depth[:, 0]), strict=True):
            column.append(values)
        if len(names) >= count:
            break
    images, truths, predictions = (torch.cat(column)[:count].cpu().numpy() for column in columns)
    return Samples(np.array(names[:count], dtype=np.str_), images, truths, predictions)


def _first_of_each(batches: Iterable[dict[str, Any]], quota: int, sets: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The first images of every data set, batch by batch."""
    left = dict.fromkeys(range(len(sets)), quota)
    for batch in batches:
        rows = []
        for row, number in enumerate(batch["set"].tolist()):
            if left[number]:
                left[number] -= 1
                rows.append(row)
        if rows:
            ids = [f"{sets[int(batch['set'][row])]}: {batch['id'][row]}" for row in rows]
            yield {name: batch[name][rows] for name in ("image", "depth", "valid")} | {"id": ids}
        if not any(left.values()):
            return


def read_samples(run: Path) -> Samples | None:
    """The samples of a run; None if there are none that can be read."""
    try:
        with np.load(run / FILE, allow_pickle=False) as file:
            samples = Samples(*(file[name] for name in Samples._fields))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    count, size = len(samples.names), samples.truth.shape[1:]
    shapes = (samples.images.shape, samples.truth.shape, samples.prediction.shape)
    return samples if shapes == ((count, *size, 3), (count, *size), (count, *size)) else None
