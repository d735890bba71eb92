# SPDX-License-Identifier: Apache-2.0
"""What every data set yields: an image with its depth, before any transform."""

from __future__ import annotations

from typing import NamedTuple, TypedDict

import numpy as np
import torch
from torchvision import tv_tensors


class Region(NamedTuple):
    """A rectangle of a camera's frame.

    Attributes:
        top, left: its first row and column in the frame.
        height, width: its size.
        frame: (height, width) of the frame.
    """

    top: int
    left: int
    height: int
    width: int
    frame: tuple[int, int]

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """The region of a picture [H, W, ...] of the frame's size."""
        return picture[self.top : self.top + self.height, self.left : self.left + self.width]

    def paste(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps [..., height, width] of the region in frames of zeros."""
        bottom, right = self.frame[0] - self.top - self.height, self.frame[1] - self.left - self.width
        return torch.nn.functional.pad(maps, (self.left, right, self.top, bottom))


class _Maps(TypedDict):
    image: tv_tensors.Image
    depth: tv_tensors.Mask
    valid: tv_tensors.Mask
    id: str


class Sample(_Maps, total=False):
    """One frame. Depth and its validity are masks to torchvision: geometry moves them by nearest neighbour.

    Attributes:
        image: [3, H, W], uint8.
        depth: [1, H, W], float32 metres; 0 where it is not known.
        valid: [1, H, W], uint8: 1 where the depth was measured.
        id: the frame's name in its data set.
        region: what image and depth cover of the camera's frame; absent where they cover all of it.
        points: [P, 2, 2] labelled pairs of points A and B, (column, row) from 0; only of sets of pairs.
        relation: [P] int64: 1 = A is farther, -1 = B is, 0 = equally far; with ``points``.
        metric: False where depth is relative: it grows with depth and is known up to scale and shift alone.
        pairs: [P, 3] int64: pairs in the depth's final grid, see :mod:`mlr.data.pairs`; only in training.
    """

    region: Region
    points: tv_tensors.KeyPoints
    relation: torch.Tensor
    metric: bool
    pairs: torch.Tensor


def make_sample(
    image: np.ndarray, depth: np.ndarray, name: str, valid: np.ndarray | None = None, region: Region | None = None
) -> Sample:
    """Wrap arrays.

    Args:
        image: [H, W, 3] uint8.
        depth: [H, W] metres.
        name: the frame's id.
        valid: [H, W] bool; by default wherever there is depth.
        region: what they cover of the camera's frame; None = all of it.
    """
    depth = np.ascontiguousarray(depth, dtype=np.float32)
    valid = np.ascontiguousarray(depth > 0 if valid is None else valid, dtype=np.uint8)
    # files with channels first need no copy
    if min(image.strides) < 0 or not image.transpose(2, 0, 1).flags.c_contiguous:
        image = np.ascontiguousarray(image)
    sample: Sample = {
        "image": tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1)),
        "depth": tv_tensors.Mask(torch.from_numpy(depth)[None]),
        "valid": tv_tensors.Mask(torch.from_numpy(valid)[None]),
        "id": name,
    }
    return sample if region is None else {**sample, "region": region}
