# SPDX-License-Identifier: Apache-2.0
"""``mlr check-data``: look at every frame of a data set before training finds out what is wrong with it."""

from __future__ import annotations

import json as json_format
import math
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mlr.data.datasets.base import DepthDataset, check_pair
from mlr.data.datasets.registry import dataset_options, open_dataset, parse_options
from mlr.data.depth_files import MAX_DEPTH, UNITS, DataError
from mlr.data.tools.prepare import parse_dataset, parse_splits

#: Edges of the depth histogram, metres.
EDGES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 20.0, 40.0, 80.0, math.inf)
#: Medians of a set outside this range are no metres of rooms or streets.
PLAUSIBLE = (0.3, 60.0)
#: Frames that a worker looks at in one go.
CHUNK = 16

#: What a worker looks at.
_taken: DepthDataset


@dataclass
class FrameReport:
    """What one frame is like.

    Attributes:
        id: its name.
        error: why it cannot be used; None if it can.
        image, depth: (height, width).
        histogram: pixels of each bin of :data:`EDGES`.
        missing, negative, not_finite: shares of the pixels.
        median, largest: of the known depth; NaN if none is known.
        image_hash, depth_hash: of the contents.
    """

    id: str
    error: str | None = None
    image: tuple[int, int] = (0, 0)
    depth: tuple[int, int] = (0, 0)
    histogram: list[int] = field(default_factory=list)
    missing: float = 0.0
    negative: float = 0.0
    not_finite: float = 0.0
    median: float = math.nan
    largest: float = math.nan
    flat: bool = False
    image_hash: int = 0
    depth_hash: int = 0


@dataclass
class Report:
    """What a data set is like.

    Attributes:
        dataset: as it was named.
        frames: number of usable frames of each split.
        sizes: image sizes and how many frames have them; of the depth too, where it is another.
        histogram: bin, such as "1.5-2 m", and the share of known pixels in it.
        median, largest: of the frames' medians, and of all depth; metres.
        missing: mean share of pixels without depth.
        unit: how integer depth was read, where that was guessed.
        errors: what makes frames unusable or scores wrong.
        warnings: what may be meant.
    """

    dataset: str
    frames: dict[str, int]
    sizes: dict[str, int]
    histogram: dict[str, float]
    median: float | None
    largest: float | None
    missing: float | None
    unit: str | None = None
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_data(
    dataset: str,
    splits: str = "train,val",
    options: str = "",
    sample: int | None = None,
    workers: int = -1,
    json: bool = False,
) -> int:
    """Check a data set: counts, sizes, unit, depth histogram, holes, mismatches, duplicates, corrupt files, overlap.

    Args:
        dataset: the data set as NAME:PATH, e.g. folder:shots; names are those of --data.
        splits: which to look at, train, val or both.
        options: of the reader, e.g. unit=mm or kb_crop=true.
        sample: look at so many frames of a split, evenly spread, instead of all.
        workers: processes; -1 = one a core, 0 = this one.
        json: print the report as JSON instead of a table.

    Returns:
        The exit code: 0, or 1 if there are errors.

    Raises:
        ValueError: a setting is wrong.
    """
    if sample is not None and sample < 1:
        raise ValueError(f"--sample must be at least 1, got {sample}")
    if workers < -1:
        raise ValueError(f"--workers must be -1 or more, got {workers}")
    report = examine(dataset, parse_splits(splits), parse_options(options), sample, workers)
    if json:
        print(json_format.dumps(asdict(report), indent=2))
    else:
        show(report, Console())
    return 1 if report.errors else 0


def examine(
    text: str, splits: list[str], options: dict[str, str], sample: int | None = None, workers: int = 0
) -> Report:
    """Look at the frames of a data set; see :func:`check_data`."""
    name, root = parse_dataset(text)
    report = Report(text, {}, {}, {}, None, None, None)
    frames: dict[str, list[FrameReport]] = {}
    for split in splits:
        try:
            opened = open_dataset(name, root, split, **options)
            if "unit" in dataset_options(name) and "unit" not in options and _needs_unit(opened):
                report.unit = guess_unit(open_dataset(name, root, split, **{**options, "unit": "m"}))
                options = {**options, "unit": report.unit}
                opened = open_dataset(name, root, split, **options)
                report.warnings.append(
                    f"no unit was declared for integer depth; its values look like {report.unit!r}: declare it with "
                    f"--options unit={report.unit} here and --depth-unit {report.unit} in training"
                )
        except DataError as error:
            report.errors.append(f"{split}: {error}")
            continue
        if opened.note():
            report.warnings.append(f"{split}: {opened.note()}")
        frames[split] = _look(opened, sample, workers, split)
    _summarise(report, frames)
    return report


def _needs_unit(dataset: DepthDataset) -> bool:
    try:
        dataset.read(0)
    except DataError as error:
        return "no unit was declared" in str(error)
    return False


def guess_unit(dataset: DepthDataset) -> str:
    """The likely unit of integer depth, by its range and its holes.

    Args:
        dataset: frames whose depth is the integers themselves.
    """
    largest, missing = 0.0, 0.0
    indices = np.unique(np.linspace(0, len(dataset) - 1, 8).astype(int))
    for index in indices:
        _, depth = dataset.read(int(index))
        largest = max(largest, float(depth.max()))
        missing += float((depth <= 0).mean()) / len(indices)
    if largest <= MAX_DEPTH:
        return "m"
    if missing > 0.5 and largest <= 80 * UNITS["kitti"]:
        return "kitti"  # LiDAR: a few per cent of the pixels
    return "mm" if largest <= 20_000 else "nyu-10m"


