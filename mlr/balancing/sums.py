# SPDX-License-Identifier: Apache-2.0
"""Sums of the losses of a period, kept on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed


class PeriodSums(NamedTuple):
    """What the images of a period add up to, over all ranks; on the CPU in float64.

    Attributes:
        means: [n], mean of every loss over the images that have it; NaN where no image does.
        present: [n], number of images that each mean is over.
        images: number of images that have a loss.
        dropped: images left out because one of their losses was not finite.
        empty: images without a valid position for any loss.
        weights: [n], the balancer's weights, which share the copy to the CPU.
        resolution: machine epsilon of the losses' type.
    """

    means: Tensor
    present: Tensor
    images: int
    dropped: int
    empty: int
    weights: Tensor
    resolution: float


class LossSums:
    """Sums of n losses over the images of the current period, and the numbers of these images.

    The numbers lie in one tensor of 2 n + 3, so that a batch is one addition, the end of a period one copy and one
    all_reduce: sums of the losses [n], images that have each of them [n], images, dropped ones, empty ones.

    It is no buffer of the balancer: DistributedDataParallel copies the buffers of rank 0 to the other ranks at every
    forward pass, and each rank has its own sums until the end of the period.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.values = torch.zeros(2 * count + 3, dtype=torch.float64)
        self.resolution = 0.0

    def to(self, device: torch.device) -> None:
        """Move to a device, in the widest floating type that it has."""
        if self.values.is_meta:  # has no numbers to move
            self.values = torch.zeros_like(self.values, device=device)
        self.values = self.values.to(device, widest_float(device))

    def add(self, terms: Tensor, counts: Tensor | None) -> None:
        """Add the losses of a batch, [B, n]; counts of 0 mark losses that an image does not have."""
        finite = terms.isfinite()
        if counts is None:
            usable = finite.all(dim=1, keepdim=True)
            present, measured = usable.expand(terms.shape), usable
            empty = torch.zeros_like(usable)
        else:
            known = counts > 0
            usable = (finite | ~known).all(dim=1, keepdim=True)
            present = known & usable
            measured = present.any(dim=1, keepdim=True)
            empty = usable & ~measured
        rows = torch.cat([torch.where(present, terms, 0), present, measured, ~usable, empty], dim=1)
        self.values += rows.sum(dim=0, dtype=self.values.dtype)
        self.resolution = max(self.resolution, torch.finfo(_at_least_float32(terms.dtype)).eps)

    def collect(self, weights: Tensor) -> PeriodSums | None:
        """Sums of all ranks, and the weights, on the CPU: the one wait for the device in a period.

        Returns:
            None if there was not a single image.
        """
        values, n = self.values, self.count
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
            values = values.clone()
            distributed.all_reduce(values)
        host = torch.cat([values, weights]).to("cpu", torch.float64)
        sums, present, rest, weights = host.split([n, n, 3, n])
        images, dropped, empty = (int(number) for number in rest)
        if images + dropped + empty == 0:
            return None
        return PeriodSums(sums / present, present, images, dropped, empty, weights, self.resolution)

    def clear(self) -> None:
        """Begin the next period."""
        self.values.zero_()
        self.resolution = 0.0

    def state(self) -> dict[str, Any]:
        """The state: a tensor and a number."""
        return {"sums": self.values, "resolution": self.resolution}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; one of before masks has a single number of images."""
        sums = state["sums"]
        if len(sums) == self.count + 2:
            images = sums[-2:-1]
            sums = torch.cat([sums[: self.count], images.expand(self.count), sums[-2:], torch.zeros_like(images)])
        self.values.copy_(sums)
        self.resolution = state.get("resolution", torch.finfo(torch.float32).eps)


def widest_float(device: torch.device) -> torch.dtype:
    """float64, except on Apple's GPUs, which do not have it."""
    return torch.float32 if device.type == "mps" else torch.float64


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Type in which losses were computed: float64, or float32 even where the result was rounded to fewer bits."""
    return torch.promote_types(dtype, torch.float32)
