# SPDX-License-Identifier: Apache-2.0
"""The packed data set of ``mlr prepare``: one HDF5 file, one frame a chunk, checksums, nothing left to fill.

::

    /                   attributes: format "mlr-packed", version, unit "m", holes, sources, skipped (JSON), ...
    /index/id           [N] text      name of the frame in its data set
    /index/source       [N] text      the data set it came from
    /index/split        [N] text      "train" or "val"
    /index/group        [N] text      the group that holds it: HxW, since frames may differ in size
    /index/row          [N] int64     its row there
    /index/crc32        [N] uint32    of its image, depth and valid bytes
    /480x640/image      [n, 480, 640, 3] uint8
    /480x640/depth      [n, 480, 640] float32 metres, holes filled
    /480x640/valid      [n, 480, 640] uint8, 1 where depth was measured

Files are written under another name and renamed when they are complete.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from mlr.data.datasets.base import DepthDataset, PerProcess
from mlr.data.depth_files import MAX_DEPTH, DataError, check_pixels
from mlr.data.hdf5_files import atomic_hdf5, open_hdf5, reading, stored
from mlr.utils.counted import counted

FORMAT, VERSION = "mlr-packed", 1
ARRAYS = ("image", "depth", "valid")
INDEX = ("id", "source", "split", "group", "row", "crc32")
#: How groups are called: HxW of the image, then of the depth if that has another size.
GROUP = re.compile(r"\d+x\d+(-\d+x\d+)?")
#: HDF5 filters of the arrays by the name of a compression; an array that is not named has none. A 480 x 640 frame of a
#: Kinect takes 2.5 MB and 0.3 ms to read without, 1.1 MB and 2.3 ms with lzf, 0.8 MB and 6 ms with gzip. LZF saves a
#: fifth of an image for 1.8 ms, so it leaves images alone. Shuffled bytes of measured depth, which has few different
#: values, are larger and take longer; only depth of renderers needs them.
COMPRESSIONS: dict[str, dict[str, dict[str, Any]]] = {
    "none": {},
    "lzf": {name: {"compression": "lzf"} for name in ("depth", "valid")},
    "gzip": {name: {"compression": "gzip", "compression_opts": 1, "shuffle": True} for name in ARRAYS},
}


class Frame(NamedTuple):
    """A frame to be packed: image [H, W, 3] uint8, depth [H, W] float32 metres, valid [H, W] uint8."""

    id: str
    dataset: str
    split: str
    image: np.ndarray
    depth: np.ndarray
    valid: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image, depth and valid in their types on disk."""
        return self.image, self.depth.astype(np.float32, copy=False), self.valid.astype(np.uint8, copy=False)

    @property
    def group(self) -> str:
        """Name of its group: its size, and that of the depth if it has another."""
        image, depth = ("x".join(str(side) for side in array.shape[:2]) for array in (self.image, self.depth))
        return image if image == depth else f"{image}-{depth}"


def checksum(image: np.ndarray, depth: np.ndarray, valid: np.ndarray) -> int:
    """CRC-32 of a frame's bytes."""
    value = 0
    for array in (image, depth, valid):
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return value


