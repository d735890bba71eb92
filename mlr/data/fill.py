# SPDX-License-Identifier: Apache-2.0
"""Filling pixels without depth: the losses average over every pixel, so every pixel needs a depth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from mlr.data.depth_io import DataError


def nearest_known(known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the nearest True pixel for every pixel of a [H, W] map."""
    rows, columns = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return rows, columns


def fill_error(depth: np.ndarray, image: np.ndarray, name: str) -> np.ndarray:
    """Refuse a depth map with holes, saying which option fills them."""
    missing = float((depth <= 0).mean())
    raise DataError(
        f"{name}: {100 * missing:.1f} % of the pixels have no depth, and the losses average over all of them. "
        "Choose --holes nearest to give each the depth of its nearest neighbour (the scores still count measured "
        "pixels only), or fill the depth maps yourself"
    )


def fill_nearest(depth: np.ndarray, image: np.ndarray, name: str) -> np.ndarray:
    """Give every unknown pixel the depth of the nearest known one."""
    known = depth > 0
    if not known.any():
        raise DataError(f"{name}: no pixel has a depth, so nothing can be filled; leave this frame out")
    return depth[nearest_known(known)]


#: What --holes offers: (depth [H, W], image [H, W, 3], name) -> full depth [H, W].
FILLS: dict[str, Callable[[np.ndarray, np.ndarray, str], np.ndarray]] = {
    "error": fill_error,
    "nearest": fill_nearest,
}


def fill_holes(depth: np.ndarray, image: np.ndarray, name: str, how: str) -> np.ndarray:
    """Depth without holes.

    Args:
        depth: [H, W] metres, 0 where unknown.
        image: [H, W, 3] uint8, for fills that look at it.
        name: of the frame, for errors.
        how: a key of :data:`FILLS`.
    """
    return depth if (depth > 0).all() else FILLS[how](depth, image, name)
