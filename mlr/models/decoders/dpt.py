# SPDX-License-Identifier: Apache-2.0
"""The decoder of Ranftl et al. (2021), "Vision Transformers for Dense Prediction" (DPT), section 3.

Four levels of the encoder are *reassembled* to maps of one width at strides that double from level to level. From the
coarsest on they are *fused*: a residual unit refines the level, which is added to what comes from the coarser ones, a
second unit refines the sum, and it is doubled in size. The head brings the last map to the size of the image.

Tokens of a plain transformer with patches of p pixels come to strides p / 4, p / 2, p and 2 p; the class token and
registers are left out ("ignore" in the paper). The maps of a CNN keep their own strides, usually 4 to 32. The width is
a quarter of ``decoder_channels``, so that the default of 1024 gives the paper's 256. There is no normalisation, and no
activation at the output, as in the paper of this project.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mlr.models.encoder import Layout

#: Channels before the last convolution.
HEAD_CHANNELS = 32


class ResidualUnit(nn.Module):
    """``x + conv(relu(conv(relu(x))))`` with 3 x 3 convolutions; starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def start(self) -> None:
        """Start as the identity: the signal would double at each of the seven units."""
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, h, w] to one of the same shape."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Fusion(nn.Module):
    """Adds a refined level to the result of the coarser ones, refines the sum, and brings it to another size.

    Args:
        channels: width.
        first: whether there is no coarser level.
    """

    def __init__(self, channels: int, first: bool) -> None:
        super().__init__()
        self.level = None if first else ResidualUnit(channels)
        self.sum = ResidualUnit(channels)
        self.project = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, level: Tensor, coarser: Tensor | None, size: Sequence[int]) -> Tensor:
        """Level and result [B, C, h, w] to a result [B, C, *size]."""
        if coarser is not None and self.level is not None:
            level = coarser + self.level(level)
        return self.project(F.interpolate(self.sum(level), size=tuple(size), mode="bilinear", align_corners=True))


class DPT(nn.Module):
    """From four maps of the encoder to one map, whose sides are four times those of the finest level."""

    def __init__(self, layout: Layout, channels: int) -> None:
        super().__init__()
        strides = [level.stride for level in layout.levels]
        plain = len(set(strides)) == 1
        factors = (4.0, 2.0, 1.0, 0.5) if plain else (1.0,) * len(strides)
        self.reassemble = nn.ModuleList(
            nn.Sequential(nn.Conv2d(level.channels, channels, kernel_size=1), _resampling(channels, factor))
            for level, factor in zip(layout.levels, factors, strict=True)
        )
        coarsest = len(strides) - 1
        self.fuse = nn.ModuleList(Fusion(channels, first=i == coarsest) for i in range(len(strides)))
        self.head1 = nn.Conv2d(channels, channels // 2, kernel_size=3, padding=1)
        self.head2 = nn.Conv2d(channels // 2, HEAD_CHANNELS, kernel_size=3, padding=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps from fine to coarse to one map."""
        levels = [reassemble(x) for reassemble, x in zip(self.reassemble, maps, strict=True)]
        sizes = [_double(levels[0]), *(level.shape[-2:] for level in levels[:-1])]
        x: Tensor | None = None
        for fuse, level, size in reversed(list(zip(self.fuse, levels, sizes, strict=True))):
            x = fuse(level, x, size)
        x = self.head1(x)
        x = F.interpolate(x, size=_double(x), mode="bilinear", align_corners=True)
        return F.relu(self.head2(x))


def _resampling(channels: int, factor: float) -> nn.Module:
    """A learned change of size by 4, 2, 1 or 1/2.

    The kernel of an enlargement is as large as its stride: a smaller one would leave holes, a larger one stripes.
    """
    if factor > 1:
        return nn.ConvTranspose2d(channels, channels, kernel_size=int(factor), stride=int(factor))
    return nn.Conv2d(channels, channels, 3, stride=2, padding=1) if factor < 1 else nn.Identity()


def _double(x: Tensor) -> tuple[int, int]:
    return 2 * x.shape[-2], 2 * x.shape[-1]


def layers(layout: Layout, channels: int) -> dict[str, nn.Module]:
    """The layers for four levels of an encoder."""
    return {"dpt": DPT(layout, channels // 4), "conv1": nn.Conv2d(HEAD_CHANNELS, 1, kernel_size=1)}
