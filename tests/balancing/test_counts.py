# SPDX-License-Identifier: Apache-2.0
"""Losses that some images do not have, losses within rounding of zero, and weights that float32 cannot carry."""

import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mlr
from mlr.balancing import BALANCERS, EqualContribution, FixedWeights, LossBalancer, Rebalancing, make_balancer
from mlr.balancing.record import WEIGHT_RANGE
from mlr.losses import KINDS

# a balancer alone, without losses that take its weights
pytestmark = pytest.mark.filterwarnings("ignore:the weights of .* have no effect")
NAMES = ("D/0", "r/0", "N/0", "M17/3")
NAN = math.nan


def masked_batches(count, seed=0):
    """Losses and counts of uneven batches: absent losses are 0, some rows are empty, some hold a NaN."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for i in range(count):
        terms = (torch.rand(1 + i % 4, len(NAMES), generator=generator) + 0.1) * torch.tensor([1.0, 10.0, 0.1, 3.0])
        counts = torch.randint(0, 3, terms.shape, generator=generator)
        if i % 5 == 2:
            counts[0] = 0
        terms[counts == 0] = 0
        if i % 7 == 3:
            terms[0, i % 4], counts[0, i % 4] = NAN, 9
        out.append((terms, counts))
    return out


def train(balancer, some_batches):
    records = []
    for terms, counts in some_batches:
        balancer.observe(terms, counts)
        record = balancer.step()
        records += [record] if record is not None else []
    return records


# ---- images that do not have a loss ----


def test_an_image_is_left_out_of_the_mean_of_the_loss_that_it_does_not_have():
    balancer = EqualContribution(NAMES[:3], period=2)
    balancer.observe(torch.tensor([[1.0, 0.0, 2.0], [3.0, 4.0, 0.0]]), torch.tensor([[5, 0, 1], [5, 2, 0]]))
    balancer.step()
    balancer.observe(torch.tensor([[5.0, 8.0, 6.0]]))  # without counts every loss is there
    record = balancer.step()
    assert record.means == (3.0, 6.0, 4.0)
    assert (record.images, record.dropped, record.empty, record.absent) == (3, 0, 0, ())
    assert record.weights == pytest.approx([13 / 9 / 3, 13 / 9 / 6, 13 / 9 / 4])


def test_numbers_of_an_absent_loss_do_not_matter():
    balancer = FixedWeights(NAMES[:2], period=1)
    balancer.observe(torch.tensor([[1.0, NAN], [3.0, 1e30], [5.0, 7.0]]), torch.tensor([[1, 0], [1, 0], [1, 1]]))
    record = balancer.step()
    assert record.means == (3.0, 7.0)
    assert (record.images, record.dropped) == (3, 0)


def test_images_with_nothing_are_counted_apart_and_nan_images_still_dropped():
    balancer = FixedWeights(NAMES[:2], period=1)
    terms = torch.tensor([[0.0, 0.0], [NAN, 1.0], [2.0, 4.0]])
    balancer.observe(terms, torch.tensor([[0, 0], [3, 3], [3, 3]]))
    record = balancer.step()
    assert record.means == (2.0, 4.0)
    assert (record.images, record.dropped, record.empty) == (1, 1, 1)


@pytest.mark.parametrize("name", BALANCERS)
def test_a_loss_that_no_image_of_a_period_has_keeps_its_weight(name):
    balancer = make_balancer(name, NAMES, period=1)
    ones = torch.ones(2, 4, dtype=torch.long)
    train(
        balancer, [(torch.tensor([[1.0, 2.0, 4.0, 3.0]] * 2), ones), (torch.tensor([[1.0, 1.5, 3.0, 2.0]] * 2), ones)]
    )
    weight, previous = float(balancer.weights[1]), balancer.memory["previous"].clone()
    counts = ones.clone()
    counts[:, 1] = 0
    (record,) = train(balancer, [(torch.tensor([[0.9, 0.0, 2.0, 1.0]] * 2), counts)])
    assert record.absent == ("r/0",)
    assert "r/0" in record.held
    assert math.isnan(record.means[1])
    assert record.contributions[1] == 0
    assert sum(record.contributions) == pytest.approx(1)
    if name != "random":  # which compares with the start weights
        assert record.weights[1] == weight
    assert balancer.memory["previous"][1] == previous[1]
    (record,) = train(balancer, [(torch.tensor([[0.9, 1.4, 2.0, 1.0]] * 2), ones)])
    assert (record.held, record.absent) == ((), ())
    assert balancer.weights.isfinite().all()


@pytest.mark.parametrize("name", BALANCERS)
def test_a_loss_that_comes_late_is_taken_up(name):
    balancer = make_balancer(name, NAMES, period=1)
    late = torch.ones(1, 4, dtype=torch.long)
    late[0, 2] = 0
    terms = torch.tensor([[1.0, 2.0, 0.0, 3.0]])
    train(balancer, [(terms, late), (terms * 0.9, late)])
    full = torch.ones(1, 4, dtype=torch.long)
    records = train(
        balancer, [(terms + torch.tensor([0, 0, 5.0, 0]), full), (terms + torch.tensor([0, 0, 4.0, 0]), full)]
    )
    assert records[-1].held == ()
    assert all(math.isfinite(w) and w > 0 for w in records[-1].weights)


@pytest.mark.parametrize("name", BALANCERS)
def test_a_period_of_empty_images_changes_nothing(name):
    balancer = make_balancer(name, NAMES, period=1)
    nothing = torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.long)
    weights = balancer.weights.clone()
    (record,) = train(balancer, [nothing])
    assert (record.images, record.empty, record.absent, record.held) == (0, 3, NAMES, NAMES)
    assert torch.equal(balancer.weights, weights)
    assert not balancer.started


@given(st.integers(0, 2**16), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_means_are_over_the_images_that_have_the_loss(seed, count):
    balancer = FixedWeights(NAMES, period=count)
    batches = masked_batches(count, seed)
    record = train(balancer, batches)[-1]
    terms, counts = (torch.cat(x).double() for x in zip(*batches, strict=True))
    good = terms.isfinite().all(1)
    assert record.dropped == int((~good).sum())
    assert record.images == int((counts[good] > 0).any(1).sum())
    assert record.images + record.dropped + record.empty == len(terms)
    for i in range(4):
        has = good & (counts[:, i] > 0)
        assert record.means[i] == pytest.approx(terms[has, i].mean().item(), nan_ok=True)


def test_counts_of_ones_are_as_good_as_none():
    one, other = Rebalancing(NAMES, period=3), Rebalancing(NAMES, period=3)
    batches = [(terms, torch.full(terms.shape, 7)) for terms, _ in masked_batches(12)]
    assert repr(train(one, batches)) == repr(train(other, [(terms, None) for terms, _ in batches]))


def test_counts_of_another_shape():
    with pytest.raises(ValueError, match=r"counts must have the shape of terms, \[2, 4\], got \[4\]"):
        FixedWeights(NAMES).observe(torch.ones(2, 4), torch.ones(4))


def test_a_masked_loop_from_losses_to_weights():
    space = mlr.LossSpace("*/0+D/5+Nc/5")
    criterion, balancer = mlr.MultiLoss(space), Rebalancing(space.names, period=1)
    target = torch.rand(3, 1, 64, 64) + 1
    target[0] = 0
    target[:, :, ::2, ::2] = 0  # bicubic leaves nothing at scale 5
    for _ in range(2):
        out = criterion(target + 0.1 * torch.rand_like(target), target, balancer.weights, mlr.known_depth(target))
        balancer.observe(out.terms, out.counts)
        record = balancer.step()
    assert record.empty == 1
    assert record.images == 2
    assert {"D/5", "Nc/5"} <= set(record.absent) <= set(record.held)
    assert all(math.isfinite(w) for w in record.weights)


# ---- state ----


@pytest.mark.parametrize("name", BALANCERS)
@pytest.mark.parametrize("stop", [1, 5, 6, 14])
def test_resume_anywhere_in_a_period_is_bit_equal(name, stop):
    data = masked_batches(30)
    through, first, second = (make_balancer(name, NAMES, period=3.5) for _ in range(3))
    expected = train(through, data)
    records = train(first, data[:stop])
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    records += train(second, data[stop:])
    assert repr(records) == repr(expected)
    assert torch.equal(second.weights, through.weights)


@pytest.mark.parametrize("name", BALANCERS)
def test_a_state_of_before_masks_goes_on(name):
    data = [(terms, None) for terms, _ in masked_batches(20)]
    through, first, second = (make_balancer(name, NAMES, period=4) for _ in range(3))
    expected = train(through, data)
    records = train(first, data[:6])
    state = first.state_dict()
    extra = state["_extra_state"]
    del extra["resolution"]
    n = len(NAMES)
    assert (extra["sums"][n : 2 * n] == extra["sums"][2 * n]).all()  # every loss was there
    extra["sums"] = torch.cat([extra["sums"][:n], extra["sums"][2 * n : 2 * n + 2]])
    second.load_state_dict(state)
    records += train(second, data[6:])
    assert repr(records) == repr(expected)


DAMAGE = {
    "weights shape": lambda w, e: w.resize_(3),
    "weights NaN": lambda w, e: w.fill_(NAN),
    "weights negative": lambda w, e: w.neg_(),
    "sums shape": lambda w, e: e.update(sums=torch.zeros(5)),
    "sums type": lambda w, e: e.update(sums=[0.0] * 11),
    "sums complex": lambda w, e: e.update(sums=torch.zeros(11, dtype=torch.complex128)),
    "counts": lambda w, e: e["sums"].fill_(-1),
    "memory": lambda w, e: e.update(memory=None),
    "memory empty": lambda w, e: e.update(memory={}),
    "memory shape": lambda w, e: e["memory"].update(previous=torch.zeros(3)),
    "memory rank": lambda w, e: e["memory"].update(start=torch.zeros(2, 4)),
    "memory type": lambda w, e: e["memory"].update(other="text"),
    "start NaN": lambda w, e: e["memory"].update(start=torch.full((4,), NAN)),
    "steps": lambda w, e: e.update(steps="7"),
    "steps negative": lambda w, e: e.update(steps=-1),
    "steps bool": lambda w, e: e.update(steps=True),
    "index": lambda w, e: e.update(index=1.5),
    "end": lambda w, e: e.update(end=[1, 0]),
    "end length": lambda w, e: e.update(end=[1]),
    "period": lambda w, e: e.update(period=NAN),
    "period type": lambda w, e: e.update(period="4"),
    "resolution": lambda w, e: e.update(resolution=None),
    "names": lambda w, e: e.update(names=3),
    "no steps": lambda w, e: e.pop("steps"),
    "no sums": lambda w, e: e.pop("sums"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("strict", [True, False])
def test_a_damaged_state_is_refused_untouched(damage, strict):
    saved, balancer = Rebalancing(NAMES, period=3), Rebalancing(NAMES, period=2)
    train(saved, masked_batches(7))
    train(balancer, masked_batches(5, seed=1))
    state = saved.state_dict()
    state["weights"] = state["weights"].clone()
    DAMAGE[damage](state["weights"], state["_extra_state"])
    before = repr(balancer.state_dict())
    with pytest.raises(RuntimeError, match="the state is damaged"):
        balancer.load_state_dict(state, strict=strict)
    assert repr(balancer.state_dict()) == before
    assert train(balancer, masked_batches(3))


# ---- rounding, and the range of weights ----


@pytest.mark.parametrize(
    ("dtype", "noise", "held"),
    [
        (torch.float32, 5e-7, True),
        (torch.float32, 2e-6, False),
        (torch.float64, 1e-15, True),
        (torch.float64, 1e-8, False),
        (torch.bfloat16, 5e-7, True),
        (torch.bfloat16, 1e-5, False),
    ],
)
@pytest.mark.parametrize("name", [name for name in BALANCERS if name != "fixed"])
def test_a_loss_within_rounding_of_zero_is_held(name, dtype, noise, held):
    balancer = make_balancer(name, NAMES[:3], period=1)
    for size in (1.0, 0.8):
        balancer.observe(torch.tensor([[1 / size, noise * size, 0.5 * size**2]], dtype=dtype))
        record = balancer.step()
    assert record.held == (("r/0",) if held else ())
    assert (balancer.weights <= 1e8).all()


@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_losses_that_are_zero_by_definition_are_held_on_small_maps(backend):
    space = mlr.LossSpace("all")
    torch.manual_seed(0)
    pred, target = torch.rand(2, 2, 1, 48, 56) * 5 + 0.5
    balancer = Rebalancing(space.names, period=1)
    with mlr.backend(backend):
        balancer.observe(mlr.MultiLoss(space)(pred, target, balancer.weights).terms)
    record = balancer.step()
    zero = {f"{kind}/5" for kind in KINDS} - {"D/5"}
    assert set(record.held) == zero  # the map of scale 5 is one pixel
    assert max(record.weights) < 1e4


@pytest.mark.parametrize("name", [name for name in BALANCERS if name != "fixed"])
@given(st.lists(st.lists(st.floats(-18, 18), min_size=3, max_size=3), min_size=2, max_size=8), st.booleans())
@settings(max_examples=25, deadline=None)
def test_weights_stay_in_range_whatever_the_losses(name, exponents, double):
    balancer = make_balancer(name, NAMES[:3], period=1)
    for row in exponents:
        terms = 10 ** torch.tensor([row], dtype=torch.float64)
        balancer.observe(terms if double else terms.float())
        balancer.step()
        assert ((balancer.weights >= WEIGHT_RANGE[0]) & (balancer.weights <= WEIGHT_RANGE[1])).all()


def test_a_weight_stops_growing_where_float32_gradients_end():
    balancer = Rebalancing(NAMES[:2], period=1, lam=3)
    falling = 1.0
    for _ in range(60):
        balancer.observe(torch.tensor([[1.0, falling]], dtype=torch.float64))
        record = balancer.step()
        falling /= 2
    assert max(record.weights) <= WEIGHT_RANGE[1]
    assert "r/0" in record.held


@pytest.mark.parametrize("weight", [1e39, 1e-60, math.inf, -1.0])
def test_fixed_weights_that_float32_does_not_hold_are_refused(weight):
    with pytest.raises(ValueError, match="positive and finite numbers of float32"):
        FixedWeights(NAMES[:2], [1.0, weight])


# ---- weights by name ----


def test_fixed_weights_by_name():
    balancer = FixedWeights(["r/0", "D/0"], {"D/0": 2.0, "r/0": 0.5})
    assert balancer.weights.tolist() == [0.5, 2.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"D/0": 1.0}, "there is none for r/0"),
        ({"D/0": 1.0, "r/0": 1.0, "d/0": 3.0}, "not in use: d/0: did you mean D/0"),
        ({"D/0": 1.0, "R/0": 1.0}, "not in use: R/0: did you mean r/0"),
    ],
)
def test_names_of_fixed_weights_are_checked(weights, message):
    with pytest.raises(ValueError, match=message):
        FixedWeights(["D/0", "r/0"], weights)


# ---- loops that forget ----


def train_without_steps(balancer, count):
    for _ in range(count):
        balancer.observe(torch.ones(1, 4))


def test_many_batches_without_a_step_are_told_once():
    balancer = Rebalancing(NAMES, period=2)
    with pytest.warns(UserWarning, match=r"Rebalancing observed 100 batches without a step.*\.step\(\)") as told:
        train_without_steps(balancer, 250)
    assert len(told) == 1


def test_gradient_accumulation_is_not_told(recwarn):
    balancer = FixedWeights(NAMES, period=2)
    for i in range(256):
        balancer.observe(torch.ones(1, 4))
        if i % 64 == 63:
            balancer.step()
    assert not recwarn.list


@pytest.mark.filterwarnings("default:the weights of .* have no effect")
@pytest.mark.parametrize("name", [name for name in BALANCERS if name != "fixed"])
def test_weights_that_were_never_read_are_told_once(name):
    balancer = make_balancer(name, NAMES, period=2)
    with pytest.warns(UserWarning, match=r"balancer\.weights was never read.*weights=balancer\.weights") as told:
        train(balancer, [(terms, None) for terms, _ in masked_batches(9)])
    assert len(told) == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", BALANCERS)
def test_a_complete_loop_is_told_nothing(name):
    criterion = mlr.MultiLoss("D/0+r/0")
    balancer = make_balancer(name, criterion.space.names, period=2)
    for _ in range(5):
        out = criterion(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8) + 1, weights=balancer.weights)
        balancer.observe(out.terms)
        balancer.step()


@pytest.mark.filterwarnings("default:the weights of .* have no effect")
def test_chosen_weights_that_were_never_read_are_told():
    with pytest.warns(UserWarning, match="FixedWeights have no effect"):
        FixedWeights(NAMES, [1.0, 2.0, 3.0, 4.0]).step()


def test_a_function_that_makes_schedules_is_no_schedule():
    with pytest.raises(TypeError, match=r"lambda_staircase makes a schedule: call it, lam=lambda_staircase\(\)"):
        Rebalancing(NAMES, lam=mlr.lambda_staircase)
    with pytest.raises(TypeError, match=r"lam must be a number or a schedule.*gives NoneType"):
        Rebalancing(NAMES, lam=lambda period: None)
    Rebalancing(NAMES, lam={2: 1.0}.__getitem__)  # a schedule for some periods alone


class Custom(LossBalancer):
    """Answers whatever it is told to."""

    def __init__(self, answer, **options):
        super().__init__(NAMES, **options)
        self.answer = answer

    def new_weights(self, stats):
        return self.answer(stats)


def test_new_weights_may_be_a_tensor():
    balancer = Custom(lambda stats: (stats.weights * 2).float(), period=1)
    record = train(balancer, [(torch.ones(1, 4), None)] * 2)[-1]
    assert record.weights == (0.5,) * 4
    assert balancer.weights.dtype == torch.float64


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (
            lambda s: [1.0] * 4,
            TypeError,
            r"Custom\.new_weights must return NewWeights or a tensor of 4 weights, got \[",
        ),
        (lambda s: None, TypeError, r"Custom\.new_weights must return .*got None"),
        (lambda s: torch.ones(3), ValueError, r"Custom\.new_weights must return one weight a loss, \[4\], got \[3\]"),
        (lambda s: torch.ones(4, dtype=torch.complex64), TypeError, r"Custom\.new_weights must return"),
    ],
)
def test_new_weights_of_another_kind_are_refused_by_name(answer, error, message):
    balancer = Custom(answer, period=1)
    train(balancer, [(torch.ones(1, 4), None)])
    weights = balancer.weights.clone()
    with pytest.raises(error, match=message):
        train(balancer, [(torch.ones(1, 4), None)])
    assert torch.equal(balancer.weights, weights)


def test_reading_weights_compiles():
    balancer = FixedWeights(NAMES)
    compiled = torch.compile(lambda x: (x * balancer.weights).sum(), fullgraph=True, backend="eager")
    assert compiled(torch.ones(4)) == 1
