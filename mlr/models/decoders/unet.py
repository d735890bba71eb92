# SPDX-License-Identifier: Apache-2.0
"""The paper's decoder with skip connections, after Ronneberger et al. (2015), "U-Net".

A block that comes to a stride at which the encoder has a map takes that map beside its own: the encoder's map goes
through a 1 x 1 convolution to the block's output channels, which keeps the block small, and is concatenated before the
block's convolutions. At strides without a map, such as 1, and 2 in many networks, blocks are the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlr.models.decoders.paper import UpBlock, blocks_of
from mlr.models.encoder import Layout


class SkipBlock(UpBlock):
    """:class:`~mlr.models.decoders.paper.UpBlock` that also reads a map of the encoder, to whose size it goes."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__(in_channels + out_channels, out_channels)
        self.skip = nn.Conv2d(skip_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]
        """Maps [B, C_in, h, w] and [B, C_skip, 2h, 2w] to [B, C_out, 2h, 2w]."""
        x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=True)
        x = torch.cat([x, F.relu(self.skip(skip))], dim=1)
        return F.relu(self.convB(F.relu(self.convA(x))))


class UNet(nn.Module):
    """From the encoder's maps at growing strides to a map at stride 1, of ``channels / 32`` after five blocks."""

    def __init__(self, layout: Layout, channels: int) -> None:
        super().__init__()
        *skips, last = layout.levels
        self.conv_d32 = nn.Conv2d(last.channels, channels, kernel_size=1)
        self.ups = nn.ModuleList()
        self.sources: list[int | None] = []
        # the block that comes to a map's stride, or nearest where strides are not powers of 2
        reached = {round(math.log2(last.stride / level.stride)): i for i, level in enumerate(skips)}
        for block in range(1, blocks_of(last.stride) + 1):
            source = reached.get(block)
            if source is None:
                self.ups.append(UpBlock(channels, channels // 2))
            else:
                self.ups.append(SkipBlock(channels, skips[source].channels, channels // 2))
            self.sources.append(source)
            channels //= 2
        self.channels = channels

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps from fine to coarse to one map."""
        x = self.conv_d32(maps[-1])
        for up, source in zip(self.ups, self.sources, strict=True):
            x = up(x) if source is None else up(x, maps[source])
        return x


def layers(layout: Layout, channels: int) -> dict[str, nn.Module]:
    """The layers for all strides of an encoder."""
    net = UNet(layout, channels)
    return {"unet": net, "conv3": nn.Conv2d(net.channels, 1, kernel_size=3, padding=1)}
