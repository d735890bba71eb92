# SPDX-License-Identifier: Apache-2.0
"""Depth in the Wild (Chen et al. 2016): photographs with one pair of points each, of which one is farther.

``DIW_train_val.csv`` and ``DIW_test.csv`` name the images and their pairs, see
:func:`mlr.relative.ordinal.read_diw`. The paths lead to ``DIW_train_val/*.thumb`` and ``DIW_test/*.thumb``, which
are JPEG files. Points are moved to the size of the image where the list refers to another one.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch
from torchvision import tv_tensors

from mlr.data.datasets.base import DepthDataset
from mlr.data.datasets.file_lists import find_list, first_file
from mlr.data.depth_files import DataError, read_image
from mlr.data.sample import Sample, make_sample
from mlr.relative.ordinal import read_diw

LISTS = {"train": "DIW_train_val.csv", "val": "DIW_test.csv"}
#: Where the lists lie in the root or beside it.
LIST_FOLDERS = ("", "DIW_Annotations/")


class DIW(DepthDataset):
    """Images with a labelled pair of points, without any depth.

    Args:
        root: folder that holds DIW_train_val and DIW_test.
        split: "train" (DIW_train_val.csv) or "val" (DIW_test.csv).
        list_file: another list of the same form.
        order: order of the coordinates in the list, "yx" (the set's own programs) or "xy".
        first_pixel: number of the first row and column, 1 or 0.

    Raises:
        DataError: there is no such folder or list, or a line of the list cannot be read.
    """

    truth = "pairs"
    tolerant = True

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        list_file: str | None = None,
        order: str = "yx",
        first_pixel: int = 1,
    ) -> None:
        self.root, self.missing = Path(root), []
        if not self.root.is_dir():
            raise DataError(f"there is no folder {self.root}")
        if order not in ("yx", "xy") or first_pixel not in (0, 1):
            raise DataError(f"order must be yx or xy and first_pixel 0 or 1, got {order!r} and {first_pixel}")
        self.list_file = find_list(self.root, list_file, [folder + LISTS[split] for folder in LIST_FOLDERS])
        self.images, self.table = _read(self.list_file, "xy" if order == "xy" else "yx", 1 if first_pixel else 0)

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        """The image's path in the list."""
        return self.images[index]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image, and depth that is unknown everywhere."""
        name = self.images[index]
        parts = PurePosixPath(name).parts
        if ".." in parts or PurePosixPath(name).is_absolute():
            raise DataError(f"{self.list_file} names {name}, which leads out of {self.root}")
        path = first_file((self.root, self.list_file.parent, self.list_file.parent.parent), name)
        if path is None:
            raise DataError(f"{self.list_file} names {name}, which is not in {self.root}")
        image = read_image(path, upright=False)
        return image, np.zeros(image.shape[:2], np.float32)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        image, depth = self.read(index)
        sample = make_sample(image, depth, self.name(index))
        *rows_and_columns, relation, height, width = self.table[index].tolist()
        points = torch.tensor(rows_and_columns, dtype=torch.float32).view(1, 2, 2)
        scale = torch.tensor([image.shape[0] / height, image.shape[1] / width])
        points = ((points + 0.5) * scale - 0.5).flip(-1)  # centres of pixels; (column, row)
        sample["points"] = tv_tensors.KeyPoints(points, canvas_size=image.shape[:2])
        sample["relation"] = torch.tensor([relation])
        return sample

    def __repr__(self) -> str:
        return f"{len(self)} pairs of {self.list_file}"


def _read(path: Path, order: Literal["yx", "xy"], first_pixel: Literal[0, 1]) -> tuple[list[str], np.ndarray]:
    """Names, and rows (row_A, column_A, row_B, column_B, relation, height, width)."""
    names, rows = [], []
    try:
        for pair in read_diw(path, order, first_pixel):
            names.append(pair.image)
            rows.append([*pair.first[0].tolist(), *pair.second[0].tolist(), pair.relation.item(), *pair.size])
    except (ValueError, OSError) as error:
        raise DataError(str(error)) from error
    if not names:
        raise DataError(f"{path} is empty")
    return names, np.array(rows, dtype=np.int32)
