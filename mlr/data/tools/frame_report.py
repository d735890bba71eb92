# SPDX-License-Identifier: Apache-2.0
"""What one frame of a data set is like, found by several processes at once."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console

from mlr.data.datasets.base import DepthDataset, check_pair
from mlr.data.depth_files import DataError, check_depth
from mlr.utils.progress import Progress

#: Edges of the depth histogram, metres.
EDGES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 20.0, 40.0, 80.0, math.inf)
#: Frames that a worker looks at in one go.
CHUNK = 16

#: What a worker looks at.
_taken: DepthDataset


@dataclass
class FrameReport:
    """What one frame is like.

    Attributes:
        id: its name.
        error: why its files cannot be used; None if they can.
        refused: why training would refuse its depth; None if it would not.
        image, depth: (height, width).
        histogram: pixels of each bin of :data:`EDGES`.
        missing, negative, not_finite: shares of the pixels.
        median, largest: of the known depth; NaN if none is known.
        turned: whether EXIF turned its picture.
        image_hash, depth_hash: of the contents.
    """

    id: str
    error: str | None = None
    refused: str | None = None
    image: tuple[int, int] = (0, 0)
    depth: tuple[int, int] = (0, 0)
    histogram: list[int] = field(default_factory=list)
    missing: float = 0.0
    negative: float = 0.0
    not_finite: float = 0.0
    median: float = math.nan
    largest: float = math.nan
    flat: bool = False
    turned: bool = False
    image_hash: int = 0
    depth_hash: int = 0


def look(dataset: DepthDataset, sample: int | None, workers: int, split: str) -> list[FrameReport]:
    """Reports of the frames of a split, or of ``sample`` of them, evenly spread."""
    count = len(dataset) if sample is None else min(sample, len(dataset))
    indices = np.unique(np.linspace(0, len(dataset) - 1, count).astype(int)).tolist()
    chunks = [indices[i : i + CHUNK] for i in range(0, len(indices), CHUNK)]
    processes = min((os.cpu_count() or 1) if workers == -1 else workers, len(chunks))
    found: list[FrameReport] = []
    with Progress(Console(stderr=True), f"checking {split}", len(indices)) as progress:
        for reports in _map(dataset, chunks, processes):
            found += reports
            progress.advance(len(reports))
    return found


def _map(dataset: DepthDataset, chunks: list[list[int]], processes: int) -> Iterator[list[FrameReport]]:
    if processes <= 1:
        for chunk in chunks:
            yield look_at(dataset, chunk)
        return
    # the data set is sent to every worker once, not with every chunk: it may hold tens of thousands of file names
    with ProcessPoolExecutor(processes, initializer=_take, initargs=(dataset,)) as executor:
        yield from executor.map(_look_at_taken, chunks)


def _take(dataset: DepthDataset) -> None:
    global _taken
    _taken = dataset


def _look_at_taken(indices: list[int]) -> list[FrameReport]:
    return look_at(_taken, indices)


def look_at(dataset: DepthDataset, indices: list[int]) -> list[FrameReport]:
    """Reports of some frames."""
    reports = []
    for index in indices:
        name = dataset.name(index)
        try:
            image, depth = dataset.read(index)
            check_pair(image, depth, name, dataset.own_depth_grid)
            report = describe(name, image, depth)
            report.turned = dataset.turned(index)
            reports.append(report)
        except DataError as error:
            reports.append(FrameReport(name, error=str(error)))
            continue
        try:
            check_depth(depth, name, dataset.max_depth)
        except DataError as error:
            report.refused = str(error)
    return reports


def describe(name: str, image: np.ndarray, depth: np.ndarray) -> FrameReport:
    """Report of a frame.

    Args:
        name: its id.
        image: [H, W, 3] uint8.
        depth: [h, w] metres, unknown where it is not positive and finite.
    """
    finite = np.isfinite(depth)
    known = depth[finite & (depth > 0)]
    return FrameReport(
        id=name,
        image=image.shape[:2],
        depth=depth.shape,
        histogram=np.histogram(known, EDGES)[0].tolist(),
        missing=1 - known.size / depth.size,
        negative=float((depth < 0).mean()),
        not_finite=float((~finite).mean()),
        median=float(np.median(known)) if known.size else math.nan,
        largest=float(known.max(initial=0)) if known.size else math.nan,
        flat=bool(known.size and known.min() == known.max()) or image.min() == image.max(),
        image_hash=_hash(image),
        depth_hash=_hash(depth),
    )


def _hash(array: np.ndarray) -> int:
    return zlib.crc32(array.tobytes(), zlib.crc32(repr(array.shape).encode()))
