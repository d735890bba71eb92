# SPDX-License-Identifier: Apache-2.0
"""Matterport3D (Chang et al. 2017): undistorted images with depth, by the official split of scenes.

``undistorted_color_images/<panorama>_i<camera>_<yaw>.jpg`` belongs to
``undistorted_depth_images/<panorama>_d<camera>_<yaw>.png``: 1024 x 1280 pixels, 16 bits in steps of 0.25 mm, 0 where
depth is unknown. Archives are unpacked in several ways (``v1/scans/<scene>/<scene>/``, ``<scene>/``, or by kind), so
the folders are looked for anywhere below the root. ``scenes_train.txt`` and ``scenes_test.txt`` of the authors'
repository name the scenes of a split, one a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mlr.data.datasets.file_lists import ListedPairs, Pair, find_list, read_list
from mlr.data.depth_files import DataError
from mlr.utils.files import list_files

LISTS = {"train": "scenes_train.txt", "val": "scenes_test.txt"}
#: Where the lists lie in the root or beside it: as in the authors' repository, or alone.
LIST_FOLDERS = ("", "tasks/benchmark/", "Matterport/tasks/benchmark/")
IMAGES, DEPTHS = "undistorted_color_images", "undistorted_depth_images"
NAME = re.compile(r"(?P<panorama>.+)_i(?P<view>\d+_\d+)")


class Matterport3D(ListedPairs):
    """Undistorted images of the scenes of a split.

    Args:
        root: folder with the scenes at any depth.
        split: "train" or "val" (the official test scenes).
        list_file: file of scene names, one a line; by default scenes_train.txt or scenes_test.txt in the root or beside
            it. ``list_file=scenes_val.txt`` validates on the official validation scenes.

    Raises:
        DataError: there is no such folder, no list, or none of its scenes has a pair.
    """

    unit = "4000"

    def __init__(self, root: str | Path, split: str = "train", list_file: str | None = None) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(f"there is no folder {self.root}")
        self.list_file = find_list(self.root, list_file, [folder + LISTS[split] for folder in LIST_FOLDERS])
        scenes = [fields[0] for _, fields in read_list(self.list_file)]
        self.gather(self._entries(scenes))

    def _entries(self, scenes: list[str]) -> Iterator[Pair | str]:
        wanted, seen = set(scenes), set()
        listing = list_files(self.root, (".jpg",))
        for path in listing.files:
            parts = path.relative_to(self.root).parts
            scene = next((part for part in parts if part in wanted), None)
            if path.parent.name != IMAGES or scene is None:
                continue
            seen.add(scene)
            match = NAME.fullmatch(path.stem)
            name = f"{scene}/{path.stem}"
            if match is None:
                yield f"{name} is not called PANORAMA_iCAMERA_YAW.jpg"
                continue
            folder = Path(*(DEPTHS if part == IMAGES else part for part in parts[:-1]))
            depth = self.root / folder / f"{match['panorama']}_d{match['view']}.png"
            yield Pair(name, path, depth) if depth.is_file() else f"there is no {folder / depth.name}"
        yield from (f"there are no images of scene {scene}" for scene in scenes if scene not in seen)
        yield from listing.left_out
