# SPDX-License-Identifier: Apache-2.0
"""The nine metrics of Table 2, an image at a time, and their distributed-safe mean over a data set."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

#: Metrics by name, in the order of Table 3; the first three are better when higher.
METRICS = ("delta1", "delta2", "delta3", "rmse", "abs_rel", "log10", "rmse_log", "silog", "sq_rel")

#: Metrics that are root mean squares: pooling over pixels averages their squares.
ROOTS = ("rmse", "rmse_log", "silog")


def depth_metrics(
    pred: Tensor, target: Tensor, mask: Tensor | None = None, *, inclusive: bool = False
) -> dict[str, Tensor]:
    """Score depth maps image by image by the nine metrics of Table 2.

    With p predicted and g true depth, d = ln p - ln g, and means over the N valid pixels of one image::

        delta_k   share of max(p/g, g/p) < 1.25^k          rmse      sqrt mean (p - g)^2
        abs_rel   mean |p - g| / g                         rmse_log  sqrt mean d^2
        sq_rel    mean (p - g)^2 / g                       silog     sqrt mean (d - mean d)^2
        log10     mean |log10 p - log10 g|

    Table 2 calls abs_rel ARD, sq_rel SRD and silog RMSE si. KITTI's benchmark and others print 100 times silog.

    A pixel is valid where the target is finite and positive and the mask, if any, is True. An image without valid pixel
    scores NaN in every metric, never 0. Predictions are taken as they are: where a valid pixel is predicted at or below
    0, which has no logarithm, the image's log10, rmse_log and silog are NaN and the pixel counts as missed by every
    delta; a NaN prediction makes all nine NaN. The protocols clamp first and so meet neither.

    Args:
        pred: predicted depth in metres, [B, H, W] or [B, 1, H, W], any floating type.
        target: true depth in metres, same shape; 0, negative or not finite = unknown.
        mask: True where the pixel counts; same shape. None = wherever the target is known.
        inclusive: compare by <= instead of <, as the authors' program does.

    Returns:
        Metric name -> float64 tensor [B] (float32 on devices without float64).

    Raises:
        ValueError: shapes differ.

    Example:
        >>> truth = torch.full((1, 4, 4), 2.0)
        >>> depth_metrics(1.1 * truth, truth)["abs_rel"]
        tensor([0.1000], dtype=torch.float64)
    """
    return _metrics(*_prepare(pred, target, mask), inclusive)


def _metrics(pred: Tensor, target: Tensor, valid: Tensor, inclusive: bool) -> dict[str, Tensor]:
    count = valid.sum(1)

    def mean(x: Tensor) -> Tensor:  # 0 / 0 = NaN: an image without valid pixel has no score
        return x.sum(1) / count

    # unknown pixels take part as 1 m in both maps: their errors and logs are 0 and add nothing to the sums
    wide = widest(pred.device)
    p, g = torch.where(valid, pred, 1).to(wide), torch.where(valid, target, 1).to(wide)
    error, ratio, log = p - g, torch.maximum(p / g, g / p), p.log() - g.log()
    if not (positive := p > 0).all():
        ratio, log = torch.where(positive, ratio, math.inf), torch.where(positive, log, math.nan)
    unknown = torch.where(p.isnan().any(1), math.nan, 0)
    scores = {}
    for k in (1, 2, 3):
        hit = ratio <= 1.25**k if inclusive else ratio < 1.25**k
        scores[f"delta{k}"] = mean((hit & valid).to(p.dtype)) + unknown
    scores["rmse"] = mean(error * error).sqrt()
    scores["abs_rel"] = mean(error.abs() / g)
    scores["log10"] = mean(log.abs()) / math.log(10)
    scores["rmse_log"] = mean(log * log).sqrt()
    # the difference form mean d^2 - (mean d)^2 can round below 0
    centred = torch.where(valid, log - mean(log)[:, None], 0)
    scores["silog"] = mean(centred * centred).sqrt()
    scores["sq_rel"] = mean(error * error / g)
    return scores


def scored_pixels(pred: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """Where the target is known and the mask, if any, is True; shape of the maps.

    Raises:
        ValueError: the maps differ in shape, or are no batch of depth maps.
    """
    if pred.shape != target.shape or (mask is not None and mask.shape != target.shape):
        shapes = f"pred {list(pred.shape)}, target {list(target.shape)}"
        shapes += "" if mask is None else f", mask {list(mask.shape)}"
        raise ValueError(f"shapes differ: {shapes}; resize the prediction to its target first (protocols do)")
    if pred.ndim not in (3, 4) or (pred.ndim == 4 and pred.shape[1] != 1):
        raise ValueError(f"depth maps must be [B, H, W] or [B, 1, H, W], got {list(pred.shape)}")
    valid = (target > 0) & target.isfinite()
    return valid if mask is None else valid & (mask != 0)


def widest(device: torch.device) -> torch.dtype:
    """Type that scores are computed in: Apple GPUs have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def _prepare(pred: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    valid = scored_pixels(pred, target, mask)
    return pred.detach().flatten(1), target.detach().flatten(1), valid.flatten(1)


def score_table(
    pred: Tensor, target: Tensor, mask: Tensor | None = None, inclusive: bool = False
) -> tuple[Tensor, Tensor]:
    """Scores of a batch as a table [B, 9] in the order of :data:`METRICS`, and the pixels scored in each image [B]."""
    pred, target, valid = _prepare(pred, target, mask)
    scores = _metrics(pred, target, valid, inclusive)
    return torch.stack([scores[name] for name in METRICS], 1), valid.sum(1)


def aggregate(table: Tensor, pixels: Tensor, aggregation: str) -> Tensor:
    """Mean scores [..., 9] of images [..., n, 9]: every image counts once, or ("pixels") every pixel."""
    if aggregation == "pixels":
        weights = pixels[..., None].to(table)
        roots = torch.tensor([name in ROOTS for name in METRICS], device=table.device)
        means = (torch.where(roots, table * table, table) * weights).sum(-2) / weights.sum(-2)
        return torch.where(roots, means.sqrt(), means)
    return table.mean(-2)


class DepthMetrics(Metric):
    """Mean of the nine metrics over a data set, right under any number of processes and any batch size.

    Every image counts once: sums of per-image scores and the number of images are added over batches and processes.
    Images without a valid pixel are left out of the mean and counted in "excluded". Predictions and targets have one
    size; :class:`mlr.evaluation.Scores` scores under a protocol.

    Returns:
        ``compute()`` gives metric name -> scalar tensor, and the numbers of "images" scored and "excluded"; with no
        image scored the metrics are NaN.

    Example:
        >>> metric = DepthMetrics()
        >>> truth = torch.full((2, 1, 4, 4), 2.0)
        >>> metric.update(1.1 * truth, truth)
        >>> metric.compute()["abs_rel"]
        tensor(0.1000, dtype=torch.float64)
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False

    sums: Tensor
    images: Tensor
    excluded: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Apple GPUs have no float64
        wide = torch.float32 if torch.backends.mps.is_available() else torch.float64
        self.add_state("sums", torch.zeros(len(METRICS), dtype=wide), dist_reduce_fx="sum")
        for name in ("images", "excluded"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, pred: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            pred: predicted depth in metres, [B, H, W] or [B, 1, H, W].
            target: true depth in metres.
            mask: True where the pixel counts; shape of the target.
        """
        table, pixels = score_table(pred, target, mask)
        table, scored = table.to(self.sums), pixels > 0
        table = torch.where(scored[:, None], table, 0)
        # not in place: a state that began in inference mode may be continued outside it
        self.sums = self.sums + table.sum(0)
        self.images = self.images + scored.sum()
        self.excluded = self.excluded + (~scored).sum()

    def compute(self) -> dict[str, Tensor]:
        """Means over the images seen."""
        means = self.sums / self.images
        return {**dict(zip(METRICS, means, strict=True)), "images": self.images, "excluded": self.excluded}
