# SPDX-License-Identifier: Apache-2.0
"""Where predicted depth comes from, and the depth that a network predicts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from torch import Tensor

from mlr.data.depth_files import DataError
from mlr.data.sample import Region, Sample
from mlr.evaluation.protocols import Input, Protocol
from mlr.evaluation.scoring import predict
from mlr.models.depth_model import DepthModel


class Prediction(NamedTuple):
    """Predicted depth of a frame.

    Attributes:
        depth: metres, [1, 1, h, w], float32.
        region: what it covers of the camera's frame; None = all of it, or the rows that the protocol shows.
    """

    depth: Tensor
    region: Region | None = None


class Predictor(ABC):
    """Predicted depth of the frames of a data set."""

    @abstractmethod
    def key(self, protocol: Protocol) -> tuple[Any, ...]:
        """What a prediction depends on: it is the same for protocols with the same key."""

    @abstractmethod
    def predict(self, index: int, sample: Sample, protocol: Protocol) -> Prediction:
        """Predict depth.

        Args:
            index: of the frame in its data set.
            sample: the frame, of which networks see the image.
            protocol: prescribes the input.

        Raises:
            DataError: the prediction is unusable under any protocol.
            ValueError: the protocol refuses the image.
        """

    @abstractmethod
    def record(self, protocol: Protocol) -> dict[str, Any]:
        """How predictions are made under a protocol; stored with its scores."""

    def check(  # noqa: B027 - nothing to refuse is the usual case
        self, index: int, prediction: Prediction, sample: Sample, target: Tensor, protocol: Protocol
    ) -> None:
        """Refuse a prediction that does not cover what the protocol scores.

        Args:
            index: of the frame.
            prediction: its depth.
            sample: what was predicted.
            target: [1, 1, rows, columns].
            protocol: says which part of the image is predicted.

        Raises:
            ValueError: with the sizes.
        """


class Network(Predictor):
    """Predictions of a depth network.

    Args:
        model: the network.
        size: (height, width) of its input where the protocol has none of its own; None = the image's.
        flip: average with the mirrored image; None = as the protocol says.
        half: run the network in half precision; colours are normalised in float32 all the same.
    """

    def __init__(
        self,
        model: DepthModel,
        size: tuple[int, int] | None = None,
        flip: bool | None = None,
        half: bool = False,
    ) -> None:
        self.size, self.flip, self.half = size, flip, half
        self.device = model.pixel_mean.device
        self.model = model.eval()
        self._part: tuple[int, int] | None = None
        if half:
            mean, std = model.pixel_mean, model.pixel_std
            model.half()
            model.pixel_mean, model.pixel_std = mean, std

    def _input(self, protocol: Protocol) -> Input:
        given = protocol.input
        flip = given.flip_average if self.flip is None else self.flip
        return replace(given, size=given.size or self.size, flip_average=flip)

    def key(self, protocol: Protocol) -> tuple[Any, ...]:
        """The input, with all that is left to the network."""
        return (self._input(protocol),)

    def predict(self, index: int, sample: Sample, protocol: Protocol) -> Prediction:
        """Run the network."""
        image, region = sample["image"].as_subclass(Tensor)[None], sample.get("region")
        self._part = region and (region.height, region.width)
        depth = predict(self.model, image, protocol, self.size, self.flip, self.device).cpu()
        if not depth.isfinite().all():
            hint = "; half precision may overflow: leave out --half" if self.half else ""
            raise DataError(f"the network predicts NaN or infinite depth{hint}")
        return Prediction(depth, region)

    def record(self, protocol: Protocol) -> dict[str, Any]:
        """Part of the frame (None = whole), the input (size None = the image's), precision, device."""
        return {
            "part": self._part,
            "input": asdict(self._input(protocol)),
            "precision": "half" if self.half else "float32",
            "device": str(self.device),
        }
