# SPDX-License-Identifier: Apache-2.0
"""``mlr predict``: images, folders and videos -> depth files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console

from mlr.data.chosen import ChosenData
from mlr.data.datasets.base import DepthDataset
from mlr.data.datasets.registry import check_root, open_dataset
from mlr.data.depth_files import DataError
from mlr.models.depth_model import TrainedModel, open_model
from mlr.prediction.inference import predict_pictures
from mlr.prediction.inputs import Input, Picture, find_inputs, frame_inputs, read_pictures
from mlr.prediction.outputs import Outputs, parse_formats
from mlr.prediction.point_cloud import Intrinsics
from mlr.prediction.video import count_frames, require_av
from mlr.utils.console import plain
from mlr.utils.counted import counted
from mlr.utils.overlap import Behind, ahead
from mlr.utils.progress import Progress
from mlr.utils.sizes import MIN_SIDE, parse_size


def predict(
    checkpoint: Path,
    out: Path,
    inputs: list[str] = [],  # noqa: B006 - never changed; the command line shows it
    format: str = "png",
    size: str | None = None,
    batch_size: int = 8,
    flip: bool = False,
    intrinsics: str | None = None,
    max_depth: float | None = None,
    data: str | None = None,
    root: Path | None = None,
    data_options: str | None = None,
    depth_unit: str | None = None,
    split: Literal["train", "val", "all"] = "val",
    device: Literal["auto", "cpu", "gpu"] = "auto",
    quiet: bool = False,
) -> int:
    """Predict the depth of images, folders of images and videos, or of the frames of a data set.

    Without inputs, the frames are those of --data, or of the run's own data. Files that cannot be read are named,
    counted and left out. Nothing is overwritten. docs/prediction.md describes the files that are written.

    Args:
        checkpoint: a network: best.pt or last.pt of a run, the run's folder (its best.pt), the authors' PNAS_model.pth.
        out: folder for the depth files.
        inputs: images, videos, folders of them (with their sub-folders, which are kept), or patterns in quotes such as
            "shots/*/rgb.png".
        format: one or several of png (16-bit millimetres), npy (float32 metres), color (a picture with a scale), ply
            (coloured points), glb (a coloured surface for any viewer) and, of videos, video (coloured, MP4); several
            get a folder each.
        size: HxW in pixels that the network sees; by default the size that it was trained at. Depth always has the
            image's own size.
        batch_size: images that the network sees at once.
        flip: average with the prediction of the mirrored image.
        intrinsics: fx,fy,cx,cy of the camera in pixels of the images, for ply and glb.
        max_depth: metres at the end of the scale of color, which then begins at 0, and of video; by default each
            picture's own range, and the largest depth of a video's first frame.
        data: a data set whose frames are predicted, NAME or NAME:PATH, by its name in training.
        root: folder or file of the data set.
        data_options: options of the data set, e.g. "list_file=mine.txt".
        depth_unit: unit of integer depth files of "folder".
        split: frames of the data set: "train", "val" (validation or test frames) or "all".
        device: "auto", "cpu" or "gpu".
        quiet: no progress; only what went wrong.

    Returns:
        The exit code: 0, or 1 if a file was left out.

    Raises:
        ValueError, DataError: a setting or the checkpoint is unusable, or two inputs would have the same output.
        OSError: there are no inputs, or outputs exist already or cannot be written.
        ImportError: videos need an extra package.
    """
    outputs = Outputs(Path(out), *_output_settings(format, max_depth, intrinsics))
    given = None if size is None else parse_size(size, MIN_SIDE)
    if batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {batch_size}")
    chosen = ChosenData(data, None if root is None else str(root), data_options, depth_unit)
    if inputs and chosen != ChosenData():
        raise ValueError("--data, --root, --data-options and --depth-unit are for frames of a data set: name no files")
    unread: list[str] = []
    files, ignored = find_inputs(inputs, outputs.folder, unread) if inputs else ([], 0)
    _check_videos(files, outputs.formats)
    if any(file.is_video for file in files):
        require_av()
    network = open_model(checkpoint, device)
    outputs.relative = network.relative
    if network.relative and set(outputs.formats) - {"npy"}:
        raise ValueError(
            f"{network.path} predicts relative depth, which has no metres: --format npy writes its numbers"
        )
    console = Console(stderr=True)
    if not inputs:
        files = frame_inputs(_open_data(chosen, network, split, Console(stderr=True, quiet=quiet)))
    outputs.require_free(files)

    size_used = given or network.checkpoint.size
    if not quiet:
        plain(console, _description(network, size_used, flip))
        if ignored > len(unread):
            plain(
                console,
                f"{counted(ignored - len(unread), 'file', 'are')} neither image nor video and left alone",
                "dim",
            )
        for line in unread[:20]:
            plain(console, f"left out: {line}", "yellow")
    done, broken = _run(network, files, outputs, size_used, batch_size, flip, Console(stderr=True, quiet=quiet))
    _report(console, outputs, done, broken, quiet)
    return 1 if broken else 0


def _open_data(chosen: ChosenData, network: TrainedModel, split: str, console: Console) -> DepthDataset:
    """The frames that the flags, and for the rest the network's run, choose."""
    chosen, taken = chosen.completed_by(network.checkpoint.config, network.path)
    if taken:
        plain(console, f"as in the run: {taken}")
    unit = {"unit": chosen.validate().depth_unit} if chosen.takes_unit else {}
    check_root(chosen.name, chosen.root)
    dataset = open_dataset(chosen.name, chosen.root, split, **chosen.options, **unit)
    plain(console, f"frames    {dataset!r}, {split}")
    if note := dataset.note():
        plain(console, note, "yellow")
    return dataset


