# SPDX-License-Identifier: Apache-2.0
"""Data sets that are damaged, foreign or malicious, made by code: one fault each, for every reader.

``CASES`` lists them as (data set, fault, writer): the writer makes the data set in an empty folder and returns what
``--root`` is. Opening and reading it must end in a sentence (``DataError``), or give finite depth: never a traceback of
another kind, a file of this machine in the pixels, or a wait. :func:`damaged` makes further ones at random.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import data_files as files
import h5py
import numpy as np
from PIL import Image
from scipy.io import savemat

from mlr.data.datasets.packed import Frame, write_frames

#: What stands in a file outside the data set; it must never appear in a frame.
SECRET = 171
#: More pixels than any reader takes.
HUGE = (40_000, 40_000)
IMAGE, DEPTH = files.frame(0)
RGB = IMAGE.transpose(2, 0, 1)


class Case(NamedTuple):
    """A data set with one fault."""

    dataset: str
    fault: str
    write: Callable[[Path], Path]


# --- HDF5: what one array of a file may be ----------------------------------------------------------------------------


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
    chunk = (*[1] * (value.ndim - 2), 30_000, 40_000)
    group.create_dataset(name, value.shape, value.dtype, chunks=chunk, maxshape=(None,) * value.ndim, compression=1)


def _as(change: Callable[[np.ndarray], Any]) -> Callable[[h5py.Group, str, np.ndarray, Path], None]:
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
    "declares one chunk of 30,000 x 40,000": _huge_chunk,
    "group": lambda group, name, value, root: group.create_group(name),
    "empty": lambda group, name, value, root: group.create_dataset(name, dtype=value.dtype, data=h5py.Empty("f")),
    "no rows": _as(lambda value: value[:0]),
    "scalar": _as(lambda value: value.ravel()[0]),
    "complex": _as(lambda value: value.astype(np.complex64)),
    "bool": _as(lambda value: value > 0),
    "text": _as(lambda value: "depth"),
    "compound": _as(lambda value: np.zeros(value.shape, [("a", "f4"), ("b", "i4")])),
    "references": lambda group, name, value, root: group.create_dataset(name, value.shape, h5py.ref_dtype),
    "lists of any length": lambda group, name, value, root: group.create_dataset(
        name, value.shape, h5py.vlen_dtype(np.float32)
    ),
    "other size": _as(lambda value: value[..., : value.shape[-1] // 2]),
    "other number of axes": _as(lambda value: value[0]),
}


def _nyu_h5(array: str, put: Callable) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        files.write_nyu_h5(root / "set")
        with h5py.File(root / "set/train/kitchen_1/00001.h5", "w") as file:
            for name, value in (("rgb", RGB), ("depth", DEPTH)):
                (put if name == array else _as(lambda x: x))(file, name, value, root)
        return root / "set"

    return write


def _nyu(array: str, put: Callable) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
            for name, value in (("images", np.stack([RGB, RGB])), ("depths", np.stack([DEPTH, DEPTH]))):
                value = np.ascontiguousarray(value.swapaxes(-1, -2))
                (put if name == array else _as(lambda x: x))(file, name, value, root)
        savemat(root / "splits.mat", {"trainNdxs": np.array([[1]]), "testNdxs": np.array([[2]])})
        return root

    return write


def _packed(change: Callable[[h5py.File, Path], None]) -> Callable[[Path], Path]:
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
    "grey images": _replaced("48x64/image", _as(lambda value: value[..., 0])),
    "images of one channel": _replaced("48x64/image", _as(lambda value: value[..., :1])),
    "fewer rows": _replaced("48x64/image", _as(lambda value: value[:1])),
    "depth of two sizes": _replaced("48x64/depth", _as(lambda value: value[:, :7])),
    "depth of float64": _replaced("48x64/depth", _as(lambda value: value.astype(np.float64))),
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


# --- pictures, archives, tables ---------------------------------------------------------------------------------------


def png(height: int, width: int, bits: int = 8, colour: int = 0) -> bytes:
    """A PNG whose header declares a size, with next to no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def npy(shape: str, kind: str = "<f4", body: bytes = b"") -> bytes:
    """A .npy file of any header."""
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (63 - (len(head) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body


def _saved(array: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def _numpy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\nshowpage\n%%EOF\n"
PICTURES = {
    "nothing": b"",
    "text": b"hello",
    "EPS, which starts a program": EPS,
    "40,000 x 40,000 declared": png(*HUGE),
    "no pixels": png(0, 64),
    "half": files.encoded(IMAGE)[:300],
    "floats in TIFF": _saved(DEPTH * 1e9, "TIFF"),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='64' height='48'/>",
}
DEPTHS = {
    **PICTURES,
    "40,000 x 40,000 in npy": npy("(40000, 40000)"),
    "more bytes declared than there are": npy("(48, 64)", body=bytes(100)),
    "negative shape": npy("(-1, 64)"),
    "shape of another type": npy("'48'"),
    "pickle": _numpy(np.array([[{}]], dtype=object)),
    "archive": b"PK\x05\x06" + bytes(18),
    "complex": _numpy(DEPTH.astype(np.complex64)),
    "bool": _numpy(DEPTH > 0),
    "times": _numpy(DEPTH.astype("datetime64[s]")),
    "text array": _numpy(np.array([["a", "b"]])),
    "one axis": _numpy(DEPTH[0]),
    "no rows": _numpy(DEPTH[:0]),
    "other size": _numpy(DEPTH[:7]),
    "float64 beyond float32": _numpy(np.full(files.SIZE, 1e300)),
    "colours": files.encoded(IMAGE),
    "palette of colours": _saved(np.asarray(IMAGE), "PNG") and (lambda f: (Image.fromarray(IMAGE).quantize(16).save(
        f, "PNG"), f.getvalue())[1])(io.BytesIO()),
    "one bit": (lambda f: (Image.fromarray(DEPTH > 1.5).save(f, "PNG"), f.getvalue())[1])(io.BytesIO()),
}  # fmt: skip


def _folder(kind: str, content: bytes) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        files.write_folder(root, range(3))
        suffix = ".npy" if content.startswith((b"\x93NUMPY", b"PK")) else ".png"
        (root / kind / "001.png").unlink()
        files.write(root / kind / f"001{suffix}", content)
        return root

    return write


def _special(make: Callable[[Path], Any], kind: str) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        files.write_folder(root / "set", range(3))
        path = root / "set" / kind / "001.png"
        path.unlink()
        make(path)
        return root / "set"

    return write


def _bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        here = os.open(".", os.O_RDONLY)
        try:
            os.chdir(path.parent)  # names of sockets are short
            opened.bind(path.name)
        finally:
            os.fchdir(here)
            os.close(here)


SPECIAL: dict[str, Callable[[Path], Any]] = {
    "named pipe": os.mkfifo,
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "broken link": lambda path: path.symlink_to("/nowhere"),
    "folder": lambda path: path.mkdir(),
    "socket": _bind,
}


def _loop(root: Path) -> Path:
    files.write_folder(root, range(3))
    for kind in ("rgb", "depth"):
        (root / kind / "again").symlink_to("..")
        (root / kind / "and_again").symlink_to(".")
    return root


def _piped(writer: Callable[[Path], Any], name: str) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        writer(root)
        (root / name).unlink()
        os.mkfifo(root / name)
        return root

    return write


def _zip(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        with zipfile.ZipFile(root / "train795.zip", "w", compression) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return root

    return write


def _zip_bomb(root: Path) -> Path:
    with zipfile.ZipFile(root / "train795.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.csv", "rgb.png,depth.png")
        archive.writestr("depth.png", b"")
        with archive.open("rgb.png", "w") as member:
            for _ in range(257):
                member.write(bytes(1 << 20))
    return root


ZIPS = {
    "no list": _zip({"a.png": b""}),
    "list of nothing": _zip({"train.csv": b""}),
    "list that is no text": _zip({"train.csv": b"\xff\xfe\x00"}),
    "list of one column": _zip({"train.csv": b"rgb.png"}),
    "list of names that are not there": _zip({"train.csv": b"../../etc/passwd,/etc/passwd"}),
    "pictures that are none": _zip({"train.csv": b"a,b", "a": b"x", "b": b"y"}),
    "257 MB of zeros": _zip_bomb,
}


def _parquet(change: Callable[[Any], dict[str, Any]]) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        import pyarrow as pa
        from pyarrow import parquet

        (root / "data").mkdir()
        parquet.write_table(pa.table(change(pa)), root / "data/train-0.parquet")
        return root

    return write


def _nested(pa: Any, value: np.ndarray, kind: Any) -> Any:
    return pa.array([value.tolist()], pa.list_(pa.list_(pa.list_(kind))))


def _columns(pa: Any, image: Any = None, depth: Any = None) -> dict[str, Any]:
    return {
        "image": _nested(pa, RGB / np.float32(255), pa.float32()) if image is None else image,
        "depth": _nested(pa, DEPTH[None], pa.float32()) if depth is None else depth,
    }


def _decimals(pa: Any) -> Any:
    from decimal import Decimal

    return pa.array([[[[Decimal("1.5")] * 64] * 48]], pa.list_(pa.list_(pa.list_(pa.decimal128(5, 2)))))


PARQUETS = {
    "lists of text": lambda pa: _columns(pa, depth=pa.array([[[["a"] * 64] * 48]])),
    "decimals": lambda pa: _columns(pa, depth=_decimals(pa)),
    "structs": lambda pa: _columns(pa, depth=pa.array([{"a": 1.0}])),
    "lists of structs": lambda pa: _columns(pa, depth=pa.array([[[[{"a": 1.0}] * 64] * 48]])),
    "bool": lambda pa: _columns(pa, depth=_nested(pa, DEPTH[None] > 0, pa.bool_())),
    "integers": lambda pa: _columns(pa, depth=_nested(pa, DEPTH[None].astype(int), pa.int32())),
    "gaps": lambda pa: _columns(pa, depth=pa.array([[[[None, 1.0] * 32] * 48]])),
    "no list": lambda pa: _columns(pa, depth=pa.array([None], pa.list_(pa.list_(pa.list_(pa.float32()))))),
    "bytes": lambda pa: _columns(pa, image=pa.array([b"png"])),
    "numbers": lambda pa: _columns(pa, image=pa.array([1.0])),
    "ragged": lambda pa: _columns(pa, depth=pa.array([[[[1.0] * 64] * 47 + [[1.0] * 63]]])),
    "other size": lambda pa: _columns(pa, depth=_nested(pa, DEPTH[None, :7], pa.float32())),
    "image in 0-255": lambda pa: _columns(pa, image=_nested(pa, RGB.astype(np.float32), pa.float32())),
    "image of NaN": lambda pa: _columns(pa, image=_nested(pa, RGB * np.float32("nan"), pa.float32())),
    "no column": lambda pa: {"image": pa.array([1.0])},
    "no rows": lambda pa: {name: column[:0] for name, column in _columns(pa).items()},
}


def _mat(content: dict[str, Any]) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        files.write_make3d(root, "Train400Img", "Train400Depth")
        for path in (root / "Train400Depth").iterdir():
            savemat(path, content, do_compression=True)
        return root

    return write


MATS = {
    "no grid": {"x": 1.0},
    "complex": {"Position3DGrid": np.full((5, 7, 4), 2 + 1j)},
    "bool": {"Position3DGrid": np.full((5, 7, 4), True)},
    "text": {"Position3DGrid": "grid"},
    "cells": {"Position3DGrid": np.array([[1, "a"]], dtype=object)},
    "struct": {"Position3DGrid": {"a": 1.0}},
    "two axes": {"Position3DGrid": np.ones((5, 4))},
    "no rows": {"Position3DGrid": np.ones((0, 7, 4))},
}


def _huge_mat(root: Path) -> Path:
    files.write_make3d(root, "Train400Img", "Train400Depth")
    for path in (root / "Train400Depth").iterdir():
        savemat(path, {"Position3DGrid": np.ones((5, 7, 4))})
        path.write_bytes(path.read_bytes().replace(struct.pack("<iii", 5, 7, 4), struct.pack("<iii", *HUGE, 4)))
    return root


def _splits(content: dict[str, Any]) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        _nyu("", _as(lambda x: x))(root)
        savemat(root / "splits.mat", content)
        return root

    return write


SPLITS = {
    "complex": {"trainNdxs": np.array([[1 + 1j]])},
    "text": {"trainNdxs": "1"},
    "halves": {"trainNdxs": np.array([[1.5]])},
    "NaN": {"trainNdxs": np.array([[np.nan]])},
    "zero": {"trainNdxs": np.array([[0]])},
    "beyond": {"trainNdxs": np.array([[3]])},
    "nothing": {"trainNdxs": np.zeros((0, 0))},
    "cells": {"trainNdxs": np.array([[1, "a"]], dtype=object)},
}


def _text(dataset: str, name: str, content: bytes) -> Case:
    writers: dict[str, Callable[[Path], Any]] = {"kitti": files.write_kitti, "nyu-sync": files.write_nyu_sync}

    def write(root: Path) -> Path:
        writers.get(dataset, lambda root: files.write_folder(root, range(3)))(root)
        files.write(root / name, content)
        return root

    return Case(dataset, f"{name} is {content[:12]!r}", write)


LISTS = (b"", b"\xff\xfe\x00\x01", b"a", b"../../../etc/passwd /etc/passwd", b"a b c d", b"\x00" * 50, b"a,b\n\x00,")

CASES: list[Case] = [
    *(Case("nyu-h5", f"{array} is {fault}", _nyu_h5(array, put))
      for array in ("rgb", "depth") for fault, put in HDF5_ARRAYS.items()),
    *(Case("nyu", f"{array} is {fault}", _nyu(array, put))
      for array in ("images", "depths") for fault, put in HDF5_ARRAYS.items()),
    *(Case("nyu", f"split of {fault}", _splits(content)) for fault, content in SPLITS.items()),
    *(Case("packed", fault, _packed(change)) for fault, change in PACKED.items()),
    *(Case("folder", f"rgb is {fault}", _folder("rgb", content)) for fault, content in PICTURES.items()),
    *(Case("folder", f"depth is {fault}", _folder("depth", content)) for fault, content in DEPTHS.items()),
    *(Case("folder", f"{kind} is a {fault}", _special(make, kind))
      for kind in ("rgb", "depth") for fault, make in SPECIAL.items()),
    Case("folder", "folders that link to themselves", _loop),
    *(Case("nyu-zip", fault, write) for fault, write in ZIPS.items()),
    *(Case("nyu-parquet", fault, _parquet(change)) for fault, change in PARQUETS.items()),
    *(Case("make3d", fault, _mat(content)) for fault, content in MATS.items()),
    Case("make3d", "declares 40,000 x 40,000", _huge_mat),
    *(_text("kitti", "eigen_train_files_with_gt.txt", content) for content in LISTS),
    *(_text("nyu-sync", "nyudepthv2_train_files_with_gt.txt", content) for content in LISTS),
    *(_text("folder", name, content) for name in ("pairs.csv", "train.csv") for content in LISTS),
    Case("nyu-h5", "a pipe", _piped(files.write_nyu_h5, "train/kitchen_1/00001.h5")),
    Case("nyu-sync", "a pipe", _piped(files.write_nyu_sync, "sync/kitchen_0028a/rgb_00000.jpg")),
    Case("nyu-sync", "a list that is a pipe", _piped(files.write_nyu_sync, "nyudepthv2_train_files_with_gt.txt")),
    Case("folder", "a list that is a pipe", lambda root: (files.write_folder(root, range(2)), os.mkfifo(
        root / "pairs.csv"), root)[-1]),
    Case("packed", "a pipe", lambda root: (os.mkfifo(root / "x.h5"), root / "x.h5")[-1]),
    Case("packed", "a device", lambda root: Path("/dev/zero")),
    Case("packed", "a folder", lambda root: root),
    Case("nyu-zip", "a pipe", lambda root: (os.mkfifo(root / "train795.zip"), root)[-1]),
    Case("nyu-parquet", "a pipe", lambda root: (os.mkfifo(root / "train-0.parquet"), root)[-1]),
]  # fmt: skip


# --- damage at random -------------------------------------------------------------------------------------------------

#: Whole data sets: name -> (writer, split, files that are damaged).
WHOLE: dict[str, tuple[Callable[[Path], Any], str, tuple[str, ...]]] = {
    "nyu-h5": (files.write_nyu_h5, "val", ("val/official/00001.h5",)),
    "nyu-zip": (lambda root: files.write_nyu_zip(root / "train795.zip", "train", range(2)), "train", ("train795.zip",)),
    "nyu-sync": (
        files.write_nyu_sync,
        "val",
        ("official_splits/test/bathroom/sync_depth_00045.png", "official_splits/test/bathroom/rgb_00045.jpg"),
    ),
    "make3d": (files.write_make3d, "val", (f"Gridlaserdata/depth_sph_corr-{files.MAKE3D_NAMES[0]}.mat",)),
    "folder": (lambda root: files.write_folder(root, range(2)), "train", ("rgb/001.png", "depth/001.png")),
    "nyu": (_nyu("", _as(lambda x: x)), "train", ("nyu_depth_v2_labeled.mat", "splits.mat")),
    "packed": (_packed(lambda file, root: None), "train", ("x.h5",)),
    "nyu-parquet": (
        lambda root: files.write_nyu_parquet(root, "train", range(3)),
        "train",
        ("data/train-00000-of-00001.parquet",),
    ),
}


def damaged(dataset: str, root: Path, count: int, seed: int = 0) -> Iterator[tuple[str, Path, str]]:
    """Damage a whole data set again and again: cut a file off, overwrite 1 to 40 bytes, or double a stretch.

    Yields:
        What was done, the root, and the split; the files are as they were before the next turn.
    """
    writer, split, names = WHOLE[dataset]
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    place = writer(root)
    random = np.random.default_rng(seed)
    for turn in range(count):
        path = root / names[turn % len(names)]
        whole = path.read_bytes()
        content, start = bytearray(whole), int(random.integers(len(whole)))
        kind = ("cut off", "overwritten", "doubled")[int(random.integers(3))]
        if kind == "cut off":
            del content[start:]
        elif kind == "overwritten":
            length = int(random.integers(1, 41))
            content[start : start + length] = random.bytes(length)
        else:
            content[start:start] = content[start : start + int(random.integers(1, 200))]
        path.write_bytes(content)
        yield f"{path.name} {kind} at {start}", place if isinstance(place, Path) else root, split
        path.write_bytes(whole)
