# SPDX-License-Identifier: Apache-2.0
"""The two baselines: weights that never change, and weights that change once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from mlr.balancing.base import LossBalancer
from mlr.balancing.record import NewWeights, PeriodStatistics, RebalanceRecord
from mlr.utils.named import in_order


class FixedWeights(LossBalancer):
    """Weights that never change: the plain weighted sum of eq. (2).

    Args:
        names: the losses.
        weights: one positive number per loss: by name, ``{"D/0": 1.0, ...}``, or in the order of ``names``; None for
            equal weights 1/n.
        period: optimizer steps between two records, if records are wanted.

    Raises:
        TypeError, ValueError: for weights that do not fit the names or are not positive and finite in float32.

    Example:
        >>> FixedWeights(["D/0", "r/0"]).weights
        tensor([0.5000, 0.5000], dtype=torch.float64)
        >>> FixedWeights(["D/0", "r/0"], {"r/0": 0.2, "D/0": 1.0}).weights
        tensor([1.0000, 0.2000], dtype=torch.float64)
    """

    equal_start = False

    def __init__(
        self,
        names: Iterable[str],
        weights: Mapping[str, float] | Sequence[float] | None = None,
        period: float | None = None,
    ) -> None:
        super().__init__(names, period)
        self._chosen = weights is not None
        if weights is None:
            return
        numbers = in_order(weights, self.names) if isinstance(weights, Mapping) else weights
        given = torch.as_tensor(numbers, dtype=torch.float64)
        if given.shape != (len(self.names),):
            raise ValueError(f"expected {len(self.names)} weights, one per loss, got shape {list(given.shape)}")
        if not (given.isfinite() & (given.float() > 0) & given.float().isfinite()).all():
            raise ValueError(
                f"weights must be positive and finite numbers of float32, got {given.tolist()}; "
                "to leave a loss out, leave it out of the loss space"
            )
        self._weights.copy_(given)

    def step(self) -> RebalanceRecord | None:
        """Count an optimizer step; a record at the end of a period."""
        if self._chosen:
            self._ask_whether_weights_are_used()
        return super().step()

    def new_weights(self, stats: PeriodStatistics) -> NewWeights:
        """The same weights again."""
        return NewWeights(stats.weights)


class EqualContribution(LossBalancer):
    """Equal contributions after the first period, constant weights from then on: the paper's initialisation alone.

    ``w_i = (1/n) sum_j w_j L_j / L_i``, eq. (9) with the factor 1/n; row "I" of Table 5(d).

    Args:
        names: the losses.
        period: optimizer steps in a period; see :class:`LossBalancer`.

    Example:
        >>> balancer = EqualContribution(["D/0", "r/0"], period=1)
        >>> balancer.observe(torch.tensor([[4.0, 1.0]]))
        >>> balancer.step().contributions
        (0.5, 0.5)
        >>> balancer.weights
        tensor([0.3125, 1.2500], dtype=torch.float64)
    """

    def new_weights(self, stats: PeriodStatistics) -> NewWeights:
        """The same weights again."""
        return NewWeights(stats.weights)
