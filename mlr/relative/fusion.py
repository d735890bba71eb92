# SPDX-License-Identifier: Apache-2.0
"""Fusion of ordinary and relative depth maps (Lee and Kim, CVPR 2019, and their later program), in logarithms.

1. The ratios of a coarse level make a matrix of comparisons of which few entries are known. Its best approximation of
   rank 1 is found by alternating least squares: :func:`solve_ratios`.
2. Finer levels start from the level before and move once by their ratios: :func:`propagate`.
3. Every map is taken apart into its mean and a residual a level. The means of the ordinary maps, and the residuals of
   all maps that have the level, are averaged: :func:`fuse`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlr.relative.ratios import LEVELS, OFFSETS, doubled, halved, neighbours

#: Levels from 0 on whose ratios are solved; the others propagate.
SOLVED = 3
#: Rounds of alternating least squares.
ITERATIONS = 300


def solve_ratios(ratios: Tensor, start: Tensor | None = None, iterations: int = ITERATIONS) -> Tensor:
    """Logarithmic depth of mean 0 whose ratios to neighbours are nearest to the given ones.

    With the comparison ``r_ij`` of pixel i to neighbour j, ``sum_ij (r_ij - u_i + v_j)^2`` is minimised in u and in v
    by turns, each a mean; the result is ``(u + v) / 2``. It is exact for ratios of a depth map, after enough rounds:
    their number grows with the square of the map's longer side.

    Args:
        ratios: [B, 24, H, W], see :func:`mlr.relative.ratios.log_ratios`.
        start: [B, 1, H, W], where to start; None = a flat map.
        iterations: rounds.

    Returns:
        [B, 1, H, W], of mean 0.
    """
    batch, _, height, width = ratios.shape
    pixels = torch.arange(height * width, dtype=torch.float64, device=ratios.device).view(1, 1, height, width)
    index = neighbours(pixels).long().flatten()
    count = torch.bincount(index, minlength=height * width)
    r = ratios.flatten(2)
    v = r.new_zeros(batch, height * width) if start is None else start.flatten(1)
    u = v
    for _ in range(iterations):
        u = (r + v[:, index].view_as(r)).mean(1)
        v = torch.zeros_like(v).index_add(1, index, (u[:, None] - r).flatten(1)) / count
    z = (u + v) / 2
    return (z - z.mean(1, keepdim=True)).view(batch, 1, height, width)


def propagate(ratios: Tensor, start: Tensor, steps: int = 1) -> Tensor:
    """Move a map by ratios: every pixel becomes the mean of what it and its neighbours say of it.

    ``z_i <- (z_i + sum_j (z_j + r_ij)) / 25``

    Args:
        ratios: [B, 24, H, W].
        start: [B, 1, H, W], a map that is right but for its details.
        steps: how often.

    Returns:
        [B, 1, H, W].
    """
    z = start
    for _ in range(steps):
        z = (z + (neighbours(z) + ratios).sum(1, keepdim=True)) / (len(OFFSETS) + 1)
    return z


def decompose(z: Tensor, level: int) -> tuple[Tensor, list[Tensor]]:
    """Mean of a map of a level, and its residuals of that and all coarser levels, from 0 on; their sum is the map.

    Args:
        z: [B, 1, H, W]; H and W are multiples of ``2^level``.
        level: its level.
    """
    residuals: list[Tensor] = []
    for _ in range(level):
        coarser = halved(z)
        residuals.insert(0, z - doubled(coarser))
        z = coarser
    mean = z.mean((-2, -1), keepdim=True)
    return mean, [z - mean, *residuals]


def fuse(ordinary: dict[int, Tensor], ratios: Sequence[Tensor], iterations: int = ITERATIONS, steps: int = 1) -> Tensor:
    """Depth from ordinary and relative maps.

    Args:
        ordinary: level -> logarithmic depth [B, 1, h, w]; the authors take levels 0 and 5.
        ratios: of the levels from 0 on, [B, 24, h, w] each.
        iterations: see :func:`solve_ratios`.
        steps: see :func:`propagate`; the authors take one.

    Returns:
        Depth in metres at level 5, [B, 1, H, W].

    Raises:
        ValueError: there is no ordinary map, which alone knows metres, or not a map of ratios a level.
    """
    if not ordinary or len(ratios) != LEVELS:
        raise ValueError(
            f"expected an ordinary map and ratios of {LEVELS} levels, got {len(ordinary)} and {len(ratios)}"
        )
    candidates = list(ordinary.items())
    z: Tensor | None = None
    for level, given in enumerate(ratios):
        start = None if z is None else doubled(z)
        if level < SOLVED or start is None:
            z = solve_ratios(given, start, iterations)
        else:
            z = propagate(given, start, steps)
        candidates.append((level, z))
    parts = [decompose(z, level) for level, z in candidates]
    fused = torch.stack([mean for mean, _ in parts[: len(ordinary)]]).mean(0)
    for level in range(LEVELS):
        residual = torch.stack([residuals[level] for _, residuals in parts if level < len(residuals)]).mean(0)
        fused = (doubled(fused) if level else fused) + residual
    return fused.exp()
