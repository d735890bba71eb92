# SPDX-License-Identifier: Apache-2.0
"""Normals of depth maps: the mean angle between predicted and true ones."""

from __future__ import annotations

import torch
from torch import Tensor

from mlr.evaluation.metrics import scored_pixels, widest


def slopes(depth: Tensor) -> tuple[Tensor, Tensor]:
    """r(D) and c(D) of eq. (7), the differences to the next pixel of the row and of the column: [..., H - 1, W - 1].

    They make the normal ``[-r(D), -c(D), 1]``. The last column and row have none.
    """
    corner = depth[..., :-1, :-1]
    return depth[..., :-1, 1:] - corner, depth[..., 1:, :-1] - corner


def normal_angle(pred: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean angle between the normals of predicted and true depth, image by image.

    The normals are those of the loss N, eq. (7): slopes in metres a pixel, without the camera's geometry. The angles of
    two image sizes are therefore not comparable. A position counts where the three pixels it reads are valid.

    Args:
        pred: predicted depth in metres, [B, 1, H, W].
        target: true depth in metres, same shape; 0, negative or not finite = unknown.
        mask: True where the pixel counts; same shape. None = wherever the target is known.

    Returns:
        Degrees, float64 [B]; NaN for an image without such a position.

    Raises:
        ValueError: shapes differ.

    Example:
        >>> flat = torch.ones(1, 1, 4, 4)
        >>> ramp = flat + torch.arange(4.0)  # 1 m a pixel
        >>> normal_angle(ramp, flat)
        tensor([45.], dtype=torch.float64)
    """
    valid, wide = scored_pixels(pred, target, mask), widest(pred.device)
    (r, c), (true_r, true_c) = (slopes(torch.where(valid, x, 0).to(wide)) for x in (pred, target))
    # the length of the cross product over the dot product: exact at small angles, where the arc cosine is not
    cross = (r - true_r).square_().add_((c - true_c).square_()).add_((r * true_c).sub_(c * true_r).square_()).sqrt_()
    angle = torch.atan2(cross, (r * true_r).add_(c * true_c).add_(1)).rad2deg_()
    counts = valid[..., :-1, :-1] & valid[..., :-1, 1:] & valid[..., 1:, :-1]
    return torch.where(counts, angle, 0).flatten(1).sum(1) / counts.flatten(1).sum(1)
