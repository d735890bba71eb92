# SPDX-License-Identifier: Apache-2.0
"""Weighting by homoscedastic uncertainty: Kendall, Gal and Cipolla, CVPR 2018."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from mlr.balancing.base import LossBalancer, equal_contributions
from mlr.balancing.checks import positive
from mlr.balancing.record import NewWeights, PeriodStatistics


class UncertaintyWeighting(LossBalancer):
    """Weights ``exp(-s_i)`` where the log variances s minimise ``sum_i exp(-s_i) L_i + s_i``.

    The minimum is ``s_i = log L_i``: weights in inverse proportion to the losses, equal contributions in each period;
    that is the closed form. With a learning rate the s_i descend towards it, one step of
    ``s_i -= lr (1 - exp(-s_i) L_i)`` for each optimizer step of the period, with the period's mean. At a network's rate
    of 1e-4 they hardly move; 1e-2 follows the losses. The weights are scaled to keep the overall loss.

    Args:
        names: the losses.
        period: optimizer steps in a period; see :class:`LossBalancer`.
        lr: learning rate of the log variances, or None for the closed form.

    Raises:
        TypeError, ValueError: for an option out of its range.

    Example:
        >>> balancer = UncertaintyWeighting(["D/0", "r/0"], period=1)
        >>> for terms in ([[4.0, 1.0]], [[2.0, 1.0]]):
        ...     balancer.observe(torch.tensor(terms))
        ...     record = balancer.step()
        >>> record.contributions
        (0.5, 0.5)
    """

    def __init__(self, names: Iterable[str], period: float | None = None, lr: float | None = None) -> None:
        super().__init__(names, period)
        self.lr = None if lr is None else positive("lr", lr)

    def new_weights(self, stats: PeriodStatistics) -> NewWeights:
        """Inverse losses, or the way towards them."""
        if self.lr is None:
            return NewWeights(equal_contributions(stats.weights, stats.means, stats.active))
        begin = stats.previous.log()  # equal contributions: where the start has put them
        log_variance = self.memory.get("log_variance", begin)
        log_variance = torch.where(log_variance.isfinite(), log_variance, begin)
        for _ in range(stats.steps):
            change = self.lr * (1 - torch.exp(-log_variance) * stats.means)
            log_variance = torch.where(stats.active, log_variance - change, log_variance)
        self.memory["log_variance"] = log_variance
        return NewWeights(stats.keep_total(torch.exp(-log_variance)))
