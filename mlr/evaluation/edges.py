# SPDX-License-Identifier: Apache-2.0
"""Edges of depth maps: precision, recall and F1 of Hu et al. (WACV 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mlr.evaluation.metrics import scored_pixels, widest

#: Thresholds of Hu et al. on the Sobel magnitude, metres.
EDGE_THRESHOLDS = (0.25, 0.5, 1.0)


def sobel_magnitude(depth: Tensor) -> Tensor:
    """``sqrt(f_x^2 + f_y^2)`` of the Sobel filters as Hu et al. apply them: [..., H, W] to [..., H - 2, W - 2].

    f_x is the difference ``[-1, 0, 1]`` along rows of the sum ``[1, 2, 1]`` along columns, f_y the other way round;
    neither is normalised. A convolution in float64 takes six times as long.
    """
    down = (depth[..., :-2, :] + depth[..., 2:, :]).add_(depth[..., 1:-1, :], alpha=2)
    along = (depth[..., :-2] + depth[..., 2:]).add_(depth[..., 1:-1], alpha=2)
    f_x, f_y = down[..., 2:] - down[..., :-2], along[..., 2:, :] - along[..., :-2, :]
    magnitude = f_x.square_().add_(f_y.square_()).sqrt_()
    if depth.sum().isfinite():
        return magnitude
    return magnitude + 0 * (magnitude + depth[..., 1:-1, 1:-1])  # NaN where one of the nine is not finite


def edge_metrics(
    pred: Tensor, target: Tensor, mask: Tensor | None = None, threshold: float = EDGE_THRESHOLDS[0]
) -> dict[str, Tensor]:
    """Compare the edges of predicted and true depth, image by image.

    A pixel is an edge where the Sobel magnitude of its map exceeds the threshold. It counts where all nine pixels under
    the filter are valid. With TP edges of both maps, FP of the prediction alone and FN of the truth alone::

        precision  TP / (TP + FP)      recall  TP / (TP + FN)      f1  2 TP / (2 TP + FP + FN)

    The magnitude is a difference of depth over pixels, so the metrics of two image sizes are not comparable.

    Args:
        pred: predicted depth in metres, [B, 1, H, W].
        target: true depth in metres, same shape; 0, negative or not finite = unknown.
        mask: True where the pixel counts; same shape. None = wherever the target is known.
        threshold: metres.

    Returns:
        "precision", "recall" and "f1", float64 [B] each; NaN where the denominator is 0.

    Raises:
        ValueError: shapes differ.

    Example:
        >>> step = torch.ones(1, 1, 6, 8)
        >>> step[..., 4:] = 3
        >>> edge_metrics(step, step)["f1"]
        tensor([1.], dtype=torch.float64)
    """
    return edge_metrics_at((threshold,), pred, target, mask)[0]


def edge_metrics_at(
    thresholds: Sequence[float], pred: Tensor, target: Tensor, mask: Tensor | None = None
) -> list[dict[str, Tensor]]:
    """:func:`edge_metrics` at several thresholds, of which all share the filtered maps."""
    valid, wide = scored_pixels(pred, target, mask), widest(pred.device)
    # unknown pixels take part as 0 m in both maps; no window that holds one counts
    maps = [sobel_magnitude(torch.where(valid, x, 0).to(wide)) for x in (pred, target)]
    rows = valid[..., :-2] & valid[..., 1:-1] & valid[..., 2:]
    counts = rows[..., :-2, :] & rows[..., 1:-1, :] & rows[..., 2:, :]
    scores = []
    for threshold in thresholds:
        found, true = (((magnitude > threshold) & counts).flatten(1) for magnitude in maps)
        both = (found & true).sum(1).to(wide)
        predicted, expected = found.sum(1), true.sum(1)
        scores.append(
            {
                "precision": _share(both, predicted),
                "recall": _share(both, expected),
                "f1": _share(2 * both, predicted + expected),
            }
        )
    return scores


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole, math.nan)
