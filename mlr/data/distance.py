# SPDX-License-Identifier: Apache-2.0
"""Depth along the optical axis from the distance to the camera, which renderers such as Hypersim's store."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Camera(NamedTuple):
    """A pinhole camera, in pixels of the depth map; the first pixel's centre is (0, 0).

    Attributes:
        fx, fy: focal lengths.
        cx, cy: column and row of the principal point.
    """

    fx: float
    fy: float
    cx: float
    cy: float


def parse_camera(text: str) -> Camera:
    """A camera of ``fx,fy,cx,cy``.

    Raises:
        ValueError: the text is something else.
    """
    try:
        camera = Camera(*map(float, text.split(",")))
    except (ValueError, TypeError):
        camera = Camera(0, 0, 0, 0)
    if not (camera.fx > 0 and camera.fy > 0 and all(map(math.isfinite, camera))):
        raise ValueError(
            f"--distance-to-depth takes four numbers fx,fy,cx,cy in pixels, with positive focal lengths, got {text!r}"
        )
    return camera


def depth_along_axis(distance: np.ndarray, camera: Camera) -> np.ndarray:
    """Depth ``z = d / sqrt(1 + ((u - cx) / fx)^2 + ((v - cy) / fy)^2)`` of column u and row v.

    The point of pixel (u, v) at depth z is ``z ((u - cx) / fx, (v - cy) / fy, 1)``; its norm is the distance d.

    Args:
        distance: [H, W], distance to the camera's centre; 0 stays 0.
        camera: its intrinsics.

    Returns:
        Depth, [H, W], of the same type.
    """
    rows, columns = (np.arange(side, dtype=np.float64) for side in distance.shape)
    slope_x, slope_y = (columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy
    return (distance / np.sqrt(1 + slope_x**2 + slope_y[:, None] ** 2)).astype(distance.dtype)
