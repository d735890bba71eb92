# SPDX-License-Identifier: Apache-2.0
"""``mlr evaluate``: score a checkpoint or a folder of predictions on a data set, under one or all protocols."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from mlr._version import __version__
from mlr.data.datasets.registry import check_options, dataset_options, parse_options
from mlr.data.depth_files import units_per_metre
from mlr.evaluation.frames import choose_protocols, open_frames, score_frames
from mlr.evaluation.prediction_files import PredictionFiles
from mlr.evaluation.predictor import Network, Predictor
from mlr.evaluation.protocols import Protocol
from mlr.evaluation.results import dumps, require_new_folder, save, show
from mlr.models.depth_model import TrainedModel, open_model
from mlr.utils.sizes import MIN_SIDE, parse_size


def evaluate(
    predictions_or_checkpoint: Path,
    data: str,
    root: Path | None = None,
    data_options: str = "",
    protocol: str = "all",
    out: Path | None = None,
    size: str | None = None,
    flip: bool = False,
    no_flip: bool = False,
    half: bool = False,
    device: Literal["auto", "cpu", "gpu"] = "auto",
    match: Literal["name", "order"] = "name",
    depth_unit: str | None = None,
    json: bool = False,
) -> int:
    """Score a trained network, or a folder of predictions, on the validation or test frames of a data set.

    Frames are read at their own size, without training transforms, and scored as each protocol says. Means come with
    95 % bootstrap intervals over the frames. docs/evaluation.md describes the protocols.

    Args:
        predictions_or_checkpoint: a checkpoint (best.pt, last.pt, the authors' PNAS_model.pth), the folder of a run
            (its best.pt), or a folder of predictions, one 16-bit PNG or .npy file (float metres) a frame.
        data: the data set; names are those of --data in training.
        root: folder or file of the data set; "rooms" takes none.
        data_options: options of the data set, e.g. "list_file=mine.txt".
        protocol: name of a protocol, several separated by commas, or "all" that are defined on this data set.
        out: new folder for scores.json and a table of every frame's scores, <protocol>.csv.
        size: HxW in pixels of the network's input, for protocols that have none of their own; by default the size that
            it was trained at.
        flip: average with the prediction of the mirrored image, whatever the protocol says.
        no_flip: do not, whatever the protocol says.
        half: run the network in half precision.
        device: "auto", "cpu" or "gpu".
        match: how prediction files belong to frames: by "name", or in the "order" of their numbers and names.
        depth_unit: unit of integer files that do not declare their own (mm, m, 256 or any number of units per metre):
            predictions, and the depth of --data folder.
        json: print what scores.json holds instead of a table.

    Returns:
        The exit code: 0, or 1 if a protocol that was named refuses the frames.

    Raises:
        ValueError, DataError: a setting, the data or a prediction is unusable, or nothing could be scored.
        OSError: the results cannot be written.
    """
    path, console = predictions_or_checkpoint, Console(stderr=True)
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}: give a checkpoint, a run folder or a folder of predictions")
    from_files = path.is_dir() and not (path / "config.yaml").is_file()
    if from_files and (size or flip or no_flip or half):
        raise ValueError(f"--size, --flip, --no-flip and --half are for networks; {path} is a folder of predictions")
    if not from_files and match != "name":
        raise ValueError(f"--match is for folders of predictions; {path} holds a network")
    if flip and no_flip:
        raise ValueError("--flip and --no-flip exclude each other")
    if depth_unit is not None:
        units_per_metre(depth_unit)
        if not from_files and "unit" not in dataset_options(data):
            raise ValueError(f"--depth-unit is not for --data {data}, whose unit is known")
    if out:
        require_new_folder(out)
    protocols, left_out = choose_protocols(protocol, data)
    options = parse_options(data_options)
    datasets, refused = open_frames(protocols, data, root, options, depth_unit)
    frames = next(iter(datasets.values()))
    if note := frames.note():
        console.print(note, style="yellow", highlight=False, soft_wrap=True)

    predictor: Predictor
    described: dict[str, Any]
    if from_files:
        names = [frames.name(index) for index in range(len(frames))]
        predictor = PredictionFiles(path, names, match, depth_unit)
        described = {"predictions": str(path)}
    else:
        averaged = flip if flip or no_flip else None
        cropped = bool(check_options(data, options).get("kb_crop"))
        trained, input_size = _open_network(path, protocols, size, device)
        if data == "kitti" and (note := _other_part(trained.checkpoint.config, cropped)):
            console.print(note, style="yellow", highlight=False, soft_wrap=True)
        predictor = Network(trained.model, input_size, averaged, half, cropped)
        described = {
            "checkpoint": str(trained.path),
            "sha256": _sha256(trained.path),
            "origin": trained.checkpoint.origin,
            **trained.model.config,
            "versions": trained.checkpoint.versions,
        }
    result = score_frames(datasets, predictor, refused, console)
    record = {
        "evaluated": described,
        "data": {
            "name": data,
            "root": root and str(root),
            "options": data_options,
            "split": "val",
            "frames": result.frames,
            "sizes": dict(result.sizes),
            "missing": frames.missing,
            "broken": result.broken,
        },
        "versions": {"mlr": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        "protocols": {
            name: {**scores.record(), "prediction": predictor.record(scores.protocol)}
            for name, scores in result.scores.items()
        },
        "refused": result.refused,
        "left_out": left_out,
    }
    if json:
        print(dumps(record))
    else:
        show(record, Console())
    if out:
        save(out, record, result)
        console.print(f"scores are in {out}", highlight=False, soft_wrap=True)
    return 1 if result.refused and protocol != "all" else 0


def _open_network(
    path: Path, protocols: list[Protocol], size: str | None, device: str
) -> tuple[TrainedModel, tuple[int, int] | None]:
    """The network of a checkpoint, and the size of its input where a protocol has none."""
    given = None if size is None else parse_size(size, MIN_SIDE)
    if given is not None and all(protocol.input_size for protocol in protocols):
        fixed = ", ".join(f"{p.name} takes {p.input_size[0]}x{p.input_size[1]}" for p in protocols if p.input_size)
        raise ValueError(f"--size {size} has no use here: {fixed}")
    trained = open_model(path, device)
    return trained, given or trained.checkpoint.size


def _other_part(config: dict[str, Any], cropped: bool) -> str:
    """What to say of a network that was trained on another part of KITTI's images than it is shown; "" of others."""
    if config.get("data", "kitti") != "kitti" or "data_options" not in config:
        return ""
    stored = parse_options(config["data_options"])
    trained = check_options("kitti", {"kb_crop": stored.get("kb_crop", "false")})["kb_crop"]
    if trained == cropped:
        return ""
    if trained:
        return (
            "the network was trained on KITTI's bottom-centre crop and is shown whole frames: "
            "give --data-options kb_crop=true"
        )
    return (
        "the network was trained on KITTI's whole frames and is shown the bottom-centre crop: "
        "leave kb_crop=true out of --data-options"
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
