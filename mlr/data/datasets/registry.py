# SPDX-License-Identifier: Apache-2.0
"""Data sets by name: the one list of what ``--data``, ``mlr prepare`` and ``mlr check-data`` know."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from mlr.data.datasets.base import AllSplits, DepthDataset
from mlr.data.depth_files import DataError, units_per_metre
from mlr.utils import renamed
from mlr.utils.suggest import suggest

#: Splits of every data set.
SPLITS = ("train", "val", "all")

#: Name -> (module:reader, what it is). Modules are imported when they are used.
DATASETS: dict[str, tuple[str, str]] = {
    "rooms": ("mlr.data.synthetic.rooms:open_rooms", "built-in scenes, needs no files"),
    "nyu": ("mlr.data.datasets.nyu:NYU", "NYU Depth v2, labelled: nyu_depth_v2_labeled.mat with splits.mat"),
    "nyu-zip": (
        "mlr.data.datasets.nyu_zip:NYUZip",
        "NYU Depth v2, the authors' train795.zip, train_reduced05.zip, test654.zip",
    ),
    "nyu-h5": ("mlr.data.datasets.nyu_h5:NYUFrames", "NYU Depth v2, one .h5 a frame (sparse-to-dense, FastDepth)"),
    "nyu-sync": ("mlr.data.datasets.nyu_sync:NYUSync", 'NYU Depth v2, the "sync" folders and lists of BTS'),
    "nyu-parquet": ("mlr.data.datasets.nyu_parquet:NYUParquet", "NYU Depth v2 at 288 x 384 in parquet files"),
    "kitti": ("mlr.data.datasets.kitti:KITTI", "KITTI by the lists of Eigen's split"),
    "make3d": ("mlr.data.datasets.make3d:Make3D", "Make3D with laser depth"),
    "sunrgbd": ("mlr.data.datasets.sunrgbd:SUNRGBD", "SUN RGB-D with allsplit.mat of its toolbox"),
    "matterport3d": ("mlr.data.datasets.matterport3d:Matterport3D", "Matterport3D, undistorted images, by scenes"),
    "diw": ("mlr.data.datasets.diw:DIW", "Depth in the Wild: one ordered pair of points an image; for --task relative"),
    "redweb": ("mlr.data.datasets.redweb:ReDWeb", "ReDWeb: relative depth up to scale and shift; for --task relative"),
    "folder": ("mlr.data.datasets.folder:Folder", "your own pairs of images and depth files"),
    "packed": ("mlr.data.datasets.packed:Packed", "the file that mlr prepare writes"),
}


def check_dataset(name: str) -> str:
    """The name, if there is a data set of that name.

    Raises:
        ValueError: there is none; the message names the nearest and all of them.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}{suggest(name, DATASETS)} There are {', '.join(DATASETS)}")
    return name


def dataset_class(name: str) -> Callable[..., DepthDataset]:
    """What opens a data set: called as ``(root, split, **options)``."""
    module, _, attribute = DATASETS[check_dataset(name)][0].partition(":")
    return getattr(import_module(module), attribute)


def dataset_truth(name: str) -> str:
    """What a data set knows of its frames: "metric" depth, "relative" depth or "pairs".

    Raises:
        ValueError: there is no data set of that name.
    """
    return getattr(dataset_class(name), "truth", DepthDataset.truth)


def check_metric(name: str) -> None:
    """Refuse a data set without metres.

    Raises:
        ValueError: saying what it is for.
    """
    if dataset_truth(name) != "metric":
        raise ValueError(
            f"{name} ({DATASETS[name][1]}) has no depth in metres: mlr train takes it with --task relative, "
            "mlr evaluate with --protocol relative"
        )


#: Options that every data set has.
COMMON = {"max_depth": inspect.Parameter("max_depth", inspect.Parameter.KEYWORD_ONLY, annotation=float)}


def dataset_options(name: str) -> dict[str, inspect.Parameter]:
    """What a reader takes beside root and split, e.g. ``kb_crop`` of "kitti", and what every data set takes."""
    parameters = inspect.signature(dataset_class(name), eval_str=True).parameters
    return {key: value for key, value in parameters.items() if key not in ("root", "split")} | COMMON


