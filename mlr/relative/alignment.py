# SPDX-License-Identifier: Apache-2.0
"""Maps without a scale and a shift, so that those of a prediction and of the truth can be compared."""

from __future__ import annotations

import torch
from torch import Tensor

#: Least mean absolute deviation that a map is divided by: a constant map becomes 0.
LEAST_SCALE = 1e-6


def aligned(depth: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Relative depth with the median and the mean absolute deviation of the truth; itself where nothing is known.

    Args:
        depth, target: [B, 1, H, W].
        mask: bool, same shape: True where the truth is known.
    """
    shift, scale = _shift_and_scale(depth, mask)
    to_shift, to_scale = _shift_and_scale(target, mask)
    moved = (depth - shift) / scale * to_scale + to_shift
    return torch.where(mask.flatten(1).any(1).view(-1, 1, 1, 1), moved, depth)


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
    depth = depth if depth.dtype == torch.float64 else depth.float()
    shift, scale = _shift_and_scale(depth, mask)
    return torch.where(mask, depth - shift, 0) / scale


def _shift_and_scale(depth: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Median and mean absolute deviation from it, [B, 1, 1, 1]; 0 and the least scale where nothing is known."""
    flat, known = depth.flatten(1), mask.flatten(1)
    count = known.sum(1, keepdim=True).clamp(min=1)
    # unknown values sort behind all others, so that the middle one of the known is at a known place
    ordered = flat.masked_fill(~known, torch.inf).sort(1).values
    middle = torch.where(known.any(1, keepdim=True), ordered.gather(1, (count - 1) // 2), 0)
    scale = torch.where(known, flat - middle, 0).abs().sum(1, keepdim=True) / count
    return middle.view(-1, 1, 1, 1), scale.clamp(min=LEAST_SCALE).view(-1, 1, 1, 1)
