# SPDX-License-Identifier: Apache-2.0
"""Your own pairs of images and depth files.

A folder holds ``rgb/`` and ``depth/`` with files of equal stems, or both side by side as ``<stem>rgb.png`` and
``<stem>depth.png`` (also ``depth_mm``, whose name declares the unit), or a list ``pairs.csv`` of ``rgb,depth`` paths.
With subfolders (or lists) ``train`` and ``val`` (or ``test``) the split is yours; otherwise every tenth pair is held
out.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from mlr.data.datasets.base import DepthDataset
from mlr.data.depth_files import DataError, decode_depth, read_image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
DEPTH_SUFFIXES = (".png", ".npy", ".tif", ".tiff")
Pairs = list[tuple[Path, Path]]
#: Every so many pairs one is for validation, where the folder has no split of its own.
HELD_OUT = 10


class Folder(DepthDataset):
    """Pairs of RGB and depth files.

    Args:
        root: the folder.
        split: "train" or "val".
        unit: unit of integer depth files; None if the files' names declare it or they hold float metres.

    Raises:
        DataError: there is no such folder, it holds no pair, or an image has no depth file or several; the message says
            what was looked for.
    """

    left_out = "files"

    def __init__(self, root: str | Path, split: str = "train", unit: str | None = None) -> None:
        self.root, self.unit = Path(root), unit
        self.pairs, self.missing = find_pairs(self.root, split)

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """The image's path in the folder."""
        rgb, _ = self.pairs[index]
        return rgb.relative_to(self.root).as_posix() if rgb.is_relative_to(self.root) else str(rgb)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and depth of a pair."""
        rgb, depth = self.pairs[index]
        unit = self.unit or ("mm" if depth.stem.endswith("_mm") else None)
        return read_image(rgb), decode_depth(depth, unit)

    def __repr__(self) -> str:
        return f"{len(self)} pairs of {self.root}"


def find_pairs(root: Path, split: str) -> tuple[Pairs, list[str]]:
    """RGB and depth files of a split, sorted by name, and what is said of files beside them that belong to none."""
    if not root.is_dir():
        raise DataError(f"--root {root}: there is no such folder")
    names = ("train",) if split == "train" else ("val", "test")
    for name in names:
        if (root / name).is_dir():
            return _required(*_pairs_in(root / name), root / name)
        if (root / f"{name}.csv").is_file():
            return _required(read_list(root / f"{name}.csv"), [], root / f"{name}.csv")
    if any((root / other).exists() for other in ("train", "val", "test", "train.csv", "val.csv", "test.csv")):
        raise DataError(
            f"{root} has a split of its own, but neither a folder nor a csv list named {' or '.join(names)}"
        )
    listed = root / "pairs.csv"
    found = (read_list(listed), []) if listed.is_file() else _pairs_in(root)
    pairs, alone = _required(*found, root)
    if len(pairs) == 1:  # a single frame can only be both
        return pairs, alone
    held_out = range(0, len(pairs), HELD_OUT)
    return [pair for i, pair in enumerate(pairs) if (i in held_out) == (split != "train")], alone


def read_list(path: Path) -> Pairs:
    """Pairs of a csv list without header; paths are absolute or relative to the list's folder, with or without a slash.

    Raises:
        DataError: the list is no UTF-8 text, a line names no pair, or a file is not there.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"cannot read the list {path}: {error}; it must be UTF-8 text of rgb_path,depth_path lines"
        ) from error
    pairs = []
    for number, row in enumerate(rows, 1):
        if not row:
            continue
        if len(row) < 2:
            raise DataError(f"{path}, line {number}: expected rgb_path,depth_path, got {','.join(row)!r}")
        rgb, depth = (_listed(path.parent, cell.strip()) for cell in row[:2])
        for file_path in (rgb, depth):
            if not file_path.is_file():
                raise DataError(f"{path}, line {number}: there is no file {file_path}")
        pairs.append((rgb, depth))
    return pairs


def _listed(folder: Path, cell: str) -> Path:
    absolute = Path(cell)
    return absolute if absolute.is_absolute() and absolute.is_file() else folder / cell.lstrip("/")


def _pairs_in(folder: Path) -> tuple[Pairs, list[str]]:
    if (folder / "rgb").is_dir() and (folder / "depth").is_dir():
        return _pairs_of_folders(folder)
    return _pairs_side_by_side(folder)


def _pairs_of_folders(folder: Path) -> tuple[Pairs, list[str]]:
    depths: dict[str, list[Path]] = defaultdict(list)
    for path in sorted((folder / "depth").iterdir()):
        if path.suffix.lower() in DEPTH_SUFFIXES:
            depths[path.stem].append(path)
    pictures = [p for p in sorted((folder / "rgb").rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES]
    images = [p for p in pictures if p.parent == folder / "rgb"]
    lonely = [p.name for p in images if p.stem not in depths]
    if lonely:
        raise DataError(f"{folder}: {len(lonely)} images have no depth file of the same name, e.g. {lonely[0]}")
    pairs = [(p, _only(p, depths[p.stem])) for p in images]
    stems = {p.stem for p in images}
    alone = [f"{p.relative_to(folder)} has no image" for stem in depths.keys() - stems for p in depths[stem]]
    alone += [f"{p.relative_to(folder)} lies in a sub-folder of rgb" for p in pictures if p.parent != folder / "rgb"]
    return pairs, sorted(alone)


def _pairs_side_by_side(folder: Path) -> tuple[Pairs, list[str]]:
    depths: dict[Path, list[Path]] = defaultdict(list)  # by the path up to "depth"
    for path in sorted(folder.rglob("*depth*")):
        stem = path.stem.removesuffix("_mm")
        if path.suffix.lower() in DEPTH_SUFFIXES and stem.endswith("depth"):
            depths[path.with_name(stem)].append(path)
    pairs = []
    for rgb in sorted(folder.rglob("*rgb.*")):
        if rgb.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        prefix = rgb.stem.removesuffix("rgb")
        found = depths.pop(rgb.with_name(f"{prefix}depth"), [])
        if not found:
            raise DataError(
                f"{rgb} has no depth file beside it; looked for {prefix}depth.png, .npy and {prefix}depth_mm.png"
            )
        pairs.append((rgb, _only(rgb, found)))
    return pairs, [f"{p.relative_to(folder)} has no image" for paths in depths.values() for p in paths]


def _only(image: Path, depths: list[Path]) -> Path:
    if len(depths) > 1:
        names = " and ".join(p.name for p in depths)
        raise DataError(f"{image} has {len(depths)} depth files, {names}: keep one of them there")
    return depths[0]


def _required(pairs: Pairs, alone: list[str], where: Path) -> tuple[Pairs, list[str]]:
    if not pairs:
        raise DataError(
            f"{where} holds no pairs: expected rgb/ and depth/ with files of equal names, files named ...rgb.png and "
            "...depth.png side by side, or pairs.csv with rgb_path,depth_path lines"
        )
    return pairs, alone
