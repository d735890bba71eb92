# SPDX-License-Identifier: Apache-2.0
"""The paper's algorithm: hand-worked values, the authors' program, invariants, the traps of the printed equations."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlr.balancing import Rebalancing, lambda_staircase

# a balancer alone, without losses that take its weights
pytestmark = pytest.mark.filterwarnings("ignore:the weights of .* have no effect")
EPS = np.finfo(np.float64).eps


def names(n):
    return [f"loss{i}" for i in range(n)]


def period(balancer, means):
    """A period of one step whose means are the given ones."""
    balancer.observe(torch.as_tensor(np.asarray(means), dtype=torch.float64)[None])
    return balancer.step()


def trajectory(seed, n, periods, noise=0.05):
    """Losses of several magnitudes that fall at different speeds, with noise."""
    rng = np.random.default_rng(seed)
    level, speed = 10 ** rng.uniform(-2, 1, n), rng.uniform(0, 0.05, n)
    t = np.arange(periods)[:, None]
    return level * np.exp(-speed * t + noise * rng.standard_normal((periods, n)))


# ---- values ----


@pytest.mark.parametrize(
    ("lam", "means", "expected"),
    [
        # after means (4, 1): weights (5/16, 5/4), both contribute 5/4; totals: before 5/2
        (0, [2, 1], [5 / 16, 5 / 4]),
        # now 15/8: r = (15/8)/(5/2) * (2, 1) = (3/2, 3/4)
        (1, [2, 1], [5 / 16 * 3 / 2, 5 / 4 * 3 / 4]),
        (3, [2, 1], [5 / 16 * 2, 5 / 4 * 0.5]),  # factors 5/2 and 1/4: both clipped
        (0.5, [2, 1], [5 / 16 * 5 / 4, 5 / 4 * 7 / 8]),
        (-1, [2, 1], [5 / 16 * 0.5, 5 / 4 * 5 / 4]),
        (-3, [2, 1], [5 / 16 * 0.5, 5 / 4 * 7 / 4]),  # factors -1/2 and 7/4
    ],
)
def test_hand_worked(lam, means, expected):
    balancer = Rebalancing(names(2), period=1, lam=lam)
    period(balancer, [4, 1])
    record = period(balancer, means)
    assert record.weights == pytest.approx(expected, rel=1e-15)
    assert record.lam == lam


def test_clipped_losses_are_named():
    balancer = Rebalancing(names(2), period=1, lam=-3)
    period(balancer, [4, 1])
    assert period(balancer, [2, 1]).clipped == ("loss0",)


def test_power_form_by_hand():
    balancer = Rebalancing(names(2), period=1, lam=-2, form="power", clip=None)
    period(balancer, [4, 1])
    record = period(balancer, [2, 1])
    assert record.weights == pytest.approx([5 / 16 * (2 / 3) ** 2, 5 / 4 * (4 / 3) ** 2], rel=1e-15)


def test_lambda_one_keeps_contributions():
    """Equation (12)."""
    balancer = Rebalancing(names(7), period=1, lam=1, clip=None)
    for means in trajectory(0, 7, 20):
        assert period(balancer, means).contributions == pytest.approx([1 / 7] * 7, rel=1e-13)


def test_positive_lambda_turns_to_easy_losses_and_negative_to_difficult_ones():
    for lam, sign in ((2, 1), (-2, -1)):
        balancer = Rebalancing(names(2), period=1, lam=lam)
        before = period(balancer, [1, 1]).weights
        after = period(balancer, [0.9, 1]).weights  # the first is easier
        assert sign * (after[0] - before[0]) > 0 > sign * (after[1] - before[1])


def test_lambda_zero_keeps_weights_but_refreshes_the_statistics():
    schedule = {1: 0.0, 2: 1.0}
    balancer = Rebalancing(names(2), period=1, lam=schedule.__getitem__)
    period(balancer, [1, 1])
    weights = period(balancer, [1, 4]).weights
    assert weights == (0.5, 0.5)
    # the same means again: compared with period 1, nothing changed; compared with period 0 the weights would move
    assert period(balancer, [1, 4]).weights == pytest.approx(weights, rel=1e-15)


def test_one_loss_alone_keeps_its_weight():
    balancer = Rebalancing(names(1), period=1, lam=3)
    for value in (3.0, 2.0, 5.0):
        assert period(balancer, [value]).weights == pytest.approx([1.0], rel=1e-15)


# ---- lambda ----


def test_lambda_staircase():
    lam = lambda_staircase()
    assert [lam(4 * epoch + k) for epoch in range(7) for k in range(4)] == [
        *[3.0] * 4, *[1.5] * 4, *[0.0] * 4, *[-1.5] * 4, *[-3.0] * 12,
    ]  # fmt: skip
    assert [lambda_staircase(2, -1, -2, periods_per_epoch=1)(t) for t in range(6)] == [2, 1, 0, -1, -2, -2]


def test_default_lambda_of_each_period():
    balancer = Rebalancing(names(3), period=1)
    records = [period(balancer, [1, 2, 3]) for _ in range(22)]
    assert [r.lam for r in records] == [None, *[3.0] * 3, *[1.5] * 4, *[0.0] * 4, *[-1.5] * 4, *[-3.0] * 6]
    assert [r.period for r in records] == list(range(22))


# ---- the authors' program ----


def authors_program(losses, lam, low, high):
    """The algorithm of the authors' program, restated loss by loss in NumPy: weights after every period."""
    n = losses.shape[1]
    weights, out, previous, previous_total = [1 / n] * n, [], None, None
    for t, current in enumerate(losses):
        total = sum(w * x for w, x in zip(weights, current, strict=True))
        if previous is None:
            weights = [total * (1 / n) / x for x in current]
        else:
            for i in range(n):
                factor = 1 + lam(t) * ((total / previous_total) * (previous[i] / current[i]) - 1)
                weights[i] *= min(max(factor, low), high)
        previous, previous_total = current, sum(w * x for w, x in zip(weights, current, strict=True))
        out.append(list(weights))
    return np.array(out)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [4, 78])
