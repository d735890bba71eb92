# SPDX-License-Identifier: Apache-2.0
"""Multi-loss rebalancing for monocular depth estimation, with all 78 losses and their gradient in one pass.

``mlr.LossSpace``, ``mlr.MultiLoss`` and ``mlr.Rebalancing`` need PyTorch alone; the depth model, the data and the
trainer are imported when they are first asked for.
"""

from typing import TYPE_CHECKING

from mlr import balancing, losses
from mlr._version import __version__
from mlr.balancing import (
    EqualContribution,
    FixedWeights,
    LossBalancer,
    Rebalancing,
    lambda_staircase,
)
from mlr.losses import (
    LossSpace,
    MultiLoss,
    MultiLossOutput,
    backend,
    backend_report,
    known_depth,
    multi_loss,
    multi_loss_terms,
)
from mlr.utils.lazy import lazy_attributes

if TYPE_CHECKING:
    from mlr.evaluation import DepthMetrics, depth_metrics
    from mlr.models import DepthModel, load_checkpoint, open_model, save_checkpoint

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
    "balancing",
    "depth_metrics",
    "known_depth",
    "lambda_staircase",
    "load_checkpoint",
    "losses",
    "multi_loss",
    "multi_loss_terms",
    "open_model",
    "save_checkpoint",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        "DepthModel": "mlr.models.depth_model",
        "DepthMetrics": "mlr.evaluation",
        "depth_metrics": "mlr.evaluation",
        "load_checkpoint": "mlr.models.checkpoints",
        "open_model": "mlr.models.depth_model",
        "save_checkpoint": "mlr.models.checkpoints",
    },
)


def __dir__() -> list[str]:
    return __all__
