# SPDX-License-Identifier: Apache-2.0
"""Edges of depth maps: precision, recall and F1 of Hu et al. (WACV 2019)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

#: Thresholds of Hu et al. on the Sobel magnitude, metres.
EDGE_THRESHOLDS = (0.25, 0.5, 1.0)

#: Horizontal Sobel filter, not normalised, as Hu et al. apply it; its transpose is the vertical one.
SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def sobel_magnitude(depth: Tensor) -> Tensor:
    """``sqrt(f_x^2 + f_y^2)`` of the unnormalised Sobel filters: [B, 1, H, W] to [B, 1, H - 2, W - 2]."""
    kernel = torch.tensor(SOBEL, dtype=depth.dtype, device=depth.device)
    gradient = F.conv2d(depth, torch.stack([kernel, kernel.T])[:, None])
    return gradient.square().sum(1, keepdim=True).sqrt()


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

    Example:
        >>> step = torch.ones(1, 1, 6, 8)
        >>> step[..., 4:] = 3
        >>> edge_metrics(step, step)["f1"]
        tensor([1.], dtype=torch.float64)
    """
    valid = (target > 0) & target.isfinite()
    valid = valid if mask is None else valid & (mask != 0)
    wide = torch.float32 if pred.device.type == "mps" else torch.float64
    # unknown pixels take part as 0 m in both maps; no window that holds one counts
    found, true = (sobel_magnitude(torch.where(valid, x, 0).to(wide)) > threshold for x in (pred, target))
    counts = F.avg_pool2d(valid.to(wide), 3, stride=1) > 1 - 1e-6
    found, true = (found & counts).flatten(1), (true & counts).flatten(1)
    both = (found & true).sum(1).to(wide)
    predicted, expected = found.sum(1), true.sum(1)
    return {
        "precision": _share(both, predicted),
        "recall": _share(both, expected),
        "f1": _share(2 * both, predicted + expected),
    }


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole, math.nan)
