# SPDX-License-Identifier: Apache-2.0
"""Means over seeds, and paired differences with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        mean: the mean.
        deviation: sample standard deviation; NaN of one seed.
        count: seeds.
    """

    mean: float
    deviation: float
    count: int


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences, and its intervals.

    Attributes:
        mean: mean over the seeds that both have, of value minus reference.
        t: ends of Student's interval ``mean ± t_{(1 + level) / 2, n - 1} s / sqrt(n)``; NaN of one seed.
        bootstrap: ends of the percentile interval of means of resampled differences; NaN of one seed. With few seeds it
            is too narrow: of 5 differences the most it can reach are the smallest and the largest.
        count: seeds that both have.
    """

    mean: float
    t: tuple[float, float]
    bootstrap: tuple[float, float]
    count: int

    @property
    def clear(self) -> bool:
        """Whether Student's interval leaves out 0."""
        return self.t[0] > 0 or self.t[1] < 0


def mean(values: Sequence[float]) -> Mean:
    """Mean and sample standard deviation.

    Raises:
        ValueError: there is no value.

    Example:
        >>> mean([1.0, 3.0]).mean
        2.0
    """
    if not len(values):
        raise ValueError("a mean needs a value")
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Mean(float(np.mean(values)), deviation, len(values))


def paired(
    values: Mapping[int, float],
    reference: Mapping[int, float],
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Compare two rows by the seeds that both have.

    A seed gives a run its initial weights and the order of its data, so what it does to both rows cancels in their
    difference.

    Args:
        values: seed -> value.
        reference: seed -> value of the row that it is compared with.
        level: of the intervals.
        resamples: draws of the bootstrap.
        seed: of the draws.

    Returns:
        The difference.

    Raises:
        ValueError: the rows share no seed.

    Example:
        >>> paired({0: 3.0, 1: 5.0}, {0: 1.0, 1: 2.0}).mean
        2.5
    """
    shared = sorted(values.keys() & reference.keys())
    if not shared:
        raise ValueError(f"rows of seeds {sorted(values)} and {sorted(reference)} share no seed: nothing is paired")
    differences = np.array([values[s] - reference[s] for s in shared], dtype=np.float64)
    centre, count = float(differences.mean()), len(shared)
    if count == 1:
        nothing = (math.nan, math.nan)
        return Difference(centre, nothing, nothing, 1)
    reach = float(stats.t.ppf((1 + level) / 2, count - 1) * differences.std(ddof=1) / math.sqrt(count))
    draws = np.random.default_rng(seed).integers(count, size=(resamples, count))
    low, high = np.quantile(differences[draws].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return Difference(centre, (centre - reach, centre + reach), (float(low), float(high)), count)
