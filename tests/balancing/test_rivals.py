# SPDX-License-Identifier: Apache-2.0
"""The rivals of the paper's algorithm, each against numbers worked out by hand, and what all balancers share."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlr.balancing import (
    BALANCERS,
    CoVWeighting,
    DynamicWeightAverage,
    EqualContribution,
    RandomLossWeighting,
    Rebalancing,
    ReLoBRaLo,
    UncertaintyWeighting,
    make_balancer,
)

# a balancer alone, without losses that take its weights
pytestmark = pytest.mark.filterwarnings("ignore:the weights of .* have no effect")
NAMES = ("D/0", "r/0")
exp = math.exp


def feed(balancer, *course, steps=1):
    """One period per entry; the record of the last."""
    for means in course:
        for _ in range(steps):
            balancer.observe(torch.as_tensor(np.asarray(means), dtype=torch.float64)[None])
            record = balancer.step()
    return record


def scaled(weights, means, total):
    """Weights in the given proportion under which the means have the given total."""
    return pytest.approx(np.asarray(weights) * total / np.dot(weights, means), rel=1e-13)


# All cases by hand: means (4, 1) end period 0 with weights (5/16, 5/4) and total 5/2; under them (2, 1) has total 15/8.
FIRST, SECOND, START, TOTAL = [4, 1], [2, 1], np.array([5 / 16, 5 / 4]), 15 / 8


# ---- uncertainty ----


def test_uncertainty_in_closed_form():
    record = feed(UncertaintyWeighting(NAMES, period=1), FIRST, SECOND)
    assert record.weights == pytest.approx((15 / 32, 15 / 16))


def test_uncertainty_in_closed_form_is_rebalancing_at_lambda_one():
    course = 10 ** np.random.default_rng(0).uniform(-1, 1, (12, 2))
    uncertainty, rebalancing = UncertaintyWeighting(NAMES, period=1), Rebalancing(NAMES, period=1, lam=1, clip=None)
    for means in course:
        assert feed(uncertainty, means).weights == pytest.approx(feed(rebalancing, means).weights, rel=1e-12)


def test_uncertainty_by_gradient_steps():
    # s = (log 4, 0); exp(-s) L = (1/2, 1); one step of 0.1 (1 - exp(-s) L)
    record = feed(UncertaintyWeighting(NAMES, period=1, lr=0.1), FIRST, SECOND)
    assert record.weights == scaled([exp(0.05) / 4, 1], SECOND, TOTAL)
    # a second step in the same period, from s = (log 4 - 0.05, 0)
    record = feed(UncertaintyWeighting(NAMES, period=2, lr=0.1), FIRST, SECOND, steps=2)
    second = 0.1 * (1 - exp(0.05) / 2)
    assert record.weights == scaled([exp(0.05 + second) / 4, 1], SECOND, TOTAL)


def test_uncertainty_hardly_moves_at_a_networks_learning_rate():
    shares = {}
    for lr in (1e-4, 1e-2):
        shares[lr] = feed(UncertaintyWeighting(NAMES, period=500, lr=lr), FIRST, SECOND, steps=500).contributions[0]
    assert shares[1e-4] < 1 / 3 + 0.01  # a third is where unchanged weights would be
    assert shares[1e-2] > 1 / 2 - 0.01  # a half is where the minimum is


# ---- coefficient of variation ----


def test_variation_by_hand():
    # loss ratios (1, 1/2): mean 3/4, deviation 1/4; (1, 9/10): mean 19/20, deviation 1/20
    means = [2, 0.9]
    record = feed(CoVWeighting(NAMES, period=1), FIRST, means)
    assert record.weights == scaled(START * [1 / 3, 1 / 19], means, START @ means)


def test_variation_against_whole_histories():
    course = 10 ** np.random.default_rng(1).uniform(-1, 1, (20, 2))
    balancer = CoVWeighting(NAMES, period=1)
    weights = np.array(feed(balancer, course[0]).weights)
    start, ratios = weights, [np.ones(2)]
    for t in range(1, 20):
        ratios.append(course[t] / course[:t].mean(0))
        record = feed(balancer, course[t])
        cov = np.std(ratios, axis=0) / np.mean(ratios, axis=0)
        assert record.weights == scaled(start * cov, course[t], weights @ course[t])
        weights = np.array(record.weights)


# ---- random ----


def test_random_weights_change_each_step_and_keep_the_total():
    balancer = RandomLossWeighting(NAMES, period=3)
    feed(balancer, FIRST, steps=3)
    assert balancer.weights.tolist() == pytest.approx(START)  # the start, before the first draw
    seen = set()
    for _ in range(12):
        feed(balancer, FIRST)
        seen.add(tuple(balancer.weights.tolist()))
        assert float(balancer.weights @ torch.tensor(FIRST, dtype=torch.float64)) == pytest.approx(5 / 2, rel=1e-13)
    assert len(seen) == 12


def test_random_record_holds_the_weights_in_force():
    balancer = RandomLossWeighting(NAMES, period=2)
    for _ in range(5):
        record = feed(balancer, FIRST, steps=2)
        assert record.weights == tuple(balancer.weights.tolist())


def test_random_logits_are_standard_normal():
    n, steps = 16, 1500
    balancer = RandomLossWeighting([str(i) for i in range(n)], period=1)
    feed(balancer, np.ones(n))
    logits = np.log([feed(balancer, np.ones(n)).weights for _ in range(steps)])
    logits -= logits.mean(1, keepdims=True)  # the softmax leaves them up to a constant
    assert logits.std() == pytest.approx(math.sqrt(1 - 1 / n), rel=0.02)
    assert np.abs(logits.mean(0)).max() < 5 / math.sqrt(steps)
    neighbours = np.corrcoef(logits[:-1].ravel(), logits[1:].ravel())[0, 1]
    assert abs(neighbours) < 0.03  # seeds of neighbouring steps share nothing


def test_random_seed_decides():
    a, b, c = (
        feed(RandomLossWeighting(NAMES, period=1, seed=seed), FIRST, SECOND, SECOND).weights for seed in (1, 1, 2)
    )
    assert a == b != c


# ---- dynamic average ----


def test_dynamic_average_by_hand():
    # rates (1/2, 1) at temperature 2: logits (1/4, 1/2)
    record = feed(DynamicWeightAverage(NAMES, period=1), FIRST, SECOND)
    assert record.weights == scaled(START * [exp(0.25), exp(0.5)], SECOND, TOTAL)
    # then the first falls to a quarter and the second stays: logits (1/8, 1/2), again from the start weights
    third = [0.5, 1]
    total = np.dot(record.weights, third)
    record = feed(balancer := DynamicWeightAverage(NAMES, period=1), FIRST, SECOND, third)
    assert record.weights == scaled(START * [exp(0.125), exp(0.5)], third, total)
    assert balancer.temperature == 2


# ---- random lookback ----


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("rho", [1.0, 0.0])
def test_relobralo_by_hand(steps, rho):
    third = [2, 0.5]
    a = 0.9**steps
    softmax = lambda x, y: 2 / (1 + np.exp([y - x, x - y]))  # noqa: E731
    m = a * np.ones(2) + (1 - a) * softmax(0.5, 1)  # period 1 against period 0, building on ones
    if rho == 0:
        m = softmax(0.5, 1)  # both balances look at period 0
    balancer = ReLoBRaLo(NAMES, period=steps, alpha=0.9, rho=rho)
    record = feed(balancer, FIRST, SECOND, steps=steps)
    assert record.weights == scaled(START * m, SECOND, TOTAL)
    # period 2 against period 0: (1/2, 1/2), balanced; against period 1: (1, 1/2)
    m = a * (m if rho == 1 else np.ones(2)) + (1 - a) * softmax(1, 0.5)
    total = np.dot(record.weights, third)
    assert feed(balancer, third, steps=steps).weights == scaled(START * m, third, total)


def test_relobralo_looks_back_as_often_as_rho_says():
    balancer = ReLoBRaLo(NAMES, rho=0.7)
    kept = [balancer._builds_on_the_last(period) for period in range(2000)]
    assert np.mean(kept) == pytest.approx(0.7, abs=0.04)


# ---- what all of them share ----

COURSES = st.integers(2, 6).flatmap(
    lambda n: st.lists(st.lists(st.floats(0.01, 100), min_size=n, max_size=n), min_size=2, max_size=6)
)


@pytest.mark.parametrize("name", [name for name in BALANCERS if name != "fixed"])
@given(course=COURSES)
@settings(max_examples=25, deadline=None)
def test_every_balancer_has_the_same_start_keeps_the_total_and_stays_positive(name, course):
    losses = [str(i) for i in range(len(course[0]))]
    options = {"conserve": True} if name == "rebalancing" else {}
    balancer, equal = make_balancer(name, losses, period=1, **options), EqualContribution(losses, period=1)
    start = feed(equal, course[0])
    assert feed(balancer, course[0]).weights == start.weights
    weights = balancer.weights.numpy().copy()
    for means in course[1:]:
        record = feed(balancer, means)
        new = balancer.weights.numpy().copy()
        assert (new > 0).all()
        # random weights are compared with the start weights, the others with the weights before
        before = np.array(start.weights) if name == "random" else weights
        if not record.held:
            assert new @ means == pytest.approx(before @ means, rel=1e-9)
        weights = new


@pytest.mark.parametrize("name", [name for name in BALANCERS if name != "fixed"])
def test_every_balancer_holds_a_loss_that_vanishes(name):
    balancer = make_balancer(name, ("D/0", "r/0", "N/0"), period=1)
    feed(balancer, [1, 2, 4], [1.5, 1.9, 3.0])
    weight = float(balancer.weights[1])
    record = feed(balancer, [1.2, 0.0, 2.0])
    assert "r/0" in record.held
    assert torch.isfinite(balancer.weights).all()
    if name != "random":
        assert record.weights[1] == weight
    assert feed(balancer, [1.0, 1.7, 1.0]).held == ()


@pytest.mark.parametrize("name", [name for name in BALANCERS if name != "fixed"])
def test_every_balancer_takes_up_a_loss_that_appears_late(name):
    balancer = make_balancer(name, ("D/0", "r/0", "N/0"), period=1)
    feed(balancer, [1, 0.0, 4], [1.5, 1.9, 3.0], [1.2, 1.7, 2.0])
    record = feed(balancer, [1.0, 1.5, 1.0])
    assert record.held == ()
    assert all(math.isfinite(w) and w > 0 for w in record.weights)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: UncertaintyWeighting(NAMES, lr=0), ValueError, "lr must be positive"),
        (lambda: DynamicWeightAverage(NAMES, temperature=-1), ValueError, "temperature must be positive"),
        (lambda: ReLoBRaLo(NAMES, alpha=1.5), ValueError, "alpha must lie between 0 and 1"),
        (lambda: ReLoBRaLo(NAMES, rho="often"), TypeError, "rho must be a number"),
        (lambda: RandomLossWeighting(NAMES, seed=0.5), TypeError, "seed must be a whole number"),
        (lambda: RandomLossWeighting(NAMES, seed=-1), ValueError, "seed must be a whole number of 0 or more"),
    ],
)
def test_bad_options(make, error, message):
    with pytest.raises(error, match=message):
        make()
