# SPDX-License-Identifier: Apache-2.0
"""NYU Depth v2 as sparse-to-dense and FastDepth ship it: one HDF5 file a frame.

``train/<scene>/00001.h5`` (47,584 files) and ``val/official/00001.h5`` (654, named by their number in the labelled
set). A file holds ``rgb`` uint8 [3, 480, 640] and ``depth`` float32 [480, 640] in metres, its holes filled.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlr.data.datasets.base import DepthDataset
from mlr.data.depth_files import DataError, check_pixels
from mlr.data.hdf5_files import open_hdf5, reading, stored
from mlr.utils.counted import counted
from mlr.utils.files import list_files


class NYUFrames(DepthDataset):
    """Frames in HDF5 files of their own, in natural order; links to scenes are followed.

    Args:
        root: folder that holds ``train`` and ``val``.
        split: "train" or "val".

    Raises:
        DataError: there is no such folder, or it holds no .h5 file.
    """

    left_out = "file"

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.root = Path(root)
        folder = self.root / split
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}; expected train/<scene>/*.h5 and val/official/*.h5")
        listing = list_files(folder, (".h5",))
        self.files = listing.files
        self.missing = [f"{split}/{line}" for line in listing.left_out]
        if not self.files:
            raise DataError(f"{folder} holds no .h5 file; expected {split}/<scene>/00001.h5 and so on")

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """Path without suffix, such as train/kitchen_0028a/00001."""
        return self.files[index].relative_to(self.root).with_suffix("").as_posix()

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and depth of a frame."""
        path = self.files[index]
        with open_hdf5(path) as file, reading(str(path)):
            if "rgb" not in file or "depth" not in file:
                raise DataError(f"{path} holds {', '.join(sorted(file)) or 'nothing'}; expected rgb and depth")
            arrays = stored(file, "rgb", 3), stored(file, "depth", 2)
            if arrays[0].shape[0] != 3:
                raise DataError(f"{path}: rgb must be [3, H, W], channels first, got {list(arrays[0].shape)}")
            for array in arrays:
                check_pixels(array.shape[-2:], str(path))
            rgb, depth = (array[()] for array in arrays)
        return rgb.transpose(1, 2, 0), depth

    def __repr__(self) -> str:
        return f"{counted(len(self), 'frame')} of {self.root}"
