# SPDX-License-Identifier: Apache-2.0
"""Predicted depth in files: which file belongs to which frame, and its depth in metres."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mlr.data.datasets.folder import IMAGE_SUFFIXES
from mlr.data.depth_files import DataError, check_depth, decode_depth, units_per_metre
from mlr.evaluation.predictor import Predictor
from mlr.evaluation.protocols import Protocol

SUFFIXES = (".png", ".npy")
#: Largest difference of two aspect ratios, as a share. Sizes rounded to multiples of 32 stay below it; KITTI's
#: bottom-centre crop, which covers another part of the image, does not.
ASPECT_TOLERANCE = 0.04


class PredictionFiles(Predictor):
    """Predictions that lie in a folder, a file a frame.

    Args:
        folder: the folder; its subfolders are searched too.
        names: ids of the frames, in the data set's order.
        match: "name" finds a frame's file by its id, "order" takes the files in the order of their numbers and names.
        unit: unit of integer files that do not declare their own.

    Raises:
        DataError: a frame has no file or several, or a file no frame.
    """

    def __init__(self, folder: Path, names: list[str], match: str = "name", unit: str | None = None) -> None:
        files = [p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
        if not files:
            raise DataError(f"{folder} holds no predictions: expected .png or .npy files, one a frame")
        self.unit = unit
        self.paths = match_order(folder, files, names) if match == "order" else match_names(folder, files, names)

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


def match_order(folder: Path, files: list[Path], names: list[str]) -> list[Path]:
    """Files in the order of the numbers in their paths: pred2.png comes before pred10.png.

    Raises:
        DataError: there are more or fewer files than frames.
    """
    if len(files) != len(names):
        raise DataError(
            f"--match order: {folder} holds {len(files)} predictions and the data set {len(names)} frames; "
            "they must be as many"
        )

    def numbered(path: Path) -> list[tuple[int, str]]:
        parts = re.findall(r"\d+|\D+", path.relative_to(folder).with_suffix("").as_posix())
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]

    ordered = sorted(files, key=numbered)
    if twice := [b for a, b in pairwise(ordered) if numbered(a) == numbered(b)]:
        raise DataError(f"--match order: the place of {_some(twice)} is not clear, another file has the same number")
    return ordered


def match_names(folder: Path, files: list[Path], names: list[str]) -> list[Path]:
    """The file of every frame: named like its whole id (a/b/c.png or a_b_c.png) or the id's end (c.png or b/c.png).

    Raises:
        DataError: frames without a file or with several, files without a frame or with several; counted and named.
    """
    whole, ends = defaultdict(set), defaultdict(set)
    for index, name in enumerate(names):
        stem = Path(name).with_suffix("") if Path(name).suffix.lower() in IMAGE_SUFFIXES else Path(name)
        whole[stem.as_posix()].add(index)
        whole["_".join(stem.parts)].add(index)
        for first in range(len(stem.parts)):
            ends["/".join(stem.parts[first:])].add(index)
    found: list[list[Path]] = [[] for _ in names]
    strange: list[Path] = []
    vague: list[Path] = []
    for file in sorted(files):
        key = file.relative_to(folder).with_suffix("").as_posix()
        frames = whole.get(key) or ends.get(key) or set()
        if len(frames) == 1:
            found[min(frames)].append(file)
        else:
            (vague if frames else strange).append(file)
    missing = [name for name, paths in zip(names, found, strict=True) if not paths]
    several = [name for name, paths in zip(names, found, strict=True) if len(paths) > 1]
    faults = [
        f"{len(missing)} of {len(names)} frames have no prediction ({_some(missing)})" if missing else "",
        f"{len(several)} frames have several ({_some(several)})" if several else "",
        f"{len(strange)} files belong to no frame ({_some(strange)})" if strange else "",
        f"{len(vague)} files could belong to several frames ({_some(vague)}): name them like the whole id, "
        "with folders or joined by _" if vague else "",
    ]  # fmt: skip
    if any(faults):
        raise DataError(
            f"{folder}: {'; '.join(filter(None, faults))}. Files are matched to frames by name"
            f"{_subfolders(folder, files)}; --match order takes them in their order"
        )
    return [paths[0] for paths in found]


def _subfolders(folder: Path, files: list[Path]) -> str:
    """Advice for a folder of several forms of the same predictions."""
    first = sorted({file.relative_to(folder).parts[0] for file in files if file.parent != folder})
    return f" (if {', '.join(first)} hold the same in several forms, give one of them)" if 1 < len(first) < 5 else ""


def _some(things: list[Any], limit: int = 3) -> str:
    return ", ".join(map(str, things[:limit])) + (", ..." if len(things) > limit else "")


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
