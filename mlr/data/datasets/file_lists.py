# SPDX-License-Identifier: Apache-2.0
"""Data sets that are a list of file names and folders they are looked for in: BTS's NYU "sync" set, KITTI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlr.data.datasets.base import DepthDataset
from mlr.data.depth_files import DataError, decode_depth, read_image, refuse_irregular
from mlr.utils.counted import counted


class Pair(NamedTuple):
    """An image and its depth file."""

    name: str
    image: Path
    depth: Path


def read_list(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and blank-separated fields of a list; leading slashes and CR LF are dropped."""
    try:
        refuse_irregular(path)
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list {path}: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        fields = [field.lstrip("/") for field in line.split()]
        if fields:
            yield number, fields


def find_list(root: Path, given: str | Path | None, names: Iterable[str]) -> Path:
    """The list: as given (also relative to the root), or one of the usual names in the root or beside it."""
    if given is not None:
        candidates = [Path(given), root / given]
    else:
        candidates = [folder / name for folder in (root, root.parent) for name in names]
    for path in candidates:
        if path.is_file():
            return path
    looked = ", ".join(str(path) for path in candidates)
    raise DataError(f"there is no list of frames: looked for {looked}; name it with the option list_file=FILE")


def first_file(folders: Iterable[Path], *names: str) -> Path | None:
    """The first of some names that is a file in one of some folders."""
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


class ListedPairs(DepthDataset):
    """Pairs of image and 16-bit depth files that a list names; pairs that are not there are named and left out.

    Attributes:
        list_file: the list's file.
        unit: unit of the depth files.
        pairs: the pairs that are there.
    """

    unit: str
    list_file: Path
    pairs: list[Pair]
    tolerant = True

    def gather(self, entries: Iterable[Pair | str]) -> None:
        """Sort the list's entries into pairs and those that are missing.

        Raises:
            DataError: no pair is there, which is no broken pair but a wrong folder.
        """
        self.pairs, self.missing = [], []
        for entry in entries:
            if isinstance(entry, str):
                self.missing.append(entry)
            else:
                self.pairs.append(entry)
        if not self.pairs:
            first = self.missing[0] if self.missing else "the list is empty"
            raise DataError(f"{self.list_file}: none of its {len(self.missing)} pairs can be used: {first}")

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """The image's name in the list."""
        return self.pairs[index].name

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and depth of a pair."""
        _, image, depth = self.pairs[index]
        return read_image(image, upright=False), decode_depth(depth, self.unit, bits=16)

    def __repr__(self) -> str:
        return f"{counted(len(self), 'pair')} of {self.list_file}"