def _look(dataset: DepthDataset, sample: int | None, workers: int, split: str) -> list[FrameReport]:
    count = len(dataset) if sample is None else min(sample, len(dataset))
    indices = np.unique(np.linspace(0, len(dataset) - 1, count).astype(int)).tolist()
    chunks = [indices[i : i + CHUNK] for i in range(0, len(indices), CHUNK)]
    processes = min((os.cpu_count() or 1) if workers == -1 else workers, len(chunks))
    progress = track(
        _map(dataset, chunks, processes), f"checking {split}", len(chunks), console=Console(stderr=True), transient=True
    )
    return [report for reports in progress for report in reports]


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
            reports.append(describe(name, image, depth))
        except DataError as error:
            reports.append(FrameReport(name, error=str(error)))
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


# --- the whole set ----------------------------------------------------------------------------------------------------


def _summarise(report: Report, frames: dict[str, list[FrameReport]]) -> None:
    good = {split: [frame for frame in reports if frame.error is None] for split, reports in frames.items()}
    every = [frame for reports in good.values() for frame in reports]
    report.frames = {split: len(reports) for split, reports in good.items()}
    report.sizes = dict(Counter(_size(frame) for frame in every).most_common())
    for split, reports in frames.items():
        _name(report.errors, f"{split}: unusable", [frame.error for frame in reports if frame.error is not None])
    if not every:
        report.errors.append("there is no usable frame")
        return

    histogram = np.sum([frame.histogram for frame in every], axis=0)
    share = histogram / max(histogram.sum(), 1)
    report.histogram = {_bin(low, high): float(part) for low, high, part in zip(EDGES, EDGES[1:], share, strict=False)}
    report.missing = float(np.mean([frame.missing for frame in every]))
    medians = [frame.median for frame in every if not math.isnan(frame.median)]
    if medians:
        report.median = float(np.median(medians))
        report.largest = max(frame.largest for frame in every if not math.isnan(frame.largest))
        _judge_unit(report)

    _name(report.errors, "no pixel has depth", [frame.id for frame in every if math.isnan(frame.median)])
    _name(report.warnings, "negative depth, taken as unknown", [frame.id for frame in every if frame.negative])
    _name(report.warnings, "NaN or infinite depth, taken as unknown", [f.id for f in every if f.not_finite])
    _name(report.warnings, "image or depth of one single value", [frame.id for frame in every if frame.flat])
    for split, reports in good.items():
        _name(report.warnings, f"{split}: the same frame twice", _duplicates(reports))
    if len(good) == 2:
        first, second = ({(f.image_hash): f.id for f in reports} for reports in good.values())
        overlap = [f"{first[key]} = {second[key]}" for key in first.keys() & second.keys()]
        _name(report.errors, "the same image in train and val", sorted(overlap))


def _judge_unit(report: Report) -> None:
    assert report.median is not None
    low, high = PLAUSIBLE
    if low <= report.median <= high:
        return
    fits = [name for name, steps in UNITS.items() if steps > 1 and low <= report.median / steps <= high]
    hint = f"; as {fits[0]} it would be {report.median / UNITS[fits[0]]:.2f} m" if fits else ""
    text = f"the median depth is {report.median:g} m, which is neither a room nor a street: check the unit{hint}"
    (report.errors if report.median > MAX_DEPTH else report.warnings).append(text)


def _duplicates(reports: list[FrameReport]) -> list[str]:
    groups = defaultdict(list)
    for frame in reports:
        groups[frame.image_hash, frame.depth_hash].append(frame.id)
    return [" = ".join(ids) for ids in groups.values() if len(ids) > 1]


def _name(lines: list[str], what: str, names: list[Any]) -> None:
    """Add a line that counts and names."""
    if names:
        lines.append(f"{what}: {len(names)} ({'; '.join(map(str, names[:5]))}{'; ...' if len(names) > 5 else ''})")


def _size(frame: FrameReport) -> str:
    image, depth = ("x".join(map(str, size)) for size in (frame.image, frame.depth))
    return image if image == depth else f"{image}, depth {depth}"


def _bin(low: float, high: float) -> str:
    return f"{low:g}-{high:g} m" if math.isfinite(high) else f"over {low:g} m"


def show(report: Report, console: Console) -> None:
    """Print a report as tables."""
    table = Table(title=report.dataset, show_header=False, title_justify="left")
    for split, count in report.frames.items():
        table.add_row(f"{split} frames", f"{count:,}")
    sizes = list(report.sizes.items())
    table.add_row("sizes", "\n".join(f"{count:,} of {size}" for size, count in sizes[:6]) or "-")
    if len(sizes) > 6:
        table.add_row("", f"and {len(sizes) - 6} more")
    if report.median is not None and report.missing is not None:
        table.add_row("median depth", f"{report.median:.2f} m")
        table.add_row("largest depth", f"{report.largest:.2f} m")
        table.add_row("without depth", f"{100 * report.missing:.1f} % of the pixels")
        widest = max(report.histogram.values(), default=0) or 1
        bars = [(name, share) for name, share in report.histogram.items() if share > 0]
        table.add_row("depth", "\n".join(f"{n:>9} {100 * s:5.1f} % {'█' * round(24 * s / widest)}" for n, s in bars))
    console.print(table)
    for colour, kind, lines in (("yellow", "warning", report.warnings), ("red", "error", report.errors)):
        for line in lines:
            console.print(f"[{colour}]{kind}:[/{colour}] ", end="")
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    if not report.errors:
        console.print("[green]usable[/green]" + (" with warnings" if report.warnings else ""))
