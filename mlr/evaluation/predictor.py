# SPDX-License-Identifier: Apache-2.0
"""Where predicted depth comes from, and the depth that a network predicts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mlr.data.depth_files import DataError
from mlr.evaluation.protocols import Protocol
from mlr.evaluation.scoring import predict
from mlr.models.depth_model import DepthModel


class Predictor(ABC):
    """Predicted depth of the frames of a data set."""

    @abstractmethod
    def key(self, protocol: Protocol) -> tuple[Any, ...]:
        """What a prediction depends on: it is the same for protocols with the same key."""

    @abstractmethod
    def predict(self, index: int, image: Tensor, protocol: Protocol) -> Tensor:
        """Predict depth.

        Args:
            index: of the frame in its data set.
            image: [1, 3, H, W] in [0, 1], at the camera's size.
            protocol: how the image is prepared.

        Returns:
            Depth in metres, [1, 1, h, w], float32.

        Raises:
            DataError: the prediction is unusable under any protocol.
            ValueError: the protocol refuses the image.
        """

    @abstractmethod
    def record(self, protocol: Protocol) -> dict[str, Any]:
        """How predictions are made under a protocol; stored with its scores."""

    def check(  # noqa: B027 - nothing to refuse is the usual case
        self, index: int, pred: Tensor, image: Tensor, target: Tensor, protocol: Protocol
    ) -> None:
        """Refuse a prediction that does not cover what the protocol scores.

        Args:
            index: of the frame.
            pred: [1, 1, h, w].
            image: [1, 3, H, W].
            target: [1, 1, rows, columns].
            protocol: says which part of the image is predicted.

        Raises:
            ValueError: with the sizes.
        """


class Network(Predictor):
    """Predictions of a depth network.

    Args:
        model: from images [B, 3, h, w] in [0, 1] to depth [B, 1, h, w].
        size: (height, width) of its input where the protocol has none of its own; None = the image's.
        flip: average with the mirrored image; None = as the protocol says.
        half: run the network in half precision; colours are normalised in float32 all the same.
        pasted: show the network only the part of an image that the protocol pastes back, as for networks that were
            trained on KITTI's bottom-centre crop.
    """

    def __init__(
        self,
        model: DepthModel,
        size: tuple[int, int] | None = None,
        flip: bool | None = None,
        half: bool = False,
        pasted: bool = False,
    ) -> None:
        self.size, self.flip, self.half, self.pasted = size, flip, half, pasted
        self.device = model.pixel_mean.device
        self.model = model.eval().to(memory_format=torch.channels_last)  # faster by far on CPUs and tensor cores
        if half:
            mean, std = model.pixel_mean, model.pixel_std
            model.half()
            model.pixel_mean, model.pixel_std = mean, std

    def _prepared(self, protocol: Protocol) -> Protocol:
        flip = protocol.flip_average if self.flip is None else self.flip
        return replace(protocol, input_size=protocol.input_size or self.size, flip_average=flip)

    def _part(self, protocol: Protocol) -> tuple[int, int] | None:
        return protocol.paste if self.pasted else None

    def _like_a_part(self, protocol: Protocol) -> bool:
        """Whether depth of whole images comes in the size that the protocol pastes; it is resized lest it be pasted."""
        return not self.pasted and protocol.paste is not None and self._prepared(protocol).input_size == protocol.paste

    def key(self, protocol: Protocol) -> tuple[Any, ...]:
        """Part of the image, whether the depth is brought to the image's size, size of the input, mirrored or not."""
        prepared, resized = self._prepared(protocol), self._like_a_part(protocol)
        return self._part(protocol), resized, prepared.image_rows, prepared.input_size, prepared.flip_average

    def predict(self, index: int, image: Tensor, protocol: Protocol) -> Tensor:
        """Run the network."""
        part = self._part(protocol)
        if part:
            left = (image.shape[-1] - part[1]) // 2
            image = image[..., image.shape[-2] - part[0] :, left : left + part[1]]
        depth = predict(self.model, image.to(self.device), self._prepared(protocol)).cpu()
        if part or self._like_a_part(protocol):
            depth = F.interpolate(depth, size=image.shape[-2:], mode="bilinear", align_corners=True)
        if not depth.isfinite().all():
            hint = "; half precision may overflow: leave out --half" if self.half else ""
            raise DataError(f"the network predicts NaN or infinite depth{hint}")
        return depth

    def record(self, protocol: Protocol) -> dict[str, Any]:
        """Part of the image (None = whole), size of the input (None = the image's), flip average, precision, device."""
        prepared = self._prepared(protocol)
        return {
            "part": self._part(protocol),
            "input_size": prepared.input_size,
            "flip_average": prepared.flip_average,
            "precision": "half" if self.half else "float32",
            "device": str(self.device),
        }
