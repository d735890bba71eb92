# SPDX-License-Identifier: Apache-2.0
"""Samples of a run, samples.npz: images of the validation, their true depth and what the network predicts."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
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


def take_samples(model: DepthModel, batches: Iterable[dict[str, Any]], count: int = COUNT) -> Samples:
    """Predict the first images of a data set.

    Args:
        model: the network.
        batches: of :class:`mlr.data.DepthData`.
        count: the most samples.
    """
    names: list[str] = []
    columns: list[list[torch.Tensor]] = [[], [], []]
    for batch in batches:
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
