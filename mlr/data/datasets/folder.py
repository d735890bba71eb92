# SPDX-License-Identifier: Apache-2.0
"""Your own pairs of images and depth files.

A folder holds ``rgb/`` and ``depth/`` with files of equal names (also in equal sub-folders), or both side by side as
``<stem>rgb.png`` and ``<stem>depth.png`` (also ``depth_mm``, whose name declares the unit), or a list ``pairs.csv`` of
``rgb,depth`` paths. With subfolders (or lists) ``train`` and ``val`` (or ``test``) the split is yours; otherwise every
tenth pair is held out. Files are taken in natural order, and whatever lies there and is not taken is named.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from mlr.data.datasets.base import DepthDataset
from mlr.data.depth_files import DataError, decode_depth, orientation, read_oriented, refuse_irregular
from mlr.utils.counted import counted
from mlr.utils.files import list_files, natural_key

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
DEPTH_SUFFIXES = (".png", ".npy", ".tif", ".tiff")
#: What lies beside data and is not meant as data.
SIDE_SUFFIXES = (
    ".txt",
    ".md",
    ".json",
    ".csv",
    ".yaml",
    ".yml",
    ".xml",
    ".db",
    ".ini",
    ".log",
    ".html",
    ".py",
    ".part",
)
Pairs = list[tuple[Path, Path]]
#: One in this number of pairs is for validation if the folder has no split of its own.
HELD_OUT = 10
#: Names of the splits of a folder's own; the first that is there counts.
OWN = {"train": ("train",), "val": ("val", "test")}

#: EXIF orientation -> how an array is turned upright.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: np.rot90(np.fliplr(x)),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(np.fliplr(x), -1),
    8: np.rot90,
}


class Folder(DepthDataset):
    """Pairs of RGB and depth files.

    A picture with an EXIF orientation is turned upright. Its depth is turned with it if it has the size of the picture
    as it is stored, and is left alone if it has the size of the upright picture. Where both sizes are the same, nothing
    tells which is meant, and the frame is refused.

    Args:
        root: the folder.
        split: "train", "val" or "all".
        unit: unit of integer depth files; None if the files declare it or hold float metres.

    Raises:
        DataError: there is no such folder, it holds no pair, or an image has no depth file or several; the message says
            what was looked for.
    """

    left_out = "file"
    splits = ("train", "val", "all")

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
        rgb, path = self.pairs[index]
        (image, turn), depth = read_oriented(rgb), decode_depth(path, self.unit)
        if turn == 1:
            return image, depth
        as_upright = image.shape[:2] == depth.shape
        as_stored = UPRIGHT[turn](depth).shape == image.shape[:2]
        if as_upright and as_stored:
            raise DataError(
                f"{rgb} has the EXIF orientation {turn}, and its size does not tell whether {path.name} belongs to the "
                "picture as it is stored or to the upright one: store both upright, without the orientation"
            )
        return image, np.ascontiguousarray(UPRIGHT[turn](depth)) if as_stored else depth

    def turned(self, index: int) -> bool:
        """Whether the picture has an EXIF orientation."""
        return orientation(self.pairs[index][0]) != 1

    def __repr__(self) -> str:
        return f"{counted(len(self), 'pair')} of {self.root}"


def find_pairs(root: Path, split: str) -> tuple[Pairs, list[str]]:
    """RGB and depth files of a split, in natural order, and what is said of files beside them that are not taken."""
    if not root.is_dir():
        raise DataError(f"--root {root}: there is no such folder")
    there = [n for n in ("train", "val", "test") if (root / n).is_dir() or (root / f"{n}.csv").exists()]
    if there:
        wanted = [name for name in OWN if split in (name, "all")]
        parts = [_own_split(root, name, there) for name in wanted if split != "all" or set(OWN[name]) & set(there)]
        shadowed = ["pairs.csv", *(f"{kind}/" for kind in ("rgb", "depth"))]
        alone = [f"{x} is not read, since {root} has a split of its own" for x in shadowed if (root / x).exists()]
        return [pair for pairs, _ in parts for pair in pairs], [line for _, lines in parts for line in lines] + alone
    pairs, alone = _required(*_pairs_in(root), root)
    if split == "all" or len(pairs) == 1:  # a single frame can only be both
        return pairs, alone
    held_out = range(0, len(pairs), HELD_OUT)
    return [pair for i, pair in enumerate(pairs) if (i in held_out) == (split != "train")], alone


def _own_split(root: Path, split: str, there: list[str]) -> tuple[Pairs, list[str]]:
    names = [name for name in OWN[split] if name in there]
    if not names:
        wanted = " or ".join(OWN[split])
        raise DataError(f"{root} has a split of its own, but neither a folder nor a csv list named {wanted}")
    first = names[0]
    places = [p for name in names for p in (root / name, root / f"{name}.csv") if p.exists()]
    alone = [f"{p.name} is not read, since {places[0].name} is" for p in places[1:]]
    if (root / first).is_dir():
        pairs, lines = _pairs_in(root / first)
        alone = [f"{first}/{line}" for line in lines] + alone
    else:
        pairs = read_list(root / f"{first}.csv")
    return _required(pairs, alone, places[0])


def read_list(path: Path) -> Pairs:
    """Pairs of a csv list without header; paths are absolute or relative to the list's folder, with or without a slash.

    Raises:
        DataError: the list is no UTF-8 text, a line names no pair, or a file is not there.
    """
    try:
        refuse_irregular(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, ValueError, csv.Error) as error:
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
    if (folder / "pairs.csv").exists():
        return read_list(folder / "pairs.csv"), []
    if (folder / "rgb").is_dir() and (folder / "depth").is_dir():
        beside = [p.name for p in list_files(folder, IMAGE_SUFFIXES, recursive=False).files if p.stem.endswith("rgb")]
        pairs, alone = _pairs_of_folders(folder)
        return pairs, alone + [f"{name} is not read, since there are rgb and depth" for name in beside]
    return _pairs_side_by_side(folder)


def _pairs_of_folders(folder: Path) -> tuple[Pairs, list[str]]:
    pictures, depths = list_files(folder / "rgb", IMAGE_SUFFIXES), list_files(folder / "depth", DEPTH_SUFFIXES)
    by_name = _by_name(depths.files, folder / "depth")
    images = _by_name(pictures.files, folder / "rgb")
    unread = _by_name(depths.others, folder / "depth")
    lonely = [paths[0] for name, paths in images.items() if name not in by_name and "/" not in name]
    if lonely:
        there = unread.get(lonely[0].stem)
        reason = f"; depth/{there[0].name} is there, but its format is not read" if there else ""
        raise DataError(
            f"{folder}: {counted(len(lonely), 'image', 'have')} no depth file of the same name, e.g. "
            f"{lonely[0].name}{reason}; depth is read from {', '.join(DEPTH_SUFFIXES)} files"
        )
    pairs = [(_one_picture(paths, by_name[name]), _only(paths[0], by_name[name]))
             for name, paths in images.items() if name in by_name]  # fmt: skip
    alone = [f"{p.relative_to(folder)} has no image" for n in by_name.keys() - images.keys() for p in by_name[n]]
    alone += [
        f"{p.relative_to(folder)} lies in a sub-folder of rgb"
        for name in images.keys() - by_name.keys()
        for p in images[name]
    ]
    for kind, listing in (("rgb", pictures), ("depth", depths)):
        alone += [f"{kind}/{line}" for line in listing.left_out]
        alone += _unread(folder, listing.others)
    return pairs, sorted(alone, key=natural_key)


def _by_name(paths: list[Path], folder: Path) -> dict[str, list[Path]]:
    """Files by their path in a folder, without suffix."""
    named = defaultdict(list)
    for path in paths:
        named[path.relative_to(folder).with_suffix("").as_posix()].append(path)
    return named


def _pairs_side_by_side(folder: Path) -> tuple[Pairs, list[str]]:
    listing = list_files(folder, {*IMAGE_SUFFIXES, *DEPTH_SUFFIXES})
    # by folder and name up to "rgb" or "depth"
    depths: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    pictures: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    unread: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    alone = list(listing.left_out)
    for path in listing.files:
        stem, suffix = path.stem.removesuffix("_mm"), path.suffix.lower()
        if stem.endswith("depth") and suffix in DEPTH_SUFFIXES:
            depths[path.parent, stem.removesuffix("depth")].append(path)
        elif path.stem.endswith("rgb") and suffix in IMAGE_SUFFIXES:
            pictures[path.parent, path.stem.removesuffix("rgb")].append(path)
        else:
            alone.append(f"{path.relative_to(folder)} ends neither in rgb nor in depth")
    for path in listing.others:
        unread[path.parent, path.stem.removesuffix("_mm").removesuffix("depth")].append(path)
    pairs = []
    for place, images in pictures.items():
        found = depths.pop(place, [])
        if not found:
            prefix, there = place[1], unread.get(place)
            reason = f"; {there[0].name} is there, but its format is not read" if there else ""
            raise DataError(
                f"{images[0]} has no depth file beside it; looked for {prefix}depth.png, .npy, .tif and "
                f"{prefix}depth_mm.png{reason}"
            )
        pairs.append((_one_picture(images, found), _only(images[0], found)))
    alone += [f"{p.relative_to(folder)} has no image" for paths in depths.values() for p in paths]
    named = [p for p in listing.others if p.stem.removesuffix("_mm").endswith(("rgb", "depth"))]
    return pairs, sorted(alone + _unread(folder, named), key=natural_key)


def _unread(folder: Path, paths: Iterable[Path]) -> list[str]:
    return [
        f"{p.relative_to(folder)} has a format that is not read" for p in paths if p.suffix.lower() not in SIDE_SUFFIXES
    ]


def _one_picture(images: list[Path], depths: list[Path]) -> Path:
    if len(images) > 1:
        names = " and ".join(str(p) for p in images)
        raise DataError(f"{depths[0].name} has {len(images)} pictures, {names}: keep one of them there")
    return images[0]


def _only(image: Path, depths: list[Path]) -> Path:
    if len(depths) > 1:
        names = " and ".join(p.name for p in depths)
        raise DataError(f"{image} has {len(depths)} depth files, {names}: keep one of them there")
    return depths[0]


def _required(pairs: Pairs, alone: list[str], where: Path) -> tuple[Pairs, list[str]]:
    if not pairs:
        left = f"; {counted(len(alone), 'file', 'were')} left out: {'; '.join(alone[:3])}" if alone else ""
        raise DataError(
            f"{where} holds no pairs: expected rgb/ and depth/ with files of equal names, files named ...rgb.png and "
            f"...depth.png side by side, or pairs.csv with rgb_path,depth_path lines{left}"
        )
    return pairs, alone
