# SPDX-License-Identifier: Apache-2.0
"""Depth maps for tests, and the comparisons that suit losses with kinks."""

from __future__ import annotations

import torch
from torch import Tensor

#: Sizes at which engines tend to break: one pixel, one row, odd, smaller than the windows, the paper's, KITTI's.
SIZES = [(1, 1), (1, 40), (7, 1), (17, 31), (33, 47), (45, 61), (96, 128)]


def depth_pair(
    batch: int, height: int, width: int, dtype: torch.dtype = torch.float32, seed: int = 0, noise: float = 0.05
) -> tuple[Tensor, Tensor]:
    """A smooth scene of 1-5 m and a prediction of it: a scaled, shifted copy with noise. [B, 1, H, W] each."""
    g = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    phase = torch.rand(batch, 4, 1, 1, generator=g, dtype=torch.float64)
    waves = torch.sin(6 * x * phase[:, 0:1, :, :] + 5 * y * phase[:, 1:2] + 6 * phase[:, 2:3])
    target = 3 + 1.5 * waves + 0.5 * (x + y > 1).double()
    pred = 1.05 * target - 0.1 + noise * torch.randn(batch, 1, height, width, generator=g, dtype=torch.float64)
    return pred.to(dtype), target.to(dtype)


def cliffs(batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Two unrelated maps of whole millimetres, hundreds from pixel to pixel: normals face away from each other."""
    g = torch.Generator().manual_seed(0)
    pred, target = (3000 + 500 * torch.randn(2, batch, 1, height, width, generator=g)).round()
    return pred, target


def relative_l2(value: Tensor, truth: Tensor) -> float:
    """|value - truth| / |truth|, in float64."""
    value, truth = value.double(), truth.double()
    return float((value - truth).norm() / truth.norm().clamp(min=1e-300))


def term_errors(values: Tensor, truth: Tensor, terms: tuple[int, ...]) -> Tensor:
    """Relative errors [B, n] of float32 losses, beyond the rounding of losses that vanish on maps of a few pixels.

    A mean or a derivative that is 0 in exact arithmetic comes out at the size of E's own rounding: of a sum over
    65 x 65 pixels for the means, of a difference for the derivatives.
    """
    family = torch.tensor([0.0] + 4 * [2e-6] + 5 * [3e-7] + 3 * [1e-9])[[t % 13 for t in terms]]
    size = truth.abs().amax(1, keepdim=True)
    return ((values.double() - truth.double()).abs() - family * size).clamp(min=0) / truth.double().abs().clamp(
        min=1e-30
    )
