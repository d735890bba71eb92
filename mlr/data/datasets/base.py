# SPDX-License-Identifier: Apache-2.0
"""What the readers of data sets share: a frame is opened when it is asked for, by whichever process asks for it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import h5py
import numpy as np

from mlr.data.depth_files import DataError, check_depth
from mlr.data.sample import Sample, make_sample

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


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn what h5py raises over damaged files, which may be anything, into one error that names the file.

    Raises:
        DataError: naming it.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{what} is cut off or damaged: {error}") from error


def open_hdf5(path: Path, what: str = "HDF5") -> h5py.File:
    """Open for reading.

    Raises:
        DataError: the file is missing, foreign or cut off.
    """
    try:
        return h5py.File(path, "r")
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except Exception as error:  # h5py raises errors of any kind over damaged files
        raise DataError(f"{path} is not {what}, or it is cut off: {error}") from error


class DepthDataset(ABC):
    """Frames of a data set, at their own size, with their holes.

    A reader gives image and depth of a frame in :meth:`read`; what they must look like is checked here, for all alike.

    Attributes:
        missing: pairs that the set's own list names and that are not there, and files that belong to no pair.
        tolerant: whether broken files are known to occur in the published set: training then goes on with the next
            frame and says so.
        dense: whether every pixel of every frame has a depth by construction.
        coarse: whether depth has a grid of its own, coarser than the image.
        left_out: what ``missing`` holds.
    """

    tolerant: bool = False
    dense: bool = False
    coarse: bool = False
    left_out: str = "listed pairs"
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

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        image, depth = self.read(index)
        name = self.name(index)
        check_pair(image, depth, name, self.coarse)
        return make_sample(image, check_depth(depth, name), name)

    def note(self) -> str:
        """What to say about frames that were left out; empty if there are none."""
        if not self.missing:
            return ""
        few = "; ".join(self.missing[:3]) + ("; ..." if len(self.missing) > 3 else "")
        return f"{len(self.missing)} {self.left_out} left out: {few}"


def check_pair(image: np.ndarray, depth: np.ndarray, name: str, coarse: bool = False) -> None:
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
    if not coarse and image.shape[:2] != depth.shape:
        raise DataError(
            f"{name}: the image has {image.shape[0]} x {image.shape[1]} pixels and the depth "
            f"{depth.shape[0]} x {depth.shape[1]}: register the depth to the image, or resize one of them"
        )