class Packed(DepthDataset):
    """Frames of a packed file.

    Args:
        root: the file.
        split: "train", "val" or "all".

    Raises:
        DataError: the file is foreign, cut off, of a newer version, or holds no frames of the split.
    """

    own_depth_grid = True  # frames were checked when they were packed
    splits = ("train", "val", "all")

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.path, self.missing = Path(root), []
        self._file = PerProcess(partial(open_packed, self.path))
        with reading(str(self.path)):
            index = {name: np.array(column, dtype=object) for name, column in read_index(self._file()).items()}
            self.max_depth = float(self._file().attrs.get("max_depth", MAX_DEPTH))
            if not self.max_depth > 0:
                raise DataError(f"{self.path}: the attribute max_depth must be positive, got {self.max_depth}")
        splits = index["split"]
        chosen = np.flatnonzero((splits == split) | (split == "all"))
        if not len(chosen):
            held = ", ".join(f"{count} {name}" for name, count in sorted(Counter(splits.tolist()).items()))
            raise DataError(f"{self.path} holds no frames of the split {split!r}, but {held or 'none at all'}")
        self.ids, self.groups = index["id"][chosen], index["group"][chosen]
        self.rows, self.checksums = index["row"][chosen], index["crc32"][chosen]
        self._checked = np.zeros(len(chosen), dtype=bool)
        with reading(str(self.path)):
            for group in sorted(set(self.groups)):
                check_group(self._file(), group, self.rows[self.groups == group])

    def __len__(self) -> int:
        return len(self.ids)

    def name(self, index: int) -> str:
        """Its name in the data set it came from."""
        return str(self.ids[index])

    def read_all(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image, depth, which may be filled, and where it was measured.

        Raises:
            DataError: the bytes are not those that were written.
        """
        with reading(f"{self.path}, {self.name(index)},"):
            arrays = _arrays(self._file(), self.groups[index])
            image, depth, valid = (array[int(self.rows[index])] for array in arrays)
        if not self._checked[index]:  # once a process: a checksum takes as long as reading
            if checksum(image, depth, valid) != self.checksums[index]:
                raise DataError(
                    f"{self.path}: {self.name(index)} is damaged: its checksum differs; prepare the file again"
                )
            self._checked[index] = True
        return image, depth, valid

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and measured depth, 0 where it was not measured."""
        image, depth, valid = self.read_all(index)
        return image, np.where(valid > 0, depth, np.float32(0))

    def __repr__(self) -> str:
        return f"{counted(len(self), 'frame')} of {self.path}"


def open_packed(path: Path) -> h5py.File:
    """Open a packed file for reading.

    Raises:
        DataError: it is foreign, cut off or of a newer version.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; a packed data set is one file, written by mlr prepare")
    file = open_hdf5(path, "a packed data set (HDF5)")
    with reading(str(path)):
        if file.attrs.get("format") != FORMAT or "index" not in file:
            raise DataError(f"{path} is HDF5, but no packed data set; mlr prepare writes them")
        version = int(file.attrs["version"])
    if version > VERSION:
        raise DataError(f"{path} has version {version} of the format; this program reads up to {VERSION}")
    return file


def read_index(file: h5py.File) -> dict[str, list]:
    """Columns of a packed file's index.

    Raises:
        DataError: a column is missing, of another type, or shorter than the others.
    """
    columns: dict[str, list] = {}
    for name in INDEX:
        numbers = name in ("row", "crc32")
        column = stored(file, f"index/{name}", 1, "ui" if numbers else "OS")
        columns[name] = (column[:] if numbers else column.asstr()[:]).tolist()
    if len(lengths := {name: len(column) for name, column in columns.items()}) and len(set(lengths.values())) > 1:
        raise DataError(f"{file.filename}: the columns of its index differ in length: {lengths}")
    return columns


def check_group(file: h5py.File, group: str, rows: np.ndarray) -> None:
    """Refuse a group whose arrays are not those of frames, or that has fewer rows than the index names.

    Raises:
        DataError: naming the group.
    """
    what = f"{file.filename}: group {group!r}"
    if not GROUP.fullmatch(group):
        raise DataError(f"{what} has no name of the form HxW")
    arrays = _arrays(file, group)
    image, depth, valid = (array.shape for array in arrays)
    types = [str(array.dtype) for array in arrays]
    if types != ["uint8", "float32", "uint8"] or image[3] != 3 or depth != valid or image[0] != depth[0]:
        raise DataError(
            f"{what} must hold image [n, H, W, 3] uint8, depth [n, h, w] float32 and valid [n, h, w] uint8, got "
            f"{image}, {depth}, {valid} of {', '.join(types)}"
        )
    check_pixels(image[1:3], what)
    check_pixels(depth[1:], what)
    if min(rows) < 0 or max(rows) >= image[0]:
        raise DataError(f"{what} has {image[0]} rows, and the index names row {max(rows)}")


def _arrays(file: h5py.File, group: str) -> list[h5py.Dataset]:
    return [stored(file, f"{group}/{name}", 4 if name == "image" else 3) for name in ARRAYS]


# --- writing ----------------------------------------------------------------------------------------------------------


def write_frames(path: Path, frames: Iterable[Frame], compression: str, attributes: dict[str, Any]) -> int:
    """Write frames into a packed file of their own, which is complete or absent.

    Args:
        path: the file.
        frames: in order.
        compression: a key of :data:`COMPRESSIONS`.
        attributes: more attributes of the file; read after the last frame.

    Returns:
        The number of frames.
    """
    rows: Counter[str] = Counter()
    index: dict[str, list] = {name: [] for name in INDEX}
    with atomic_hdf5(path, path.parent) as (file, disk):
        file.attrs.update(format=FORMAT, version=VERSION, unit="m")
        for frame in frames:
            if disk.error is not None:
                break
            arrays = frame.arrays
            group, row = file.require_group(frame.group), rows[frame.group]
            for name, array in zip(ARRAYS, arrays, strict=True):
                if name not in group:
                    _create(group, name, 0, array.shape, array.dtype, COMPRESSIONS[compression].get(name, {}))
                group[name].resize(row + 1, axis=0)
                group[name][row] = array
            rows[frame.group] += 1
            entry = (frame.id, frame.dataset, frame.split, frame.group, row, checksum(*arrays))
            for name, value in zip(INDEX, entry, strict=True):
                index[name].append(value)
        _write_index(file, index)
        file.attrs.update(attributes)
    return len(index["id"])


def join(parts: list[Path], path: Path, attributes: dict[str, Any]) -> int:
    """Join packed files into one; frames are copied as they are, still compressed.

    Args:
        parts: the files; the new one is written beside them.
        path: the new file.
        attributes: more attributes of it.

    Returns:
        The number of frames.
    """
    index: dict[str, list] = {name: [] for name in INDEX}
    rows: Counter[str] = Counter()
    with atomic_hdf5(path, parts[0].parent) as (file, disk):
        file.attrs.update(format=FORMAT, version=VERSION, unit="m")
        for part_path in parts:
            if disk.error is not None:
                break
            with open_packed(part_path) as part:
                first = dict(rows)
                entries = read_index(part)
                for group in sorted(set(entries["group"])):
                    count = part[group]["image"].shape[0]
                    for name in ARRAYS:
                        _copy(part[group][name], file, f"{group}/{name}", rows[group])
                    rows[group] += count
                entries["row"] = [
                    row + first.get(group, 0) for row, group in zip(entries["row"], entries["group"], strict=True)
                ]
                for name in INDEX:
                    index[name] += entries[name]
        _write_index(file, index)
        file.attrs.update(attributes)
    return len(index["id"])


def _create(
    parent: h5py.Group, name: str, rows: int, shape: tuple[int, ...], dtype: np.dtype, filters: dict[str, Any]
) -> h5py.Dataset:
    return parent.create_dataset(
        name, (rows, *shape), dtype=dtype, chunks=(1, *shape), maxshape=(None, *shape), **filters
    )


def _copy(source: h5py.Dataset, file: h5py.File, name: str, first: int) -> None:
    """Append the chunks of a data set, still compressed where the other has the same filters."""
    if name not in file:
        _create(file, name, 0, source.shape[1:], source.dtype, _filters(source))
    target = file[name]
    target.resize(first + source.shape[0], axis=0)
    same, corner = _filters(source) == _filters(target), (0,) * (source.ndim - 1)
    for row in range(source.shape[0]):
        if same:
            mask, chunk = source.id.read_direct_chunk((row, *corner))
            target.id.write_direct_chunk((first + row, *corner), chunk, mask)
        else:  # a part that an earlier version wrote
            target[first + row] = source[row]


def _filters(array: h5py.Dataset) -> dict[str, Any]:
    return {name: getattr(array, name) for name in ("compression", "compression_opts", "shuffle")}


def _write_index(file: h5py.File, index: dict[str, list]) -> None:
    group = file.create_group("index")
    for name in INDEX:
        dtype: Any = {"row": np.int64, "crc32": np.uint32}.get(name, h5py.string_dtype())
        group.create_dataset(name, data=np.array(index[name], dtype=dtype))