def _output_settings(
    format: str, max_depth: float | None, intrinsics: str | None
) -> tuple[list[str], float | None, Intrinsics | None]:
    formats = parse_formats(format)
    solid = [form for form in formats if form in ("ply", "glb")]
    if solid and intrinsics is None:
        raise ValueError(f"--format {solid[0]} needs the camera: give --intrinsics fx,fy,cx,cy in pixels of the images")
    if not solid and intrinsics is not None:
        raise ValueError("--intrinsics are for --format ply and glb only")
    if max_depth is not None and not {"color", "video"} & set(formats):
        raise ValueError("--max-depth is for --format color and video only")
    if max_depth is not None and not (math.isfinite(max_depth) and max_depth > 0):
        raise ValueError(f"--max-depth must be a positive number of metres, got {max_depth}")
    return formats, max_depth, Intrinsics.parse(intrinsics) if intrinsics else None


def _check_videos(files: list[Input], formats: list[str]) -> None:
    """Refuse the format video where it would write nothing.

    Raises:
        ValueError: no input is a video, or one that is none has no other format.
    """
    pictures = [file for file in files if not file.is_video]
    if "video" in formats and len(pictures) == len(files):
        raise ValueError("--format video is for videos, and no input is one: choose --format color")
    if formats == ["video"] and pictures:
        raise ValueError(
            f"--format video is for videos, and {pictures[0].path} is a picture: add a format, --format video,color"
        )


def _description(network: TrainedModel, size: tuple[int, int] | None, flip: bool) -> str:
    at = f"{size[0]} x {size[1]}" if size else "the images' own size (the checkpoint names none)"
    mirrored = ", averaged with the mirrored image" if flip else ""
    return f"network   {network.model.config['backbone']} of {network.path} at {at} on {network.device}{mirrored}"


def _run(
    network: TrainedModel,
    files: list[Input],
    outputs: Outputs,
    size: tuple[int, int] | None,
    batch_size: int,
    flip: bool,
    console: Console,
) -> tuple[int, list[str]]:
    """Predict all; the number of pictures written, and what was left out with the reasons."""
    broken: list[str] = []
    done = 0

    def readable() -> Iterator[Picture]:
        for file in files:
            try:
                yield from read_pictures(file)
            except DataError as error:
                broken.append(str(error))

    def save(picture: Picture, depth: np.ndarray) -> None:
        nonlocal done
        try:
            outputs.save(picture, depth)
            done += 1
        except DataError as error:
            broken.append(str(error))

    counts = [count_frames(file.path) if file.is_video else 1 for file in files]
    total = None if None in counts else sum(filter(None, counts))
    with outputs, Progress(console, "predicting", total) as progress:
        pictures = ahead(readable(), batch_size)
        with Behind(batch_size) as behind:
            for picture, depth in predict_pictures(network.model, pictures, size, batch_size, flip):
                behind(save, picture, depth)
                progress.advance(done + len(broken) - progress.done)
    return done, broken


def _report(console: Console, outputs: Outputs, done: int, broken: list[str], quiet: bool) -> None:
    if not quiet:
        plain(console, f"predictions: {done} in {outputs.folder} ({', '.join(outputs.formats)})")
    for names, what in (
        (outputs.negative, "depth below 0, written as 0"),
        (outputs.saturated, "depth beyond 65.535 m, the most a depth PNG holds, written as that: "
                            "--format npy has no limit"),
    ):  # fmt: skip
        if names:
            pictures = counted(len(names), "picture", "have")
            plain(console, f"{pictures} {what} ({names[0]}{', ...' if len(names) > 1 else ''})", "yellow")
    for line in broken[:20]:
        plain(console, f"left out: {line}", "red")
    if broken:
        what = "1 file or frame is" if len(broken) == 1 else f"{len(broken)} files or frames are"
        plain(console, f"{what} broken and left out", "red")
