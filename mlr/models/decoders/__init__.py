# SPDX-License-Identifier: Apache-2.0
"""Decoders by name: how depth is made of an encoder's features.

A decoder is a chain of named layers. The network owns the layers and applies them one after the other: the first takes
what the decoder reads of the encoder, the last is a convolution to one channel, the depth. A decoder more is a file
beside this one and a row of :data:`DECODERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from mlr.models.decoders import dpt, paper, unet
from mlr.models.encoder import Layout, Reads
from mlr.utils.suggest import suggest


class Decoder(NamedTuple):
    """A decoder.

    Attributes:
        layers: from the encoder's layout and the channels to start with to layers by name, in their order.
        reads: what the first of them takes: the encoder's "last" map [B, C, h, w], or a list of maps from fine to
            coarse, "four" or the "pyramid" of all strides.
        summary: what it is.
    """

    layers: Callable[[Layout, int], dict[str, nn.Module]]
    reads: Reads
    summary: str


DECODERS: dict[str, Decoder] = {
    "paper": Decoder(paper.layers, "last", "the paper's: five up-sampling blocks without skip connections"),
    "unet": Decoder(unet.layers, "pyramid", "the paper's with a skip connection from every stride of the encoder"),
    "dpt": Decoder(dpt.layers, "four", "four levels of a transformer or a CNN, fused (Ranftl et al. 2021)"),
}


def find_decoder(name: str) -> Decoder:
    """The decoder of that name.

    Raises:
        ValueError: there is none; the message names the nearest and all of them.
    """
    if not isinstance(name, str) or name not in DECODERS:
        raise ValueError(f"unknown decoder {name!r}{suggest(str(name), DECODERS)} There are {', '.join(DECODERS)}")
    return DECODERS[name]
