# SPDX-License-Identifier: Apache-2.0
"""The ordinary and relative network of the authors' group: twelve decoders on one encoder, fused to depth."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from mlr.models.decoders.paper import UpBlock
from mlr.models.depth_model import INITIAL_DEPTH, DepthModel
from mlr.models.encoder import encode
from mlr.relative.fusion import fuse
from mlr.relative.ratios import LEVELS, OFFSETS

#: The ordinary heads by level, and the relative ones; the numbers are the authors', log2 of a square map's side.
ORDINARY = tuple(f"D{level + 3}" for level in range(LEVELS))
RELATIVE = tuple(f"R{level + 3}" for level in range(LEVELS))
HEADS = (*ORDINARY, *RELATIVE)


class Head(nn.Module):
    """A decoder that ends at a level: 1 x 1 convolution, an up block a level, 3 x 3 convolution.

    Args:
        features: channels of the encoder.
        channels: after the first convolution; every up block halves them.
        level: number of up blocks.
        out: channels of the map.
        start: value of the untrained map.
    """

    def __init__(self, features: int, channels: int, level: int, out: int, start: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, channels, kernel_size=1)
        self.up = nn.Sequential(*(UpBlock(channels >> i, channels >> (i + 1)) for i in range(level)))
        self.last = nn.Conv2d(channels >> level, out, kernel_size=3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.last.weight, std=0.01 / math.sqrt(self.last.weight[0].numel()))
        nn.init.constant_(self.last.bias, start)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """Map [B, C, h, w] to [B, out, 2^level h, 2^level w]."""
        return self.last(self.up(self.first(features)))


class OrdinaryRelativeModel(DepthModel):
    """Depth from six maps of logarithmic depth and six of log ratios to 24 neighbours (Lee and Kim, CVPR 2019).

    Each of the twelve maps has a decoder of its own, at levels from 1/32 of the image to the whole; they share the
    encoder alone. The finest ordinary one, D8, is the paper's decoder. :func:`mlr.relative.fusion.fuse` makes depth of
    D3, D8 and all ratios.

    Args:
        backbone, decoder_channels, pretrained, image_size: as of :class:`mlr.DepthModel`.
        decoder: "paper", the only one it has.

    Attributes:
        output: "fused", or "ordinary" for the depth of D8 alone.

    Raises:
        ValueError: another decoder, or the backbone's map is not 1/32 of the image, or it accepts one size only.
    """

    output: str = "fused"

    def __init__(
        self,
        backbone: str = "densenet161",
        decoder_channels: int = 768,
        pretrained: bool | str | Path = "auto",
        image_size: tuple[int, int] | None = None,
        decoder: str = "paper",
    ) -> None:
        if decoder != "paper":
            raise ValueError(f"--decoder {decoder}: the ordinary and relative network has the paper's alone")
        super().__init__(backbone, decoder_channels, pretrained, image_size)
        if self.layout.stride != 2 ** (LEVELS - 1) or self.layout.fixed_size:
            raise ValueError(
                f"the ordinary and relative network needs a backbone of stride 32 for any size, and {backbone} has "
                f"stride {self.layout.stride}" + (", for one size only" if self.layout.fixed_size else "")
            )
        self.config["network"] = "ordinary-relative"
        self.reset_decoder(math.log(INITIAL_DEPTH))
        self.heads = nn.ModuleDict(
            {
                name: Head(self.layout.channels, decoder_channels, level, out, start)
                for names, out, start in ((ORDINARY[:-1], 1, math.log(INITIAL_DEPTH)), (RELATIVE, len(OFFSETS), 0.0))
                for level, name in enumerate(names)
            }
        )

    def maps(self, image: Tensor) -> dict[str, Tensor]:
        """The twelve maps by the names of :data:`HEADS`: log depth [B, 1, h, w], log ratios [B, 24, h, w].

        Args:
            image: [B, 3, H, W] in [0, 1]; H and W are multiples of 32.

        Raises:
            ValueError: they are not.
        """
        if image.shape[-2] % 32 or image.shape[-1] % 32:
            raise ValueError(f"the sides of images must be multiples of 32, got {list(image.shape[-2:])}")
        x = ((image - self.pixel_mean) / self.pixel_std).to(self.heads["D3"].last.weight.dtype)  # type: ignore[arg-type, union-attr]
        return self._maps(encode(self.encoder, self.layout, x))

    def _maps(self, features: Tensor) -> dict[str, Tensor]:
        finest = super()._decode(features)
        return {name: self.heads[name](features) if name in self.heads else finest for name in HEADS}

    def _decode(self, features: Tensor) -> Tensor:
        """Depth in metres."""
        if self.output == "ordinary":
            return super()._decode(features).exp()
        if torch.compiler.is_compiling():
            raise ValueError("the fusion of ordinary and relative depth is for PyTorch alone: it cannot be exported")
        maps = {name: z.float() for name, z in self._maps(features).items()}
        return fuse({0: maps["D3"], LEVELS - 1: maps["D8"]}, [maps[name] for name in RELATIVE])
