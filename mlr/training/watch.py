# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the losses of a period, found on the device and read once at the period's end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class NonFiniteLosses:
    """The first loss of a period that is not finite: of which image, at which step.

    A loss is not finite because the prediction, the depth or the image is not. One such image spoils the network, so
    its name is worth knowing. Looking at every step would wait for the device; here the place is kept on it.

    Args:
        names: the losses.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.reset()

    def reset(self) -> None:
        """Begin a period."""
        self._batches: list[tuple[int, list[str]]] = []
        self._first: Tensor | None = None

    @torch.no_grad()
    def observe(self, terms: Tensor, images: Sequence[str], step: int) -> None:
        """Look at the losses of a batch, without waiting for the device.

        Args:
            terms: [B, n], every loss of every image.
            images: the names of the images.
            step: the optimizer step that the batch belongs to.
        """
        bad = ~terms.isfinite().flatten()
        place = bad.to(torch.uint8).argmax()
        here = torch.stack([torch.full_like(place, len(self._batches)), place])
        here = torch.where(bad.any(), here, -1)
        self._first = here if self._first is None else torch.where(self._first >= 0, self._first, here)
        self._batches.append((step, list(images)))

    def read(self) -> str | None:
        """The first of them in words; None if all were finite. Waits for the device."""
        batch, place = (-1, -1) if self._first is None else self._first.tolist()
        if batch < 0:
            return None
        step, images = self._batches[batch]
        image, term = divmod(place, len(self.names))
        return f"loss {self.names[term]} of image {images[image]} is not finite in step {step + 1}"


class AbsentLosses:
    """Losses that masks leave without a valid position in the first batches of a run.

    Args:
        batches: how many batches to look at.
    """

    def __init__(self, batches: int = 4) -> None:
        self.batches = batches
        self._absent: list[Tensor] = []

    @torch.no_grad()
    def observe(self, counts: Tensor) -> float | None:
        """Look at the counts [B, n] of a batch.

        Returns:
            The share of losses without a valid position, once, after the last of the batches; else None.
        """
        if len(self._absent) >= self.batches:
            return None
        self._absent.append((counts == 0).float().mean())
        return float(torch.stack(self._absent).mean()) if len(self._absent) == self.batches else None


class ImageMean(Metric):
    """Mean over the images that have a known depth, of all batches and ranks; nothing in :meth:`update` waits."""

    full_state_update = False
    value: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("value", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros(()), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, mean: Tensor, images: Tensor) -> None:
        """Add a batch.

        Args:
            mean: mean over its images with known depth.
            images: their number.
        """
        self.value = self.value + torch.where(images > 0, mean * images, 0)
        self.images = self.images + images

    def compute(self) -> Tensor:
        """The mean; NaN without an image."""
        return self.value / self.images
