# SPDX-License-Identifier: Apache-2.0
"""The 78 losses, their definition, and the operator that evaluates them with their gradient. Needs PyTorch alone."""

from mlr.losses.backends import BACKENDS, backend, backend_report
from mlr.losses.criterion import MultiLoss, MultiLossOutput, multi_loss, multi_loss_terms
from mlr.losses.kinds import KIND_TABLE, Kind
from mlr.losses.masks import known_depth
from mlr.losses.space import FAMILIES, KINDS, SCALES, LossSpace

__all__ = [
    "BACKENDS",
    "FAMILIES",
    "KINDS",
    "KIND_TABLE",
    "SCALES",
    "Kind",
    "LossSpace",
    "MultiLoss",
    "MultiLossOutput",
    "backend",
    "backend_report",
    "known_depth",
    "multi_loss",
    "multi_loss_terms",
]
