# SPDX-License-Identifier: Apache-2.0
"""The frames of a data set under protocols: which apply, which depth they score, and the scoring itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from torch import Tensor

from mlr.data.datasets.base import DepthDataset
from mlr.data.datasets.registry import check_dataset, check_options, check_root, dataset_options, open_dataset
from mlr.data.depth_files import DataError
from mlr.data.sample import Sample
from mlr.evaluation.predictor import Predictor
from mlr.evaluation.protocols import PROTOCOLS, Protocol, get_protocol
from mlr.evaluation.scoring import Scores

#: Data sets that may hold frames of any other. What they are, and so which protocols are meant, only the user knows.
ANY_FRAMES = ("folder", "packed", "rooms")
#: (data set, protocol) -> options that choose the depth that the protocol scores, where the set ships several.
DEPTH_OPTIONS = {
    ("nyu", "paper"): {"depth": "depths"},
    ("nyu", "nyu-toolbox"): {"depth": "depths"},
    ("nyu", "bts"): {"depth": "rawDepths"},
    **{("make3d", name): {"channel": "3"} for name in ("make3d-c1", "make3d-c2", "make3d-md2")},
}


@dataclass
class Evaluation:
    """What scoring a data set came to.

    Attributes:
        frames: in the data set.
        scores: of each protocol that scored the frames.
        refused: protocol -> why it cannot score them.
        broken: frames left out because their files are broken, each with the reason.
        sizes: sizes of images and depth, and how many frames have them.
    """

    frames: int
    scores: dict[str, Scores] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)


def choose_protocols(text: str, data: str) -> tuple[list[Protocol], dict[str, str]]:
    """Protocols by name, or all that are defined on a data set.

    Args:
        text: a name, several separated by commas, or "all".
        data: the data set's name.

    Returns:
        The protocols, and for those that "all" does not mean here, why.

    Raises:
        ValueError: a name is unknown, or the protocol is defined on another data set.
    """
    check_dataset(data)
    if text != "all":
        chosen = [get_protocol(name.strip()) for name in text.split(",")]
        for protocol in chosen:
            if protocol.data and data not in (*protocol.data, *ANY_FRAMES):
                raise ValueError(
                    f"protocol {protocol.name!r} is {_elsewhere(protocol)}, not on {data}: its numbers would not be "
                    "comparable"
                )
        return list(dict.fromkeys(chosen)), {}
    chosen = [p for p in PROTOCOLS.values() if not p.data or data in p.data]
    advice = f"; name it if {data} holds such frames" if data in ANY_FRAMES else ""
    return chosen, {p.name: _elsewhere(p) + advice for p in PROTOCOLS.values() if p not in chosen}


def _elsewhere(protocol: Protocol) -> str:
    return f"defined on {', '.join(protocol.data)}"


def open_frames(
    protocols: list[Protocol], data: str, root: Path | None, options: dict[str, str], depth_unit: str | None = None
) -> tuple[dict[str, DepthDataset], dict[str, str]]:
    """Open the validation split with the depth that each protocol scores.

    Args:
        protocols: what will be scored.
        data: the data set's name.
        root: its folder or file.
        options: of its reader.
        depth_unit: unit of integer depth of "folder" whose files do not declare it.

    Returns:
        Protocol -> data set, the same object for protocols that score the same depth; and why others are refused.

    Raises:
        ValueError, DataError: the data set cannot be opened.
    """
    check_root(data, root)
    opened: dict[tuple[tuple[str, Any], ...], DepthDataset] = {}
    datasets: dict[str, DepthDataset] = {}
    refused: dict[str, str] = {}
    for protocol in protocols:
        extra = DEPTH_OPTIONS.get((data, protocol.name), {})
        given = {key: options[key] for key in extra if key in options}
        wanted = check_options(data, extra)
        clashes = [f"{key}={given[key]}" for key, value in check_options(data, given).items() if value != wanted[key]]
        if clashes:
            refused[protocol.name] = f"it scores {protocol.ground_truth}: leave out the option {', '.join(clashes)}"
            continue
        if data == "kitti" and protocol.paste:  # scored on whole frames, whatever part of them the network sees
            extra = {"kb_crop": "false"}
        key = _reading(data, {**options, **extra})
        try:
            if key not in opened:
                opened[key] = _open(data, root, dict(key), depth_unit)
        except DataError as error:
            if key == _reading(data, options):  # no fault of the depth that the protocol scores
                raise
            refused[protocol.name] = str(error)
            continue
        datasets[protocol.name] = opened[key]
    if not datasets:
        raise DataError("; ".join(f"{name}: {reason}" for name, reason in refused.items()))
    return datasets, refused


def _reading(data: str, options: dict[str, str]) -> tuple[tuple[str, Any], ...]:
    """Options in their own types, without the reader's defaults: they are equal where the frames are."""
    known = dataset_options(data)
    return tuple(sorted((k, v) for k, v in check_options(data, options).items() if v != known[k].default))


