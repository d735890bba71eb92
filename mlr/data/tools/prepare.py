# SPDX-License-Identifier: Apache-2.0
"""``mlr prepare``: any data set -> one packed file, its holes filled, in parallel, resumable.

The frames are divided into parts. Each part is read, filled and written by a worker into a file of its own in
``<out>.parts``, which appears there when it is complete; at the end the parts are joined and removed. After a kill, the
same command goes on with the parts that are missing, and those that left out broken frames.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from torchvision import tv_tensors

from mlr.data.datasets.base import DepthDataset
from mlr.data.datasets.packed import COMPRESSIONS, Frame, join, open_packed, write_frames
from mlr.data.datasets.registry import (
    DATASETS,
    check_dataset,
    check_metric,
    check_root,
    dataset_options,
    open_dataset,
    reader_options,
)
from mlr.data.depth_files import DataError
from mlr.data.distance import Camera, depth_along_axis, parse_camera
from mlr.data.fill import fill_sample
from mlr.data.named_sets import NamedSet, parse_sets, split_name
from mlr.data.sample import Sample
from mlr.data.transforms import resize_sample
from mlr.utils import renamed
from mlr.utils.console import plain
from mlr.utils.counted import counted
from mlr.utils.files import UNFINISHED, atomic_replace
from mlr.utils.progress import Progress
from mlr.utils.sizes import parse_size

#: Frames of a part: what is lost by a kill, per worker.
FRAMES_PER_PART = 32


@dataclass(frozen=True)
class Part:
    """A run of frames that one worker packs, and how."""

    number: int
    dataset: str
    root: str
    split: str
    options: tuple[tuple[str, str], ...]
    start: int
    stop: int
    holes: str
    size: tuple[int, int] | None
    compression: str
    camera: Camera | None
    path: Path


def prepare(
    datasets: list[str],
    out: Path,
    root: Path | None = None,
    splits: str = "train,val",
    holes: Literal["colorize", "nearest", "mask"] = "colorize",
    size: str | None = None,
    distance_to_depth: str | None = None,
    data_options: str = "",
    depth_unit: str | None = None,
    compression: Literal["lzf", "gzip", "none"] = "lzf",
    workers: int = -1,
    strict: bool = False,
    quiet: bool = False,
) -> int:
    """Pack data sets into one HDF5 file that trains fast: decoded, in metres, holes filled, with checksums.

    Broken frames are named, counted and left out. After an interruption the same command continues. The file is used
    with --data packed --root FILE.

    Args:
        datasets: data sets as NAME:PATH, e.g. nyu-sync:/data/nyu, several as words or joined by plus signs; names are
            those of --data.
        out: the file to write; an earlier one is never overwritten.
        root: path of a single data set that is given as NAME.
        splits: which to pack, train, val or both.
        holes: how pixels without depth are filled: "colorize" along the image (Levin et al.), "nearest" with the
            nearest depth, "mask" leaves them 0. They stay marked as not measured.
        size: HxW in pixels to resize every frame to; by default frames keep their own.
        distance_to_depth: fx,fy,cx,cy of the camera in pixels of the depth as it is read, for data that stores the
            distance to the camera, such as Hypersim's (886.81,886.81,511.5,383.5); it is turned into depth along the
            axis.
        data_options: options of the data sets, e.g. "kb_crop=true,list_file=mine.txt"; each takes those it knows.
        depth_unit: unit of integer depth files of "folder": mm, m, 256 (KITTI) or any number of units per metre.
        compression: "lzf" is fast, "gzip" smaller, "none" fastest to read; depth of renderers shrinks with gzip alone.
        workers: processes; -1 = one a core, 0 = this one.
        strict: stop at the first broken frame and refuse listed pairs that are missing.
        quiet: no progress.

    Returns:
        The exit code, 0.

    Raises:
        DataError: a data set cannot be opened, or no frame can be used.
        ValueError, OSError: a setting is wrong, or the file cannot be written; finished parts are kept.
    """
    console = Console(stderr=True, quiet=quiet)
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out} exists; give another name with --out, or remove it")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {out.parent} to write {out.name} into")
    fill = renamed.HOLES.get(holes, holes)  # or the older name
    if fill not in ("colorize", "nearest", "mask"):
        raise ValueError(f"--holes must be colorize, nearest or mask, got {fill!r}")
    if workers < -1:
        raise ValueError(f"--workers must be -1 or more, got {workers}")
    if compression not in COMPRESSIONS:
        raise ValueError(f"--compression must be one of {', '.join(COMPRESSIONS)}, got {compression!r}")
    datasets = parse_datasets(datasets, None if root is None else str(root))
    folder = out.with_name(out.name + ".parts")
    _opened.cache_clear()  # files may have been mended since
    options = reader_options(data_options, depth_unit)
    settings = {
        "holes": fill, "size": None if size is None else parse_size(size), "compression": compression,
        "camera": None if distance_to_depth is None else parse_camera(distance_to_depth),
    }  # fmt: skip
    parts, missing = plan(datasets, parse_splits(splits), options, folder, settings)
    for text in missing:
        plain(console, text, "yellow")
    if missing and strict:
        raise DataError(f"--strict: {'; '.join(missing)}")

    _claim(folder, parts)
    waiting = [part for part in parts if not part.path.exists() or _skipped(part)]  # what was broken may be mended
    frames = sum(part.stop - part.start for part in parts)
    if len(waiting) < len(parts):
        plain(console, f"continuing: {len(parts) - len(waiting)} of {len(parts)} parts are there")
    processes = min((os.cpu_count() or 1) if workers == -1 else workers, len(waiting))
    _work(waiting, frames, processes, strict, console)
    skipped = [line for part in parts for line in _skipped(part)]
    for line in skipped[:20]:
        plain(console, f"left out: {line}", "yellow")
    if len(skipped) == frames:
        shutil.rmtree(folder)  # or a corrected command would take it for another preparation's
        raise DataError(f"none of the {counted(frames, 'frame')} can be used; the first: {skipped[0]}")

    needed = sum(part.path.stat().st_size for part in parts)
    free = shutil.disk_usage(out.parent).free
    if free < 1.02 * needed:
        raise OSError(
            f"the disk of {out.parent} has {free / 2**20:,.1f} MiB free, and joining the parts needs "
            f"{needed / 2**20:,.1f} MiB: make room and run the same command again, it continues from here"
        )
    record = {
        "holes": fill, "size": size or "", "sources": ", ".join(datasets),
        "options": ",".join(f"{name}={value}" for name, value in options.items()),
        "skipped": json.dumps(skipped), "missing": json.dumps(missing), "distance_to_depth": distance_to_depth or "",
    }  # fmt: skip
    if "max_depth" in options:  # or the file's own frames would be refused
        record["max_depth"] = options["max_depth"]
    count = join([part.path for part in parts], out, record)
    shutil.rmtree(folder)
    left_out = f", {counted(len(skipped), 'broken one')} left out" if skipped else ""
    plain(
        console,
        f"{counted(count, 'frame')} in {out}, {out.stat().st_size / 1e6:,.1f} MB{left_out}; "
        f"train with --data packed --root {out}",
    )
    return 0


def parse_dataset(text: str, root: str | None = None) -> tuple[str, str]:
    """Name and path of NAME:PATH, or of NAME whose path is given beside it.

    Raises:
        ValueError: it is of another form, there is no data set of that name, or "rooms" is given files.
    """
    name, path = split_name(text)
    if path and root:
        raise ValueError(f"{text} says its path, and --root {root} too: leave one out")
    path = path or root
    if path is None and name != "rooms":
        known = ", ".join(DATASETS)
        raise ValueError(f"a data set is given as NAME:PATH, e.g. nyu:/data/nyu, got {text!r}; the names are {known}")
    check_root(check_dataset(name), path)
    check_metric(name)
    return name, path or ""


def parse_datasets(texts: list[str], root: str | None = None) -> list[str]:
    """The data sets as NAME:PATH each, also of texts that join several by plus signs.

    Raises:
        ValueError: a path for several data sets, or a set in another form.
    """
    sets = [entry for text in texts for entry in parse_sets(text)]
    if root is not None and len(sets) != 1:
        raise ValueError(f"--root {root} is for one data set; with several give each as NAME:PATH")
    if any(replace(entry, name="") != NamedSet(entry.data, entry.root) for entry in sets):
        raise ValueError("a data set is given as NAME:PATH here; settings of single sets are for training")
    named = [parse_dataset(entry.data if entry.root is None else f"{entry.data}:{entry.root}", root) for entry in sets]
    return [f"{name}:{path}" if path else name for name, path in named]


def parse_splits(text: str) -> list[str]:
    """Splits of ``train,val``."""
    splits = [split.strip() for split in text.split(",")]
    if not set(splits) <= {"train", "val"}:
        raise ValueError(f"--splits must be train, val or train,val, got {text!r}")
    return splits


def plan(
    datasets: list[str], splits: list[str], options: dict[str, str], folder: Path, settings: dict[str, Any]
) -> tuple[list[Part], list[str]]:
    """Open every split of every data set and divide its frames into parts; also what their lists miss."""
    if not datasets:
        raise ValueError("no data set was named: mlr prepare NAME:PATH --out FILE")
    named = [(text, *parse_dataset(text)) for text in datasets]
    known = {option for _, name, _ in named for option in dataset_options(name)}
    if not set(options) <= known:
        raise ValueError(
            f"none of the data sets has the option {min(set(options) - known)!r}; they take {', '.join(sorted(known))}"
        )
    parts: list[Part] = []
    missing: list[str] = []
    for text, name, root in named:
        choice = tuple(sorted((key, value) for key, value in options.items() if key in dataset_options(name)))
        for split in splits:
            opened = _opened(name, root, split, choice)
            if opened.note():
                missing.append(f"{text} {split}: {opened.note()}")
            for start in range(0, len(opened), FRAMES_PER_PART):
                number, stop = len(parts), min(start + FRAMES_PER_PART, len(opened))
                path = folder / f"{number:06d}.h5"
                parts.append(Part(number, name, root, split, choice, start, stop, path=path, **settings))
    return parts, missing


def _claim(folder: Path, parts: list[Part]) -> None:
    """Make the folder of the parts, or see that it holds parts of this very preparation."""
    names = [_opened(part.dataset, part.root, part.split, part.options).name(part.start) for part in parts]
    described = [{key: str(value) for key, value in asdict(part).items() if key != "path"} for part in parts]
    wanted = {"first": described[0], "parts": len(parts), "frames": zlib.crc32(json.dumps([names, described]).encode())}
    file = folder / "plan.json"
    if folder.exists():
        try:
            found = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise DataError(f"{folder} is in the way and holds no preparation: {error}; remove it") from error
        if found != wanted:
            raise DataError(
                f"{folder} holds parts of another preparation (other data, holes, size or options): run that command "
                "again to finish it, choose another --out, or remove the folder"
            )
        for unfinished in folder.glob(f".*{UNFINISHED}"):  # of a run that was killed
            unfinished.unlink()
        return
    with atomic_replace(folder) as temporary:
        temporary.mkdir()
        (temporary / file.name).write_text(json.dumps(wanted, indent=1))


def _work(waiting: list[Part], frames: int, processes: int, strict: bool, console: Console) -> None:
    """Pack the parts, in this process or in others."""
    done = frames - sum(part.stop - part.start for part in waiting)
    with Progress(console, "packing", frames, done) as progress:
        for part in _in_order_of_completion(waiting, processes, strict):
            progress.advance(part.stop - part.start)


def _in_order_of_completion(waiting: list[Part], processes: int, strict: bool) -> Iterator[Part]:
    if processes <= 1:
        for part in waiting:
            pack(part, strict)
            yield part
        return
    executor = ProcessPoolExecutor(processes)
    try:
        queue = iter(waiting)  # handed out bit by bit: an error ends the work soon, not after all that was planned
        running = {executor.submit(pack, part, strict) for part in islice(queue, 2 * processes)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
            running |= {executor.submit(pack, part, strict) for part in islice(queue, len(finished))}
    except BrokenProcessPool as error:
        raise OSError(
            "the system ended a worker, probably because memory ran out: run the same command again with fewer "
            "--workers, it continues from here"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


@lru_cache(maxsize=4)
def _opened(name: str, root: str, split: str, options: tuple[tuple[str, str], ...]) -> DepthDataset:
    """Opened once a process: lists of tens of thousands of files are not read for every part."""
    return open_dataset(name, root, split, **dict(options))


def pack(part: Part, strict: bool = False) -> Part:
    """Read, fill and write the frames of a part. Broken frames are left out and named in the part's attributes."""
    dataset = _opened(part.dataset, part.root, part.split, part.options)
    skipped: list[str] = []
    attributes = {"skipped": "[]"}

    def frames() -> Iterator[Frame]:
        for index in range(part.start, part.stop):
            try:
                sample = _along_the_axis(dataset[index], part.camera)
                if part.holes != "mask":
                    sample = fill_sample(sample, part.holes)
            except DataError as error:
                if strict:
                    raise
                skipped.append(f"{part.dataset} {part.split} {dataset.name(index)}: {error}")
                attributes["skipped"] = json.dumps(skipped)
                continue
            if part.size is not None:
                sample = resize_sample(sample, part.size)
            image = sample["image"].permute(1, 2, 0).numpy()
            depth, valid = sample["depth"][0].numpy(), sample["valid"][0].numpy()
            yield Frame(sample["id"], part.dataset, part.split, image, depth, valid)

    write_frames(part.path, frames(), part.compression, attributes)
    return part


def _along_the_axis(sample: Sample, camera: Camera | None) -> Sample:
    """A frame with depth in place of the distance to a camera; unchanged without one."""
    if camera is not None:
        depth = depth_along_axis(sample["depth"][0].numpy(), camera)
        sample["depth"] = tv_tensors.Mask(torch.from_numpy(depth)[None])
    return sample


def _skipped(part: Part) -> list[str]:
    with open_packed(part.path) as file:
        return json.loads(file.attrs["skipped"])
