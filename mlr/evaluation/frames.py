# SPDX-License-Identifier: Apache-2.0
"""The frames of a data set under protocols: which apply, which depth they score, and the scoring itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from mlr.data.chosen import ChosenData
from mlr.data.datasets.base import DepthDataset
from mlr.data.datasets.registry import (
    check_options,
    check_root,
    dataset_class,
    dataset_options,
    dataset_truth,
    open_dataset,
)
from mlr.data.depth_files import DataError, UndeclaredUnitError
from mlr.data.fill import fill_sample
from mlr.data.sample import Sample
from mlr.evaluation.order import OrderScores
from mlr.evaluation.predictor import Prediction, Predictor
from mlr.evaluation.protocols import PROTOCOLS, Protocol, get_protocol
from mlr.evaluation.scoring import FrameScores, Scores
from mlr.relative.ordinal import OrdinalPairs
from mlr.utils.counted import counted
from mlr.utils.overlap import ahead
from mlr.utils.progress import Progress

#: Data sets that may hold frames of any other. What they are, and so which protocols are meant, only the user knows.
ANY_FRAMES = ("folder", "packed", "rooms")
#: Options of a reader that differ from its defaults, in their own types.
Reading = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Frames:
    """A split of a data set under protocols.

    Attributes:
        shown: the frames that networks see.
        truths: protocol -> the same frames with the depth that it scores; one object for protocols that score the same.
        refused: protocol -> why the data set cannot give the depth that it scores.
        in_unit: ``shown`` in the user's unit, for frames whose files declare none.
        holes: how depth is filled for protocols that score every pixel; "mask" = not at all.
    """

    shown: DepthDataset
    truths: dict[str, DepthDataset]
    refused: dict[str, str]
    in_unit: DepthDataset | None = None
    holes: str = "mask"

    def read(self, dataset: DepthDataset, index: int) -> Sample:
        """A frame of ``shown`` or of ``truths``."""
        try:
            return dataset[index]
        except UndeclaredUnitError:
            if self.in_unit is None:
                raise
            return self.in_unit[index]

    def truth(self, sample: Sample, protocol: Protocol) -> Sample:
        """A frame with its holes filled, if the protocol scores every pixel and that was asked for."""
        return fill_sample(sample, self.holes) if protocol.needs_full and self.holes != "mask" else sample


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
    scores: dict[str, FrameScores] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)


def choose_protocols(text: str, data: str, metres: bool = True) -> tuple[list[Protocol], dict[str, str]]:
    """Protocols by name, or all that are defined on a data set.

    Args:
        text: a name, several separated by commas, or "all".
        data: the data set's name.
        metres: whether the predictions are in metres.

    Returns:
        The protocols, and for those that "all" does not mean here, why.

    Raises:
        ValueError: a name is unknown, or the protocol is defined on another data set.
    """
    metric = metres and dataset_truth(data) == "metric"
    if text != "all":
        chosen = [get_protocol(name.strip()) for name in text.split(",")]
        for protocol in chosen:
            if not (metric or protocol.relative):
                what = data if metres else "the network"
                raise ValueError(f"protocol {protocol.name!r} scores metres, and {what} has none: --protocol relative")
            if protocol.data and data not in (*protocol.data, *ANY_FRAMES):
                raise ValueError(
                    f"protocol {protocol.name!r} is {_elsewhere(protocol)}, not on {data}: its numbers would not be "
                    "comparable"
                )
        return list(dict.fromkeys(chosen)), {}
    chosen = [p for p in PROTOCOLS.values() if p.relative != metric and (not p.data or data in p.data)]
    advice = f"; name it if {data} holds such frames" if data in ANY_FRAMES else ""
    left_out = [p for p in PROTOCOLS.values() if p not in chosen]
    return chosen, {p.name: _elsewhere(p) + advice * bool(p.data) for p in left_out}


def _elsewhere(protocol: Protocol) -> str:
    if protocol.relative:
        return "for the order of depth alone; name it"
    return f"defined on {', '.join(protocol.data)}" if protocol.data else "for depth in metres"


def open_frames(
    protocols: list[Protocol],
    data: str,
    root: Path | None,
    options: dict[str, str],
    split: str = "val",
    unit: str | None = None,
    holes: str = "mask",
) -> Frames:
    """Open a split with the depth that each protocol scores.

    Args:
        protocols: what will be scored.
        data: the data set's name.
        root: its folder or file.
        options: of its reader.
        split: "train", "val" or "all".
        unit: unit of integer depth files that declare none.
        holes: how depth is filled for protocols that score every pixel.

    Raises:
        ValueError, DataError: the data set cannot be opened.
    """
    check_root(data, root)
    parts = set(getattr(dataset_class(data), "region_options", ()))
    opened: dict[Reading, DepthDataset] = {}

    def opening(reading: Reading) -> DepthDataset:
        if reading not in opened:
            opened[reading] = open_dataset(data, root, split, **dict(reading))
        return opened[reading]

    truths: dict[str, DepthDataset] = {}
    refused: dict[str, str] = {}
    depth_options: dict[str, Mapping[str, str]] = {}
    for protocol in protocols:
        chosen = protocol.data.get(data, {})
        given = {key: options[key] for key in chosen if key in options and key not in parts}
        wanted = check_options(data, dict(chosen))
        clashes = [f"{key}={given[key]}" for key, value in check_options(data, given).items() if value != wanted[key]]
        if clashes:
            refused[protocol.name] = f"it scores {protocol.ground_truth}: leave out the option {', '.join(clashes)}"
            continue
        reading = _reading(data, {**options, **chosen})
        try:
            truths[protocol.name] = opening(reading)
        except DataError as error:
            if reading == _reading(data, options):  # no fault of the depth that the protocol scores
                raise
            refused[protocol.name] = str(error)
            continue
        depth_options[protocol.name] = chosen
    if not truths:
        raise DataError("; ".join(f"{name}: {reason}" for name, reason in refused.items()))
    # the part of the frames that was asked for, with a depth that is there
    first = {**options, **next(iter(depth_options.values()))}
    regions = {key: options[key] for key in parts & options.keys()}
    without = {key: value for key, value in first.items() if key not in parts}
    in_unit = None if unit is None else open_dataset(data, root, split, **options, unit=unit)
    return Frames(opening(_reading(data, {**without, **regions})), truths, refused, in_unit, holes)


def _reading(data: str, options: dict[str, str]) -> Reading:
    """Options in their own types, without the reader's defaults: they are equal where the frames are."""
    known = dataset_options(data)
    return tuple(sorted((k, v) for k, v in check_options(data, options).items() if v != known[k].default))


