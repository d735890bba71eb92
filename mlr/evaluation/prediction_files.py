# SPDX-License-Identifier: Apache-2.0
"""Predicted depth in files, in metres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mlr.data.depth_files import DataError, check_depth, decode_depth, units_per_metre
from mlr.evaluation.matching import match_files, some
from mlr.evaluation.predictor import Predictor
from mlr.evaluation.protocols import Protocol
from mlr.utils.files import list_files

SUFFIXES = (".png", ".npy")
#: Largest difference of two aspect ratios, as a share. Sizes rounded to multiples of 32 stay below it; KITTI's
#: bottom-centre crop, which covers another part of the image, does not.
ASPECT_TOLERANCE = 0.04


class PredictionFiles(Predictor):
    """Predictions that lie in a folder, a file a frame.

    Args:
        folder: the folder; its sub-folders are searched too.
        names: ids of the frames, in the data set's order.
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
        names: Sequence[str],
        match: str = "name",
        unit: str | None = None,
        everything: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        listing = list_files(folder, SUFFIXES)
        if not listing.files:
            raise DataError(f"{folder} holds no predictions: expected .png or .npy files, one a frame")
        self.unit = unit
        self.paths, outside = match_files(folder, listing.files, names, match, everything)
        unused = (outside, "files belong to frames outside the split"), (listing.left_out, "files are not read")
        self.notes = [f"{folder}: {len(files)} {what}: {some(files)}" for files, what in unused if files]

    def key(self, protocol: Protocol) -> tuple[Any, ...]:
        """A file is the same for every protocol."""
        return ()

    def predict(self, index: int, image: Tensor, protocol: Protocol) -> Tensor:
        """Read the frame's file."""
        return torch.from_numpy(read_prediction(self.paths[index], self.unit))[None, None]

    def record(self, protocol: Protocol) -> dict[str, Any]:
        """How integers were read; nothing is known about how the files were made."""
        return {"depth_unit": self.unit or "as the files declare"}

    def check(self, index: int, pred: Tensor, image: Tensor, target: Tensor, protocol: Protocol) -> None:
        """Refuse a prediction of another shape than what the protocol shows a network, and than the target."""
        size = tuple(pred.shape[-2:])
        seen = tuple(replace(protocol, input_size=None).input(image).shape[-2:])
        top, bottom, left, right = protocol.box(*target.shape[-2:])
        grid = (bottom - top, right - left) if protocol.image_rows else tuple(target.shape[-2:])
        if size == protocol.paste or _same_aspect(size, seen) or _same_aspect(size, grid):
            return
        turned = "; height and width seem to be exchanged" if _same_aspect(size[::-1], seen) else ""
        raise ValueError(
            f"{self.paths[index]} has {size[0]} x {size[1]} pixels, which is not the shape of the "
            f"{seen[0]} x {seen[1]} pixels that it should cover{turned}"
        )


def _same_aspect(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    ratio = (one[0] * other[1]) / (one[1] * other[0])
    return max(ratio, 1 / ratio) <= 1 + ASPECT_TOLERANCE


def read_prediction(path: Path, unit: str | None = None) -> np.ndarray:
    """Predicted depth [h, w] of a file, float32 metres.

    Args:
        path: a 16-bit PNG, whose text "depth_unit" may declare its unit, or a .npy file of metres.
        unit: unit of integers that declare none; see :func:`mlr.data.depth_files.units_per_metre`.

    Raises:
        DataError: the file is no depth map, of no known unit or of another unit than it declares, or holds values that
            no prediction has: NaN, infinite, negative, or far outside 0 to 100 m.
    """
    declared = declared_unit(path)
    if declared and unit and units_per_metre(declared) != units_per_metre(unit):
        raise DataError(
            f"{path} declares the unit {declared!r}, and --depth-unit is {unit!r}: leave the flag out. If it was meant "
            f"for the data set, give --data-options unit={unit}"
        )
    depth = decode_depth(path, declared or unit, bits=16)
    if depth.size == 0:
        raise DataError(f"{path} is empty, {list(depth.shape)}")
    wrong = {"NaN": np.isnan(depth), "infinite": np.isinf(depth), "negative": depth < 0}
    if found := [f"{int(where.sum())} {what}" for what, where in wrong.items() if where.any()]:
        raise DataError(f"{path}: {' and '.join(found)} of {depth.size} values; a prediction has depth everywhere")
    return check_depth(depth, str(path))


def declared_unit(path: Path) -> str | None:
    """The unit that a PNG names in its text "depth_unit"; None if it names none.

    Raises:
        DataError: the file is no image, or the unit unknown.
    """
    if path.suffix.lower() != ".png":
        return None
    try:
        with Image.open(path) as image:
            unit = image.info.get("depth_unit")
        if unit is not None:
            units_per_metre(unit)
    except Exception as error:  # Pillow's decoders raise errors of any kind over damaged files
        raise DataError(f"cannot read the prediction {path}: {error}") from error
    return unit
