# SPDX-License-Identifier: Apache-2.0
"""Videos, by PyAV: frames of a file, and depth as a coloured video."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np

from mlr.data.depth_files import DataError
from mlr.prediction.writers import painted, scale_bar
from mlr.utils.counted import counted
from mlr.utils.optional import import_or_explain

#: Encoders for MP4, the best first; PyAV's packages have them.
ENCODERS = ("libx264", "libopenh264", "mpeg4")
#: Frames a second of a video that does not declare them.
USUAL_RATE = Fraction(25)

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
        raise DataError(
            f"cannot read the video {path} after {counted(count, 'frame')}: {error.strerror or error}"
        ) from error
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


def frame_rate(path: Path) -> Fraction:
    """Frames a second of the first video stream."""
    av = require_av()
    try:
        with av.open(str(path)) as container:
            return Fraction(container.streams.video[0].average_rate or USUAL_RATE).limit_denominator(1001)
    except (av.FFmpegError, IndexError):
        return USUAL_RATE


class ColourVideo:
    """A video of depth in colours with a bar in metres at its right, in MP4. Its scale stays the same throughout.

    Args:
        path: the file to write.
        rate: frames a second.
        max_depth: end of the scale in metres, which starts at 0; None = the largest depth of the first frame.

    Raises:
        OSError: from every method: the file cannot be written.
        ImportError: PyAV is missing.
    """

    def __init__(self, path: Path, rate: Fraction, max_depth: float | None = None) -> None:
        self._av = require_av()
        self.path, self.rate, self.max_depth = path, rate, max_depth
        self._shape: tuple[int, ...] = ()
        self._container: Any = None
        self._stream: Any = None

    def add(self, depth: np.ndarray) -> None:
        """Append a frame.

        Args:
            depth: [H, W] metres; 0 = none, drawn black.

        Raises:
            DataError: it has another size than the frames before it.
        """
        if self._container is None:
            self._begin(depth)
        if depth.shape != self._shape:
            raise DataError(f"a frame has {depth.shape} pixels, the frames before it {self._shape}")
        picture = np.hstack([painted(depth, 0, self.max_depth or 1), self._bar])
        height, width, _ = picture.shape
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")  # 4:2:0 needs even sides
        self._encode(self._av.VideoFrame.from_ndarray(picture, format="rgb24"))

    def __enter__(self) -> ColourVideo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._container is None:
            return
        try:
            if error is None:
                self._encode(None)
        finally:
            self._container.close()

    def _begin(self, depth: np.ndarray) -> None:
        if self.max_depth is None:
            self.max_depth = float(depth.max()) or None
        self._shape, self._bar = depth.shape, scale_bar(len(depth), 0, self.max_depth or 1)
        encoder = next(name for name in ENCODERS if name in self._av.codecs_available)
        try:
            self._container = self._av.open(str(self.path), "w", format="mp4")
        except self._av.FFmpegError as error:
            raise OSError(error.strerror or str(error)) from error
        self._stream = self._container.add_stream(encoder, rate=self.rate)
        self._stream.pix_fmt = "yuv420p"  # what every player shows
        width = depth.shape[1] + self._bar.shape[1]
        self._stream.height, self._stream.width = len(depth) + len(depth) % 2, width + width % 2

    def _encode(self, frame: Any) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except self._av.FFmpegError as error:
            raise OSError(error.strerror or str(error)) from error