def _open(data: str, root: Path | None, options: dict[str, Any], depth_unit: str | None) -> DepthDataset:
    dataset = open_dataset(data, root, "val", **options)
    if depth_unit is not None and "unit" in dataset_options(data) and "unit" not in options:
        try:
            dataset.read(0)
        except DataError:  # integers that declare no unit; any other fault shows again when the frame's turn comes
            return open_dataset(data, root, "val", **options, unit=depth_unit)
    return dataset


def score_frames(
    datasets: dict[str, DepthDataset], predictor: Predictor, refused: dict[str, str], console: Console
) -> Evaluation:
    """Score every frame, one at a time, under every protocol.

    Args:
        datasets: protocol -> frames with the depth it scores.
        predictor: predicted depth.
        refused: protocols that are refused already.
        console: shows the progress.

    Returns:
        Scores, and what was refused or left out.

    Raises:
        DataError: a frame or a prediction is broken, in a set where none is known to be; or nothing can be scored.
    """
    first = next(iter(datasets.values()))
    result = Evaluation(len(first), {name: Scores(name) for name in datasets}, dict(refused))
    for index in track(range(len(first)), "scoring", console=console, transient=True):
        samples: dict[DepthDataset, Sample] = {}
        try:
            for dataset in {datasets[name] for name in result.scores}:
                samples[dataset] = dataset[index]
        except DataError as error:
            if not first.tolerant:
                raise
            result.broken.append(f"{first.name(index)}: {error}")
            continue
        result.sizes.update({_sizes(sample) for sample in samples.values()})
        images = {
            dataset: sample["image"].as_subclass(Tensor).float()[None] / 255 for dataset, sample in samples.items()
        }
        depths: dict[tuple, Tensor] = {}
        for name, scores in list(result.scores.items()):
            dataset = datasets[name]
            try:
                _score(index, images[dataset], samples[dataset], scores, predictor, depths)
            except DataError as error:
                raise DataError(f"{dataset.name(index)}: {error}") from error
            except ValueError as error:
                result.refused[name] = str(error)
                del result.scores[name]
        if not result.scores:
            break
    if len(result.broken) == len(first):
        raise DataError(f"all {len(first)} frames are broken; the first: {result.broken[0]}")
    for name, scores in list(result.scores.items()):
        if not (scores.pixels > 0).any():
            result.refused[name] = f"none of the {len(first)} frames has a pixel to score"
            del result.scores[name]
    if not result.scores:
        raise DataError("nothing can be scored. " + "; ".join(f"{k}: {v}" for k, v in result.refused.items()))
    return result


def _score(
    index: int,
    image: Tensor,
    sample: Sample,
    scores: Scores,
    predictor: Predictor,
    depths: dict[tuple, Tensor],
) -> None:
    """Score a frame; its predictions are shared by the protocols through ``depths``."""
    protocol, target = scores.protocol, sample["depth"].as_subclass(Tensor)[None]
    if tuple(target.shape[-2:]) == protocol.paste:
        raise ValueError(
            f"{sample['id']} is KITTI's bottom-centre crop of {target.shape[-2]} x {target.shape[-1]} pixels, and "
            f"protocol {protocol.name!r} is defined on whole frames"
        )
    key = predictor.key(protocol)
    if key not in depths:
        depths[key] = predictor.predict(index, image, protocol)
    predictor.check(index, depths[key], image, target, protocol)
    # a protocol of filled depth scores what was filled too; others take what was measured alone
    mask = None if protocol.needs_full else sample["valid"].as_subclass(Tensor)[None]
    scores.add([sample["id"]], depths[key], target, mask)


def _sizes(sample: Sample) -> str:
    image, depth = ("x".join(map(str, sample[name].shape[-2:])) for name in ("image", "depth"))
    return image if image == depth else f"{image}, depth {depth}"
