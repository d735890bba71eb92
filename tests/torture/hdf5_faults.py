# SPDX-License-Identifier: Apache-2.0
"""Faults of HDF5 files: arrays that lie elsewhere, declare absurd sizes or have another type, and damaged indices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import data_files as files
import h5py
import numpy as np
from scipy.io import savemat

from mlr.data.datasets.packed import Frame, write_frames

#: What stands in a file outside the data set; it must never appear in a frame.
SECRET = 171
#: More pixels than any reader takes.
HUGE = (40_000, 40_000)
IMAGE, DEPTH = files.frame(0)
RGB = IMAGE.transpose(2, 0, 1)

# --- what one array of a file may be ----------------------------------------------------------------------------------


def secret(root: Path) -> Path:
    """A file of raw bytes and an HDF5 file beside the data set, as they lie on a user's disk."""
    path = root / "secret.bin"
    path.write_bytes(bytes([SECRET]) * (4 << 20))
    with h5py.File(root / "secret.h5", "w") as file:
        file["x"] = np.full(1 << 20, SECRET, np.uint8)
        file["rgb"], file["depth"] = np.full(RGB.shape, SECRET, np.uint8), np.full(DEPTH.shape, 1.71, np.float32)
    return path


def _external(group: h5py.Group, name: str, value: np.ndarray, root: Path) -> None:
    file = [(str(secret(root)), 0, h5py.h5f.UNLIMITED)]
    group.create_dataset(name, value.shape, value.dtype, external=file)


def _virtual(group: h5py.Group, name: str, value: np.ndarray, root: Path) -> None:
    secret(root)
    layout = h5py.VirtualLayout(value.shape, value.dtype)
    layout[...] = h5py.VirtualSource(str(root / "secret.h5"), "rgb" if value.ndim == 3 else "depth", value.shape)
    group.create_virtual_dataset(name, layout)


def _external_link(group: h5py.Group, name: str, value: np.ndarray, root: Path) -> None:
    secret(root)
    group[name] = h5py.ExternalLink(str(root / "secret.h5"), "rgb" if value.ndim == 3 else "depth")


def _soft_link_out(group: h5py.Group, name: str, value: np.ndarray, root: Path) -> None:
    secret(root)
    group["elsewhere"] = h5py.ExternalLink(str(root / "secret.h5"), "/")
    group[name] = h5py.SoftLink(f"{group.name.rstrip('/')}/elsewhere/{'rgb' if value.ndim == 3 else 'depth'}")


def _huge(group: h5py.Group, name: str, value: np.ndarray, root: Path) -> None:
    shape = (*value.shape[:-2], *HUGE)
    group.create_dataset(name, shape, value.dtype, chunks=(*[1] * (value.ndim - 2), 100, 100))


