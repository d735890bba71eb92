# SPDX-License-Identifier: Apache-2.0
"""Maps without a scale and a shift, so that those of a prediction and of the truth can be compared."""

from __future__ import annotations

import torch
from torch import Tensor

#: Least mean absolute deviation that a map is divided by: a constant map becomes 0.
LEAST_SCALE = 1e-6


def normalised(depth: Tensor, mask: Tensor) -> Tensor:
    """``(d - t) / s`` with ``t = median d`` and ``s = mean |d - t|`` over the mask of each map (Ranftl et al. 2022).

    Two maps that differ by a positive scale and a shift become the same.

    Args:
        depth: [B, 1, H, W], floating point; differentiable.
        mask: bool, same shape: True where the depth is known.

    Returns:
        Float32 or wider, same shape, 0 outside the mask. The lower one of two middle values is the median.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> depth, mask = torch.rand(1, 1, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool)
        >>> torch.allclose(normalised(5 * depth + 3, mask), normalised(depth, mask), atol=1e-4)
        True
    """
    if depth.shape != mask.shape or depth.ndim != 4:
        raise ValueError(f"expected depth and mask [B, 1, H, W] alike, got {list(depth.shape)} and {list(mask.shape)}")
    flat = (depth if depth.dtype == torch.float64 else depth.float()).flatten(1)
    known = mask.flatten(1)
    count = known.sum(1, keepdim=True).clamp(min=1)
    # unknown values sort behind all others, so that the middle one of the known is at a known place
    ordered = flat.masked_fill(~known, torch.inf).sort(1).values
    middle = ordered.gather(1, (count - 1) // 2)
    shifted = torch.where(known, flat - torch.where(known.any(1, keepdim=True), middle, 0), 0)
    scale = (shifted.abs().sum(1, keepdim=True) / count).clamp(min=LEAST_SCALE)
    return (shifted / scale).view(depth.shape)
