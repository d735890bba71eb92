# SPDX-License-Identifier: Apache-2.0
"""SUN RGB-D (Song et al. 2015) in its official layout and split.

``SUNRGBD/<sensor>/.../<frame>/`` holds one picture in ``image/`` and one depth map each in ``depth/`` (as the sensor
gave it) and ``depth_bfx/`` (holes filled from neighbouring frames). Depth has 16 bits, rotated left by three, in
millimetres, 0 where it is unknown. ``SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat`` (MATLAB 5) names the frames of both
splits, 5,285 and 5,050, by their paths on the authors' machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.io import loadmat

from mlr.data.datasets.file_lists import ListedPairs, Pair, find_list
from mlr.data.depth_files import DataError, decode_depth, read_image, refuse_irregular
from mlr.utils.files import list_files

#: Where the official split lies, in the root or beside it, and its variables.
LISTS = ("allsplit.mat", "traintestSUNRGBD/allsplit.mat", "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat")
VARIABLES = {"train": "alltrain", "val": "alltest"}
#: The folder that paths are relative to.
TOP = "SUNRGBD"


class SUNRGBD(ListedPairs):
    """Frames of the official split.

    Args:
        root: the folder ``SUNRGBD``, or the one that holds it.
        split: "train" or "val" (the official test split).
        list_file: the split's file; by default allsplit.mat where the toolbox has it, in the root or beside it.
        raw: take depth as the sensor gave it instead of ``depth_bfx``.

    Raises:
        DataError: there is no such folder, no split, or none of its frames is there.
    """

    def __init__(self, root: str | Path, split: str = "train", list_file: str | None = None, raw: bool = False) -> None:
        self.root, self.kind = Path(root), "depth" if raw else "depth_bfx"
        if not self.root.is_dir():
            raise DataError(f"there is no folder {self.root}")
        self.list_file = find_list(self.root, list_file, LISTS)
        self.gather(self._entries(read_split(self.list_file, VARIABLES[split])))

    def _entries(self, names: list[str]) -> Iterator[Pair | str]:
        top = self.root / TOP if (self.root / TOP).is_dir() else self.root
        for name in names:
            found = []
            for kind, suffixes in (("image", (".jpg", ".png")), (self.kind, (".png",))):
                folder = top / name / kind
                files = list_files(folder, suffixes, recursive=False).files if folder.is_dir() else []
                found += files if len(files) == 1 else []
            if len(found) == 2:
                yield Pair(name, *found)
            else:
                yield f"{name} has not one file in each of image and {self.kind}"

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and depth of a frame."""
        _, image, depth = self.pairs[index]
        stored = decode_depth(depth, "m", bits=16).astype(np.uint16)  # the integers themselves
        millimetres = (stored >> 3) | (stored << 13)
        return read_image(image, upright=False), millimetres.astype(np.float32) / 1000


def read_split(path: Path, variable: str) -> list[str]:
    """Paths of a split's frames relative to the folder SUNRGBD.

    Raises:
        DataError: the file is foreign, or a path leads elsewhere.
    """
    try:
        refuse_irregular(path)
        cells = loadmat(path, variable_names=[variable])[variable].ravel()
        texts = [str(np.asarray(cell).ravel()[0]) for cell in cells]
    except Exception as error:  # scipy raises errors of any kind over damaged files
        raise DataError(f"{path} is not the split of SUN RGB-D (MATLAB 5 with {variable}): {error}") from error
    names = []
    for text in texts:
        parts = PurePosixPath(text).parts
        if TOP not in parts or ".." in parts:
            raise DataError(f"{path}: expected paths that hold /{TOP}/, got {text!r}")
        names.append("/".join(parts[parts.index(TOP) + 1 :]))
    return names
