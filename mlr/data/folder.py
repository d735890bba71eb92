# SPDX-License-Identifier: Apache-2.0
"""Your own pairs of images and depth files.

A folder holds ``rgb/`` and ``depth/`` with files of equal stems, or both side by side as ``<stem>rgb.png`` and
``<stem>depth.png`` (also ``depth_mm``, whose name declares the unit), or a list ``pairs.csv`` of ``rgb,depth`` paths.
With subfolders (or lists) ``train`` and ``val`` (or ``test``) the split is yours; otherwise every tenth pair is held
out.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from mlr.data.depth_io import DataError, decode_depth, read_image
from mlr.data.source import Source

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
DEPTH_SUFFIXES = (".png", ".npy", ".tif", ".tiff")
#: Every so many pairs one is for validation, where the folder has no split of its own.
HELD_OUT = 10


class Folder(Source):
    """Pairs of RGB and depth files.

    Args:
        root: the folder.
        split: "train" or "val".
        unit: unit of integer depth files; None if the files' names declare it or they hold float metres.

    Raises:
        DataError: there is no such folder, or it holds no pair; the message says what was looked for.
    """

    def __init__(self, root: str | Path, split: str = "train", unit: str | None = None) -> None:
        self.root, self.unit, self.missing = Path(root), unit, []
        self.pairs = find_pairs(self.root, split)

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


def find_pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    """RGB and depth files of a split, sorted by name."""
    if not root.is_dir():
        raise DataError(f"--root {root}: there is no such folder")
    names = ("train",) if split == "train" else ("val", "test")
    for name in names:
        if (root / name).is_dir():
            return _required(_pairs_in(root / name), root / name)
        if (root / f"{name}.csv").is_file():
            return _required(read_list(root / f"{name}.csv"), root / f"{name}.csv")
    if any((root / other).exists() for other in ("train", "val", "test", "train.csv", "val.csv", "test.csv")):
        raise DataError(
            f"{root} has a split of its own, but neither a folder nor a csv list named {' or '.join(names)}"
        )
    pairs = _required(read_list(root / "pairs.csv") if (root / "pairs.csv").is_file() else _pairs_in(root), root)
    if len(pairs) == 1:  # a single frame can only be both
        return pairs
    held_out = range(0, len(pairs), HELD_OUT)
    return [pair for i, pair in enumerate(pairs) if (i in held_out) == (split != "train")]


def read_list(path: Path) -> list[tuple[Path, Path]]:
    """Pairs of a csv list without header; paths are relative to the list's folder."""
    pairs = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if not row:
                continue
            if len(row) < 2:
                raise DataError(f"{path}, line {number}: expected rgb_path,depth_path, got {','.join(row)!r}")
            rgb, depth = (path.parent / cell.strip().lstrip("/") for cell in row[:2])
            for file_path in (rgb, depth):
                if not file_path.is_file():
                    raise DataError(f"{path}, line {number}: there is no file {file_path}")
            pairs.append((rgb, depth))
    return pairs


def _pairs_in(folder: Path) -> list[tuple[Path, Path]]:
    if (folder / "rgb").is_dir() and (folder / "depth").is_dir():
        depths = {p.stem: p for p in sorted((folder / "depth").iterdir()) if p.suffix.lower() in DEPTH_SUFFIXES}
        images = [p for p in sorted((folder / "rgb").iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES]
        alone = [p.name for p in images if p.stem not in depths]
        if alone:
            raise DataError(f"{folder}: {len(alone)} images have no depth file of the same name, e.g. {alone[0]}")
        return [(p, depths[p.stem]) for p in images]
    pairs = []
    for rgb in sorted(folder.rglob("*rgb.*")):
        if rgb.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        prefix = rgb.stem.removesuffix("rgb")
        candidates = [
            rgb.with_name(prefix + name + suffix) for name in ("depth", "depth_mm") for suffix in DEPTH_SUFFIXES
        ]
        found = [p for p in candidates if p.is_file()]
        if not found:
            raise DataError(
                f"{rgb} has no depth file beside it; looked for {prefix}depth.png, .npy and {prefix}depth_mm.png"
            )
        pairs.append((rgb, found[0]))
    return pairs


def _required(pairs: list[tuple[Path, Path]], where: Path) -> list[tuple[Path, Path]]:
    if not pairs:
        raise DataError(
            f"{where} holds no pairs: expected rgb/ and depth/ with files of equal names, files named ...rgb.png and "
            "...depth.png side by side, or pairs.csv with rgb_path,depth_path lines"
        )
    return pairs
