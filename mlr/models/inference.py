# SPDX-License-Identifier: Apache-2.0
"""The one way from images of any kind to depth at their own size."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mlr.utils.sizes import MIN_SIDE


def infer(
    model: Callable[[Tensor], Tensor],
    images: Any,
    size: tuple[int, int] | None = None,
    flip: bool = False,
    device: torch.device | None = None,
) -> Any:
    """Depth of images; :meth:`mlr.DepthModel.infer` describes it.

    Args:
        model: from [B, 3, h, w] in [0, 1] to depth [B, 1, h, w].
        images: [B, 3, H, W], one image, or a list of images.
        size: (height, width) that the model sees; None = the images' own.
        flip: average with the depth of the mirrored images.
        device: where the model is; None = where the images are.
    """
    if isinstance(images, (list, tuple)):
        ready = [(_as_tensor(image), image) for image in images]
        if any(image.ndim != 3 for image, _ in ready):
            raise ValueError("a list must hold single images, [3, H, W] or [H, W, 3]; give a batch by itself")
        own = [image.shape[-2:] for image, _ in ready]
        seen = [network_input(image, size) for image, _ in ready]
        depths = []
        for _, same in groupby(zip(seen, own, strict=True), key=lambda pair: (pair[0].shape, pair[0].dtype)):
            group = list(same)
            maps = _forward(model, torch.stack([image for image, _ in group]), flip, device)
            depths += [_resized(map_[None], to)[0] for map_, (_, to) in zip(maps, group, strict=True)]
        return [depth.to(image.device) for depth, (image, _) in zip(depths, ready, strict=True)]
    image = _as_tensor(images)
    batch = image if image.ndim == 4 else image[None]
    depth = _resized(_forward(model, network_input(batch, size), flip, device), batch.shape[-2:]).to(image.device)
    return depth if image.ndim == 4 else depth[0]


def network_input(image: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """What a network is shown of images [..., 3, H, W]: antialiased bilinear, as in training and validation.

    Args:
        image: the images; bytes stay bytes, rounded as in training.
        size: (height, width); None = their own, enlarged to what networks need.
    """
    from torchvision.transforms.v2.functional import resize

    height, width = size or (max(image.shape[-2], MIN_SIDE), max(image.shape[-1], MIN_SIDE))
    return resize(image, [height, width], antialias=True)


def _forward(model: Callable[[Tensor], Tensor], images: Tensor, flip: bool, device: torch.device | None) -> Tensor:
    images = images.to(device).contiguous(memory_format=torch.channels_last)
    images = images / 255 if images.dtype == torch.uint8 else images
    depth = model(images).float()
    return (depth + model(images.flip(-1)).float().flip(-1)) / 2 if flip else depth


def _resized(depth: Tensor, size: torch.Size) -> Tensor:
    """Depth maps [B, 1, h, w] at an image's size, bilinear by pixel centres."""
    return depth if depth.shape[-2:] == size else F.interpolate(depth, size=tuple(size), mode="bilinear")


def _as_tensor(image: Any) -> Tensor:
    """An image, or a batch, with its colours first: bytes, or floats in [0, 1].

    Raises:
        TypeError: it is nothing that holds an image.
        ValueError: its shape, type or range is another.
    """
    if hasattr(image, "convert"):  # Pillow
        from PIL import ImageOps

        image = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[-1] != 3:
            raise ValueError(f"an array must be an image [H, W, 3], got {list(image.shape)}")
        image = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    if not isinstance(image, Tensor):
        raise TypeError(
            f"images must be tensors, arrays or Pillow images, got {type(image).__name__}; "
            "mlr.data.read_image(path) reads a file"
        )
    image = image.as_subclass(Tensor)
    if image.ndim not in (3, 4) or image.shape[-3] != 3:
        raise ValueError(f"images must be [B, 3, H, W] or [3, H, W], got {list(image.shape)}")
    if 0 in image.shape:
        raise ValueError(f"there is no pixel in images of {list(image.shape)}")
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        raise ValueError(f"images must be bytes or floating point in [0, 1], got {image.dtype}")
    low, high = image.aminmax()
    if not (low >= -0.5 and high <= 1.5):  # interpolation may leave [0, 1] by a little; NaN fails too
        raise ValueError(f"images of floats must lie in [0, 1], got {low:.4g} to {high:.4g}: divide bytes by 255")
    return image.float()
