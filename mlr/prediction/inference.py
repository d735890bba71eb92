# SPDX-License-Identifier: Apache-2.0
"""Depth of pictures of any size, in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from mlr.models.depth_model import DepthModel
from mlr.prediction.inputs import Picture
from mlr.utils.sizes import MIN_SIDE


def predict_pictures(
    model: DepthModel,
    pictures: Iterable[Picture],
    size: tuple[int, int] | None = None,
    batch_size: int = 8,
    flip: bool = False,
) -> Iterator[tuple[Picture, np.ndarray]]:
    """Predict depth.

    Args:
        model: the network; it runs where it is.
        pictures: in any number; only a batch of them is in memory.
        size: (height, width) that images are resized to (antialiased bilinear, as in training); None = their own.
        batch_size: pictures in a batch, as long as their sizes agree.
        flip: average with the prediction of the mirrored image.

    Yields:
        Every picture with its depth in metres, [H, W] float32, brought to the image's own size (bilinear). It is as the
        network gives it: not clamped.

    Raises:
        ValueError: a batch does not fit into the GPU's memory.
    """
    prepared = ((picture, network_input(picture.image, size)) for picture in pictures)
    for shape, same in groupby(prepared, key=lambda pair: pair[1].shape):
        while batch := list(islice(same, batch_size)):
            try:
                depth = _predict(model, torch.stack([image for _, image in batch]), flip)
            except torch.OutOfMemoryError as error:
                raise ValueError(
                    f"{len(batch)} images of {shape[1]} x {shape[2]} pixels do not fit into the GPU's memory: "
                    "give a smaller --batch-size or --size"
                ) from error
            for (picture, _), map_ in zip(batch, depth, strict=True):
                own = picture.image.shape[:2]
                yield picture, F.interpolate(map_[None], size=own, mode="bilinear")[0, 0].cpu().numpy()


def network_input(image: np.ndarray, size: tuple[int, int] | None = None) -> Tensor:
    """An image [H, W, 3] as [3, h, w], uint8, of a given size, or of its own, enlarged to what networks need."""
    height, width = size or (max(image.shape[0], MIN_SIDE), max(image.shape[1], MIN_SIDE))
    return resize(torch.from_numpy(image).permute(2, 0, 1), [height, width], antialias=True)


@torch.inference_mode()
def _predict(model: DepthModel, images: Tensor, flip: bool) -> Tensor:
    images = images.to(model.pixel_mean.device).contiguous(memory_format=torch.channels_last) / 255
    depth = model(images).float()
    return (depth + model(images.flip(-1)).float().flip(-1)) / 2 if flip else depth
