# SPDX-License-Identifier: Apache-2.0
"""Relative loss balancing with random lookback: Bischof and Kraus, 2021."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from mlr.balancing.base import LossBalancer
from mlr.balancing.checks import positive, share, whole
from mlr.balancing.random_weighting import seeded
from mlr.balancing.record import NewWeights, PeriodStatistics


class ReLoBRaLo(LossBalancer):
    """Smoothed multipliers that favour the losses that fell least, sometimes compared with the very beginning.

    ``m(t) = a (rho m(t-1) + (1 - rho) bal(t, 0)) + (1 - a) bal(t, t-1)``,
    ``bal(t, t') = n softmax(L(t) / (tau L(t')))``, ``rho ~ Bernoulli``,
    and ``w_i ~ w_i(start) m_i``, scaled to keep the overall loss.

    The original updates at each optimizer step and this at each period, so ``a`` is ``alpha`` to the power of the steps
    in the period; rho is drawn once a period, from the seed and the period's index.

    Args:
        names: the losses.
        period: optimizer steps in a period; see :class:`LossBalancer`.
        alpha: memory of one optimizer step, in [0, 1].
        rho: probability that a period builds on the multipliers before instead of looking back to period 0, in [0, 1].
        tau: temperature.
        seed: seed of the lookback.

    Raises:
        TypeError, ValueError: for an option out of its range.

    Example:
        >>> balancer = ReLoBRaLo(["D/0", "r/0"], period=1, alpha=0.9)
        >>> for terms in ([[4.0, 1.0]], [[2.0, 0.9]]):
        ...     balancer.observe(torch.tensor(terms))
        ...     record = balancer.step()
        >>> record.contributions[1] > record.contributions[0]
        True
    """

    def __init__(
        self,
        names: Iterable[str],
        period: float | None = None,
        alpha: float = 0.999,
        rho: float = 0.99,
        tau: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(names, period)
        self.alpha, self.rho, self.tau = share("alpha", alpha), share("rho", rho), positive("tau", tau)
        self.seed = whole("seed", seed)

    def new_weights(self, stats: PeriodStatistics) -> NewWeights:
        """Blend the multipliers before with the balance against the last and the first period."""
        first = self.memory.get("first", stats.previous)
        first = torch.where(first.isfinite(), first, stats.previous)
        multipliers = self.memory.get("multipliers", torch.ones_like(stats.means))
        keep = self.alpha**stats.steps
        base = multipliers if self._builds_on_the_last(stats.period) else self._balance(stats, first)
        mixed = keep * base + (1 - keep) * self._balance(stats, stats.previous)
        multipliers = torch.where(stats.active, mixed, multipliers)
        self.memory |= {"first": first, "multipliers": multipliers}
        return NewWeights(stats.keep_total(stats.start * multipliers))

    def _balance(self, stats: PeriodStatistics, reference: torch.Tensor) -> torch.Tensor:
        return stats.softmax(stats.means / (self.tau * reference))

    def _builds_on_the_last(self, period: int) -> bool:
        return bool(torch.rand((), generator=seeded(self.seed, period), dtype=torch.float64, device="cpu") < self.rho)
