# SPDX-License-Identifier: Apache-2.0
"""The decoder of the paper's section 4.1: up-sampling blocks on the encoder's last map, no skip connections."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from mlr.models.encoder import Layout


class UpBlock(nn.Module):
    """Doubles a map's height and width (bilinear, corners aligned), then 3 x 3 convolution + ReLU twice."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convA = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.convB = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C_in, h, w] to [B, C_out, 2h, 2w]."""
        x = F.interpolate(x, size=(2 * x.shape[-2], 2 * x.shape[-1]), mode="bilinear", align_corners=True)
        return F.relu(self.convB(F.relu(self.convA(x))))


def blocks_of(stride: int) -> int:
    """Number of blocks that undo a stride: one a factor of 2, five at most.

    What the rare larger strides leave is done by the network's final resize.
    """
    return min(5, max(1, round(math.log2(stride))))


def layers(layout: Layout, channels: int) -> dict[str, nn.Module]:
    """The layers under the names of the authors' checkpoint, for the encoder's last map."""
    out: dict[str, nn.Module] = {"conv_d32": nn.Conv2d(layout.channels, channels, kernel_size=1)}
    for block in range(1, blocks_of(layout.stride) + 1):
        out[f"up{block}"] = UpBlock(channels, channels // 2)
        channels //= 2
    return out | {"conv3": nn.Conv2d(channels, 1, kernel_size=3, padding=1)}
