# SPDX-License-Identifier: Apache-2.0
"""Images, videos and frames of data sets that a command line names, and their pictures as 8-bit RGB."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath

import numpy as np

from mlr.data.datasets.base import DepthDataset
from mlr.data.datasets.folder import IMAGE_SUFFIXES
from mlr.data.depth_files import DataError, read_image
from mlr.prediction.video import VIDEO_SUFFIXES, read_video
from mlr.utils.files import expand_pattern, list_files

#: How :func:`mlr.utils.files.list_files` ends the line of a hidden file.
HIDDEN = " is hidden"


@dataclass(frozen=True)
class Input:
    """A file to predict.

    Attributes:
        path: the file.
        name: its place among the inputs, without suffix; the outputs are called like it.
    """

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        """Whether the file holds many pictures."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True)
class FrameInput(Input):
    """A frame of a data set.

    Attributes:
        dataset: the data set.
        index: of the frame.
    """

    dataset: DepthDataset
    index: int


@dataclass(frozen=True)
class Picture:
    """A picture to predict.

    Attributes:
        name: what its outputs are called, without suffix.
        image: [H, W, 3] uint8, upright.
        video: the video that the picture is a frame of.
    """

    name: str
    image: np.ndarray
    video: Input | None = None


def find_inputs(words: Iterable[str], out: Path, left_out: list[str] | None = None) -> tuple[list[Input], int]:
    """The images and videos that words stand for, in order.

    A file is called by its name, a file of a folder by its path in that folder, a file of a pattern by its path below
    the pattern's first part with a wildcard. Links are followed, and a file is taken once. Hidden files are left out,
    and so is ``out`` inside a folder.

    Args:
        words: paths of files and folders, and patterns such as ``shots/*/rgb.png`` or ``shots/**/*.jpg``.
        out: folder of the outputs.
        left_out: gets a line for every file of a folder that cannot be read, such as a broken link.

    Returns:
        The inputs, and how many files of folders and patterns are left alone: they are neither images nor videos, or
        cannot be read.

    Raises:
        FileNotFoundError: there is no such file or folder, or no image or video in it.
        DataError: a file that was named has another suffix.
    """
    found: dict[Path, Input] = {}
    ignored: set[Path] = set()
    unread: list[str] = []
    for word in words:
        path, before = Path(word), len(found)
        if path.is_file():
            if not _is_known(path):
                raise DataError(f"{path} is neither an image ({_listed(IMAGE_SUFFIXES)}) nor a video"
                                f" ({_listed(VIDEO_SUFFIXES)})")  # fmt: skip
            found.setdefault(path, Input(path, path.stem))
            continue
        root, files, lines = _expand(word, out)
        unread += lines
        for file in files:
            if _is_known(file):
                found.setdefault(file, Input(file, file.relative_to(root).with_suffix("").as_posix()))
            else:
                ignored.add(file)
        if len(found) == before and not any(file in found for file in files):
            known = _listed((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
            raise FileNotFoundError(f"{word} holds no image and no video: looked for files that end in {known}")
    if left_out is not None:
        left_out += unread
    return list(found.values()), len(ignored) + len(unread)


def frame_inputs(dataset: DepthDataset) -> list[Input]:
    """The frames of a data set; each is called by its id, without the suffix of its image.

    Raises:
        DataError: an id would lead out of the folder of the outputs.
    """
    inputs: list[Input] = []
    for index in range(len(dataset)):
        path = PurePosixPath(dataset.name(index))
        name = path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path
        if name.is_absolute() or ".." in name.parts or not name.name:
            raise DataError(f"the frame {str(path)!r} has an id that cannot name a file below --out")
        inputs.append(FrameInput(Path(path), name.as_posix(), dataset, index))
    return inputs


def _expand(word: str, out: Path) -> tuple[Path, list[Path], list[str]]:
    """Files of a folder or a pattern, sorted, the folder that their names begin at, and what cannot be read there."""
    path, unread = Path(word), list[str]()
    if path.is_dir():
        listing = list_files(path, (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
        root, files = path, [*listing.files, *listing.others]
        unread = [f"{path}: {line}" for line in listing.left_out if not line.endswith(HIDDEN)]
    elif glob.has_magic(word):
        root = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
        matches = sorted(expand_pattern(root, path.parts[len(root.parts) :]), key=lambda match: len(str(match)))
        found: dict[Path, Path] = {}  # folders that link to each other hold a file under many names
        for match in matches:
            for file in list_files(match, ()).others if match.is_dir() else [match]:
                found.setdefault(file.resolve(), file)
        files = list(found.values())
    else:
        raise FileNotFoundError(f"there is no file, folder or pattern {word}")
    own = out.absolute()
    inside = own != root.absolute() and own.is_relative_to(root.absolute())

    def wanted(file: Path) -> bool:
        hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
        return file.is_file() and not hidden and not (inside and file.absolute().is_relative_to(own))

    return root, sorted({file for file in files if wanted(file)}), unread


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)


def _listed(suffixes: Iterable[str]) -> str:
    return ", ".join(suffixes)


def read_pictures(file: Input) -> Iterator[Picture]:
    """The picture of an image, or the frames of a video, which are called <video>/000000, <video>/000001, ...

    Raises:
        DataError: the file is broken; the pictures before the fault have been given by then.
    """
    if isinstance(file, FrameInput):
        yield Picture(file.name, file.dataset.read(file.index)[0])
    elif file.is_video:
        for number, image in enumerate(read_video(file.path)):
            yield Picture(f"{file.name}/{number:06d}", image, file)
    else:
        yield Picture(file.name, read_image(file.path))
