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
from mlr.data.chosen import ChosenData
from mlr.data.datasets.registry import check_options, dataset_class, dataset_options
from mlr.evaluation.frames import Frames, all_names, choose_protocols, open_frames, score_frames
from mlr.evaluation.prediction_files import PredictionFiles
from mlr.evaluation.predictor import Network, Predictor
from mlr.evaluation.protocols import Protocol
from mlr.evaluation.results import dumps, require_new_folder, save, show
from mlr.models.depth_model import TrainedModel, open_model
from mlr.utils.console import plain
from mlr.utils.sizes import MIN_SIDE, parse_size


def evaluate(
    predictions_or_checkpoint: Path,
    data: str | None = None,
    root: Path | None = None,
    data_options: str | None = None,
    depth_unit: str | None = None,
    holes: Literal["mask", "colorize", "nearest", "error"] | None = None,
    split: Literal["train", "val", "all"] = "val",
    protocol: str = "all",
    out: Path | None = None,
    size: str | None = None,
    flip: bool = False,
    no_flip: bool = False,
    half: bool = False,
    device: Literal["auto", "cpu", "gpu"] = "auto",
    match: Literal["name", "order"] = "name",
    json: bool = False,
) -> int:
    """Score a trained network, or a folder of predictions, on the frames of a data set.

    Frames are read at their own size, without training transforms, and scored as each protocol says. Means come with
    95 % bootstrap intervals over the frames. What is not said about the data of a network is taken from its run.
    docs/evaluation.md describes the protocols.

    Args:
        predictions_or_checkpoint: a checkpoint (best.pt, last.pt, the authors' PNAS_model.pth), the folder of a run
            (its best.pt), or a folder of predictions, one 16-bit PNG or .npy file (float metres) a frame.
        data: the data set, NAME or NAME:PATH; names are those of --data in training. Of a run on several sets, the name
            of one of them.
        root: folder or file of the data set; "rooms" takes none.
        data_options: options of the data set, e.g. "list_file=mine.txt".
        depth_unit: unit of integer files that do not declare their own (mm, m, 256 or any number of units per metre):
            predictions, and the depth of --data folder.
        holes: what protocols of filled depth do with pixels without depth: "mask" refuses such frames, "colorize" and
            "nearest" fill them, "error" stops. Other protocols score measured pixels alone.
        split: frames to score: "train", "val" (validation or test frames) or "all".
        protocol: name of a protocol, several separated by commas, or "all" that are defined on this data set.
        out: new folder for scores.json and a table of every frame's scores, <protocol>.csv.
        size: HxW in pixels of the network's input, for protocols that have none of their own; by default the size that
            it was trained at.
        flip: average with the prediction of the mirrored image, whatever the protocol says.
        no_flip: do not, whatever the protocol says.
        half: run the network in half precision.
        device: "auto", "cpu" or "gpu".
        match: how prediction files belong to frames: by "name", or in the natural "order" of their names where names
            do not tell.
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
    if out:
        require_new_folder(out)

    chosen = ChosenData(data, None if root is None else str(root), data_options, depth_unit, holes)
    network = None
    if not from_files:
        network = open_model(path, device)
        chosen, taken = chosen.completed_by(network.checkpoint.config, network.path)
        if taken:
            plain(console, f"as in the run: {taken}")
    chosen.validate()
    if network and depth_unit is not None and not chosen.takes_unit:
        raise ValueError(f"--depth-unit is not for --data {chosen.name}, whose unit is known")
    protocols, left_out = choose_protocols(protocol, chosen.name, not (network and network.relative))
    frames = _open(protocols, chosen, split, from_files)

    predictor: Predictor
    if network is None:
        predictor = PredictionFiles(path, frames.shown, match, depth_unit, lambda: all_names(chosen))
        described: dict[str, Any] = {"predictions": str(path)}
        notes = [frames.shown.note(), *predictor.notes]
    else:
        given = _input_size(size, protocols) or network.checkpoint.size
        predictor = Network(network.model, given, flip if flip or no_flip else None, half)
        described = _described(network)
        notes = [frames.shown.note(), _other_part(chosen, network)]
    for note in filter(None, notes):
        plain(console, note, "yellow")

    result = score_frames(frames, predictor, console)
    record = {
        "evaluated": described,
        "data": {
            "name": chosen.name,
            "root": chosen.root,
            "options": chosen.data_options or "",
            "depth_unit": chosen.depth_unit,
            "holes": frames.holes,
            "split": split,
            "frames": result.frames,
            "sizes": dict(result.sizes),
            "missing": frames.shown.missing,
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
        plain(console, f"scores are in {out}")
    return 1 if result.refused and protocol != "all" else 0


def _open(protocols: list[Protocol], chosen: ChosenData, split: str, from_files: bool) -> Frames:
    """The frames. The unit is one for all depth files, as in training; predictions may have another than the frames."""
    options = chosen.options
    unit = chosen.depth_unit if chosen.takes_unit else None
    if unit and not from_files:
        options["unit"], unit = unit, None
    root = None if chosen.root is None else Path(chosen.root)
    return open_frames(protocols, chosen.name, root, options, split, unit, chosen.holes or "mask")


def _input_size(size: str | None, protocols: list[Protocol]) -> tuple[int, int] | None:
    """The size of the network's input where a protocol has none."""
    given = None if size is None else parse_size(size, MIN_SIDE)
    if given is not None and all(protocol.input.size for protocol in protocols):
        sizes = {protocol.name: protocol.input.size for protocol in protocols}
        fixed = ", ".join(f"{name} takes {size[0]}x{size[1]}" for name, size in sizes.items() if size)
        raise ValueError(f"--size {given[0]}x{given[1]} has no use here: {fixed}")
    return given


def _described(network: TrainedModel) -> dict[str, Any]:
    return {
        "checkpoint": str(network.path),
        "sha256": _sha256(network.path),
        "origin": network.checkpoint.origin,
        **network.model.config,
        "versions": network.checkpoint.versions,
    }


def _other_part(chosen: ChosenData, network: TrainedModel) -> str:
    """What to say of a network that was trained on another part of the frames than it is shown; "" of others."""
    run = ChosenData.of_run(network.checkpoint.config, network.path, chosen.data)
    if run.data != chosen.name:
        return ""
    known = dataset_options(chosen.name)
    notes = []
    for key in getattr(dataset_class(chosen.name), "region_options", ()):
        default = {key: known[key].default}
        given = ({k: v for k, v in data.options.items() if k == key} for data in (run, chosen))
        trained, shown = (check_options(chosen.name, default | options)[key] for options in given)
        if trained != shown:
            notes.append(
                f"the network was trained with {key}={str(trained).lower()} and is shown frames with "
                f"{key}={str(shown).lower()}: give --data-options {key}={str(trained).lower()}"
            )
    return "; ".join(notes)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
