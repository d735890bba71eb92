# SPDX-License-Identifier: Apache-2.0
"""Weighting by the coefficient of variation: Groenendijk, Karaoglu, Gevers and Mensink, WACV 2021."""

from __future__ import annotations

import torch

from mlr.balancing.base import LossBalancer
from mlr.balancing.record import NewWeights, PeriodStatistics


class CoVWeighting(LossBalancer):
    """Weights in proportion to how much each loss varies relative to its mean.

    ``w_i ~ w_i(start) std(l_i) / mean(l_i)`` with ``l_i(t) = L_i(t) / mean(L_i(0), ..., L_i(t-1))`` and ``l_i(0) = 1``,
    over all periods so far, scaled to keep the overall loss. A loss that does not vary at all is held.

    Args:
        names: the losses.
        period: optimizer steps in a period; see :class:`LossBalancer`.

    Example:
        >>> balancer = CoVWeighting(["D/0", "r/0"], period=1)
        >>> for terms in ([[4.0, 1.0]], [[2.0, 0.9]]):
        ...     balancer.observe(torch.tensor(terms))
        ...     record = balancer.step()
        >>> record.contributions[0] > record.contributions[1]  # the first one has moved more
        True
    """

    def new_weights(self, stats: PeriodStatistics) -> NewWeights:
        """Update the running moments of the loss ratios (Welford) and weigh by their coefficient of variation."""
        one = torch.ones_like(stats.means)
        saved = self.memory.get("variation")
        count, level, mean, squares = (one, stats.previous, one, 0 * one) if saved is None else saved
        level = torch.where(level.isfinite(), level, stats.previous)  # a loss that has appeared late
        ratio = stats.means / level
        grown = count + 1
        delta = ratio - mean
        moved = mean + delta / grown
        new = (grown, level + (stats.means - level) / grown, moved, squares + delta * (ratio - moved))
        old = (count, level, mean, squares)
        count, level, mean, squares = (torch.where(stats.active, a, b) for a, b in zip(new, old, strict=True))
        self.memory["variation"] = torch.stack([count, level, mean, squares])
        return NewWeights(stats.keep_total(stats.start * (squares / count).sqrt() / mean))
