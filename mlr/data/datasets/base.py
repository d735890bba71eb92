# SPDX-License-Identifier: Apache-2.0
"""What the readers of data sets share: a frame is opened when it is asked for, by whichever process asks for it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from mlr.data.depth_files import MAX_DEPTH, DataError, check_depth
from mlr.data.sample import Region, Sample, make_sample
from mlr.utils.counted import counted

T = TypeVar("T")


class PerProcess(Generic[T]):
    """A file handle that every process opens for itself: HDF5 and zip handles survive neither a fork nor pickling.

    Args:
        opener: a function that can be pickled, such as a ``functools.partial`` of a module's function.
    """

    def __init__(self, opener: Callable[[], T]) -> None:
        self.opener = opener
        self._open: tuple[int, T] | None = None

    def __call__(self) -> T:
        """The handle of this process."""
        if self._open is None or self._open[0] != os.getpid():
            self._open = os.getpid(), self.opener()
        return self._open[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"opener": self.opener, "_open": None}


class DepthDataset(ABC):
    """Frames of a data set, at their own size, with their holes.

    A reader gives image and depth of a frame in :meth:`read`; what they must look like is checked here, for all alike.

    Attributes:
        missing: pairs that the set's own list names and that are not there, and files that belong to no pair.
        max_depth: deepest median depth of a frame that is believed to be metres.
        tolerant: whether broken files are known to occur in the published set: training then goes on with the next
            frame and says so.
        dense: whether every pixel of every frame has a depth by construction.
        truth: what is known of a frame: "metric" depth, "relative" depth up to scale and shift, or "pairs" of points of
            which one is farther.
        own_depth_grid: whether depth has a grid of its own, coarser than the image.
        left_out: what ``missing`` holds, one of it.
        splits: the splits that the reader itself knows.
        region_options: options that choose a part of the frames; all others choose what lies in them.
    """

    tolerant: bool = False
    dense: bool = False
    truth: Literal["metric", "relative", "pairs"] = "metric"
    own_depth_grid: bool = False
    left_out: str = "listed pair"
    splits: tuple[str, ...] = ("train", "val")
    region_options: tuple[str, ...] = ()
    max_depth: float = MAX_DEPTH
    missing: list[str]

    @abstractmethod
    def __len__(self) -> int:
        """Number of frames."""

    @abstractmethod
    def name(self, index: int) -> str:
        """A frame's id, unique in the set."""

    @abstractmethod
    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image [H, W, 3] uint8 and depth [H, W] in metres, as the files hold them: unknown depth may have any value.

        Raises:
            DataError: the frame's files are missing, foreign or cut off.
        """

    def read_all(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """What :meth:`read` gives, and where depth was measured, [H, W], if that is not wherever there is depth."""
        return *self.read(index), None

    def turned(self, index: int) -> bool:
        """Whether the frame's picture was turned as its EXIF orientation says."""
        return False

    def region(self, index: int) -> Region | None:
        """What :meth:`read` gives of the camera's frame; None = all of it."""
        return None

    def region_of(self, size: tuple[int, int], frame: tuple[int, int]) -> Region | None:
        """What maps of that size cover of a frame, if it is the size that the set's programs crop frames to."""
        return None

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        name = self.name(index)
        image, depth, valid = self.read_all(index)
        check_pair(image, depth, name, self.own_depth_grid)
        depth = check_depth(depth, name, self.max_depth)
        measured = None if valid is None else (valid > 0) & (depth > 0)
        return make_sample(image, depth, name, measured, self.region(index))

    def note(self) -> str:
        """What to say about frames that were left out; empty if there are none."""
        if not self.missing:
            return ""
        few = "; ".join(self.missing[:3]) + ("; ..." if len(self.missing) > 3 else "")
        return f"{counted(len(self.missing), self.left_out)} left out: {few}"


class AllSplits(DepthDataset):
    """The splits of a data set one after the other.

    Args:
        parts: the splits that there are.
        missing: what to say about those that there are not.
    """

    def __init__(self, parts: list[DepthDataset], missing: list[str]) -> None:
        self.parts, self.ends = parts, list(accumulate(map(len, parts)))
        self.missing = [*missing, *(line for part in parts for line in part.missing)]
        first = parts[0]
        self.tolerant, self.dense, self.own_depth_grid = first.tolerant, first.dense, first.own_depth_grid
        self.left_out, self.max_depth, self.truth = first.left_out, first.max_depth, first.truth

    def __len__(self) -> int:
        return self.ends[-1]

    def _place(self, index: int) -> tuple[DepthDataset, int]:
        part = bisect_right(self.ends, index)
        return self.parts[part], index - (self.ends[part - 1] if part else 0)

    def name(self, index: int) -> str:
        """Its id in its split."""
        part, place = self._place(index)
        return part.name(place)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        part, place = self._place(index)
        return part[place]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and depth of a frame."""
        part, place = self._place(index)
        return part.read(place)

    def read_all(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Image, depth and validity of a frame."""
        part, place = self._place(index)
        return part.read_all(place)

    def turned(self, index: int) -> bool:
        """Whether EXIF turned the frame's picture."""
        part, place = self._place(index)
        return part.turned(place)

    def region(self, index: int) -> Region | None:
        """What a frame's sample covers."""
        part, place = self._place(index)
        return part.region(place)

    def region_of(self, size: tuple[int, int], frame: tuple[int, int]) -> Region | None:
        """What maps of that size cover of a frame."""
        return self.parts[0].region_of(size, frame)

    def __repr__(self) -> str:
        return " and ".join(map(repr, self.parts))


def check_pair(image: np.ndarray, depth: np.ndarray, name: str, own_depth_grid: bool = False) -> None:
    """Refuse an image or a depth map of another type or axis order, and a pair of unlike size.

    Raises:
        DataError: naming the frame and the shapes.
    """
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
        raise DataError(f"{name}: the image must be [H, W, 3] uint8, got {list(image.shape)} {image.dtype}")
    if depth.ndim != 2 or not np.issubdtype(depth.dtype, np.floating):
        raise DataError(f"{name}: depth must be [H, W] in floating-point metres, got {list(depth.shape)} {depth.dtype}")
    if 0 in depth.shape or 0 in image.shape:
        raise DataError(f"{name}: the frame is empty, image {list(image.shape)}, depth {list(depth.shape)}")
    if not own_depth_grid and image.shape[:2] != depth.shape:
        raise DataError(
            f"{name}: the image has {image.shape[0]} x {image.shape[1]} pixels and the depth "
            f"{depth.shape[0]} x {depth.shape[1]}: register the depth to the image, or resize one of them"
        )
