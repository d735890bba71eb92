# SPDX-License-Identifier: Apache-2.0
"""Scores of a whole data set under a protocol: image by image, with intervals, ready to be stored."""

from __future__ import annotations

import csv
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mlr.data.sample import Region
from mlr.evaluation.edges import EDGE_THRESHOLDS, edge_metrics_at
from mlr.evaluation.metrics import METRICS, aggregate, score_table
from mlr.evaluation.normals import normal_angle
from mlr.evaluation.protocols import Protocol, get_protocol
from mlr.models.inference import infer

#: Metrics of structure by name: edges by threshold in centimetres, and the mean angle of the normals in degrees. An
#: image without an edge has no score in some of them; every image that has one counts once.
STRUCTURE = (
    *(f"edge{100 * t:.0f}_{name}" for t in EDGE_THRESHOLDS for name in ("precision", "recall", "f1")),
    "normal_angle",
)


@torch.no_grad()
def structure_table(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Scores of structure of a batch [B, 1, H, W], [B, 10] in the order of :data:`STRUCTURE`."""
    edges = edge_metrics_at(EDGE_THRESHOLDS, pred, target, mask)
    columns = [scores[name] for scores in edges for name in ("precision", "recall", "f1")]
    return torch.stack([*columns, normal_angle(pred, target, mask)], 1)


@torch.no_grad()
def predict(
    model: Callable[[Tensor], Tensor],
    image: Tensor,
    protocol: str | Protocol,
    size: tuple[int, int] | None = None,
    flip: bool | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Predict depth as a protocol prescribes the input, by the way of :meth:`mlr.DepthModel.infer`.

    Args:
        model: network from [B, 3, h, w] in [0, 1] to depth [B, 1, h, w].
        image: [B, 3, H, W] at the camera's size, bytes or floats in [0, 1].
        protocol: name or :class:`Protocol`.
        size: (height, width) of the network's input where the protocol has none; None = the image's.
        flip: average with the prediction of the mirrored image; None = as the protocol says.
        device: where the model is; None = where the image is.

    Returns:
        Depth in metres, float32, [B, 1, h, w]: at the size of the part of the image that the protocol shows, or, where
        it prescribes the resize, at the size of the network's input.

    Raises:
        ValueError: the protocol is defined on images of another size.
    """
    given = get_protocol(protocol).input
    try:
        image = given.part(image)
    except ValueError as error:
        raise ValueError(f"protocol {get_protocol(protocol).name!r}: {error}") from error
    size = given.size or size or (image.shape[-2], image.shape[-1])
    if given.resize == "bicubic":
        image = image / 255 if image.dtype == torch.uint8 else image
        if tuple(image.shape[-2:]) != size:
            image = F.interpolate(image, size=size, mode="bicubic", align_corners=False)
    return infer(model, image, size, given.flip_average if flip is None else flip, device)


class FrameScores(ABC):
    """Scores of frames under one protocol, collected one batch after the other.

    Attributes:
        protocol: what is done to each prediction before it is scored.
        ids: name of every frame, in the order they were added.
    """

    protocol: Protocol
    ids: list[str]

    @abstractmethod
    def add(
        self,
        ids: list[str],
        pred: Tensor,
        target: Tensor,
        mask: Tensor | None = None,
        region: Region | None = None,
    ) -> None:
        """Score a batch."""

    @property
    @abstractmethod
    def pixels(self) -> Tensor:
        """How many pixels or pairs were scored in every frame, [n]."""

    @property
    def excluded(self) -> list[str]:
        """Frames without any, which no mean contains."""
        return [name for name, pixels in zip(self.ids, self.pixels.tolist(), strict=True) if not pixels]

    @abstractmethod
    def record(self, level: float = 0.95) -> dict[str, Any]:
        """Everything a number needs to be compared; plain values for JSON."""

    @abstractmethod
    def save_csv(self, path: str | Path) -> None:
        """Write one row per frame."""


class Scores(FrameScores):
    """Scores under one protocol, collected image by image.

    Args:
        protocol: name or :class:`Protocol`: what is done to each prediction before it is scored.

    Attributes:
        ids: name of every image, in the order they were added.

    Example:
        >>> scores = Scores("full")
        >>> truth = torch.full((2, 1, 40, 40), 2.0)
        >>> scores.add(["a", "b"], 1.1 * truth, truth)
        >>> round(scores.means()["abs_rel"], 4)
        0.1
    """

    def __init__(self, protocol: str | Protocol) -> None:
        self.protocol = get_protocol(protocol)
        self.ids: list[str] = []
        self._tables: list[Tensor] = []
        self._structures: list[Tensor] = []
        self._pixels: list[Tensor] = []

    def add(
        self,
        ids: list[str],
        pred: Tensor,
        target: Tensor,
        mask: Tensor | None = None,
        region: Region | None = None,
    ) -> None:
        """Score a batch.

        Args:
            ids: name of every image.
            pred: predicted depth in metres, [B, h, w] or [B, 1, h, w].
            target: true depth in metres, [B, H, W] or [B, 1, H, W].
            mask: True where the pixel counts.
            region: what the predictions cover of the targets' frame; None = all of it.

        Raises:
            ValueError: the numbers of ids, predictions and targets differ, or the protocol refuses the maps; the
                message names the images.
        """
        if len(ids) != len(pred):
            raise ValueError(f"{len(ids)} ids for {len(pred)} predictions")
        try:
            pred, target, mask = self.protocol.prepare(pred, target, mask, region)
            table, pixels = score_table(pred, target, mask, self.protocol.inclusive)
            structure = structure_table(pred, target, mask)
        except ValueError as error:
            raise ValueError(f"{', '.join(ids[:3])}{' ...' if len(ids) > 3 else ''}: {error}") from error
        self.ids += ids
        self._tables.append(table.double().cpu())
        self._structures.append(structure.double().cpu())
        self._pixels.append(pixels.cpu())

    @property
    def table(self) -> Tensor:
        """Scores of every image, [n, 9] in the order of ``METRICS``; NaN rows for images without a valid pixel."""
        return torch.cat(self._tables) if self._tables else torch.zeros(0, len(METRICS), dtype=torch.float64)

    @property
    def structure(self) -> Tensor:
        """Scores of structure of every image, [n, 10] in the order of ``STRUCTURE``; NaN where there is none."""
        return torch.cat(self._structures) if self._structures else torch.zeros(0, len(STRUCTURE), dtype=torch.float64)

    @property
    def pixels(self) -> Tensor:
        """Pixels scored in every image, [n]."""
        return torch.cat(self._pixels) if self._pixels else torch.zeros(0, dtype=torch.int64)

    def means(self) -> dict[str, float]:
        """Metric -> mean over the images scored (over their pixels where the protocol pools); NaN without any."""
        scored = self.pixels > 0
        means = aggregate(self.table[scored], self.pixels[scored], self.protocol.aggregation)
        return dict(zip(METRICS, means.tolist(), strict=True))

    def structure_means(self) -> dict[str, float]:
        """Metric of ``STRUCTURE`` -> mean over the images that have such a score; NaN without any."""
        return dict(zip(STRUCTURE, self.structure.nanmean(0).tolist(), strict=True))

    def intervals(self, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> dict[str, tuple[float, float]]:
        """Percentile bootstrap intervals of the means: images are drawn with replacement.

        They say how far the mean could move with other images of the same kind, not with another training run.

        Args:
            level: share of the resampled means inside the interval.
            resamples: number of draws.
            seed: of the draws.

        Returns:
            Metric -> (low, high); NaN without an image.
        """
        scored = self.pixels > 0
        table, pixels = self.table[scored], self.pixels[scored]
        ends = bootstrap(
            lambda drawn: aggregate(table[drawn], pixels[drawn], self.protocol.aggregation),
            len(table), level, resamples, seed,
        )  # fmt: skip
        return dict(zip(METRICS, ends or [(math.nan, math.nan)] * len(METRICS), strict=True))

    def structure_intervals(
        self, level: float = 0.95, resamples: int = 1000, seed: int = 0
    ) -> dict[str, tuple[float, float]]:
        """The same of :meth:`structure_means`; images that are drawn without such a score are left out."""
        table = self.structure[self.pixels > 0]
        ends = bootstrap(lambda drawn: table[drawn].nanmean(0), len(table), level, resamples, seed)
        return dict(zip(STRUCTURE, ends or [(math.nan, math.nan)] * len(STRUCTURE), strict=True))

    def record(self, level: float = 0.95) -> dict[str, Any]:
        """Everything a number needs to be compared: protocol, images, means, intervals; plain values for JSON."""

        def table(means: dict[str, float], intervals: dict[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
            return {
                name: {"mean": mean, "low": intervals[name][0], "high": intervals[name][1]}
                for name, mean in means.items()
            }

        return {
            "protocol": self.protocol.record(),
            "images": len(self.ids) - len(self.excluded),
            "excluded": self.excluded,
            "level": level,
            "metrics": table(self.means(), self.intervals(level)),
            "structure": table(self.structure_means(), self.structure_intervals(level)),
        }

    def save_csv(self, path: str | Path) -> None:
        """Write one row per image: id, pixels scored, metrics (empty where the image has no such score).

        Spreadsheets run cells as formulas that begin with =, +, -, @, their wide forms, a tab or a line break. An id
        that begins so, or with an apostrophe, is written with an apostrophe before it. Texts are quoted, since in some
        countries a semicolon begins a new cell.
        """
        with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
            writer.writerow(["id", "pixels", *METRICS, *STRUCTURE])
            scores = torch.cat([self.table, self.structure], 1).tolist()
            for name, pixels, row in zip(self.ids, self.pixels.tolist(), scores, strict=True):
                nine, rest = row[: len(METRICS)], row[len(METRICS) :]
                cells = [x if pixels else None for x in nine] + [None if math.isnan(x) else x for x in rest]
                writer.writerow([cell(name), pixels, *cells])


def bootstrap(
    mean: Callable[[Tensor], Tensor], count: int, level: float, resamples: int, seed: int
) -> list[tuple[float, float]]:
    """Ends of the percentile intervals of a mean of drawn images; none without an image."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if not count:
        return []
    generator = torch.Generator().manual_seed(seed)
    means = torch.stack([mean(torch.randint(count, (count,), generator=generator)) for _ in range(resamples)])
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = means.nanquantile(ends, dim=0).tolist()
    return list(zip(low, high, strict=True))


def cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(tuple("=+-@＝＋－＠\t\r\n'")) else text
