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
import numpy as np
from PIL import Image
from scipy.io import savemat
from torture.hdf5_faults import DEPTH, HDF5_ARRAYS, HUGE, IMAGE, PACKED, RGB, changed, nyu, nyu_h5, packed


class Case(NamedTuple):
    """A data set with one fault."""

    dataset: str
    fault: str
    write: Callable[[Path], Path]


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
        nyu("", changed(lambda x: x))(root)
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
    writers: dict[str, Callable[[Path], Any]] = {
        "kitti": files.write_kitti,
        "nyu-sync": files.write_nyu_sync,
        "matterport3d": files.write_matterport3d,
    }

    def write(root: Path) -> Path:
        writers.get(dataset, lambda root: files.write_folder(root, range(3)))(root)
        files.write(root / name, content)
        return root

    return Case(dataset, f"{name} is {content[:12]!r}", write)


def _sun_split(cells: Any) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        files.write_sunrgbd(root)
        path = root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
        savemat(path, {"alltrain": cells, "alltest": cells})
        return root

    return write


SUN_SPLITS = {
    "numbers": np.array([[1.0, 2.0]]),
    "nothing": np.zeros((0, 0)),
    "empty cells": np.array([[np.zeros((0, 0))]], dtype=object),
    "one text": "/n/fs/sun3d/data/SUNRGBD/kv2",
    "paths out of the root": np.array([["/n/SUNRGBD/../../secret"]], dtype=object),
}

LISTS = (b"", b"\xff\xfe\x00\x01", b"a", b"../../../etc/passwd /etc/passwd", b"a b c d", b"\x00" * 50, b"a,b\n\x00,")

CASES: list[Case] = [
    *(Case("nyu-h5", f"{array} is {fault}", nyu_h5(array, put))
      for array in ("rgb", "depth") for fault, put in HDF5_ARRAYS.items()),
    *(Case("nyu", f"{array} is {fault}", nyu(array, put))
      for array in ("images", "depths") for fault, put in HDF5_ARRAYS.items()),
    *(Case("nyu", f"split of {fault}", _splits(content)) for fault, content in SPLITS.items()),
    *(Case("packed", fault, packed(change)) for fault, change in PACKED.items()),
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
    *(Case("sunrgbd", f"split of {fault}", _sun_split(cells)) for fault, cells in SUN_SPLITS.items()),
    *(_text("matterport3d", "tasks/benchmark/scenes_train.txt", content) for content in LISTS),
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
    "sunrgbd": (
        files.write_sunrgbd,
        "train",
        (
            "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat",
            f"SUNRGBD/{files.SUN_FRAMES[0]}/depth_bfx/0000000_abs.png",
        ),
    ),
    "folder": (lambda root: files.write_folder(root, range(2)), "train", ("rgb/001.png", "depth/001.png")),
    "nyu": (nyu("", changed(lambda x: x)), "train", ("nyu_depth_v2_labeled.mat", "splits.mat")),
    "packed": (packed(lambda file, root: None), "train", ("x.h5",)),
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
