# SPDX-License-Identifier: Apache-2.0
"""The ranking loss on ordered pairs of points, and the order that predictions give them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def differences(depth: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Predicted differences of pairs.

    Args:
        depth: [B, 1, H, W], larger = farther.
        pairs: [B, P, 3] int64, see :mod:`mlr.data.pairs`.

    Returns:
        ``z_A - z_B`` [B, P], the labels [B, P], and [B, P] bool, True where there is a pair.

    Raises:
        ValueError: the shapes do not fit.
    """
    if depth.ndim != 4 or depth.shape[1] != 1 or pairs.ndim != 3 or pairs.shape[0] != len(depth) or pairs.shape[2] != 3:
        raise ValueError(f"expected depth [B, 1, H, W] and pairs [B, P, 3], got {[*depth.shape]} and {[*pairs.shape]}")
    there = pairs[..., 0] >= 0
    first, second = (depth.flatten(1).gather(1, pairs[..., i].clamp(min=0)) for i in (0, 1))
    return first - second, pairs[..., 2], there


def ranking_loss(depth: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ranking loss of every image (Chen et al. 2016, section 4; Xian et al. 2018, 2020).

    With the difference ``d = z_A - z_B`` of predicted depths and the label l::

        l = 1 or -1:  log(1 + exp(-l d))        l = 0:  d^2

    Args:
        depth: [B, 1, H, W], larger = farther, in any unit.
        pairs: [B, P, 3] int64, see :mod:`mlr.data.pairs`.

    Returns:
        The loss [B], float32 or wider, differentiable in ``depth``, 0 without a pair; and the numbers of pairs, [B]
        int64.

    Example:
        >>> depth = torch.tensor([[[[1.0, 3.0]]]])
        >>> ranking_loss(depth, torch.tensor([[[1, 0, 1]]]))[0]
        tensor([0.1269])
    """
    difference, label, there = differences(depth if depth.dtype == torch.float64 else depth.float(), pairs)
    loss = torch.where(label == 0, difference**2, F.softplus(-label * difference))
    counts = there.sum(1)
    return torch.where(there, loss, 0).sum(1) / counts.clamp(min=1), counts
