# SPDX-License-Identifier: Apache-2.0
"""Where predictions are written: names, collisions, formats."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from mlr.data.depth_files import DataError
from mlr.prediction.inputs import Input, Picture
from mlr.prediction.mesh import write_glb
from mlr.prediction.point_cloud import Intrinsics, write_ply
from mlr.prediction.video import ColourVideo, frame_rate
from mlr.prediction.writers import PNG_LIMIT, write_colour, write_npy, write_png
from mlr.utils.counted import counted
from mlr.utils.files import atomic_write

#: Formats and the ends of their files' names.
FORMATS = {"png": ".png", "npy": ".npy", "color": ".png", "ply": ".ply", "glb": ".glb", "video": ".mp4"}


def parse_formats(text: str) -> list[str]:
    """Formats of "png,npy".

    Raises:
        ValueError: one is unknown.
    """
    formats = [name.strip() for name in text.split(",")]
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ValueError(f"--format must be some of {','.join(FORMATS)}, got {unknown[0]!r}")
    return list(dict.fromkeys(formats))


class Outputs:
    """The files of predictions in a folder; of several formats each has a folder of its own in it.

    A context manager: a video is complete once its block ends, or frames of another follow.

    Args:
        folder: where to write.
        formats: keys of ``FORMATS``.
        max_depth: end of the colour scale in metres; None = each map's own range, or that of a video's first frame.
        camera: for "ply" and "glb".

    Attributes:
        saturated: pictures with depth beyond what a depth PNG holds.
        negative: pictures with depth below 0, which is written as 0.
        relative: whether depth has no unit and may be below 0.
    """

    def __init__(
        self, folder: Path, formats: list[str], max_depth: float | None = None, camera: Intrinsics | None = None
    ) -> None:
        self.folder, self.formats, self.max_depth, self.camera = folder, formats, max_depth, camera
        self.saturated: list[str] = []
        self.negative: list[str] = []
        self.relative = False
        self._camera_size: tuple[int, int] | None = None
        self._unfinished = contextlib.ExitStack()
        self._video: tuple[Input, ColourVideo] | None = None

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unfinished.__exit__(kind, error, trace)

    def path(self, name: str, form: str) -> Path:
        """The file of a picture in a format."""
        folder = self.folder / form if len(self.formats) > 1 else self.folder
        return folder / f"{name}{FORMATS[form]}"

    def require_free(self, inputs: Iterable[Input]) -> None:
        """See that no two inputs share an output, that no output is there already, and that the folder can be made.

        Raises:
            DataError: two inputs have the same outputs.
            OSError: outputs exist, or the folder cannot be made or written to.
        """
        inputs = list(inputs)
        owners: dict[str, list[Path]] = defaultdict(list)
        for file in inputs:
            owners[file.name].append(file.path)
        for file in inputs:  # the frames of clip.mp4 lie in clip/, like the pictures of a folder clip/
            for video in (i for i in inputs if i.is_video and Path(i.name) in Path(file.name).parents):
                owners[video.name].append(file.path)
        shared = {name: paths for name, paths in owners.items() if len(paths) > 1}
        if shared:
            name, paths = next(iter(shared.items()))
            raise DataError(
                f"{counted(len(shared), 'output')} would come from several inputs, such as {name} from "
                f"{' and '.join(map(str, paths[:3]))}: give the folder that holds them all, or predict them one by one"
            )
        if self.folder.exists() and not self.folder.is_dir():
            raise FileExistsError(f"--out {self.folder} is a file; give a folder")
        existing = [path for file in inputs for form in self.formats for path in self._existing(file, form)]
        if existing:
            named = ", ".join(map(str, existing[:3])) + (", ..." if len(existing) > 3 else "")
            raise FileExistsError(
                f"{counted(len(existing), 'output', 'are')} there already ({named}) and are never overwritten: "
                "choose another --out, or remove them"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"cannot make the folder {self.folder}: {error.strerror or error}; choose another --out"
            ) from error
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise OSError(f"{self.folder} is no folder that you may write to; choose another --out")

    def _existing(self, file: Input, form: str) -> list[Path]:
        path = self.path(file.name, form)
        if file.is_video and form != "video":
            path = path.with_suffix("")  # the folder of the frames
        return [path] if path.exists() and (file.is_video or form != "video") else []

    def save(self, picture: Picture, depth: np.ndarray) -> None:
        """Write a prediction in every format; each file appears complete or not at all.

        Args:
            picture: what was predicted.
            depth: [H, W] in metres, of the image's size.

        Raises:
            DataError: the depth is not finite, holds no surface, or the camera is not the image's.
            OSError: a file cannot be written.
        """
        if not np.isfinite(depth).all():
            raise DataError(f"{picture.name}: the network predicts NaN or infinite depth")
        self._check_camera(picture)
        if not self.relative and (depth < 0).any():
            self.negative.append(picture.name)
            depth = np.maximum(depth, 0)
        if "png" in self.formats and depth.max() > PNG_LIMIT:
            self.saturated.append(picture.name)
        for form in self.formats:
            if form == "video":
                self._add_to_video(picture, depth)
                continue
            path = self.path(picture.name, form)
            path.parent.mkdir(parents=True, exist_ok=True)
            # thousands of files that can be made again: none is worth a wait for the disk
            with atomic_write(path, durable=False) as place, place.open("wb") as file:
                self._write(form, file, depth, picture)

    def _check_camera(self, picture: Picture) -> None:
        if self.camera is None:
            return
        height, width, _ = picture.image.shape
        size = height, width
        self._camera_size = self._camera_size or size
        if size != self._camera_size:
            raise DataError(
                f"{picture.name} has {size[0]} x {size[1]} pixels, pictures before it {self._camera_size[0]} x "
                f"{self._camera_size[1]}: --intrinsics are those of one size"
            )
        self.camera.require_inside(*size, picture.name)

    def _write(self, form: str, file: BinaryIO, depth: np.ndarray, picture: Picture) -> None:
        if form == "png":
            write_png(file, depth)
        elif form == "npy":
            write_npy(file, depth)
        elif form == "color":
            write_colour(file, depth, self.max_depth)
        elif self.camera and form == "ply":
            write_ply(file, depth, picture.image, self.camera)
        elif self.camera:
            try:
                write_glb(file, depth, picture.image, self.camera)
            except DataError as error:
                raise DataError(f"{picture.name}: {error}") from error

    def _add_to_video(self, picture: Picture, depth: np.ndarray) -> None:
        if picture.video is None:
            return
        if self._video is None or self._video[0] != picture.video:
            self._unfinished.close()
            path = self.path(picture.video.name, "video")
            path.parent.mkdir(parents=True, exist_ok=True)
            place = self._unfinished.enter_context(atomic_write(path))
            video = ColourVideo(place, frame_rate(picture.video.path), self.max_depth)
            self._video = picture.video, self._unfinished.enter_context(video)
        try:
            self._video[1].add(depth)
        except DataError as error:
            raise DataError(f"{picture.name}: {error}") from error
