# SPDX-License-Identifier: Apache-2.0
"""Losses of several heads, each with a balancer of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn

from mlr.balancing import LossBalancer, RebalanceRecord


class HeadBalancers(nn.Module):
    """Balancers side by side, used like one: the losses of a head are weighted against each other alone.

    Args:
        heads: their names.
        make: makes the balancer of a head.

    Attributes:
        names: names of all losses, ``head:loss``, head by head.
    """

    def __init__(self, heads: Iterable[str], make: Callable[[], LossBalancer]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({head: make() for head in heads})
        self.names = tuple(
            f"{head}:{name}"
            for head, balancer in zip(self.heads, self._balancers, strict=True)
            for name in balancer.names
        )

    @property
    def _balancers(self) -> list[LossBalancer]:
        return cast(list[LossBalancer], list(self.heads.values()))

    @property
    def weights(self) -> Tensor:
        """[n] of all heads: the weights in force."""
        return torch.cat([balancer.weights for balancer in self._balancers])

    @property
    def period(self) -> float | None:
        """Optimizer steps in a period."""
        return self._balancers[0].period

    @period.setter
    def period(self, value: float | None) -> None:
        for balancer in self._balancers:
            balancer.period = value

    def observe(self, terms: Tensor, counts: Tensor | None = None) -> None:
        """See :meth:`mlr.LossBalancer.observe`; terms and counts are [B, n] of all heads."""
        sizes = [len(balancer.names) for balancer in self._balancers]
        split = [None] * len(sizes) if counts is None else counts.split(sizes, 1)
        for balancer, of_head, known in zip(self._balancers, terms.split(sizes, 1), split, strict=True):
            balancer.observe(of_head, known)

    def step(self) -> RebalanceRecord | None:
        """See :meth:`mlr.LossBalancer.step`. A contribution is the share within the head, over the number of heads."""
        steps = {head: balancer.step() for head, balancer in zip(self.heads, self._balancers, strict=True)}
        records = {head: record for head, record in steps.items() if record is not None}
        if not records:  # all heads have the same periods
            return None
        first = next(iter(records.values()))

        def named(field: str) -> tuple[str, ...]:
            return tuple(f"{head}:{name}" for head, record in records.items() for name in getattr(record, field))

        def numbers(field: str, factor: float = 1.0) -> tuple[float, ...]:
            return tuple(factor * value for record in records.values() for value in getattr(record, field))

        return RebalanceRecord(
            first.period,
            first.step,
            first.lam,
            self.names,
            numbers("means"),
            numbers("weights"),
            numbers("contributions", 1 / len(records)),
            named("clipped"),
            named("held"),
            min(record.images for record in records.values()),
            max(record.dropped for record in records.values()),
            named("absent"),
            max(record.empty for record in records.values()),
        )
