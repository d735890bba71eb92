# SPDX-License-Identifier: Apache-2.0
"""Predicted depth in files, in metres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlr.data.datasets.base import DepthDataset
from mlr.data.depth_files import DataError, UndeclaredUnitError, check_depth, decode_depth
from mlr.data.sample import Sample
from mlr.evaluation.matching import match_files, some
from mlr.evaluation.predictor import Prediction, Predictor
from mlr.evaluation.protocols import Protocol
from mlr.utils.counted import counted
from mlr.utils.files import list_files

SUFFIXES = (".png", ".npy")
#: Largest difference of two aspect ratios, as a share. Sizes rounded to multiples of 32 stay below it; KITTI's
#: bottom-centre crop, which covers another part of the image, does not.
ASPECT_TOLERANCE = 0.04


class PredictionFiles(Predictor):
    """Predictions that lie in a folder, a file a frame.

    Args:
        folder: the folder; its sub-folders are searched too.
        frames: the frames.
        match: how files belong to frames, "name" or "order".
        unit: unit of integer files that do not declare their own.
        everything: gives the ids of all splits, see :func:`mlr.evaluation.matching.match_files`.

    Attributes:
        paths: the file of every frame.
        notes: what to say about files that are not used.

    Raises:
        DataError: a frame has no file or several, or a file no frame.
    """

    def __init__(
        self,
        folder: Path,
        frames: DepthDataset,
        match: str = "name",
        unit: str | None = None,
        everything: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        listing = list_files(folder, SUFFIXES)
        if not listing.files:
            raise DataError(f"{folder} holds no predictions: expected .png or .npy files, one a frame")
        self.frames, self.unit = frames, unit
        names = [frames.name(index) for index in range(len(frames))]
        unread = f"{folder}: {counted(len(listing.left_out), 'file', 'are')} not read: {some(listing.left_out)}" * bool(
            listing.left_out
        )
        try:
            self.paths, outside = match_files(folder, listing.files, names, match, everything)
        except DataError as error:
            raise DataError(f"{error}. {unread}" if unread else str(error)) from error
        aside = (
            f"{folder}: {counted(len(outside), 'file', 'belong')} to frames outside the split: {some(outside)}"
            * bool(outside)
        )
        self.notes = [note for note in (aside, unread) if note]

    def key(self, protocol: Protocol) -> tuple[Any, ...]:
        """A file is read alike for every protocol of metres."""
        return (protocol.relative,)

    def predict(self, index: int, sample: Sample, protocol: Protocol) -> Prediction:
        """Read the frame's file."""
        path = self.paths[index]
        read = read_relative(path) if protocol.relative else read_prediction(path, self.unit, self.frames.max_depth)
        depth = torch.from_numpy(read)[None, None]
        size, shown = (depth.shape[-2], depth.shape[-1]), (sample["image"].shape[-2], sample["image"].shape[-1])
        if "region" not in sample:
            return Prediction(depth, self.frames.region_of(size, shown))
        return Prediction(depth, sample["region"] if _same_aspect(size, shown) else None)  # whole frames may be given

    def record(self, protocol: Protocol) -> dict[str, Any]:
        """How integers were read; nothing is known about how the files were made."""
        return {"depth_unit": self.unit or "as the files declare"}

    def check(self, index: int, prediction: Prediction, sample: Sample, target: Tensor, protocol: Protocol) -> None:
        """Refuse a prediction of another shape than what the protocol shows a network, and than the target."""
        size, region = tuple(prediction.depth.shape[-2:]), prediction.region
        seen = protocol.input.shape(sample["image"].shape[-2], sample["image"].shape[-1])
        covered = (region.height, region.width) if region and protocol.paste else seen
        top, bottom, left, right = protocol.box(*target.shape[-2:])
        grid = (bottom - top, right - left) if protocol.input.rows else tuple(target.shape[-2:])
        if _same_aspect(size, covered) or _same_aspect(size, grid):
            return
        turned = "; height and width seem to be exchanged" if _same_aspect(size[::-1], seen) else ""
        raise ValueError(
            f"{self.paths[index]} has {size[0]} x {size[1]} pixels, which is not the shape of the "
            f"{seen[0]} x {seen[1]} pixels that it should cover{turned}"
        )


def _same_aspect(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    ratio = (one[0] * other[1]) / (one[1] * other[0])
    return max(ratio, 1 / ratio) <= 1 + ASPECT_TOLERANCE


def read_relative(path: Path) -> np.ndarray:
    """Predicted relative depth [h, w] of a file, float32: any finite numbers that grow with depth.

    Raises:
        DataError: the file is no map, empty, or holds NaN or infinite values.
    """
    try:
        depth = decode_depth(path, None)
    except UndeclaredUnitError:  # which has no meaning here
        depth = decode_depth(path, "m")
    if depth.size == 0 or not np.isfinite(depth).all():
        raise DataError(f"{path}, {list(depth.shape)}, must hold finite numbers everywhere, larger for farther points")
    return depth


def read_prediction(path: Path, unit: str | None = None, max_depth: float = 100.0) -> np.ndarray:
    """Predicted depth [h, w] of a file, float32 metres.

    Args:
        path: a 16-bit PNG, whose text "depth_unit" may declare its unit, or a .npy file of metres.
        unit: unit of integers that declare none; see :func:`mlr.data.depth_files.units_per_metre`.
        max_depth: deepest median that is believed.

    Raises:
        DataError: the file is no depth map, of no known unit or of another unit than it declares, or holds values that
            no prediction has: NaN, infinite, negative, or far outside 0 to ``max_depth``.
    """
    depth = decode_depth(path, unit, bits=16)
    if depth.size == 0:
        raise DataError(f"{path} is empty, {list(depth.shape)}")
    wrong = {"NaN": np.isnan(depth), "infinite": np.isinf(depth), "negative": depth < 0}
    if found := [f"{int(where.sum())} {what}" for what, where in wrong.items() if where.any()]:
        raise DataError(f"{path}: {' and '.join(found)} of {depth.size} values; a prediction has depth everywhere")
    return check_depth(depth, str(path), max_depth)
