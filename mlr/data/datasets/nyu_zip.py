# SPDX-License-Identifier: Apache-2.0
"""NYU Depth v2 as the paper's authors ship it: zip archives of RGB images and 16-bit depth.

``train795.zip``, ``train_reduced05.zip`` (8 GB) and ``test654.zip`` hold a list ``<name>/train.csv`` or
``<name>/test.csv`` of ``rgb_path,depth_path`` rows. Depth is v / 65535 * 10 metres, its holes filled. Members are read
out of the archive one by one, when they are asked for.
"""

from __future__ import annotations

import csv
import io
import zipfile
from functools import partial
from pathlib import Path

import numpy as np

from mlr.data.datasets.base import DepthDataset, PerProcess
from mlr.data.depth_files import DataError, decode_depth, read_image, refuse_irregular
from mlr.utils.counted import counted

#: Archives of each split, in the order they are looked for.
ARCHIVES = {"train": ("train795.zip", "train_reduced05.zip"), "val": ("test654.zip",)}
#: A member that declares more bytes unpacked is refused.
MAX_MEMBER = 256 << 20


class NYUZip(DepthDataset):
    """Frames in one of the authors' archives.

    Args:
        root: folder of the archives, or one of them; validation frames are then looked for beside it.
        split: "train" or "val".
        archive: which file to take, where a folder holds more than one, e.g. "train_reduced05.zip".

    Raises:
        DataError: there is no such archive, it is cut off, or it holds no list of frames.
    """

    def __init__(self, root: str | Path, split: str = "train", archive: str | None = None) -> None:
        self.path = find_archive(Path(root), split, archive)
        self._zip = PerProcess(partial(open_zip, self.path))
        names = set(self._zip().namelist())
        self.pairs, self.missing = [], []
        for rgb, depth in read_rows(self._zip(), self.path, "train" if split == "train" else "test"):
            lost = [member for member in (rgb, depth) if member not in names]
            if lost:
                self.missing.append(f"{self.path.name} has no {lost[0]}")
            else:
                self.pairs.append((rgb, depth))
        if not self.pairs:
            raise DataError(f"{self.path}: none of the {len(self.missing)} listed pairs is in the archive")

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """The image's path in the archive."""
        return self.pairs[index][0]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and depth of a frame."""
        rgb, depth = self.pairs[index]
        image = read_image(self._member(rgb), f"{self.path}:{rgb}", upright=False)
        return image, decode_depth(self._member(depth), "nyu-10m", f"{self.path}:{depth}", bits=16)

    def _member(self, name: str) -> io.BytesIO:
        return io.BytesIO(_unpacked(self._zip(), self.path, name))

    def __repr__(self) -> str:
        return f"{counted(len(self), 'frame')} of {self.path}"


def find_archive(root: Path, split: str, archive: str | None) -> Path:
    """The archive of a split."""
    folder = root.parent if root.suffix == ".zip" else root
    if archive is not None:
        candidates = [folder / archive]
    elif root.suffix == ".zip" and (split == "train" or root.name in ARCHIVES["val"]):
        candidates = [root]
    else:
        candidates = [folder / name for name in ARCHIVES[split]]
    for path in candidates:
        if path.is_file():
            return path
    raise DataError(f"there is no file {' or '.join(str(path) for path in candidates)}")


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open for reading: only the table of contents is loaded."""
    try:
        refuse_irregular(path)
        return zipfile.ZipFile(path)
    except Exception as error:  # a damaged table of contents brings about errors of any kind
        raise DataError(f"{path} is not a zip archive, or it is cut off: {error}") from error


def _unpacked(archive: zipfile.ZipFile, path: Path, name: str) -> bytes:
    """Contents of a member: no more than its header declares, and that is bounded."""
    try:
        size = archive.getinfo(name).file_size
        if size > MAX_MEMBER:
            raise DataError(f"it declares {size:,} bytes; at most {MAX_MEMBER:,} are read")
        return archive.read(name)
    except Exception as error:  # of zipfile's own, of zlib's, and whatever damaged headers bring about
        raise DataError(f"{path}: cannot read {name}: {error}") from error


def read_rows(archive: zipfile.ZipFile, path: Path, split: str) -> list[tuple[str, str]]:
    """Rows of the archive's list; lines may end in CR LF."""
    lists = [name for name in archive.namelist() if name == f"{split}.csv" or name.endswith(f"/{split}.csv")]
    if not lists:
        raise DataError(f"{path} holds no {split}.csv; is it the archive of the other split?")
    name = min(lists, key=len)
    try:
        table = list(csv.reader(_unpacked(archive, path, name).decode("utf-8-sig").splitlines()))
    except DataError:
        raise
    except Exception as error:  # of csv or the text's encoding
        raise DataError(f"{path}: cannot read {name}: {error}") from error
    rows = []
    for number, row in enumerate(table, 1):
        if not row:
            continue
        if len(row) < 2:
            raise DataError(f"{path}, {name} line {number}: expected rgb_path,depth_path, got {','.join(row)!r}")
        rows.append((row[0].strip().lstrip("/"), row[1].strip().lstrip("/")))
    return rows
