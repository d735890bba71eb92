# SPDX-License-Identifier: Apache-2.0
"""Holes as a structured-light camera leaves them, for scenes whose depth is known everywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Larger shares are refused: discs at random places take too long to reach them.
MOST_HOLES = 0.9


def check_hole_share(share: float) -> float:
    """The share of holes, if it can be made.

    Raises:
        ValueError: it is negative, above :data:`MOST_HOLES` or not a number.
    """
    if not 0 <= share <= MOST_HOLES:
        raise ValueError(f"hole_share must be a share of the pixels, 0 to {MOST_HOLES}, got {share}")
    return share


def camera_holes(random: np.random.Generator, height: int, width: int, share: float) -> NDArray[np.bool_]:
    """Where the depth of a frame is unknown: a border of 1/48 of the short side, and discs at random places.

    Radii are uniform between 1 pixel and 1 pixel + 1/16 of the short side. Discs are added until the share is reached,
    so the last one goes slightly beyond it. A share above 0 has at least the border, whose share grows on small frames.

    Args:
        random: where the discs come from.
        height: of the frame, pixels.
        width: of the frame, pixels.
        share: of the pixels that become holes, 0 to :data:`MOST_HOLES`.

    Returns:
        [H, W] bool, True in a hole.

    Raises:
        ValueError: from :func:`check_hole_share`.
    """
    holes = np.zeros((height, width), np.bool_)
    if check_hole_share(share) == 0:
        return holes
    side = min(height, width)
    border = max(1, side // 48)
    holes[:border] = holes[-border:] = holes[:, :border] = holes[:, -border:] = True
    y, x = np.ogrid[:height, :width]
    while holes.mean() < share:
        cy, cx, size = random.random(3)
        holes |= (y - cy * height) ** 2 + (x - cx * width) ** 2 <= (1 + size * side / 16) ** 2
    return holes