def _huge_chunk(group: h5py.Group, name: str, value: np.ndarray, root: Path) -> None:
    chunk = (*[1] * (value.ndim - 2), 20_000, 100_000 // value.dtype.itemsize)  # older HDF5 writes at most 4 GB
    group.create_dataset(name, value.shape, value.dtype, chunks=chunk, maxshape=(None,) * value.ndim, compression=1)


def changed(change: Callable[[np.ndarray], Any]) -> Callable[[h5py.Group, str, np.ndarray, Path], None]:
    def put(group: h5py.Group, name: str, value: np.ndarray, root: Path) -> None:
        group[name] = change(value)

    return put


HDF5_ARRAYS: dict[str, Callable[[h5py.Group, str, np.ndarray, Path], None]] = {
    "external storage": _external,
    "virtual data set": _virtual,
    "external link": _external_link,
    "soft link through an external link": _soft_link_out,
    "soft link to itself": lambda group, name, value, root: group.__setitem__(name, h5py.SoftLink(f"/{name}")),
    "declares 40,000 x 40,000": _huge,
    "declares one chunk of 2 GB": _huge_chunk,
    "group": lambda group, name, value, root: group.create_group(name),
    "empty": lambda group, name, value, root: group.create_dataset(name, dtype=value.dtype, data=h5py.Empty("f")),
    "no rows": changed(lambda value: value[:0]),
    "scalar": changed(lambda value: value.ravel()[0]),
    "complex": changed(lambda value: value.astype(np.complex64)),
    "bool": changed(lambda value: value > 0),
    "text": changed(lambda value: "depth"),
    "compound": changed(lambda value: np.zeros(value.shape, [("a", "f4"), ("b", "i4")])),
    "references": lambda group, name, value, root: group.create_dataset(name, value.shape, h5py.ref_dtype),
    "lists of any length": lambda group, name, value, root: group.create_dataset(
        name, value.shape, h5py.vlen_dtype(np.float32)
    ),
    "other size": changed(lambda value: value[..., : value.shape[-1] // 2]),
    "other number of axes": changed(lambda value: value[0]),
}


def nyu_h5(array: str, put: Callable) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        files.write_nyu_h5(root / "set")
        with h5py.File(root / "set/train/kitchen_1/00001.h5", "w") as file:
            for name, value in (("rgb", RGB), ("depth", DEPTH)):
                (put if name == array else changed(lambda x: x))(file, name, value, root)
        return root / "set"

    return write


def nyu(array: str, put: Callable) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
            for name, value in (("images", np.stack([RGB, RGB])), ("depths", np.stack([DEPTH, DEPTH]))):
                value = np.ascontiguousarray(value.swapaxes(-1, -2))
                (put if name == array else changed(lambda x: x))(file, name, value, root)
        savemat(root / "splits.mat", {"trainNdxs": np.array([[1]]), "testNdxs": np.array([[2]])})
        return root

    return write


def packed(change: Callable[[h5py.File, Path], None]) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        path = root / "x.h5"
        frames = [Frame(f"{i}", "folder", "train", *files.frame(i), np.ones(files.SIZE, np.uint8)) for i in range(2)]
        write_frames(path, frames, "none", {"skipped": "[]"})
        with h5py.File(path, "r+") as file:
            change(file, root)
        return path

    return write


def _replaced(name: str, put: Callable) -> Callable[[h5py.File, Path], None]:
    def change(file: h5py.File, root: Path) -> None:
        value = file[name][()]
        del file[name]
        group, _, last = name.rpartition("/")
        put(file[group], last, value, root)

    return change


def _attribute(name: str, value: Any) -> Callable[[h5py.File, Path], None]:
    return lambda file, root: file.attrs.__setitem__(name, value)


def _index(column: str, values: Any) -> Callable[[h5py.File, Path], None]:
    def change(file: h5py.File, root: Path) -> None:
        del file[f"index/{column}"]
        file[f"index/{column}"] = values

    return change


PACKED = {
    **{
        f"{array} is {fault}": _replaced(f"48x64/{array}", put)
        for array in ("image", "depth", "valid")
        for fault, put in HDF5_ARRAYS.items()
    },
    "grey images": _replaced("48x64/image", changed(lambda value: value[..., 0])),
    "images of one channel": _replaced("48x64/image", changed(lambda value: value[..., :1])),
    "fewer rows": _replaced("48x64/image", changed(lambda value: value[:1])),
    "depth of two sizes": _replaced("48x64/depth", changed(lambda value: value[:, :7])),
    "depth of float64": _replaced("48x64/depth", changed(lambda value: value.astype(np.float64))),
    "no group": lambda file, root: file.__delitem__("48x64"),
    "no index": lambda file, root: file.__delitem__("index"),
    "index is an array": lambda file, root: (file.__delitem__("index"), file.__setitem__("index", [1, 2])),
    **{f"short {name}": _index(name, values) for name, values in
       {"id": ["0"], "group": ["48x64"], "row": [0], "crc32": np.array([1], np.uint32), "split": ["train"]}.items()},
    "group leads out": _index("group", ["..", "48x64"]),
    "group is a path": _index("group", ["/index", "48x64"]),
    "group without a name": _index("group", ["", "48x64"]),
    "row beyond": _index("row", [0, 7]),
    "row below": _index("row", [-1, 0]),
    "row of floats": _index("row", [0.5, 1.0]),
    "row of text": _index("row", ["0", "1"]),
    "ids of bytes that are no text": _index("id", np.array([b"\xff\xfe", b"\xff"])),
    "ids of numbers": _index("id", [1, 2]),
    "crc of floats": _index("crc32", [0.0, 1.0]),
    "format of numbers": _attribute("format", np.arange(3)),
    "version of text": _attribute("version", "one"),
    "version of the future": _attribute("version", 99),
    "max_depth of text": _attribute("max_depth", "deep"),
    "max_depth of nothing": _attribute("max_depth", np.nan),
}  # fmt: skip