def all_names(chosen: ChosenData) -> list[str]:
    """Ids of the frames of all splits, in the data set's order.

    Raises:
        ValueError, DataError: the data set cannot be opened.
    """
    dataset = open_dataset(chosen.name, chosen.root, "all", **chosen.options)
    return [dataset.name(index) for index in range(len(dataset))]


def score_frames(frames: Frames, predictor: Predictor, console: Console) -> Evaluation:
    """Score every frame, one at a time, under every protocol.

    Args:
        frames: the frames with the depth that is scored.
        predictor: predicted depth.
        console: shows the progress.

    Returns:
        Scores, and what was refused or left out.

    Raises:
        DataError: a frame or a prediction is broken, in a set where none is known to be; or nothing can be scored.
    """
    shown = frames.shown
    empty = {name: new_scores(get_protocol(name)) for name in frames.truths}
    result = Evaluation(len(shown), empty, dict(frames.refused))
    progress = Progress(console, "scoring", len(shown))

    def read(index: int) -> dict[DepthDataset, Sample] | DataError:
        used = dict.fromkeys((shown, *(frames.truths[name] for name in list(result.scores))))
        try:
            return {dataset: frames.read(dataset, index) for dataset in used}
        except DataError as error:
            if not shown.tolerant:
                raise
            return error

    samples_ahead = ahead(map(read, range(len(shown))))
    for index, samples in enumerate(progress.over(samples_ahead)):
        if isinstance(samples, DataError):
            result.broken.append(f"{shown.name(index)}: {samples}")
            continue
        result.sizes.update({_sizes(sample) for sample in samples.values()})
        predictions: dict[tuple, Prediction] = {}
        for name, scores in list(result.scores.items()):
            try:
                key = predictor.key(scores.protocol)
                if key not in predictions:
                    predictions[key] = predictor.predict(index, samples[shown], scores.protocol)
                truth = frames.truth(samples[frames.truths[name]], scores.protocol)
                _score(index, samples[shown], truth, scores, predictor, predictions[key])
            except DataError as error:
                raise DataError(f"{shown.name(index)}: {error}") from error
            except ValueError as error:
                result.refused[name] = str(error)
                del result.scores[name]
        if not result.scores:
            break
    if len(result.broken) == len(shown):
        raise DataError(f"all {counted(len(shown), 'frame', 'are')} broken; the first: {result.broken[0]}")
    for name, scores in list(result.scores.items()):
        if not (scores.pixels > 0).any():
            result.refused[name] = f"none of the {counted(len(shown), 'frame')} has a pixel to score"
            del result.scores[name]
    if not result.scores:
        raise DataError("nothing can be scored. " + "; ".join(f"{k}: {v}" for k, v in result.refused.items()))
    return result


def new_scores(protocol: Protocol) -> FrameScores:
    """Empty scores under a protocol."""
    return OrderScores(protocol) if protocol.relative else Scores(protocol)


def _score(
    index: int, shown: Sample, truth: Sample, scores: FrameScores, predictor: Predictor, prediction: Prediction
) -> None:
    """Score a prediction of the frame ``shown``."""
    protocol, target, whole = scores.protocol, truth["depth"].as_subclass(Tensor)[None], truth.get("region")
    predictor.check(index, prediction, shown, target, protocol)
    if whole is not None and prediction.region != whole:
        raise ValueError(f"the prediction of {shown['id']} covers another part of the frame than the depth to score")
    region = None if prediction.region == whole else prediction.region
    # a protocol of filled depth scores what was filled too; others take what was measured alone
    mask = None if protocol.needs_full else truth["valid"].as_subclass(Tensor)[None]
    if isinstance(scores, OrderScores):
        scores.add([shown["id"]], prediction.depth, target, mask, region, _pairs(truth), truth.get("metric", True))
    else:
        scores.add([shown["id"]], prediction.depth, target, mask, region)


def _pairs(sample: Sample) -> OrdinalPairs | None:
    """The labelled pairs of a frame; None if it has none."""
    if "points" not in sample:
        return None
    first, second = sample["points"].as_subclass(Tensor).flip(-1).round().long().unbind(1)
    height, width = sample["depth"].shape[-2:]
    return OrdinalPairs(sample["id"], (height, width), first, second, sample["relation"])


def _sizes(sample: Sample) -> str:
    image, depth = ("x".join(map(str, sample[name].shape[-2:])) for name in ("image", "depth"))
    return image if image == depth else f"{image}, depth {depth}"
