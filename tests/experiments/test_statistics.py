# SPDX-License-Identifier: Apache-2.0
"""Intervals against scipy on known cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mlr.experiments.statistics import mean, paired

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=12)


@given(VALUES, st.integers(0, 2**32 - 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_interval_of_student_is_that_of_scipys_paired_test(values: list[float], seed: int, level: float) -> None:
    reference = np.random.default_rng(seed).normal(size=len(values))
    got = paired(dict(enumerate(values)), dict(enumerate(reference)), level, resamples=10)
    expected = stats.ttest_rel(values, reference).confidence_interval(level)
    assert got.t == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-9)
    assert got.mean == pytest.approx(float(np.mean(values) - np.mean(reference)), abs=1e-9)


def test_bootstrap_interval_is_that_of_scipy() -> None:
    random = np.random.default_rng(3)
    values, reference = random.normal(1, 1, 30), random.normal(0, 1, 30)
    got = paired(dict(enumerate(values)), dict(enumerate(reference)), resamples=20_000)
    expected = stats.bootstrap(
        (values - reference,), np.mean, n_resamples=20_000, method="percentile", random_state=np.random.default_rng(4)
    ).confidence_interval  # random_state is rng's name in every version of scipy
    width = expected.high - expected.low
    assert got.bootstrap == pytest.approx((expected.low, expected.high), abs=0.03 * width)


def test_student_covers_as_often_as_it_says_where_the_bootstrap_of_five_does_not() -> None:
    random, hits = np.random.default_rng(5), {"t": 0, "bootstrap": 0}
    for _ in range(400):
        values = dict(enumerate(random.normal(0.5, 1, 5)))
        got = paired(values, dict.fromkeys(values, 0.0), resamples=400)
        hits["t"] += got.t[0] < 0.5 < got.t[1]
        hits["bootstrap"] += got.bootstrap[0] < 0.5 < got.bootstrap[1]
    low, high = stats.binom.interval(0.999, 400, 0.95)
    assert low <= hits["t"] <= high
    assert hits["bootstrap"] < low


def test_only_shared_seeds_count() -> None:
    got = paired({0: 1.0, 1: 2.0, 2: 4.0, 9: 100.0}, {2: 1.0, 1: 1.0, 0: 1.0, 8: -100.0})
    assert got.count == 3
    assert got.mean == pytest.approx(4 / 3)
    assert min(0.0, 1.0) <= got.bootstrap[0] <= got.bootstrap[1] <= 3.0


def test_equal_rows_differ_by_nothing() -> None:
    row = {0: 0.3, 1: 0.2, 2: 0.7}
    got = paired(row, row)
    assert (got.mean, got.t, got.bootstrap, got.clear) == (0.0, (0.0, 0.0), (0.0, 0.0), False)


def test_rows_without_a_shared_seed_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\] and \[2\] share no seed"):
        paired({0: 1.0, 1: 1.0}, {2: 1.0})


def test_one_seed_has_a_difference_and_no_interval() -> None:
    got = paired({4: 3.0}, {4: 1.0})
    assert got.mean == 2.0
    assert all(math.isnan(end) for end in (*got.t, *got.bootstrap))
    assert not got.clear
    assert math.isnan(mean([2.0]).deviation)


def test_mean_and_deviation() -> None:
    got = mean([1.0, 2.0, 6.0])
    assert (got.mean, got.count) == (3.0, 3)
    assert got.deviation == pytest.approx(math.sqrt(7))
    with pytest.raises(ValueError, match="needs a value"):
        mean([])
