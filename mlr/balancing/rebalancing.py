# SPDX-License-Identifier: Apache-2.0
"""The paper's loss rebalancing algorithm, section 3.2."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from mlr.balancing.base import LossBalancer
from mlr.balancing.checks import finite, whole
from mlr.balancing.record import NewWeights, PeriodStatistics, usable

FORMS = ("linear", "power")


class Rebalancing(LossBalancer):
    """The paper's loss rebalancing: weights follow how much faster or slower than the others each loss decreases.

    After a preliminary period with equal weights every loss is given an equal contribution (eq. 9). At the end of each
    later period t

        ``w_i <- w_i * clip(1 + lambda (r_i - 1), 1/2, 2)``,  ``r_i = P_i(t-1) / P_i(t)``,  ``P_i = L_i / L_all``

    which is eq. (11) rearranged. ``lambda > 0`` turns to the losses that are easy, ``lambda < 0`` to the difficult
    ones, 1 keeps contributions and 0 keeps weights. Three things are not in the paper but in the authors' program:

    * the clip, without which a weight turns negative as soon as r < 2/3 (lambda = 3) or r > 4/3 (lambda = -3);
    * ``L_all(t-1)`` is taken with the weights in force now: with those in force then, any error in the conservation of
      the overall loss is multiplied by lambda in each period, and float64 rounding alone grows past 1e15 in 80;
    * the factor 1/n in the initialisation, see :func:`mlr.balancing.equal_contributions`.

    Without clipping ``sum w_i(t-1) L_i(t) = sum w_i(t) L_i(t)`` holds to rounding, as the paper states; a clip breaks
    it by a per cent or so.

    Args:
        names: the losses, for instance ``LossSpace("all").names``.
        period: optimizer steps in a period; ``steps_per_epoch / 4`` is the paper's quarter epoch. See
            :class:`LossBalancer`.
        lam: the rebalancing parameter lambda: a number, or a callable of the index of the period that ended; None for
            the paper's staircase, :func:`lambda_staircase`.
        clip: limits ``(low, high)`` of the factor of one period; None for eq. (11) to the letter, in which a weight
            that would not stay positive is held instead.
        conserve: rescale after the clip, so that the overall loss is conserved exactly.
        form: "linear" (eq. 11) or "power", ``w_i * r_i^lambda``: positive by construction and free of the drift that
            noise causes in the linear form.
        equal_start: give every loss an equal contribution after the first period (eq. 9). False rebalances from equal
            weights, the row without "I" of Table 5(d).

    Raises:
        TypeError, ValueError: for an option out of its range.

    Example:
        >>> balancer = Rebalancing(["D/0", "r/0"], period=1, lam=1)
        >>> for terms in ([[4.0, 1.0]], [[2.0, 1.0]]):
        ...     balancer.observe(torch.tensor(terms))
        ...     record = balancer.step()
        >>> record.contributions  # lambda = 1 keeps them equal
        (0.5, 0.5)
    """

    def __init__(
        self,
        names: Iterable[str],
        period: float | None = None,
        lam: float | Callable[[int], float] | None = None,
        clip: tuple[float, float] | None = (0.5, 2.0),
        conserve: bool = False,
        form: str = "linear",
        equal_start: bool = True,
    ) -> None:
        super().__init__(names, period)
        if not isinstance(equal_start, bool):
            raise TypeError(f"equal_start must be True or False, got {equal_start!r}")
        self.equal_start = equal_start
        self.lam = lambda_staircase() if lam is None else lam
        _check_lam(self.lam)
        if clip is not None:
            low, high = clip
            if not 0 < low <= 1 <= high < math.inf:
                raise ValueError(f"clip must be (low, high) with 0 < low <= 1 <= high, or None, got {clip!r}")
            clip = (float(low), float(high))
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
        self.clip, self.conserve, self.form = clip, conserve, form

    def new_weights(self, stats: PeriodStatistics) -> NewWeights:
        """Equation (11) with the authors' clip."""
        lam = self.lam
        if callable(lam):
            lam = finite(f"lam({stats.period})", lam(stats.period))
        # without the equal start the first period has none before it
        comparable = stats.active & usable(stats.previous)
        stats = replace(stats, active=comparable)
        now = stats.means / stats.total(stats.weights)
        before = stats.previous / stats.total(stats.weights, stats.previous)
        ratio = torch.where(comparable, before / now, 1.0)
        factor = ratio**lam if self.form == "power" else 1 + lam * (ratio - 1)
        clipped = torch.zeros_like(stats.active)
        if self.clip is not None:
            low, high = self.clip
            clipped = (factor < low) | (factor > high)
            factor = factor.clamp(low, high)
        weights = stats.weights * factor
        return NewWeights(stats.keep_total(weights) if self.conserve else weights, lam, clipped)

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        lam = self.lam if not isinstance(self.lam, partial) else f"staircase({self.lam.keywords})"
        return f"{super().extra_repr()}, lam={lam}, clip={self.clip}, conserve={self.conserve}, form={self.form!r}"


def _check_lam(lam: Any) -> None:
    """Refuse a lambda that is no number and no schedule, such as a function that makes schedules."""
    if not callable(lam):
        finite("lam", lam)
        return
    try:
        first = lam(1)  # period 0 is the preliminary one
    except Exception:  # a schedule may be made for later periods alone: its own errors come when it is used
        return
    if callable(first) or not isinstance(first, numbers.Real) or isinstance(first, bool):
        name = getattr(lam, "__name__", type(lam).__name__)
        raise TypeError(
            f"lam must be a number or a schedule lam(period) -> number, but {name}(1) gives {type(first).__name__}"
            + (f"; {name} makes a schedule: call it, lam={name}()" if callable(first) else "")
        )


def lambda_staircase(
    start: float = 3, slope: float = -1.5, floor: float = -3, periods_per_epoch: int = 4
) -> Callable[[int], float]:
    """Schedule of lambda by the epoch: 3, 1.5, 0, -1.5, -3, -3, ... as the paper and the authors' program have it.

    ``lambda(t) = max(floor, start + slope * floor(t / periods_per_epoch))``. The period t that ends with an epoch still
    belongs to it, so all rebalancings of the first epoch use ``start``.

    Args:
        start: lambda in the first epoch.
        slope: change per epoch, zero or negative.
        floor: the value it stops at.
        periods_per_epoch: periods in an epoch.

    Returns:
        A callable of the index of a period, for ``Rebalancing(lam=...)``; it can be pickled.

    Raises:
        TypeError, ValueError: for values that make no descending staircase.

    Example:
        >>> [lambda_staircase()(t) for t in (0, 3, 4, 8, 12, 16, 20)]
        [3.0, 3.0, 1.5, 0.0, -1.5, -3.0, -3.0]
    """
    for name, value in (("start", start), ("slope", slope), ("floor", floor)):
        finite(name, value)
    if slope > 0 or floor > start:
        raise ValueError(
            f"the staircase descends from start to floor, got start={start}, slope={slope}, floor={floor}; "
            "for another schedule pass any callable of the period's index as lam"
        )
    whole("periods_per_epoch", periods_per_epoch, at_least=1)
    return partial(_staircase, start=start, slope=slope, floor=floor, periods_per_epoch=periods_per_epoch)


def _staircase(period: int, start: float, slope: float, floor: float, periods_per_epoch: int) -> float:
    return float(max(floor, start + slope * (period // periods_per_epoch)))
