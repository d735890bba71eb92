# SPDX-License-Identifier: Apache-2.0
"""NYU Depth v2 as BTS, AdaBins and many others train on it: the "sync" frames and their lists.

``<scene>/rgb_00045.jpg`` and ``<scene>/sync_depth_00045.png``, 16-bit millimetres with holes. A line of the lists is
``/scene/rgb_00045.jpg /scene/sync_depth_00045.png 518.8579``; that of the test split names frames of the labelled set.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlr.data.datasets.file_lists import ListedPairs, Pair, find_list, first_file, read_list
from mlr.data.depth_files import DataError

#: Usual names of the lists, and of the folders the frames of a split lie in.
LISTS = {"train": "nyudepthv2_train_files_with_gt.txt", "val": "nyudepthv2_test_files_with_gt.txt"}
FOLDERS = {"train": ("", "sync", "nyu_depth_v2/sync"), "val": ("", "official_splits/test", "test")}


class NYUSync(ListedPairs):
    """Frames that a list of BTS's format names.

    Args:
        root: folder of the scenes, or the one that holds ``sync`` and ``official_splits/test``.
        split: "train" or "val".
        list_file: the list's file; by default nyudepthv2_train_files_with_gt.txt or
            nyudepthv2_test_files_with_gt.txt in the root or beside it.

    Raises:
        DataError: there is no list, a line of it cannot be understood, or none of its pairs is there.
    """

    unit = "mm"

    def __init__(self, root: str | Path, split: str = "train", list_file: str | None = None) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(f"there is no folder {self.root}")
        self.list_file = find_list(self.root, list_file, [LISTS[split]])
        self.gather(self._entries([self.root / name for name in FOLDERS[split]]))

    def _entries(self, folders: list[Path]) -> Iterator[Pair | str]:
        for number, fields in read_list(self.list_file):
            if len(fields) < 2:
                raise DataError(
                    f"{self.list_file}, line {number}: expected rgb depth [focal], got {' '.join(fields)!r}"
                )
            image, depth = (first_file(folders, field) for field in fields[:2])
            if image is None or depth is None:
                yield f"line {number}: there is no {fields[0] if image is None else fields[1]}"
            else:
                yield Pair(fields[0], image, depth)
