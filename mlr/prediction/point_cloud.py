# SPDX-License-Identifier: Apache-2.0
"""Coloured point clouds of depth maps, as binary PLY files."""

from __future__ import annotations

import math
from typing import BinaryIO, NamedTuple

import numpy as np

from mlr.data.depth_files import DataError

VERTEX = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
)  # fmt: skip
PLY_TYPES = {"f": "float", "u": "uchar"}


class Intrinsics(NamedTuple):
    """A pinhole camera, in pixels of the image; (0, 0) is the centre of the upper left pixel.

    Attributes:
        fx, fy: focal lengths.
        cx, cy: principal point.
    """

    fx: float
    fy: float
    cx: float
    cy: float

    @classmethod
    def parse(cls, text: str) -> Intrinsics:
        """Intrinsics of "fx,fy,cx,cy".

        Raises:
            ValueError: these are not four numbers, or no camera has them.
        """
        try:
            camera = cls(*map(float, text.split(",")))
        except (TypeError, ValueError):
            raise ValueError(
                f"--intrinsics must be fx,fy,cx,cy in pixels, such as 518.9,519.5,325.6,253.7, got {text!r}"
            ) from None
        if not all(map(math.isfinite, camera)) or min(camera.fx, camera.fy) <= 0:
            raise ValueError(f"--intrinsics: focal lengths must be positive and all four finite, got {text!r}")
        return camera

    def require_inside(self, height: int, width: int, name: str) -> None:
        """See that the principal point lies inside an image.

        Raises:
            DataError: it does not, so the intrinsics are those of another image size.
        """
        if not (0 <= self.cx <= width and 0 <= self.cy <= height):
            raise DataError(
                f"{name} has {height} x {width} pixels, and the principal point {self.cx:g}, {self.cy:g} lies outside: "
                "--intrinsics must be those of the image's own size"
            )

    def points(self, depth: np.ndarray) -> np.ndarray:
        """Points [H, W, 3] in metres of a depth map [H, W]: x = (u - cx) z / fx to the right, y down, z forward."""
        v, u = (np.arange(length, dtype=np.float32) for length in depth.shape)
        return np.stack([(u - self.cx) / self.fx * depth, (v[:, None] - self.cy) / self.fy * depth, depth], axis=-1)


def write_ply(file: BinaryIO, depth: np.ndarray, image: np.ndarray, camera: Intrinsics) -> None:
    """Write a point a pixel, without those of no depth: x, y, z in metres and red, green, blue, little endian.

    Args:
        file: open for writing.
        depth: [H, W] metres; 0 = none.
        image: [H, W, 3] uint8.
        camera: of the image.
    """
    known = depth > 0
    vertices = np.empty(int(known.sum()), VERTEX)
    for values, names in ((camera.points(depth), ("x", "y", "z")), (image, ("red", "green", "blue"))):
        for channel, name in enumerate(names):
            vertices[name] = values[known, channel]
    properties = "".join(f"property {PLY_TYPES[VERTEX[name].kind]} {name}\n" for name in VERTEX.names or ())
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment metres; x right, y down, z forward\n"
        f"element vertex {len(vertices)}\n{properties}end_header\n"
    )
    file.write(header.encode() + vertices.tobytes())
