# SPDX-License-Identifier: Apache-2.0
"""Depth of any number of pictures, in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch

from mlr.models.depth_model import DepthModel
from mlr.prediction.inputs import Picture


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
        size: (height, width) that the network sees; see :meth:`mlr.DepthModel.infer`.
        batch_size: pictures in a batch.
        flip: average with the prediction of the mirrored image.

    Yields:
        Every picture with its depth in metres, [H, W] float32, as the network gives it: not clamped.

    Raises:
        ValueError: a batch does not fit into the GPU's memory.
    """
    pictures = iter(pictures)
    while batch := list(islice(pictures, batch_size)):
        try:
            depths = model.infer([picture.image for picture in batch], size, flip)
        except torch.OutOfMemoryError as error:
            height, width = size or model.trained_size or batch[0].image.shape[:2]
            raise ValueError(
                f"{len(batch)} images of {height} x {width} pixels do not fit into the GPU's memory: "
                "give a smaller --batch-size or --size"
            ) from error
        for picture, depth in zip(batch, depths, strict=True):
            yield picture, depth[0].numpy()
