# SPDX-License-Identifier: Apache-2.0
"""``mlr check-data``: look at every frame of a data set before training finds out what is wrong with it."""

from __future__ import annotations

import json as json_format
import math
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlr.data.datasets.base import DepthDataset
from mlr.data.datasets.registry import dataset_options, open_dataset, reader_options
from mlr.data.depth_files import UNITS, DataError, UndeclaredUnitError, likely_unit
from mlr.data.tools.frame_report import EDGES, FrameReport, look
from mlr.data.tools.prepare import parse_dataset, parse_datasets, parse_splits
from mlr.utils.console import plain, shown

#: Medians of a set outside this range are no metres of rooms or streets.
PLAUSIBLE = (0.3, 60.0)
#: Medians of two splits that differ by these factors are worth a warning, or an error.
UNLIKE, UNRELATED = 3.0, 8.0


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
    root: Path | None = None,
    splits: str = "train,val",
    data_options: str = "",
    depth_unit: str | None = None,
    sample: int | None = None,
    workers: int = -1,
    json: bool = False,
) -> int:
    """Check a data set: counts, sizes, unit, depth histogram, holes, mismatches, duplicates, corrupt files, overlap.

    Args:
        dataset: the data set as NAME:PATH, e.g. folder:shots; names are those of --data.
        root: its path, if it is given as NAME.
        splits: which to look at, train, val or both.
        data_options: options of the data set, e.g. "kb_crop=true".
        depth_unit: unit of integer depth files of "folder": mm, m, 256 (KITTI) or any number of units per metre.
        sample: number of frames of a split to look at, evenly spread, instead of all.
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
    dataset, *more = parse_datasets([dataset], None if root is None else str(root))
    if more:
        raise ValueError(f"mlr check-data looks at one data set, got {', '.join([dataset, *more])}")
    report = examine(dataset, parse_splits(splits), reader_options(data_options, depth_unit), sample, workers)
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
    units: dict[str, str] = {}
    deepest = PLAUSIBLE[1]
    for split in splits:
        try:
            opened = open_dataset(name, root, split, **options)
            if undeclared := _without_unit(opened) if "unit" in dataset_options(name) else []:
                units[split] = guess_unit(open_dataset(name, root, split, **{**options, "unit": "m"}), undeclared)
                opened = open_dataset(name, root, split, **{**options, "unit": units[split]})
        except DataError as error:
            report.errors.append(f"{split}: {error}")
            continue
        if "max_depth" in options:
            deepest = max(deepest, opened.max_depth)
        if opened.note():
            report.warnings.append(f"{split}: {opened.note()}")
        frames[split] = look(opened, sample, workers, split)
    _name_units(report, units)
    _summarise(report, frames, deepest)
    return report


def _spread(dataset: DepthDataset, count: int = 8) -> list[int]:
    """Some indices, evenly spread."""
    return np.unique(np.linspace(0, len(dataset) - 1, count).astype(int)).tolist()


def _without_unit(dataset: DepthDataset) -> list[int]:
    """Frames, of a few, that hold integers of no declared unit."""
    undeclared = []
    for index in _spread(dataset):
        try:
            dataset.read(index)
        except UndeclaredUnitError:
            undeclared.append(index)
        except DataError:  # named when all frames are looked at
            continue
    return undeclared


def guess_unit(dataset: DepthDataset, indices: list[int] | None = None) -> str:
    """The likely unit of integer depth, by its range and its holes.

    Args:
        dataset: frames whose depth is the integers themselves.
        indices: which frames to look at; by default some, evenly spread.

    Raises:
        DataError: no known unit makes depth of the values.
    """
    largest, missing = 0.0, 0.0
    indices = _spread(dataset) if indices is None else indices
    for index in indices:
        _, depth = dataset.read(index)
        largest = max(largest, float(depth.max()))
        missing += float((depth <= 0).mean()) / len(indices)
    if missing > 0.5 and 100 < largest <= 80 * UNITS["kitti"]:
        return "kitti"  # LiDAR: a few per cent of the pixels
    if 100 < largest <= 255:
        return "25.5"  # 8 bits for 10 m
    unit = likely_unit(largest)
    if unit is None:
        raise DataError(f"no unit was declared, and no known unit makes depth of values up to {largest:,.0f}")
    return unit


def _name_units(report: Report, units: dict[str, str]) -> None:
    """Say which unit was guessed; splits of unlike units need different settings, which training has not."""
    if len(set(units.values())) > 1:
        found = ", ".join(f"{split} like {unit!r}" for split, unit in units.items())
        report.errors.append(f"no unit was declared for integer depth, and the splits differ: {found}")
    elif units:
        report.unit = next(iter(units.values()))
        report.warnings.insert(
            0,
            f"no unit was declared for integer depth; its values look like {report.unit!r}: declare it with "
            f"--depth-unit {report.unit} here, in mlr prepare and in training",
        )


# --- the whole set ----------------------------------------------------------------------------------------------------


def _summarise(report: Report, frames: dict[str, list[FrameReport]], deepest: float) -> None:
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
    known = [frame for frame in every if not math.isnan(frame.median)]
    if known:
        report.median = float(np.median([frame.median for frame in known]))
        report.largest = max(frame.largest for frame in known)
        _judge_units(report, good, deepest)
    refused = [frame for frame in every if frame.refused]
    if len(refused) < len(known):  # of all frames the median tells
        _name(report.errors, "depth that training refuses", [frame.refused for frame in refused])

    _name(report.errors, "no pixel has depth", [frame.id for frame in every if math.isnan(frame.median)])
    _name(report.warnings, "negative depth, taken as unknown", [frame.id for frame in every if frame.negative])
    _name(report.warnings, "NaN or infinite depth, taken as unknown", [f.id for f in every if f.not_finite])
    _name(report.warnings, "image or depth of one single value", [frame.id for frame in every if frame.flat])
    _name(report.warnings, "picture turned as its EXIF orientation says", [frame.id for frame in every if frame.turned])
    for split, reports in good.items():
        _name(report.warnings, f"{split}: the same frame twice", _duplicates(reports))
    if len(good) == 2:
        first, second = ({(f.image_hash): f.id for f in reports} for reports in good.values())
        overlap = [f"{first[key]} = {second[key]}" for key in first.keys() & second.keys()]
        _name(report.errors, "the same image in train and val", sorted(overlap))


def _judge_units(report: Report, good: dict[str, list[FrameReport]], deepest: float) -> None:
    """Judge the splits apart: pooled, a wrong unit of one hides behind the other."""
    medians = {
        split: float(np.median(known))
        for split, reports in good.items()
        if (known := [frame.median for frame in reports if not math.isnan(frame.median)])
    }
    low = PLAUSIBLE[0]
    for split, median in medians.items():
        if low <= median <= deepest:
            continue
        fits = [name for name, steps in UNITS.items() if steps > 1 and low <= median / steps <= deepest]
        hint = f"; as {fits[0]} it would be {median / UNITS[fits[0]]:.2f} m" if fits else ""
        text = f"{split}: the median depth is {median:g} m, neither a room's nor a street's: check the unit{hint}"
        if median > 100:
            text += ", or say that it is true with the option max_depth"
        (report.errors if median > max(100, deepest) else report.warnings).append(text)
    if len(medians) == 2:
        (one, first), (other, second) = medians.items()
        ratio = max(first, second) / min(first, second)
        if ratio > UNLIKE:
            text = (
                f"the median depth is {first:.3g} m in {one} and {second:.3g} m in {other}, {ratio:.3g} times as much: "
                "check that both have the same unit"
            )
            (report.errors if ratio > UNRELATED else report.warnings).append(text)


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
    table = Table(title=Text(shown(report.dataset)), show_header=False, title_justify="left")
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
            plain(console, line, label=(f"{kind}:", colour))
    if not report.errors:
        console.print("[green]usable[/green]" + (" with warnings" if report.warnings else ""))
