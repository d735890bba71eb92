# SPDX-License-Identifier: Apache-2.0
"""Which prediction file belongs to which frame: by name, or in the same order."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from mlr.data.datasets.folder import IMAGE_SUFFIXES
from mlr.data.depth_files import DataError
from mlr.utils.counted import counted
from mlr.utils.files import natural_key


class Matched(NamedTuple):
    """Files of frames.

    Attributes:
        paths: the file of every frame.
        outside: files of frames outside the split, which are not scored.
    """

    paths: list[Path]
    outside: list[Path]


def match_files(
    folder: Path,
    files: Sequence[Path],
    names: Sequence[str],
    how: str = "name",
    everything: Callable[[], Sequence[str]] | None = None,
) -> Matched:
    """Find the file of every frame.

    Args:
        folder: where the files lie.
        files: the files.
        names: ids of the frames, in the data set's order.
        how: "name" or "order", see :func:`match_names` and :func:`match_order`.
        everything: gives the ids of all splits, in the data set's order. It is called where the files do not fit the
            frames; files that fit the frames of other splits are then set aside.

    Raises:
        DataError: a frame has no file or several, a file no frame, or the order is ambiguous.
    """
    match = match_order if how == "order" else match_names
    try:
        return match(folder, files, names)
    except DataError as error:
        try:
            every = list(everything()) if everything else []
        except ValueError:  # the other splits are not there
            every = []
        if len(every) <= len(names) or not set(names) <= set(every):
            raise
        try:
            return match(folder, files, names, every)
        except DataError as second:
            raise second from error


# --- by name ----------------------------------------------------------------------------------------------------------


def match_names(
    folder: Path, files: Sequence[Path], names: Sequence[str], every: Sequence[str] | None = None
) -> Matched:
    """The file of every frame: named like its whole id (a/b/c.png or a_b_c.png) or the id's end (c.png or b/c.png).

    Where a file fits frames of the split and of others alike, it belongs to the split's, unless it is another's whole
    id.

    Args:
        folder: where the files lie.
        files: the files.
        names: ids of the split's frames.
        every: ids of all splits.

    Raises:
        DataError: frames without a file or with several, files without a frame or with several; counted and named.
    """
    inside = set(names)
    own, other = _Keys(names), _Keys([name for name in every or () if name not in inside])
    found: list[list[Path]] = [[] for _ in names]
    outside: list[Path] = []
    strange: list[Path] = []
    vague: list[Path] = []
    for file in sorted(files):
        key = _key(folder, file)
        frames = own.whole.get(key)
        if not frames and key in other.whole:
            outside.append(file)
            continue
        frames = frames or own.ends.get(key) or set()
        if len(frames) == 1:
            found[min(frames)].append(file)
        elif not frames and key in other.ends:
            outside.append(file)
        else:
            (vague if frames else strange).append(file)
    missing = [name for name, paths in zip(names, found, strict=True) if not paths]
    several = [name for name, paths in zip(names, found, strict=True) if len(paths) > 1]
    faults = [
        f"{len(missing)} of {counted(len(names), 'frame')} have no prediction ({some(missing)})" if missing else "",
        f"{counted(len(several), 'frame', 'have')} several ({some(several)})" if several else "",
        f"{counted(len(strange), 'file', 'belong')} to no frame ({some(strange)})" if strange else "",
        f"{counted(len(vague), 'file')} could belong to several frames ({some(vague)}): name them like the whole id, "
        "with folders or joined by _" if vague else "",
        f"{counted(len(outside), 'file', 'belong')} to frames outside the split ({some(outside)}): "
        "choose another --split" if outside else "",
    ]  # fmt: skip
    if any(faults[:4]):
        raise DataError(
            f"{folder}: {'; '.join(filter(None, faults))}. Files are matched to frames by name"
            f"{_subfolders(folder, files)}; --match order takes them in their order"
        )
    return Matched([paths[0] for paths in found], outside)


class _Keys:
    """What a file may be called to belong to a frame: key -> indices of the frames."""

    def __init__(self, names: Sequence[str]) -> None:
        self.whole: dict[str, set[int]] = defaultdict(set)
        self.ends: dict[str, set[int]] = defaultdict(set)
        for index, name in enumerate(names):
            path = PurePosixPath(name)
            stem = path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path
            for whole in {path, stem}:  # 1.png.npy for 1.png beside 1.jpg
                self.whole[whole.as_posix()].add(index)
                self.whole["_".join(whole.parts)].add(index)
            for first in range(len(stem.parts)):
                self.ends["/".join(stem.parts[first:])].add(index)


def _subfolders(folder: Path, files: Sequence[Path]) -> str:
    """Advice for a folder of several forms of the same predictions."""
    first = sorted({file.relative_to(folder).parts[0] for file in files if file.parent != folder})
    return f" (if {', '.join(first)} hold the same in several forms, give one of them)" if 1 < len(first) < 5 else ""


# --- in order ---------------------------------------------------------------------------------------------------------


def match_order(
    folder: Path, files: Sequence[Path], names: Sequence[str], every: Sequence[str] | None = None
) -> Matched:
    """Files in natural order (pred2.png before pred10.png) as the frames of the data set.

    Names go before order: files that are named like the frames belong to them, and so do files whose last numbers are
    the frames' last numbers. Otherwise the order must be beyond doubt: either the frames' names are in natural order
    too, and no file has another frame's name or number, or the files are numbered without gaps from 0 or 1, as a loop
    over a list numbers them.

    Args:
        folder: where the files lie.
        files: the files, as many as frames in the split, or in all.
        names: ids of the split's frames, in the data set's order.
        every: ids of all splits, in the data set's order.

    Raises:
        DataError: there are more or fewer files than frames, or it is not clear which order is meant.
    """
    for frames in filter(None, (names, every)):
        if len(files) == len(frames):
            break
    else:
        many = f" and {len(every)} in all splits" if every else ""
        raise DataError(
            f"--match order: {folder} holds {counted(len(files), 'prediction')} and the data set "
            f"{counted(len(names), 'frame')}{many}; they must be as many"
        )
    by_frame = dict(zip(frames, _in_order(folder, files, list(frames)), strict=True))
    if len(by_frame) != len(frames):
        raise DataError(f"--match order: frames of different splits have the same name in {folder}; give one split")
    inside = set(names)
    return Matched([by_frame[name] for name in names], [path for name, path in by_frame.items() if name not in inside])


def _in_order(folder: Path, files: Sequence[Path], frames: list[str]) -> list[Path]:
    """The files, in the order of the frames."""
    try:
        return match_names(folder, files, frames).paths
    except DataError:
        pass
    keys = {file: _key(folder, file) for file in files}
    ordered = sorted(files, key=lambda file: natural_key(keys[file]))
    numbers = [natural_key(keys[file])[0] for file in ordered]
    if twice := [file for (one, other), file in zip(pairwise(numbers), ordered[1:], strict=True) if one == other]:
        raise DataError(f"--match order: the place of {some(twice)} is not clear, another file has the same number")

    counted = _last_numbers(keys.values())
    counter = counted is not None and sorted(counted) in (list(range(len(files))), list(range(1, len(files) + 1)))
    wanted = _last_numbers(map(_without_suffix, frames))
    same_numbers = counted is not None and wanted is not None and counted.keys() == wanted.keys()
    natural = frames == sorted(frames, key=natural_key)
    if same_numbers:
        file_of = {number: file for file in files for number in _last_numbers([keys[file]]) or {}}
        by_number = [file_of[number] for number in wanted or {}]
        if by_number == ordered or not counter:
            return by_number
    elif counter or (natural and not _contradicted(frames, ordered, keys, wanted)):
        return ordered
    raise DataError(
        f"--match order is ambiguous: the frames in the data set's order are {some(frames, 4)}, the files in theirs "
        f"{some([keys[file] for file in ordered], 4)}, and names or numbers say otherwise: name the files like frames"
    )


def _contradicted(frames: list[str], ordered: list[Path], keys: dict[Path, str], wanted: dict[int, str] | None) -> bool:
    """Whether a file has the name or the last number of another frame than the one in its place."""
    named = _Keys(frames)
    for index, file in enumerate(ordered):
        owners = named.whole.get(keys[file]) or named.ends.get(keys[file]) or {index}
        numbers = _last_numbers([keys[file]]) or {}
        others = {wanted[number] for number in numbers if wanted and number in wanted}
        if index not in owners or others - {_without_suffix(frames[index])}:
            return True
    return False


def _last_numbers(keys: Any) -> dict[int, str] | None:
    """Last number of every name -> the name; None unless every name has one of its own."""
    numbers: dict[int, str] = {}
    for key in keys:
        digits = re.findall(r"[0-9]+", PurePosixPath(key).name)
        if not digits or int(digits[-1]) in numbers:
            return None
        numbers[int(digits[-1])] = key
    return numbers


# --- shared -----------------------------------------------------------------------------------------------------------


def _key(folder: Path, file: Path) -> str:
    return file.relative_to(folder).with_suffix("").as_posix()


def _without_suffix(name: str) -> str:
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in IMAGE_SUFFIXES else name


def some(things: Sequence[Any], limit: int = 3) -> str:
    """The first few things, for a message."""
    return ", ".join(map(str, things[:limit])) + (", ..." if len(things) > limit else "")
