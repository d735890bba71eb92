# SPDX-License-Identifier: Apache-2.0
"""Make3D: outdoor images of 2272 x 1704 pixels with laser depth on a grid of 55 x 305.

``img-<name>.jpg`` and ``depth_sph_corr-<name>.mat`` (MATLAB 5), whose Position3DGrid [55, 305, 4] holds in metres the
vertical, the horizontal and the projective coordinate and the distance along the ray; evaluation programs use the
last. Names may hold dots (``img-10.21op2-p-015t000.jpg``), so they are matched by prefix and suffix. Depth keeps the
laser's grid: that is what scores are defined on, and transforms resize image and depth each to the network's size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import loadmat, whosmat

from mlr.data.datasets.base import DepthDataset
from mlr.data.depth_files import DataError, check_pixels, read_image, refuse_irregular
from mlr.utils.counted import counted
from mlr.utils.files import list_files, natural_key

#: Folders of images and of laser data that each split is looked for in.
FOLDERS = {
    "train": (("Train400Img", "Train400"), ("Train400Depth", "Gridlaserdata_train", "Train400/Gridlaserdata")),
    "val": (("Test134", "Test134Img"), ("Gridlaserdata", "Test134Depth", "Test134/Gridlaserdata")),
}
IMAGE_PREFIX, DEPTH_PREFIX = "img-", "depth_sph_corr-"
#: Channels of Position3DGrid that are a depth.
CHANNELS = {2: "projective depth", 3: "distance along the ray"}


class Make3D(DepthDataset):
    """Images with laser depth.

    Args:
        root: folder that holds ``Train400Img`` and ``Train400Depth``, or ``Test134`` and ``Gridlaserdata``.
        split: "train" or "val" (the 134 test images).
        channel: 3 is the distance along the ray, as evaluation programs use it; 2 the projective depth.
        truncated: decode what is there of a JPEG that is cut off (one of the test set is) instead of refusing it; the
            rest is grey.

    Raises:
        DataError: a folder is missing or no image has laser data.
    """

    tolerant = True
    own_depth_grid = True
    left_out = "file"

    def __init__(self, root: str | Path, split: str = "train", channel: int = 3, truncated: bool = False) -> None:
        if channel not in CHANNELS:
            raise DataError(f"channel must be 3 (distance along the ray) or 2 (projective depth), got {channel}")
        self.root, self.channel, self.truncated = Path(root), channel, truncated
        images, depths = (_folder(self.root, names) for names in FOLDERS[split])
        pictures, no_pictures = _by_name(images, (".jpg", ".jpeg"), IMAGE_PREFIX)
        lasers, no_lasers = _by_name(depths, (".mat",), DEPTH_PREFIX)
        both = sorted(pictures.keys() & lasers.keys(), key=natural_key)
        self.frames = [(name, pictures[name], lasers[name]) for name in both]
        self.missing = [*no_pictures, *no_lasers]
        self.missing += [f"{pictures[name]} has no laser data" for name in sorted(pictures.keys() - lasers.keys())]
        self.missing += [f"{lasers[name]} has no image" for name in sorted(lasers.keys() - pictures.keys())]
        if not self.frames:
            raise DataError(
                f"{images} and {depths} hold no pair {IMAGE_PREFIX}NAME.jpg, {DEPTH_PREFIX}NAME.mat; they have "
                f"{counted(len(pictures), 'image')} and {counted(len(lasers), 'depth file')}"
            )

    def __len__(self) -> int:
        return len(self.frames)

    def name(self, index: int) -> str:
        """What the two files' names have in common."""
        return self.frames[index][0]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and the laser's grid."""
        _, picture, laser = self.frames[index]
        image = read_image(picture, truncated=self.truncated, upright=False)
        return image, read_grid(laser, self.channel)

    def __repr__(self) -> str:
        return f"{counted(len(self), 'frame')} of {self.root} ({CHANNELS[self.channel]})"


def _folder(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise DataError(f"there is no folder {' or '.join(str(root / name) for name in names)}")


def _by_name(folder: Path, suffixes: tuple[str, ...], prefix: str) -> tuple[dict[str, Path], list[str]]:
    """Files of a folder by what follows the prefix, and what else lies there."""
    listing = list_files(folder, suffixes, recursive=False)
    others = [f"{path} is no {suffixes[0]} file" for path in listing.others]
    return {p.stem.removeprefix(prefix): p for p in listing.files}, [f"{folder}/{x}" for x in listing.left_out] + others


def read_grid(path: Path, channel: int) -> np.ndarray:
    """Depth [55, 305] of a laser file, float32 metres.

    Raises:
        DataError: the file is foreign or cut off.
    """
    try:
        refuse_irregular(path)
        for name, shape, _ in whosmat(path):
            check_pixels(shape, f"{path}: {name}")
        grid = np.asarray(loadmat(path, variable_names=["Position3DGrid"])["Position3DGrid"])
    except Exception as error:  # scipy raises errors of any kind over damaged files, even UnboundLocalError
        raise DataError(f"{path} is not a MATLAB 5 file with Position3DGrid: {error}") from error
    if grid.ndim != 3 or grid.shape[-1] != 4:
        raise DataError(f"{path}: Position3DGrid must be [rows, columns, 4], got {list(grid.shape)}")
    if grid.dtype.kind != "f":
        raise DataError(f"{path}: Position3DGrid holds {grid.dtype} values; expected metres")
    with np.errstate(over="ignore"):  # of a damaged file: becomes infinite, which is unknown
        grid = grid.astype(np.float32)
    return np.ascontiguousarray(grid[..., channel])
