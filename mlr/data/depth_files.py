# SPDX-License-Identifier: Apache-2.0
"""Depth and image files: decoded to float32 metres and 8-bit RGB before anything else touches them.

Pillow's geometry is wrong on 16-bit grey images ("I;16": rotation returns garbage, some resizes raise), so no integer
depth leaves this module.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps

from mlr.utils import renamed
from mlr.utils.files import not_regular

#: Named units of integer depth files: how many steps make a metre.
UNITS: dict[str, float] = {"m": 1.0, "mm": 1000.0, "kitti": 256.0, "nyu-10m": 6553.5}

#: Depth beyond this is taken for a wrong unit, unless the option max_depth says that it is true.
MAX_DEPTH = 100.0

#: A file that declares more pixels is refused before any of them is read.
MAX_PIXELS = 120_000_000

#: Formats of Pillow's that are read, whatever a file's name says. Others may start programs (EPS).
IMAGE_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "WEBP", "PPM", "GIF")
DEPTH_FORMATS = ("PNG", "TIFF", "PPM")

#: EXIF tag of a picture's orientation; 1 is upright.
ORIENTATION = 0x0112

#: Integers of a unit that is defined on 16 bits.
SIXTEEN_BIT_UNITS = ("kitti", "nyu-10m")


#: Held while Pillow's switch for files that are cut off is set.
_SWITCH = threading.Lock()


class DataError(ValueError):
    """A file or a folder that cannot be used as data; the message names it and says what to do."""


class UndeclaredUnitError(DataError):
    """Integer depth whose unit neither the file nor the user declares."""


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
    return read_oriented(file, name, truncated, upright)[0]


def read_oriented(
    file: str | Path | BinaryIO, name: str | None = None, truncated: bool = False, upright: bool = True
) -> tuple[np.ndarray, int]:
    """What :func:`read_image` gives, and the EXIF orientation that the file states, 1 to 8; 1 is upright."""
    name = name or str(file)
    with _opened(file, name, "image", IMAGE_FORMATS) as opened:
        image = _whole(opened, truncated)
        stated = _orientation(image)
        if upright:
            ImageOps.exif_transpose(image, in_place=True)
        if not image.mode.startswith(("I", "F")):
            return np.array(image if image.mode == "RGB" else image.convert("RGB")), stated
        grey = np.array(image)
    # Pillow's own conversion of 16-bit grey to RGB cuts off at 255
    if not np.issubdtype(grey.dtype, np.integer) or grey.min() < 0 or grey.max() > 65535:
        raise DataError(f"{name} holds {grey.dtype} values of no known range: convert it to 8 or 16 bits")
    return np.repeat(np.rint(grey / 257).astype(np.uint8)[..., None], 3, axis=2), stated


def image_size(file: str | Path | BinaryIO, name: str | None = None) -> tuple[int, int]:
    """Height and width of an image as it is stored.

    Raises:
        DataError: the file is missing or no image.
    """
    with _opened(file, name or str(file), "image", IMAGE_FORMATS) as image:
        return image.height, image.width


def orientation(file: str | Path | BinaryIO, name: str | None = None) -> int:
    """EXIF orientation of an image, 1 to 8; 1 is upright, and 5 to 8 swap height and width.

    Raises:
        DataError: the file is missing or no image.
    """
    with _opened(file, name or str(file), "image", IMAGE_FORMATS) as image:
        return _orientation(image)


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(ORIENTATION, 1)
    return value if value in range(1, 9) else 1


@contextmanager
def _opened(file: str | Path | BinaryIO, name: str, what: str, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """A picture whose size is acceptable, not loaded yet.

    Raises:
        DataError: whatever goes wrong while it is open.
    """
    try:
        refuse_irregular(file, name)
        with Image.open(file, formats=formats) as image:
            check_pixels((image.height, image.width), name)
            yield image
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of any kind over damaged files
        raise DataError(f"cannot read the {what} {name}: {error}") from error


def refuse_irregular(file: str | Path | BinaryIO, name: str | None = None) -> None:
    """Refuse a path that is no regular file: opening a named pipe or a device would wait or never end.

    Raises:
        DataError: naming what it is.
        OSError: there is nothing at that path.
    """
    if isinstance(file, str | Path) and (kind := not_regular(Path(file))):
        raise DataError(f"{name or file} is {kind}, not a file; it is not opened")


def check_pixels(shape: tuple[int, ...], name: str) -> None:
    """Refuse a declared size that no camera has, before memory is taken for it.

    Args:
        shape: of the array or picture.
        name: what to call it in errors.

    Raises:
        DataError: with the numbers.
    """
    if math.prod(shape) > MAX_PIXELS:
        declared = " x ".join(f"{side:,}" for side in shape)
        raise DataError(f"{name} declares {declared} values; at most {MAX_PIXELS:,} are read of a frame")


def _whole(image: Image.Image, truncated: bool) -> Image.Image:
    """Load an image; whether it may be cut off is a global switch of Pillow's, for all threads."""
    with _SWITCH:
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, truncated
        try:
            image.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before
    return image


