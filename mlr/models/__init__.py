# SPDX-License-Identifier: Apache-2.0
"""The depth network: encoder, decoder, ImageNet weights, checkpoint files."""

from typing import TYPE_CHECKING

from mlr.models.checkpoints import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from mlr.utils.lazy import lazy_attributes

if TYPE_CHECKING:
    from mlr.models.depth_model import DepthModel, TrainedModel, open_model

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "DepthModel",
    "TrainedModel",
    "load_checkpoint",
    "open_model",
    "save_checkpoint",
]

#: timm takes seconds to import, and checkpoint files need PyTorch alone.
__getattr__ = lazy_attributes(
    __name__, dict.fromkeys(("DepthModel", "TrainedModel", "open_model"), "mlr.models.depth_model")
)
