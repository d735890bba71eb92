# SPDX-License-Identifier: Apache-2.0
"""NYU Depth v2, the labelled set: ``nyu_depth_v2_labeled.mat`` with ``splits.mat``.

The first is MATLAB 7.3, which is HDF5 with the axes reversed; it is read slice by slice, since its images alone take
1.3 GB. The second is MATLAB 5 and counts from 1.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from mlr.data.datasets.base import DepthDataset, PerProcess
from mlr.data.depth_files import DataError, check_pixels, refuse_irregular
from mlr.data.hdf5_files import open_hdf5, reading, stored
from mlr.utils.counted import counted

LABELLED, SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"


class NYU(DepthDataset):
    """Frames of the labelled set; 795 for training and 654 for tests.

    Args:
        root: folder of the two files, or the labelled file with splits.mat beside it.
        split: "train", "val" (the official test split) or "all" (both, by number).
        depth: "depths" (holes filled, as the set ships them) or "rawDepths" (0 where the sensor saw nothing).

    Raises:
        DataError: a file is missing or is not what its name says.
    """

    splits = ("train", "val", "all")

    def __init__(self, root: str | Path, split: str = "train", depth: str = "depths") -> None:
        root = Path(root)
        self.file = root if root.suffix == ".mat" else root / LABELLED
        self.depth, self.missing = depth, []
        for path in (self.file, self.file.with_name(SPLITS)):
            if not path.is_file():
                raise DataError(f"--root {root}: there is no file {path}; NYU Depth v2 needs {LABELLED} and {SPLITS}")
        self._file = PerProcess(partial(open_hdf5, self.file, "a MATLAB 7.3 (HDF5) file"))
        with reading(str(self.file)):
            count = self._check()
        self.indices = read_split(self.file.with_name(SPLITS), split, count)

    def _check(self) -> int:
        """Number of frames, if the file's layout is right."""
        images = stored(self._file(), "images", 4, "u").shape
        depths = stored(self._file(), self.depth, 3, "f").shape
        check_pixels(images[2:], str(self.file))
        if images[1] != 3 or (images[0], *images[2:]) != depths:
            raise DataError(
                f"{self.file}: images {images} and {self.depth} {depths} do not fit: "
                "expected (N, 3, W, H) and (N, W, H)"
            )
        return images[0]

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        """Its number in the labelled set, from 1."""
        return f"nyu/{self.indices[index] + 1:05d}"

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and depth of a frame."""
        frame, file = self.indices[index], self._file()
        with reading(f"{self.file}, {self.name(index)},"):
            image, depth = stored(file, "images", 4)[frame], stored(file, self.depth, 3)[frame]
        return np.ascontiguousarray(image.transpose(2, 1, 0)), np.ascontiguousarray(depth.T, dtype=np.float32)

    def __repr__(self) -> str:
        return f"{counted(len(self), 'frame')} of {self.file}"


def read_split(path: Path, split: str, count: int) -> list[int]:
    """Frames of a split, counted from 0.

    Raises:
        DataError: the file is foreign or names frames that are not there.
    """
    keys = {"train": ["trainNdxs"], "val": ["testNdxs"], "all": ["trainNdxs", "testNdxs"]}[split]
    try:
        refuse_irregular(path)
        content = loadmat(path, variable_names=keys)
        indices = np.concatenate([content[key].ravel() for key in keys])
        whole = indices.astype(np.int64)
        if not np.array_equal(whole, indices):
            raise DataError(f"{indices.dtype} values that are no whole numbers")
    except Exception as error:  # scipy raises errors of any kind over damaged files, even UnboundLocalError
        raise DataError(
            f"{path} is not the split of NYU Depth v2 (MATLAB 5 with {' and '.join(keys)}): {error}"
        ) from error
    if len(whole) == 0 or whole.min() < 1 or whole.max() > count:
        raise DataError(
            f"{path}: {' and '.join(keys)} name frames {whole.min(initial=0)} to {whole.max(initial=0)}, the labelled "
            f"file has {count}"
        )
    return sorted((whole - 1).tolist()) if split == "all" else (whole - 1).tolist()
