# SPDX-License-Identifier: Apache-2.0
"""Multi-loss rebalancing for monocular depth estimation, with all 78 losses and their gradient in one pass.

``mlr.LossSpace``, ``mlr.MultiLoss`` and ``mlr.Rebalancing`` need PyTorch alone; the depth model, the data and the
trainer are imported when they are first asked for.
"""

from typing import TYPE_CHECKING, Any

from mlr._version import __version__
from mlr.balancing import (
    EqualContribution,
    FixedWeights,
    LossBalancer,
    Rebalancing,
    lambda_staircase,
)
from mlr.criterion import MultiLoss, MultiLossOutput, multi_loss, multi_loss_terms
from mlr.engine import backend, backend_report
from mlr.masks import known_depth
from mlr.space import LossSpace

if TYPE_CHECKING:
    from mlr.checkpoints import load_checkpoint, save_checkpoint
    from mlr.evaluation import DepthMetrics, depth_metrics
    from mlr.model import DepthModel

_LAZY = {
    "DepthModel": "mlr.model",
    "DepthMetrics": "mlr.evaluation",
    "depth_metrics": "mlr.evaluation",
    "load_checkpoint": "mlr.checkpoints",
    "save_checkpoint": "mlr.checkpoints",
}

__all__ = [
    "DepthMetrics",
    "DepthModel",
    "EqualContribution",
    "FixedWeights",
    "LossBalancer",
    "LossSpace",
    "MultiLoss",
    "MultiLossOutput",
    "Rebalancing",
    "__version__",
    "backend",
    "backend_report",
    "depth_metrics",
    "known_depth",
    "lambda_staircase",
    "load_checkpoint",
    "multi_loss",
    "multi_loss_terms",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'mlr' has no attribute {name!r}")
