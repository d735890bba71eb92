# SPDX-License-Identifier: Apache-2.0
"""Filling pixels without depth, for losses that average over every pixel; training by default masks them instead."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torchvision import tv_tensors

from mlr.data.colorize import colorize
from mlr.data.depth_files import DataError
from mlr.data.sample import Sample


def nearest_known(known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the nearest True pixel for every pixel of a [H, W] map."""
    rows, columns = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return rows, columns


def fill_error(depth: np.ndarray, image: np.ndarray, name: str) -> np.ndarray:
    """Refuse a depth map with holes, saying which option fills them."""
    missing = float((depth <= 0).mean())
    raise DataError(
        f"{name}: {100 * missing:.1f} % of the pixels have no depth, and --holes error allows none. Choose "
        "--holes mask to train on the known pixels, --holes colorize to fill along the image or --holes nearest to "
        "take the nearest depth (scores count measured pixels in every case), or fill the whole set once with mlr "
        "prepare"
    )


def fill_nearest(depth: np.ndarray, image: np.ndarray, name: str) -> np.ndarray:
    """Give every unknown pixel the depth of the nearest known one."""
    known = depth > 0
    if not known.any():
        raise DataError(f"{name}: no pixel has a depth, so nothing can be filled; leave this frame out")
    return depth[nearest_known(known)]


def fill_colorize(depth: np.ndarray, image: np.ndarray, name: str) -> np.ndarray:
    """Fill along the image, see :mod:`mlr.data.colorize`."""
    if image.shape[:2] != depth.shape:  # a laser's coarse grid
        image = np.asarray(Image.fromarray(image).resize(depth.shape[::-1], Image.Resampling.BOX))
    try:
        return colorize(image, depth)
    except ValueError as error:
        raise DataError(f"{name}: {error}; leave this frame out") from error


#: How holes are filled: (depth [H, W], image [H, W, 3], name) -> full depth [H, W].
FILLS: dict[str, Callable[[np.ndarray, np.ndarray, str], np.ndarray]] = {
    "error": fill_error,
    "nearest": fill_nearest,
    "colorize": fill_colorize,
}

#: What --holes offers. "mask" fills nothing: the losses leave unknown pixels out.
HOLES = ("mask", *FILLS)


def fill_sample(sample: Sample, how: str) -> Sample:
    """A frame whose depth has no holes; ``valid`` keeps saying where it was measured.

    Args:
        sample: the frame.
        how: a key of :data:`FILLS`.

    Raises:
        DataError: there are holes and they are not to be filled, or nothing to fill from.
    """
    depth = sample["depth"][0].numpy()
    if (depth > 0).all():
        return sample
    filled = FILLS[how](depth, sample["image"].permute(1, 2, 0).numpy(), sample["id"])
    return {**sample, "depth": tv_tensors.Mask(torch.from_numpy(filled)[None])}
