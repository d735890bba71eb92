# SPDX-License-Identifier: Apache-2.0
"""What a period of training leaves behind: the statistics a balancer decides from and the record it logs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Weights that a balancer lets come into force. The losses and their gradient are float32: a loss that needed a weight
#: beyond this range next to others would add nothing but rounding errors, and a gradient per pixel must not overflow.
WEIGHT_RANGE: tuple[float, float] = (2.0**-64, 2.0**28)

#: Machine epsilons of the largest mean up to which a mean counts as rounding.
_ROUNDING = 8


@dataclass(frozen=True)
class PeriodStatistics:
    """Statistics of the period that just ended, all on the CPU in float64 and equal on every rank.

    Attributes:
        period: index of the period.
        steps: optimizer steps in the period.
        means: [n], mean of every loss over the period's images, ``L_i(t)``.
        previous: [n], the last usable mean of every loss before this period, ``L_i(t-1)``; NaN where there is none.
        weights: [n], the weights in force during the period, ``w_i(t-1)``.
        start: [n], the weights that gave every loss an equal contribution after the first period (for a balancer
            without that start, ``weights``).
        active: [n], bool: the losses to rebalance: ``means`` and ``previous`` are both finite and positive.
    """

    period: int
    steps: int
    means: Tensor
    previous: Tensor
    weights: Tensor
    start: Tensor
    active: Tensor

    def total(self, weights: Tensor, means: Tensor | None = None) -> Tensor:
        """Overall loss ``sum_i w_i L_i`` over the active losses, eq. (10)."""
        means = self.means if means is None else means
        return torch.where(self.active, weights * means, 0.0).sum()

    def keep_total(self, weights: Tensor) -> Tensor:
        """Scale weights so that the overall loss of this period would have been the same under them."""
        return weights * (self.total(self.weights) / self.total(weights))

    def softmax(self, logits: Tensor) -> Tensor:
        """``n softmax(logits)`` over the n active losses: multipliers whose mean is 1."""
        return self.active.sum() * torch.where(self.active, logits, -torch.inf).softmax(dim=0)


class NewWeights(NamedTuple):
    """What a balancer answers at the end of a period.

    Attributes:
        weights: [n], float64; entries of losses that are not active are ignored.
        lam: the rebalancing parameter that was used, if the algorithm has one.
        clipped: [n], bool: losses whose change was limited.
    """

    weights: Tensor
    lam: float | None = None
    clipped: Tensor | None = None


@dataclass(frozen=True)
class RebalanceRecord:
    """What happened at the end of a period, in plain Python numbers ready for a logger.

    Every per-loss tuple is in the order of ``names``.

    Attributes:
        period: index of the period that ended; period 0 is the preliminary one with equal weights.
        step: optimizer steps so far.
        lam: rebalancing parameter that was applied; None where none was.
        names: the losses.
        means: mean of every loss over the period's images, ``L_i(t)``.
        weights: weights in force from now on, ``w_i(t)``.
        contributions: share of every loss in the overall loss under these weights, ``w_i(t) L_i(t) / sum``; Fig. 3.
        clipped: names of the losses whose change was limited.
        held: names of the losses that kept their weight because a mean was zero, within rounding of zero, not finite or
            absent, or because the new weight would have left :data:`WEIGHT_RANGE`.
        images: images the means are taken over, of all ranks.
        dropped: images left out because one of their losses was not finite.
        absent: names of the losses for which no image had a valid position; their mean is NaN.
        empty: images left out because they had no valid position for any loss.
    """

    period: int
    step: int
    lam: float | None
    names: tuple[str, ...]
    means: tuple[float, ...]
    weights: tuple[float, ...]
    contributions: tuple[float, ...]
    clipped: tuple[str, ...]
    held: tuple[str, ...]
    images: int
    dropped: int
    absent: tuple[str, ...] = ()
    empty: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The record for JSON or a table: per-loss values keyed by name, ``lam`` under its name ``lambda``."""
        fields = asdict(self)
        names = fields.pop("names")
        out: dict[str, Any] = {"lambda" if key == "lam" else key: value for key, value in fields.items()}
        for key in ("means", "weights", "contributions"):
            out[key] = dict(zip(names, out[key], strict=True))
        return out | {key: list(getattr(self, key)) for key in ("clipped", "held", "absent")}


def usable(means: Tensor, resolution: float = 0.0) -> Tensor:
    """Whether a mean can be divided by: finite, positive beyond float32's denormal numbers, and more than rounding.

    Losses of one evaluation come from the same maps, so one of a few machine epsilons of the largest is 0 but for
    rounding: the windowed means on a map of one pixel, for instance.

    Args:
        means: [n].
        resolution: machine epsilon of the type in which the losses were computed.
    """
    positive = means.isfinite() & (means > torch.finfo(torch.float32).tiny)
    return positive & (means > _ROUNDING * resolution * torch.where(positive, means, 0.0).amax())


def can_be_in_force(weights: Tensor) -> Tensor:
    """Whether a new weight is a number of :data:`WEIGHT_RANGE`."""
    return (weights >= WEIGHT_RANGE[0]) & (weights <= WEIGHT_RANGE[1])
