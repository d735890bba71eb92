# SPDX-License-Identifier: Apache-2.0
"""Logarithmic depth at six levels, and the logarithms of its ratios to 24 neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Levels of resolution; level 0 is the encoder's grid, 1/32 of the image, level 5 the image's own.
LEVELS = 6
#: Neighbours: all of a 5 x 5 window but its centre, (rows, columns).
RADIUS = 2
OFFSETS = tuple(
    (row, column)
    for row in range(-RADIUS, RADIUS + 1)
    for column in range(-RADIUS, RADIUS + 1)
    if (row, column) != (0, 0)
)


def neighbours(z: Tensor) -> Tensor:
    """The 24 neighbours of every pixel, [B, 1, H, W] to [B, 24, H, W], in the order of :data:`OFFSETS`.

    Beyond the border stands the nearest pixel of the map.
    """
    height, width = z.shape[-2:]
    padded = F.pad(z, (RADIUS,) * 4, mode="replicate")
    corners = ((RADIUS + row, RADIUS + column) for row, column in OFFSETS)
    return torch.cat([padded[..., row : row + height, column : column + width] for row, column in corners], 1)


def log_ratios(z: Tensor) -> Tensor:
    """``z_i - z_j = log(d_i / d_j)`` of every pixel i to its neighbours j, [B, 1, H, W] to [B, 24, H, W].

    The 25 channels of Lee and Kim's relative depth maps (CVPR 2019) without the centre, which is always 0.
    """
    return z - neighbours(z)


def halved(z: Tensor) -> Tensor:
    """Means of 2 x 2 pixels."""
    return F.avg_pool2d(z, 2)


def doubled(z: Tensor) -> Tensor:
    """Every pixel four times."""
    return F.interpolate(z, scale_factor=2, mode="nearest")


def log_pyramid(depth: Tensor, valid: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Logarithmic depth at every level, from 0 on.

    A level is the mean of the known ones of 2 x 2 pixels of the next, and known where one of them is.

    Args:
        depth: [B, 1, H, W] metres, H and W multiples of 32.
        valid: bool, same shape: True where depth is known and positive.

    Returns:
        log depth (0 where it is unknown) and where it is known, a pair a level.

    Raises:
        ValueError: the sides are no multiples of 32.
    """
    if depth.shape[-2] % 2 ** (LEVELS - 1) or depth.shape[-1] % 2 ** (LEVELS - 1):
        raise ValueError(f"sides must be multiples of {2 ** (LEVELS - 1)}, got {list(depth.shape[-2:])}")
    z = torch.where(valid, depth, 1).log()
    levels = [(z, valid)]
    for _ in range(LEVELS - 1):
        z, known = levels[0]
        share = halved(known.to(z))
        levels.insert(0, (halved(z) / torch.where(share > 0, share, 1), share > 0))
    return levels
