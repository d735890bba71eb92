# SPDX-License-Identifier: Apache-2.0
"""KITTI: images of the raw recordings with the improved LiDAR depth, by the lists of Eigen's split.

Depth is 16-bit, v / 256 metres, 0 where no ray returned. Lines that are understood:

* BTS: ``<date>/<drive>/image_02/data/0000000069.png <drive>/proj_depth/groundtruth/image_02/0000000069.png 721.5377``,
  with ``None`` for images without ground truth (45 of the 697 test images);
* five fields: the same, then image and depth of the right camera;
* monodepth2: ``<date>/<drive> 69 l``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlr.data.datasets.file_lists import ListedPairs, Pair, find_list, first_file, read_list
from mlr.data.depth_files import DataError, image_size
from mlr.data.sample import Region

LISTS = {
    "train": ("eigen_train_files_with_gt.txt", "kitti_eigen_train.txt", "train_files.txt"),
    "val": ("eigen_test_files_with_gt.txt", "kitti_eigen_test.txt", "test_files.txt"),
}
#: Folders, relative to the root, that images and ground truth are looked for in.
IMAGES = ("", "raw", "raw_data", "rgb", "kitti_raw")
DEPTHS = ("", "gts", "data_depth_annotated", "train", "val", "data_depth_annotated/train", "data_depth_annotated/val")
#: Height and width of the crop that KITTI's benchmark and BTS use.
KB_CROP = (352, 1216)


class KITTI(ListedPairs):
    """Frames that a list of Eigen's split names.

    Args:
        root: folder that holds the recordings (also in ``raw``) and the ground truth (also in
            ``data_depth_annotated``, with or without its ``train`` and ``val``).
        split: "train" or "val" (Eigen's test images).
        list_file: the list's file; by default eigen_train_files_with_gt.txt or eigen_test_files_with_gt.txt in
            the root or beside it.
        right: take the right camera's frames of five-field lines too.
        kb_crop: cut out the bottom centre of 352 x 1216 pixels, the size every frame has.

    Raises:
        DataError: there is no list, a line of it cannot be understood, or none of its pairs is there.
    """

    unit = "kitti"
    region_options = ("kb_crop",)

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        list_file: str | None = None,
        right: bool = False,
        kb_crop: bool = False,
    ) -> None:
        self.root, self.right, self.kb_crop = Path(root), right, kb_crop
        if not self.root.is_dir():
            raise DataError(f"there is no folder {self.root}")
        self.list_file = find_list(self.root, list_file, LISTS[split])
        self.gather(self._entries())

    def _entries(self) -> Iterator[Pair | str]:
        images = [self.root / name for name in IMAGES]
        depths = [self.root / name for name in DEPTHS]
        for number, fields in read_list(self.list_file):
            for image, depth in parse_line(fields, f"{self.list_file}, line {number}", self.right):
                if depth == "None":
                    yield f"line {number}: {image} has no ground truth"
                    continue
                stem = image.rpartition(".")[0]
                image_file = first_file(images, image, stem + ".png", stem + ".jpg")
                depth_file = first_file(depths, depth)
                if image_file is None or depth_file is None:
                    yield f"line {number}: there is no {image if image_file is None else depth}"
                else:
                    yield Pair(image, image_file, depth_file)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and depth of a pair, cropped if that was asked for."""
        image, depth = super().read(index)
        if not self.kb_crop:
            return image, depth
        region = kb_region(image.shape[:2], self.name(index))
        return region.cut(image), region.cut(depth)

    def region(self, index: int) -> Region | None:
        """The crop, if it was asked for."""
        return kb_region(image_size(self.pairs[index].image), self.name(index)) if self.kb_crop else None

    def region_of(self, size: tuple[int, int], frame: tuple[int, int]) -> Region | None:
        """Maps of 352 x 1216 pixels cover the crop of a larger frame."""
        return kb_region(frame, "the frame") if size == KB_CROP and frame != KB_CROP else None


def parse_line(fields: list[str], where: str, right: bool = False) -> Iterator[tuple[str, str]]:
    """Image and ground truth that a line names.

    Raises:
        DataError: the line has none of the known forms.
    """
    if len(fields) == 3 and fields[1].isdigit() and fields[2] in ("l", "r", "2", "3"):
        drive, frame = fields[0], f"{int(fields[1]):010d}.png"
        camera = "image_02" if fields[2] in ("l", "2") else "image_03"
        yield f"{drive}/{camera}/data/{frame}", f"{Path(drive).name}/proj_depth/groundtruth/{camera}/{frame}"
    elif len(fields) in (2, 3, 5) and "." in fields[0]:
        yield fields[0], fields[1]
        if right and len(fields) == 5:
            yield fields[3], fields[4]
    else:
        raise DataError(
            f"{where}: expected `image depth focal`, `image depth focal right_image right_depth` or "
            f"`date/drive frame l|r`, got {' '.join(fields)!r}"
        )


def kb_region(size: tuple[int, ...], name: str) -> Region:
    """The bottom centre of 352 x 1216 pixels of a frame of that size.

    Raises:
        DataError: the frame is smaller.
    """
    height, width = size
    if height < KB_CROP[0] or width < KB_CROP[1]:
        raise DataError(f"{name} has {height} x {width} pixels, fewer than the crop of {KB_CROP[0]} x {KB_CROP[1]}")
    return Region(height - KB_CROP[0], (width - KB_CROP[1]) // 2, *KB_CROP, (height, width))
