# SPDX-License-Identifier: Apache-2.0
"""Depth and image files: decoded to float32 metres and 8-bit RGB before anything else touches them.

Pillow's geometry is wrong on 16-bit grey images ("I;16": rotation returns garbage, some resizes raise), so no integer
depth leaves this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps

from mlr.utils import renamed

#: Named units of integer depth files: how many steps make a metre.
UNITS: dict[str, float] = {"m": 1.0, "mm": 1000.0, "kitti": 256.0, "nyu-10m": 6553.5}

#: Depths beyond this are no metres, whatever the sensor.
MAX_DEPTH = 100.0


class DataError(ValueError):
    """A file or a folder that cannot be used as data; the message names it and says what to do."""


def units_per_metre(unit: str | float) -> float:
    """Steps of an integer depth file in a metre.

    Args:
        unit: "mm", "m", "kitti" (256), "nyu-10m" (6553.5: 16 bits for 10 m) or a number.

    Raises:
        ValueError: for anything else.
    """
    unit = renamed.UNITS.get(str(unit), unit)
    if unit in UNITS:
        return UNITS[str(unit)]
    try:
        steps = float(unit)
    except ValueError:
        steps = 0.0
    if not (steps > 0 and np.isfinite(steps)):
        raise ValueError(f"unknown depth unit {unit!r}: give {', '.join(UNITS)} or the number of units in a metre")
    return steps


def read_image(
    file: str | Path | BinaryIO, name: str | None = None, truncated: bool = False, upright: bool = True
) -> np.ndarray:
    """RGB image [H, W, 3], uint8; transparency is ignored.

    Args:
        file: the file, or its open contents.
        name: what to call it in errors.
        truncated: decode what is there of a file that is cut off, instead of refusing it.
        upright: turn the image as its EXIF orientation says. Published sets are read as they are stored, since the
            programs that made their numbers ignore EXIF.

    Raises:
        DataError: the file is missing, cut off or no image, or its values have no known range.
    """
    name = name or str(file)
    try:
        with Image.open(file) as opened:
            image = _whole(opened, truncated)
            if upright:
                image = ImageOps.exif_transpose(image)
            if not image.mode.startswith(("I", "F")):
                return np.array(image.convert("RGB"))
            grey = np.array(image)
    except Exception as error:  # Pillow's decoders raise errors of any kind over damaged files
        raise DataError(f"cannot read the image {name}: {error}") from error
    # Pillow's own conversion of 16-bit grey to RGB cuts off at 255
    if not np.issubdtype(grey.dtype, np.integer) or grey.min() < 0 or grey.max() > 65535:
        raise DataError(f"{name} holds {grey.dtype} values of no known range: convert it to 8 or 16 bits")
    return np.repeat(np.rint(grey / 257).astype(np.uint8)[..., None], 3, axis=2)


def _whole(image: Image.Image, truncated: bool) -> Image.Image:
    """Load an image; whether it may be cut off is a global switch of Pillow's."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, truncated
    try:
        image.load()
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
    return image


def read_depth(file: str | Path | BinaryIO, unit: str | float | None, name: str | None = None) -> np.ndarray:
    """Depth [H, W] in float32 metres; 0 where it is not known.

    Args:
        file: see :func:`decode_depth`.
        unit: unit of integers, see :func:`units_per_metre`; floats are metres already.
        name: what to call it in errors.

    Raises:
        DataError: the file is missing, no depth map, in integers of no declared unit, or far outside 0 to 100 m.
    """
    return check_depth(decode_depth(file, unit, name), name or str(file))


def decode_depth(
    file: str | Path | BinaryIO, unit: str | float | None, name: str | None = None, bits: int = 8
) -> np.ndarray:
    """Depth [H, W] in float32 metres, as the file has it: unknown depth may have any value.

    Args:
        file: a 16-bit (or 8- or 32-bit) grey PNG or TIFF, or a .npy file of float metres or of integers.
        unit: unit of integers, see :func:`units_per_metre`; floats are metres already.
        name: what to call it in errors.
        bits: least bits of an integer; formats that have 16 refuse files of 8.

    Raises:
        DataError: the file is missing, no depth map, or in integers of no declared unit.
    """
    name = name or str(file)
    try:
        if isinstance(file, str | Path) and Path(file).suffix.lower() == ".npy":
            with open(file, "rb") as opened:  # numpy.load would take archives and pickles too
                raw = np.lib.format.read_array(opened, allow_pickle=False)
        else:
            with Image.open(file) as image:
                raw = np.asarray(image)
    except Exception as error:  # numpy and Pillow raise errors of any kind over damaged files
        raise DataError(f"cannot read the depth file {name}: {error}") from error
    if raw.ndim == 3 and 1 in (raw.shape[0], raw.shape[-1]):
        raw = raw[0] if raw.shape[0] == 1 else raw[..., 0]
    if raw.ndim != 2:
        raise DataError(f"{name} is no depth map: expected [H, W], got {list(raw.shape)}")
    if np.issubdtype(raw.dtype, np.integer):
        if 8 * raw.dtype.itemsize < bits:
            raise DataError(f"{name} holds {raw.dtype} values; depth of this data set has {bits} bits")
        if unit is None:
            raise DataError(
                f"{name} holds {raw.dtype} values up to {raw.max(initial=0)} and no unit was declared: give "
                "--depth-unit in training and evaluation, --options unit=... to mlr prepare and check-data, one of "
                f"{', '.join(UNITS)} or the number of units in a metre"
            )
        return raw.astype(np.float32) / np.float32(units_per_metre(unit))
    if np.issubdtype(raw.dtype, np.floating):
        return raw.astype(np.float32)
    raise DataError(f"{name} holds {raw.dtype} values, which are no depth")


def check_depth(depth: np.ndarray, name: str) -> np.ndarray:
    """Set unknown depth (NaN, infinite, negative) to 0 and refuse values that cannot be metres.

    Raises:
        DataError: the values are far outside 0 to 100 m; the likely unit is named.
    """
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))
    known = depth[depth > 0]
    if known.size == 0:
        return depth
    middle = float(np.median(known))
    if middle > MAX_DEPTH:
        guess = "mm" if middle < 1e5 else "nyu-10m"
        raise DataError(
            f"{name}: half of the depths are beyond {middle:,.0f} m, so they are not metres: check --depth-unit "
            f"({guess} would make that {middle / UNITS[guess]:.2f} m). It is for files of integers; files of floats "
            "must hold metres already: divide them"
        )
    if middle < 0.01:
        raise DataError(
            f"{name}: half of the depths are below {middle:.5f} m, so the unit is wrong: check --depth-unit "
            "(a unit that was divided out twice, or relative depth, looks like this)"
        )
    return depth