@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_equals_the_authors_program_over_thirty_periods(seed, n, noise):
    losses = trajectory(seed, n, 30, noise)
    expected = authors_program(losses, lambda t: max(3 - 1.5 * (t // 4), -3), 0.5, 2.0)
    balancer = Rebalancing(names(n), period=3)
    rng = np.random.default_rng(seed)
    clipped = 0
    for means, weights in zip(losses, expected, strict=True):
        for size in (3, 1, 4):  # uneven batches whose mean over the eight images is the period's
            rows = np.tile(means, (size, 1))
            if size > 1:
                spread = rng.uniform(0, 0.5, (size, n)) * means
                rows += spread - spread.mean(0)
            balancer.observe(torch.from_numpy(rows))
            record = balancer.step()
        clipped += len(record.clipped)
        np.testing.assert_allclose(record.weights, weights, rtol=1e-11)
    assert (clipped > 0) == (noise > 0.1)  # both regimes are compared


# ---- invariants ----


@st.composite
def courses(draw):
    n, periods = draw(st.integers(1, 12)), draw(st.integers(2, 8))
    losses = draw(st.lists(st.lists(st.floats(1e-4, 1e4), min_size=n, max_size=n), min_size=periods, max_size=periods))
    return np.array(losses), draw(st.sampled_from([-3.0, -1.5, 0.0, 1.0, 3.0]))


@given(courses(), st.sampled_from(["linear", "power"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_weights_stay_positive_and_within_the_clip(course, form, conserve):
    losses, lam = course
    balancer = Rebalancing(names(losses.shape[1]), period=1, lam=lam, form=form, conserve=conserve)
    weights = np.array(period(balancer, losses[0]).weights)
    for means in losses[1:]:
        record = period(balancer, means)
        new = np.array(record.weights)
        assert np.isfinite(new).all()
        assert (new > 0).all()
        if conserve:
            assert new @ means == pytest.approx(weights @ means, rel=1e-13)
        else:
            assert (new >= weights / 2 * (1 - EPS)).all()
            assert (new <= weights * 2 * (1 + EPS)).all()
        assert sum(record.contributions) == pytest.approx(1, rel=1e-13)
        weights = new


@given(courses())
@settings(max_examples=60, deadline=None)
def test_overall_loss_is_conserved_whenever_nothing_is_clipped(course):
    losses, lam = course
    losses = losses[0] * (1 + 0.1 * (np.log(losses) / np.log(losses).std().clip(1)).clip(-1, 1))  # small changes
    balancer = Rebalancing(names(losses.shape[1]), period=1, lam=lam)
    weights = np.array(period(balancer, losses[0]).weights)
    for means in losses[1:]:
        record = period(balancer, means)
        if not record.clipped:
            assert np.array(record.weights) @ means == pytest.approx(weights @ means, rel=1e-13)
        weights = np.array(record.weights)


def test_conservation_identity_to_rounding_over_eighty_periods():
    """sum w(t-1) L(t) = sum w(t) L(t), to 2e-15; the sums are exact (fsum), so the weights alone are judged."""
    balancer = Rebalancing(names(78), period=1)
    weights, worst = None, 0.0
    for means in trajectory(1, 78, 80, noise=0.01):
        record = period(balancer, means)
        assert record.clipped == ()
        if weights is not None:
            old, new = (math.fsum(w * x for w, x in zip(ws, means, strict=True)) for ws in (weights, record.weights))
            worst = max(worst, abs(new / old - 1))
        weights = record.weights
    assert worst <= 2e-15


def test_clipping_breaks_the_identity_and_conserve_restores_it():
    errors = {}
    for conserve in (False, True):
        balancer = Rebalancing(names(78), period=1, conserve=conserve)
        weights, worst, clipped = None, 0.0, 0
        for means in trajectory(2, 78, 80, noise=0.15):
            record = period(balancer, means)
            clipped += len(record.clipped)
            if weights is not None:
                worst = max(worst, abs(np.dot(record.weights, means) / np.dot(weights, means) - 1))
            weights = record.weights
        assert clipped > 0
        errors[conserve] = worst
    assert errors[False] > 1e-3
    assert errors[True] < 2e-15


# ---- the traps of the printed equations ----


def test_equation_9_as_printed_multiplies_every_weight_by_232():
    means, lam, n = trajectory(3, 78, 1)[0], 3, 78
    plain = np.full(n, 1 / n)
    literal = (plain @ means) / means  # eq. (9)
    before, now = means / (plain @ means), means / (literal @ means)  # unchanged losses; L_all(0) under the old weights
    np.testing.assert_allclose(1 + lam * (before / now - 1), 232, rtol=1e-12)

    balancer = Rebalancing(names(n), period=1, lam=lam)
    start = period(balancer, means).weights
    assert period(balancer, means).weights == pytest.approx(start, rel=1e-13)


def test_previous_total_under_the_old_weights_lets_rounding_grow():
    """Why L_all(t-1) is taken with the weights in force now."""
    losses = trajectory(4, 78, 80, noise=0.01)
    weights = (np.full(78, 1 / 78) @ losses[0]) / losses[0] / 78
    worst = 0.0
    total = weights @ losses[0] * (1 + 1e-15)
    for previous, means in itertools.pairwise(losses):
        now = weights @ means
        new = weights * (1 + 3 * ((previous / total) / (means / now) - 1))
        worst = max(worst, abs(new @ means / now - 1))
        if worst > 1:
            break
        weights, total = new, now
    assert worst > 1

    balancer = Rebalancing(names(78), period=1, lam=3, clip=None)
    for means in losses:
        record = period(balancer, means)
    assert np.dot(record.weights, losses[-1]) < 10 * np.dot(np.full(78, 1 / 78), losses[0])


@pytest.mark.parametrize(("lam", "means"), [(3, [4.0, 1.0]), (-3, [0.5, 1.0])])
def test_without_a_clip_a_weight_that_would_turn_negative_is_held(lam, means):
    balancer = Rebalancing(names(2), period=1, lam=lam, clip=None)
    start = period(balancer, [1, 1]).weights
    ratio = np.array([1, 1]) / np.array(means) * (np.mean(means) / 1)
    factors = 1 + lam * (ratio - 1)
    assert (factors < 0).any()  # r < 2/3 at lambda = 3, r > 4/3 at lambda = -3
    record = period(balancer, means)
    held = [name for name, factor in zip(names(2), factors, strict=True) if factor <= 0]
    assert list(record.held) == held
    expected = [s * f if f > 0 else s for s, f in zip(start, factors, strict=True)]
    assert record.weights == pytest.approx(expected, rel=1e-14)


def test_without_the_equal_start_weights_are_rebalanced_from_equal_ones():
    balancer = Rebalancing(names(2), period=1, lam=1, equal_start=False)
    first = period(balancer, [4, 1])
    assert first.weights == (0.5, 0.5)  # there is no period before it to compare with
    assert first.held == ()
    second = period(balancer, [2, 1])
    assert second.contributions == pytest.approx((0.8, 0.2))  # lambda = 1 keeps those of the first period
    assert np.dot(second.weights, [2, 1]) == pytest.approx(0.5 * 2 + 0.5 * 1)
    assert not balancer.started


def test_without_the_equal_start_a_loss_waits_for_a_mean_to_be_compared_with():
    balancer = Rebalancing(names(2), period=1, lam=3, equal_start=False)
    period(balancer, [4, 0])
    record = period(balancer, [2, 1])
    assert record.weights == (0.5, 0.5)  # one loss alone keeps its share, the other is new
    with pytest.raises(TypeError, match="equal_start must be True or False"):
        Rebalancing(names(2), equal_start=1)