def read_depth(
    file: str | Path | BinaryIO, unit: str | float | None, name: str | None = None, max_depth: float = MAX_DEPTH
) -> np.ndarray:
    """Depth [H, W] in float32 metres; 0 where it is not known.

    Args:
        file: see :func:`decode_depth`.
        unit: unit of integers, see :func:`units_per_metre`; floats are metres already.
        name: what to call it in errors.
        max_depth: see :func:`check_depth`.

    Raises:
        DataError: the file is missing, no depth map, in integers of no declared unit, or far outside 0 to max_depth.
    """
    return check_depth(decode_depth(file, unit, name), name or str(file), max_depth)


def decode_depth(
    file: str | Path | BinaryIO, unit: str | float | None, name: str | None = None, bits: int = 8
) -> np.ndarray:
    """Depth [H, W] in float32 metres, as the file has it: unknown depth may have any value.

    A file may declare its own unit: a PNG by its text "depth_unit", any file by a name that ends in ``_mm``. That unit
    counts, and a ``unit`` that differs from it is refused.

    Args:
        file: a 16-bit (or 8- or 32-bit) grey PNG or TIFF, or a .npy file of float metres or of integers.
        unit: unit of integers, see :func:`units_per_metre`; floats are metres, unless the file's name says millimetres.
        name: what to call it in errors.
        bits: least bits of an integer; formats that have 16 refuse files of 8.

    Raises:
        DataError: the file is missing, no depth map, or in integers of no declared unit.
    """
    name = name or str(file)
    raw, declared = _raw_depth(file, name)
    if raw.ndim == 3 and 1 in (raw.shape[0], raw.shape[-1]):
        raw = raw[0] if raw.shape[0] == 1 else raw[..., 0]
    if raw.ndim != 2:
        raise DataError(f"{name} is no depth map: expected [H, W], got {list(raw.shape)}")
    if declared and unit and units_per_metre(declared) != units_per_metre(unit):
        raise DataError(
            f"{name} declares the unit {declared!r} itself, and the unit that was given is {unit!r}: leave out "
            "--depth-unit (or the option unit), or correct the file's name or text"
        )
    if np.issubdtype(raw.dtype, np.integer):
        return _to_metres(raw, declared or unit, name, bits)
    if np.issubdtype(raw.dtype, np.floating):
        with np.errstate(over="ignore"):  # float64 beyond float32's range becomes infinite, which is unknown
            metres = raw.astype(np.float32)
        return metres / np.float32(units_per_metre(declared)) if declared else metres
    raise DataError(f"{name} holds {raw.dtype} values, which are no depth")


def _raw_depth(file: str | Path | BinaryIO, name: str) -> tuple[np.ndarray, str | None]:
    """Values of a depth file as it has them, and the unit that it declares."""
    declared = "mm" if Path(name).stem.lower().endswith("_mm") else None
    if isinstance(file, str | Path) and Path(file).suffix.lower() == ".npy":
        try:
            refuse_irregular(file)
            # maps the file without reading it, so that its header cannot declare more than there is; numpy.load would
            # take archives and pickles too
            mapped = np.lib.format.open_memmap(file, mode="r")
            check_pixels(mapped.shape, name)
            return np.array(mapped), declared
        except DataError:
            raise
        except Exception as error:  # numpy raises errors of any kind over damaged files
            raise DataError(f"cannot read the depth file {name}: {error}") from error
    with _opened(file, name, "depth file", DEPTH_FORMATS) as image:
        if _orientation(image) != 1:
            raise DataError(f"{name} has an EXIF orientation, which depth may not have: store it upright")
        written = image.info.get("depth_unit")
        if written is not None:
            units_per_metre(written)
            if declared and units_per_metre(declared) != units_per_metre(written):
                raise DataError(f"{name} declares two units, {declared!r} by its name and {written!r} by its text")
        return (_grey_of_palette(image, name) if image.mode == "P" else np.asarray(image)), written or declared


