# SPDX-License-Identifier: Apache-2.0
"""The frame every balancer shares: gathering losses, periods, corner cases, errors."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlr.balancing import (
    BALANCERS,
    EqualContribution,
    FixedWeights,
    Rebalancing,
    equal_contributions,
    lambda_staircase,
    make_balancer,
)

# a balancer alone, without losses that take its weights
pytestmark = pytest.mark.filterwarnings("ignore:the weights of .* have no effect")
NAMES = ("D/0", "r/0", "N/0")
NAN, INF = math.nan, math.inf


def feed(balancer, *batches):
    """One optimizer step per batch; returns the last step's record."""
    record = None
    for batch in batches:
        balancer.observe(torch.as_tensor(batch, dtype=torch.float64))
        record = balancer.step()
    return record


# ---- the first period ----


def test_first_period_runs_with_equal_weights_and_ends_with_equal_contributions():
    balancer = EqualContribution(NAMES, period=2)
    assert balancer.weights.tolist() == [1 / 3] * 3
    assert feed(balancer, [[1.0, 2.0, 6.0]]) is None
    assert balancer.weights.tolist() == [1 / 3] * 3
    record = feed(balancer, [[3.0, 2.0, 10.0]])  # means 2, 2, 8: total 4, share 4/3
    assert record.period == 0
    assert record.step == 2
    assert record.lam is None
    assert record.means == (2, 2, 8)
    assert record.weights == pytest.approx((2 / 3, 2 / 3, 1 / 6), rel=1e-15)
    assert record.weights == tuple(balancer.weights.tolist())
    assert record.contributions == pytest.approx((1 / 3,) * 3, rel=1e-15)
    assert record.clipped == record.held == ()


def test_weights_stay_after_the_start_of_equal_contribution():
    balancer = EqualContribution(NAMES, period=1)
    feed(balancer, [[1.0, 2.0, 3.0]])
    weights = balancer.weights.clone()
    record = feed(balancer, [[5.0, 0.1, 2.0]])
    assert torch.equal(balancer.weights, weights)
    assert record.contributions == pytest.approx(
        tuple((weights * torch.tensor([5, 0.1, 2])).div(float(weights @ torch.tensor([5, 0.1, 2]).double())).tolist())
    )


@given(
    st.integers(1, 78).flatmap(
        lambda n: st.tuples(
            st.lists(st.floats(1e-6, 1e6), min_size=n, max_size=n),
            st.lists(st.floats(1e-3, 1e3), min_size=n, max_size=n),
        )
    )
)
@settings(max_examples=50, deadline=None)
def test_equal_contributions_property(case):
    means, weights = (torch.tensor(values, dtype=torch.float64) for values in case)
    new = equal_contributions(weights, means, torch.ones_like(means, dtype=torch.bool))
    assert (new > 0).all()
    torch.testing.assert_close(new @ means, weights @ means, rtol=1e-13, atol=0)
    torch.testing.assert_close(new * means, (weights @ means / len(means)).expand_as(means), rtol=1e-13, atol=0)


# ---- gathering ----


def test_mean_is_over_images_when_the_last_batch_is_smaller():
    balancer = FixedWeights(["D/0"], period=2)
    record = feed(balancer, [[1.0], [1.0], [1.0]], [[9.0]])
    assert record.means == (3.0,)  # a mean of batch means would be 5
    assert record.images == 4


def test_gradient_accumulation_counts_every_batch():
    balancer = FixedWeights(NAMES, period=1)
    for value in (1.0, 2.0, 6.0):
        balancer.observe(torch.full((2, 3), value))
    record = balancer.step()
    assert record.means == (3.0, 3.0, 3.0)
    assert record.images == 6
    assert feed(balancer, [[1.0, 1.0, 1.0]]).means == (1.0, 1.0, 1.0)  # nothing is left over


