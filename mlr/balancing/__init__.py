# SPDX-License-Identifier: Apache-2.0
"""Balancers: weights of many losses, revised while the network trains (section 3.2).

They need PyTorch alone and know nothing of depth: any [B, n] tensor of losses can be balanced.

Example:
    >>> balancer = make_balancer("rebalancing", ["D/0", "r/0"], period=100)
    >>> balancer.weights
    tensor([0.5000, 0.5000], dtype=torch.float64)
"""

from mlr.balancing.base import LossBalancer, equal_contributions
from mlr.balancing.dynamic_average import DynamicWeightAverage
from mlr.balancing.factory import BALANCERS, make_balancer
from mlr.balancing.fixed import EqualContribution, FixedWeights
from mlr.balancing.random_weighting import RandomLossWeighting
from mlr.balancing.rebalancing import Rebalancing, lambda_staircase
from mlr.balancing.record import NewWeights, PeriodStatistics, RebalanceRecord
from mlr.balancing.relobralo import ReLoBRaLo
from mlr.balancing.uncertainty import UncertaintyWeighting
from mlr.balancing.variation import CoVWeighting

__all__ = [
    "BALANCERS",
    "CoVWeighting",
    "DynamicWeightAverage",
    "EqualContribution",
    "FixedWeights",
    "LossBalancer",
    "NewWeights",
    "PeriodStatistics",
    "RandomLossWeighting",
    "ReLoBRaLo",
    "RebalanceRecord",
    "Rebalancing",
    "UncertaintyWeighting",
    "equal_contributions",
    "lambda_staircase",
    "make_balancer",
]
