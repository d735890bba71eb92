# SPDX-License-Identifier: Apache-2.0
"""What every data set yields: an image with its depth, before any transform."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import torch
from torchvision import tv_tensors


class Sample(TypedDict):
    """One frame. Depth and its validity are masks to torchvision: geometry moves them by nearest neighbour.

    Attributes:
        image: [3, H, W], uint8.
        depth: [1, H, W], float32 metres; 0 where it is not known.
        valid: [1, H, W], uint8: 1 where the depth was measured.
        id: the frame's name in its data set.
    """

    image: tv_tensors.Image
    depth: tv_tensors.Mask
    valid: tv_tensors.Mask
    id: str


def make_sample(image: np.ndarray, depth: np.ndarray, name: str, valid: np.ndarray | None = None) -> Sample:
    """Wrap arrays.

    Args:
        image: [H, W, 3] uint8.
        depth: [H, W] metres.
        name: the frame's id.
        valid: [H, W] bool; by default wherever there is depth.
    """
    depth = np.ascontiguousarray(depth, dtype=np.float32)
    valid = depth > 0 if valid is None else valid
    return {
        "image": tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)),
        "depth": tv_tensors.Mask(torch.from_numpy(depth)[None]),
        "valid": tv_tensors.Mask(torch.from_numpy(np.ascontiguousarray(valid, dtype=np.uint8))[None]),
        "id": name,
    }
