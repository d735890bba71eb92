# SPDX-License-Identifier: Apache-2.0
"""Frames of video files, by PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from mlr.data.depth_files import DataError
from mlr.utils.optional import import_or_explain

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")


def require_av() -> ModuleType:
    """PyAV, which the extra "video" brings.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    return import_or_explain("av", "video", "videos")


def read_video(path: Path) -> Iterator[np.ndarray]:
    """Frames of the first video stream.

    Yields:
        [H, W, 3] uint8, RGB, turned as the file says (a phone held upright stores turned frames).

    Raises:
        DataError: the file is no video, or broken; the frames before the fault have been given by then.
        ImportError: PyAV is missing.
    """
    av, count = require_av(), 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path} has no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                turns = round(frame.rotation / 90)  # counterclockwise, as numpy counts
                yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
                count += 1
    except av.FFmpegError as error:
        raise DataError(f"cannot read the video {path} after {count} frames: {error.strerror or error}") from error
    if not count:
        raise DataError(f"{path} holds no frames")


def count_frames(path: Path) -> int | None:
    """Number of frames as the file declares it, without decoding; None if it does not."""
    av = require_av()
    try:
        with av.open(str(path)) as container:
            return container.streams.video[0].frames or None
    except (av.FFmpegError, IndexError):
        return None
