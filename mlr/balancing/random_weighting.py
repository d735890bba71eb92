# SPDX-License-Identifier: Apache-2.0
"""Random loss weighting: Lin, Ye, Zhang and Tsang, TMLR 2022."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mlr.balancing.base import LossBalancer
from mlr.balancing.checks import whole
from mlr.balancing.record import NewWeights, PeriodStatistics, RebalanceRecord, can_be_in_force, usable


class RandomLossWeighting(LossBalancer):
    """Random weights, drawn for each optimizer step: the litmus test that any other balancer must pass.

    ``w_i = w_i(start) n softmax(z)_i``, ``z ~ N(0, I)``, scaled so that the overall loss of the last period would have
    been the same as under the start weights. A draw depends on the seed and the step alone, so it is the same on every
    rank and after a resume.

    Args:
        names: the losses.
        period: optimizer steps in a period; see :class:`LossBalancer`. The first period has equal weights.
        seed: seed of the draws.

    Example:
        >>> balancer = RandomLossWeighting(["D/0", "r/0"], period=1, seed=1)
        >>> for _ in range(2):
        ...     balancer.observe(torch.ones(1, 2))
        ...     record = balancer.step()
        >>> sum(record.weights)
        1.0
    """

    def __init__(self, names: Iterable[str], period: float | None = None, seed: int = 0) -> None:
        super().__init__(names, period)
        self.seed = whole("seed", seed)

    def new_weights(self, stats: PeriodStatistics) -> NewWeights:
        """The draw for the first step of the next period."""
        return NewWeights(self._draw(stats.start, stats.means, stats.active))

    def step(self) -> RebalanceRecord | None:
        """Count an optimizer step and draw the weights of the next one."""
        record = super().step()
        if record is None and self.started:
            means = self.memory["previous"]
            with torch.no_grad():
                drawn = self._draw(self.memory["start"], means, usable(means))
                # a copy from pageable memory would wait for the device
                drawn = drawn.pin_memory() if self._weights.is_cuda else drawn
                self._weights.copy_(drawn, non_blocking=True)
        return record

    def _draw(self, start: Tensor, means: Tensor, active: Tensor) -> Tensor:
        generator = seeded(self.seed, self._clock.steps)
        draw = torch.randn(len(self.names), generator=generator, dtype=torch.float64, device="cpu")
        stats = PeriodStatistics(self.period_index, 1, means, means, start, start, active)
        drawn = stats.keep_total(start * stats.softmax(draw))
        return torch.where(active & can_be_in_force(drawn), drawn, start)


def seeded(seed: int, count: int) -> torch.Generator:
    """A generator that depends on nothing but a seed and a counter: no state to save or to share between ranks."""
    # a prime keeps the sequences of neighbouring seeds apart; the generator reads 32 bits
    return torch.Generator("cpu").manual_seed((seed * 1_000_003 + count) % 2**32)