def open_dataset(name: str, root: str | Path | None = None, split: str = "train", **options: Any) -> DepthDataset:
    """Open a data set: its frames at their own size, without transforms, holes left as they are.

    Args:
        name: a key of :data:`DATASETS`.
        root: folder or file of the data set; "rooms" needs none.
        split: "train", "val" (the test images, where a benchmark calls them so) or "all".
        options: of the reader, as values or as text, e.g. ``kb_crop=True`` or ``channel="2"``. Every data set takes
            ``max_depth``: largest median depth of a frame that is believed, metres (100 by default).

    Raises:
        ValueError: the name, the split or an option is unknown.
        DataError: the files are missing or are not what the data set should be.

    Example:
        >>> len(open_dataset("rooms", split="val", length=7))
        7
    """
    values = check_options(name, options)
    if split not in SPLITS:
        raise ValueError(f"split must be train, val or all, got {split!r}")
    if root is None and name != "rooms":
        raise DataError(f"--data {name} needs --root: {DATASETS[name][1]}")
    max_depth = values.pop("max_depth", None)
    if max_depth is not None and not 0 < max_depth < math.inf:
        raise ValueError(f"option max_depth of data set {name!r} must be a positive number of metres, got {max_depth}")
    reader = dataset_class(name)
    native = split in getattr(reader, "splits", DepthDataset.splits)
    dataset = reader(root, split, **values) if native else _open_all(reader, root, values)
    if max_depth is not None:
        for part in dataset.parts if isinstance(dataset, AllSplits) else []:
            part.max_depth = max_depth
        dataset.max_depth = max_depth
    return dataset


def _open_all(reader: Callable[..., DepthDataset], root: str | Path | None, values: dict[str, Any]) -> AllSplits:
    """Every split that there is; a split that is not there is named.

    Raises:
        DataError: there is none.
    """
    parts, absent = [], []
    for split in DepthDataset.splits:
        try:
            parts.append(reader(root, split, **values))
        except DataError as error:
            absent.append(f"split {split}: {error}")
    if not parts:
        raise DataError("; ".join(absent))
    return AllSplits(parts, absent)


def check_root(name: str, root: str | Path | None) -> None:
    """Refuse files for the built-in scenes: whoever names some means another data set.

    Raises:
        ValueError: "rooms" with a folder or file.
    """
    if name == "rooms" and root is not None:
        raise ValueError(
            f"the data set rooms is built in and needs no files: say what {root} holds, e.g. --data folder "
            f"--root {root} in training and evaluation, folder:{root} for mlr prepare and check-data"
        )


def check_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options of a data set in their own types.

    Raises:
        ValueError: the name or an option is unknown, or a value is of another type.
    """
    known, values = dataset_options(name), {}
    for key, value in options.items():
        if key not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise ValueError(f"data set {name!r} has no option {key!r}; {takes}")
        values[key] = _typed(value, known[key].annotation, f"option {key} of data set {name!r}")
    return values


def parse_options(text: str | None) -> dict[str, str]:
    """Options as they are typed: ``kb_crop=true,list_file=mine.txt``.

    Raises:
        ValueError: a part is not of that form.
    """
    options = {}
    for part in filter(None, (part.strip() for part in (text or "").split(","))):
        key, equals, value = part.partition("=")
        if not (equals and key.strip().isidentifier()):
            raise ValueError(f"options must be name=value, separated by commas, got {part!r}")
        options[key.strip()] = value.strip()
    return options


def reader_options(data_options: str | None, depth_unit: str | None) -> dict[str, str]:
    """Options of readers from the flags --data-options and --depth-unit; an option "unit" goes before the flag.

    Raises:
        ValueError: the options are not of their form, or there is no such unit.
    """
    if depth_unit is not None:
        units_per_metre(depth_unit)
    unit = {} if depth_unit is None else {"unit": renamed.UNITS.get(depth_unit, depth_unit)}
    return unit | parse_options(data_options)


def _typed(value: Any, hint: Any, what: str) -> Any:
    if not isinstance(value, str) or hint is str or str in getattr(hint, "__args__", ()):
        return value
    if hint is bool:
        truth = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if value.lower() not in truth:
            raise ValueError(f"{what} must be true or false, got {value!r}")
        return truth[value.lower()]
    try:
        return hint(value)
    except ValueError as error:
        raise ValueError(f"{what} must be {hint.__name__}, got {value!r}") from error