def test_image_with_a_nan_is_dropped_and_counted():
    balancer = Rebalancing(NAMES, period=1, lam=3)
    clean = Rebalancing(NAMES, period=1, lam=3)
    feed(balancer, [[1.0, 2.0, 3.0], [3.0, NAN, 9.0], [2.0, 2.0, INF], [3.0, 2.0, 1.0]])
    feed(clean, [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    assert torch.equal(balancer.weights, clean.weights)
    record = feed(balancer, [[1.0, 2.0, 3.0], [-INF, 1.0, 1.0]])
    assert (record.images, record.dropped) == (1, 1)
    assert all(map(math.isfinite, record.weights))


@pytest.mark.parametrize("nothing", [0.0, 1e-40, -1.0])  # 1e-40: a denormal number in float32
def test_loss_that_is_zero_is_held_and_left_out_of_the_totals(nothing):
    balancer = EqualContribution(NAMES, period=1)
    record = feed(balancer, [[2.0, nothing, 4.0]])
    assert record.held == ("r/0",)
    # total of the active ones: (2 + 4) / 3 = 2, share 1
    assert record.weights == pytest.approx((1 / 2, 1 / 3, 1 / 4), rel=1e-15)
    assert sum(record.contributions) == pytest.approx(1)
    assert record.contributions[0] == pytest.approx(record.contributions[2])


def test_loss_that_vanishes_and_returns_is_compared_with_its_last_measured_mean():
    balancer = Rebalancing(NAMES, period=1, lam=1, clip=None)
    feed(balancer, [[1.0, 1.0, 1.0]])
    record = feed(balancer, [[1.0, 0.0, 1.0]])
    assert record.held == ("r/0",)
    assert record.weights == pytest.approx((1 / 3,) * 3)
    record = feed(balancer, [[1.0, 2.0, 1.0]])
    assert record.held == ()
    assert record.contributions == pytest.approx((1 / 3,) * 3)  # lambda = 1: the contributions of the period before


def test_loss_that_appears_late_is_held_once_then_rebalanced():
    balancer = Rebalancing(NAMES, period=1, lam=1)
    feed(balancer, [[1.0, 0.0, 1.0]])
    assert feed(balancer, [[1.0, 3.0, 1.0]]).held == ("r/0",)
    record = feed(balancer, [[1.0, 1.5, 1.0]])
    assert record.held == ()
    assert record.weights[1] > 1 / 3


@pytest.mark.parametrize("name", BALANCERS)
def test_period_of_nothing_but_nan_images_changes_nothing(name):
    balancer = make_balancer(name, NAMES, period=1)
    feed(balancer, [[NAN, 1.0, 1.0]])  # not even a start
    feed(balancer, [[1.0, 2.0, 4.0]])
    feed(balancer, [[1.0, 1.5, 2.0]])
    previous = balancer.memory["previous"].clone()
    record = feed(balancer, [[1.0, NAN, 1.0]])
    assert (record.images, record.dropped, record.held) == (0, 1, NAMES)
    assert torch.equal(balancer.memory["previous"], previous)
    assert balancer.weights.isfinite().all()
    assert feed(balancer, [[0.9, 1.5, 2.0]]).held == ()


def test_mean_that_overflows_is_held():
    balancer = EqualContribution(NAMES, period=1)
    record = feed(balancer, [[1e308, 1.0, 2.0], [1e308, 1.0, 2.0]])
    assert record.held == ("D/0",)
    assert record.weights == pytest.approx((1 / 3, 1 / 2, 1 / 4))


def test_weight_beyond_float32_is_held():
    balancer = EqualContribution(["D/0", "r/0"], period=1)
    record = feed(balancer, [[1e5, 1e-36]])
    assert record.held == ("r/0",)
    assert balancer.weights.float().isfinite().all()


def test_validation_batches_are_not_recorded():
    balancer = FixedWeights(NAMES, period=1)
    balancer.eval()
    balancer.observe(torch.full((5, 3), 100.0))
    balancer.train()
    record = feed(balancer, [[1.0, 1.0, 1.0]])
    assert record.images == 1
    assert record.means == (1.0, 1.0, 1.0)


def test_step_in_eval_mode_raises_instead_of_never_rebalancing():
    with pytest.raises(RuntimeError, match=r"eval mode.*balancer\.train\(\)"):
        FixedWeights(NAMES, period=1).eval().step()


def test_a_subset_of_losses_uses_the_active_count():
    balancer = EqualContribution(["D/0", "r/3"], period=1)
    record = feed(balancer, [[4.0, 1.0]])
    assert record.weights == pytest.approx((1.25 / 4, 1.25))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_sums_are_float64_whatever_the_losses_are(dtype):
    balancer = FixedWeights(["D/0"], period=2000)
    for _ in range(1999):
        balancer.observe(torch.ones(8, 1, dtype=dtype))
        assert balancer.step() is None
    balancer.observe(torch.ones(8, 1, dtype=dtype))
    record = balancer.step()
    assert (record.means, record.images) == ((1.0,), 16000)


def test_losses_that_require_a_gradient_do_not_keep_their_graph():
    balancer = FixedWeights(["D/0"], period=1)
    terms = torch.ones(2, 1, requires_grad=True) * 2
    balancer.observe(terms)
    record = balancer.step()
    assert record.means == (2.0,)
    assert not balancer.weights.requires_grad


# ---- periods ----


def ends(balancer, steps):
    """{step: index of the period that ended after it}"""
    records = [feed(balancer, [[1.0, 1.0, 1.0]]) for _ in range(steps)]
    return {r.step: r.period for r in records if r is not None}


@pytest.mark.parametrize(
    ("steps_per_epoch", "expected"),
    [
        (8, {2: 0, 4: 1, 6: 2, 8: 3, 10: 4, 12: 5, 14: 6, 16: 7}),
        (5, {2: 0, 3: 1, 4: 2, 5: 3, 7: 4, 8: 5, 9: 6, 10: 7}),  # ceil(k * 5 / 4), as the authors' program
        (3, {1: 0, 2: 1, 3: 3, 4: 4, 5: 5, 6: 7}),
        (2, {1: 1, 2: 3, 3: 5, 4: 7}),
        (1, {1: 3, 2: 7}),
    ],
)
def test_quarter_epochs_in_epochs_of_any_length(steps_per_epoch, expected):
    assert ends(FixedWeights(NAMES, period=steps_per_epoch / 4), 2 * steps_per_epoch) == expected


@pytest.mark.parametrize("steps_per_epoch", [1, 2, 3, 5, 7, 8])
def test_staircase_follows_the_epochs_however_short_they_are(steps_per_epoch):
    balancer = Rebalancing(NAMES, period=steps_per_epoch / 4)
    by_epoch = {}
    for step in range(7 * steps_per_epoch):
        record = feed(balancer, [[1.0, 2.0, 3.0]])
        if record is not None and record.lam is not None:
            by_epoch.setdefault(step // steps_per_epoch, set()).add(record.lam)
    expected = {0: {3}, 1: {1.5}, 2: {0}, 3: {-1.5}, 4: {-3}, 5: {-3}, 6: {-3}}
    if steps_per_epoch == 1:
        del expected[0]  # the first epoch is the first period
    assert by_epoch == expected


@given(st.integers(1, 400), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_fractional_periods_never_drift(steps, numerator, denominator):
    balancer = FixedWeights(["D/0"], period=numerator / denominator)
    balancer.observe(torch.ones(1, 1))
    seen = -1
    for step in range(1, steps + 1):
        balancer.observe(torch.ones(1, 1))
        record = balancer.step()
        done = step * denominator // numerator
        assert (record is not None) == (done > seen + 1)
        if record is not None:
            seen = record.period
            assert seen == done - 1
    assert balancer.period_index == seen + 1


def test_period_can_be_set_later_and_changed_between_steps():
    balancer = EqualContribution(NAMES)
    assert balancer.period is None
    balancer.period = 3
    assert ends(balancer, 4) == {3: 0}
    balancer.period = 3  # the same: the step already taken still counts
    assert ends(balancer, 2) == {6: 1}
    assert ends(balancer, 1) == {}
    balancer.period = 2  # another: counted from here
    assert ends(balancer, 4) == {9: 2, 11: 3}


def test_without_a_period_step_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"set balancer\.period.*steps_per_epoch / 4"):
        Rebalancing(NAMES).step()
    assert FixedWeights(NAMES).step() is None  # needs none


def test_forgotten_observe_raises():
    balancer = Rebalancing(NAMES, period=2)
    balancer.step()
    with pytest.raises(RuntimeError, match=r"no losses were observed in period 0.*balancer\.observe"):
        balancer.step()


# ---- bad input ----


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 3, 1), ()])
def test_terms_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"terms must be \[B, n\] = \[B, 3\].*D/0"):
        FixedWeights(NAMES).observe(torch.ones(shape))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FixedWeights([]), ValueError, "one or more loss names"),
        (lambda: FixedWeights("all"), TypeError, r"LossSpace\('all'\)\.names"),
        (lambda: FixedWeights([1, 2]), ValueError, "one or more loss names"),
        (lambda: FixedWeights(["D/0", "D/0"]), ValueError, "D/0"),
        (lambda: FixedWeights(NAMES, weights=[1.0, 2.0]), ValueError, "expected 3 weights"),
        (lambda: FixedWeights(NAMES, weights=[1.0, 2.0, 0.0]), ValueError, "positive and finite"),
        (lambda: FixedWeights(NAMES, weights=[1.0, 2.0, NAN]), ValueError, "positive and finite"),
        (lambda: FixedWeights(NAMES, period=0), ValueError, "period must be (positive|finite)"),
        (lambda: FixedWeights(NAMES, period=-3), ValueError, "period must be (positive|finite)"),
        (lambda: FixedWeights(NAMES, period=INF), ValueError, "period must be (positive|finite)"),
        (lambda: FixedWeights(NAMES, period="4"), TypeError, "period must be a number"),
        (lambda: FixedWeights(NAMES, period=True), TypeError, "period must be a number"),
        (lambda: Rebalancing(NAMES, lam=NAN), ValueError, "lam must be finite"),
        (lambda: Rebalancing(NAMES, lam="3"), TypeError, "lam must be a number"),
        (lambda: Rebalancing(NAMES, clip=(0.0, 2.0)), ValueError, "clip must be"),
        (lambda: Rebalancing(NAMES, clip=(1.5, 2.0)), ValueError, "clip must be"),
        (lambda: Rebalancing(NAMES, form="log"), ValueError, "form must be one of linear, power"),
        (lambda: lambda_staircase(slope=1), ValueError, "descends"),
        (lambda: lambda_staircase(start=-4), ValueError, "descends"),
        (lambda: lambda_staircase(periods_per_epoch=0), ValueError, "whole number"),
        (lambda: make_balancer("rebalancin", NAMES), ValueError, "did you mean rebalancing"),
        (lambda: make_balancer("equal", NAMES, clip=(0.5, 2)), ValueError, "no option clip; its options: period"),
    ],
)
def test_bad_options(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_lambda_that_is_not_finite_is_refused_before_it_does_harm():
    balancer = Rebalancing(NAMES, period=1, lam=lambda t: NAN)
    feed(balancer, [[1.0, 2.0, 3.0]])
    weights = balancer.weights.clone()
    balancer.observe(torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"lam\(1\) must be finite"):
        balancer.step()
    assert torch.equal(balancer.weights, weights)


def test_names_may_come_from_a_loss_space():
    from mlr.losses.space import LossSpace

    space = LossSpace("D/0+r/3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make_balancer("fixed", space).names == space.names
