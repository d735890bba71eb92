# SPDX-License-Identifier: Apache-2.0
"""Dynamic weight average: Liu, Johns and Davison, CVPR 2019."""

from __future__ import annotations

from collections.abc import Iterable

from mlr.balancing.base import LossBalancer
from mlr.balancing.checks import positive
from mlr.balancing.record import NewWeights, PeriodStatistics


class DynamicWeightAverage(LossBalancer):
    """More weight for the losses that fell least from the period before to this one.

    ``w_i = w_i(start) n softmax(L(t) / (T L(t-1)))_i``, scaled to keep the overall loss.

    Args:
        names: the losses.
        period: optimizer steps in a period; see :class:`LossBalancer`.
        temperature: T; larger is closer to constant weights.

    Raises:
        TypeError, ValueError: for a temperature that is not positive.

    Example:
        >>> import torch
        >>> balancer = DynamicWeightAverage(["D/0", "r/0"], period=1)
        >>> for terms in ([[4.0, 1.0]], [[2.0, 0.9]]):
        ...     balancer.observe(torch.tensor(terms))
        ...     record = balancer.step()
        >>> record.contributions[1] > record.contributions[0]  # the second one has hardly fallen
        True
    """

    def __init__(self, names: Iterable[str], period: float | None = None, temperature: float = 2.0) -> None:
        super().__init__(names, period)
        self.temperature = positive("temperature", temperature)

    def new_weights(self, stats: PeriodStatistics) -> NewWeights:
        """Softmax of the rates of descent."""
        rate = stats.means / stats.previous
        return NewWeights(stats.keep_total(stats.start * stats.softmax(rate / self.temperature)))
