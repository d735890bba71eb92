# SPDX-License-Identifier: Apache-2.0
"""Masks as sensors leave them, for measurements."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: Names of the masks and what they imitate.
MASKS: dict[str, str] = {
    "none": "dense depth, no mask is given",
    "ones": "a mask that is True everywhere",
    "kinect": "a structured-light camera: blobs and a border, 12 % holes",
    "lidar": "a laser scanner: 5 % of the pixels, on lines in the lower 60 %",
}

#: Share of the pixels without depth.
KINECT_HOLES = 0.12
#: Share of the pixels with depth, and of the rows that the scanner sees.
LIDAR_POINTS, LIDAR_ROWS = 0.05, 0.6
#: Rows between two lines of the scanner.
LIDAR_PITCH = 4


def make_mask(name: str, batch: int, height: int, width: int, generator: torch.Generator) -> Tensor | None:
    """A mask bool [batch, 1, height, width] by name, or None for "none".

    Args:
        name: one of :data:`MASKS`.
        batch, height, width: its size.
        generator: of the random numbers.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in MASKS:
        raise ValueError(f"unknown mask {name!r}; there are {', '.join(MASKS)}")
    if name == "none":
        return None
    shape = (batch, 1, height, width)
    if name == "ones":
        return torch.ones(shape, dtype=torch.bool)
    if name == "kinect":
        return _kinect(shape, generator)
    return _lidar(shape, generator)


def _kinect(shape: tuple[int, int, int, int], generator: torch.Generator) -> Tensor:
    """The holes of the built-in scenes."""
    batch, _, height, width = shape
    seeds = torch.randint(2**31, (batch,), generator=generator).tolist()
    from mlr.data.synthetic.holes import camera_holes  # older commits, which compare.py runs too, lack it

    holes = [camera_holes(np.random.default_rng(seed), height, width, KINECT_HOLES) for seed in seeds]
    return ~torch.from_numpy(np.stack(holes))[:, None]


def _lidar(shape: tuple[int, int, int, int], generator: torch.Generator) -> Tensor:
    """Every fourth row of the lower 60 %, thinned at random to the share of points."""
    height = shape[2]
    rows = torch.arange(height)
    lines = (rows >= (1 - LIDAR_ROWS) * height) & (rows % LIDAR_PITCH == 0)
    share = LIDAR_POINTS * height / max(int(lines.sum()), 1)
    return lines[:, None] & (torch.rand(shape, generator=generator) < share)