def _grey_of_palette(image: Image.Image, name: str) -> np.ndarray:
    """Grey levels of indexed colours: the indices themselves mean nothing."""
    red, green, blue = (np.asarray(channel) for channel in image.convert("RGB").split())
    if not (np.array_equal(red, green) and np.array_equal(red, blue)):
        raise DataError(f"{name} is a picture in colours, which is no depth: give grey levels")
    return red


def _to_metres(raw: np.ndarray, unit: str | float | None, name: str, bits: int) -> np.ndarray:
    largest = raw.max(initial=0)
    if 8 * raw.dtype.itemsize < bits:
        raise DataError(f"{name} holds {raw.dtype} values; depth of this data set has {bits} bits")
    if unit is None:
        raise UndeclaredUnitError(
            f"{name} holds {raw.dtype} values up to {largest} and no unit was declared: give "
            f"--depth-unit, one of {', '.join(UNITS)} or the number of units in a metre"
        )
    if renamed.UNITS.get(str(unit), unit) in SIXTEEN_BIT_UNITS and largest > 65535:
        raise DataError(
            f"{name} holds values up to {largest}, and the unit {unit!r} is defined on 16 bits: it is another"
        )
    return raw.astype(np.float32) / np.float32(units_per_metre(unit))


def likely_unit(largest: float) -> str | None:
    """The named unit that makes integers up to ``largest`` depth of a room or a street; None if there is none."""
    if largest <= MAX_DEPTH:
        return "m"
    if largest <= 20_000:
        return "mm"
    return "nyu-10m" if largest <= 65535 else "mm" if largest <= MAX_DEPTH * UNITS["mm"] else None


def check_depth(depth: np.ndarray, name: str, max_depth: float = MAX_DEPTH) -> np.ndarray:
    """Set unknown depth (NaN, infinite, negative) to 0 and refuse values that cannot be metres.

    Args:
        depth: [H, W] metres.
        name: the frame's, for errors.
        max_depth: deepest median that is believed, metres; more than 100 where the data is from the air.

    Raises:
        DataError: the values are far outside 0 to ``max_depth``; the likely unit is named.
    """
    # most frames pass by counts, at a tenth of the median's time; a NaN fails the first comparison
    plain = depth.min() >= 0 and depth.max() <= max_depth
    if plain and 2 * np.count_nonzero(depth >= 0.01) > np.count_nonzero(depth > 0):
        return depth
    known = (depth > 0) & (depth < np.inf)
    count = np.count_nonzero(known)
    depth = np.where(known, depth, np.float32(0))
    beyond, below = np.count_nonzero(depth > max_depth), np.count_nonzero(depth < 0.01) - (depth.size - count)
    if 2 * max(beyond, below) < count or count == 0:
        return depth
    middle = float(np.median(depth[known]))
    if middle > max_depth:
        unit = likely_unit(middle)
        guess = f" ({unit} would make that {middle / UNITS[unit]:.2f} m)" if unit not in (None, "m") else ""
        raise DataError(
            f"{name}: half of the depths are beyond {middle:,.0f} m, so they are not metres: check --depth-unit"
            f"{guess}. It is for files of integers; files of floats must hold metres already: divide them. If the "
            f"depths are true, say so with the option max_depth={2 * middle:.0f}"
        )
    if middle < 0.01:
        raise DataError(
            f"{name}: half of the depths are below {middle:.5f} m, so the unit is wrong: check --depth-unit "
            "(a unit that was divided out twice, or relative depth, looks like this)"
        )
    return depth
