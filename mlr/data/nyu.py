# SPDX-License-Identifier: Apache-2.0
"""NYU Depth v2, the labelled set: ``nyu_depth_v2_labeled.mat`` with ``splits.mat``.

The first is MATLAB 7.3, which is HDF5 with the axes reversed; it is read slice by slice, since its images alone take
1.3 GB. The second is MATLAB 5 and counts from 1.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.io import loadmat

from mlr.data.depth_io import DataError, check_depth
from mlr.data.fill import fill_holes
from mlr.data.sample import Sample, make_sample

LABELLED, SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"


class NYU:
    """Frames of the labelled set; 795 for training and 654 for tests.

    Args:
        root: folder of the two files, or the labelled file with splits.mat beside it.
        split: "train" or "val" (the official test split).
        depth: "depths" (holes filled, as the set ships them) or "rawDepths" (0 where the sensor saw nothing).
        holes: what to do with pixels without depth, see :mod:`mlr.data.fill`.

    Raises:
        DataError: a file is missing or is not what its name says.
    """

    def __init__(self, root: str | Path, split: str = "train", depth: str = "depths", holes: str = "error") -> None:
        root = Path(root)
        self.file = root if root.suffix == ".mat" else root / LABELLED
        self.depth, self.holes = depth, holes
        for path in (self.file, self.file.with_name(SPLITS)):
            if not path.is_file():
                raise DataError(f"--root {root}: there is no file {path}; NYU Depth v2 needs {LABELLED} and {SPLITS}")
        self._open: tuple[int, h5py.File] | None = None
        count = self._check()
        self.indices = read_split(self.file.with_name(SPLITS), split, count)

    def _check(self) -> int:
        """Number of frames, if the file's layout is right."""
        file = self._handle()
        for name, axes in (("images", 4), (self.depth, 3)):
            if name not in file:
                raise DataError(f"{self.file} has no {name!r}; it holds {', '.join(sorted(file)[:8])}")
            if file[name].ndim != axes:
                raise DataError(f"{self.file}: {name} has shape {file[name].shape}, expected {axes} axes, frames first")
        images, depths = file["images"].shape, file[self.depth].shape
        if images[1] != 3 or (images[0], *images[2:]) != depths:
            raise DataError(
                f"{self.file}: images {images} and {self.depth} {depths} do not fit: "
                "expected (N, 3, W, H) and (N, W, H)"
            )
        return images[0]

    def _handle(self) -> h5py.File:
        """The file, opened once in every process: an HDF5 handle does not survive a fork."""
        if self._open is None or self._open[0] != os.getpid():
            try:
                self._open = os.getpid(), h5py.File(self.file, "r")
            except OSError as error:
                raise DataError(f"{self.file} is not a MATLAB 7.3 (HDF5) file, or it is cut off: {error}") from error
        return self._open[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        frame, file = self.indices[index], self._handle()
        name = f"nyu/{frame + 1:05d}"
        image = np.ascontiguousarray(file["images"][frame].transpose(2, 1, 0))
        depth = check_depth(np.ascontiguousarray(file[self.depth][frame].T, dtype=np.float32), f"{self.file} {name}")
        return make_sample(image, fill_holes(depth, image, f"{self.file} {name}", self.holes), name, depth > 0)

    def __repr__(self) -> str:
        return f"{len(self)} frames of {self.file}"


def read_split(path: Path, split: str, count: int) -> list[int]:
    """Frames of a split, counted from 0.

    Raises:
        DataError: the file is foreign or names frames that are not there.
    """
    key = "trainNdxs" if split == "train" else "testNdxs"
    try:
        indices = loadmat(path)[key].ravel().astype(int) - 1
    except (KeyError, ValueError, NotImplementedError, OSError) as error:
        raise DataError(f"{path} is not the split of NYU Depth v2 (MATLAB 5 with {key}): {error}") from error
    if len(indices) == 0 or indices.min() < 0 or indices.max() >= count:
        raise DataError(
            f"{path}: {key} names frames up to {indices.max(initial=-1) + 1}, the labelled file has {count}"
        )
    return indices.tolist()
