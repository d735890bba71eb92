# SPDX-License-Identifier: Apache-2.0
"""Saving and continuing a balancer, and training on several ranks."""

import io

import pytest
import torch
from ranks import leave_group
from torch import distributed, multiprocessing, nn

from mlr.balancing import BALANCERS, EqualContribution, FixedWeights, Rebalancing, make_balancer

# a balancer alone, without losses that take its weights
pytestmark = pytest.mark.filterwarnings("ignore:the weights of .* have no effect")
NAMES = ("D/0", "r/0", "N/0", "M17/3")
NUMBERS = [
    "period", "step", "lam", "means", "weights", "contributions", "clipped", "held", "absent", "images", "dropped",
    "empty",
]  # fmt: skip


def batches(count, seed=0):
    """Losses of uneven batches; every seventh has a row with a NaN."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for i in range(count):
        terms = (torch.rand(1 + i % 4, len(NAMES), generator=generator) + 0.1) * torch.tensor([1.0, 10.0, 0.1, 3.0])
        if i % 7 == 3:
            terms[0, i % 4] = float("nan")
        out.append(terms)
    return out


def masked_batches(count):
    """The batches with counts; absent losses are 0."""
    generator = torch.Generator().manual_seed(1)
    counts = [torch.randint(0, 3, terms.shape, generator=generator) for terms in batches(count)]
    return [(torch.where(c > 0, t, 0), c) for t, c in zip(batches(count), counts, strict=True)]


def train(balancer, some_batches):
    records = []
    for terms in some_batches:
        balancer.observe(*(terms if isinstance(terms, tuple) else (terms,)))
        record = balancer.step()
        records += [record] if record is not None else []
    return records


def through_a_file(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


# ---- resume ----


@pytest.mark.parametrize("name", BALANCERS)
@pytest.mark.parametrize("stop", [1, 5, 6, 14, 17])
@pytest.mark.parametrize("period", [5, 3.5, 0.75])
def test_resume_anywhere_in_a_period_is_bit_equal(name, stop, period):
    data = batches(40)
    through = make_balancer(name, NAMES, period=period)
    expected = train(through, data)

    first = make_balancer(name, NAMES, period=period)
    records = train(first, data[:stop])
    state = through_a_file(nn.ModuleDict({"balancer": first}).state_dict())

    second = make_balancer(name, NAMES, period=period)
    nn.ModuleDict({"balancer": second}).load_state_dict(state)
    records += train(second, data[stop:])
    assert repr(records) == repr(expected)  # repr: exact, and equal for NaN too
    assert torch.equal(second.weights, through.weights)
    assert second.state_dict().keys() == through.state_dict().keys()


def test_resume_without_a_period_takes_the_saved_one():
    data = batches(20)
    expected = train(Rebalancing(NAMES, period=3), data)
    first, second = Rebalancing(NAMES, period=3), Rebalancing(NAMES)
    records = train(first, data[:7])
    second.load_state_dict(first.state_dict())
    assert second.period == 3
    second.period = 3  # as a trainer does that learns the length of its epochs only after it has loaded the state
    assert records + train(second, data[7:]) == expected


def test_resume_with_another_period_starts_it_at_the_current_step():
    first, second = FixedWeights(NAMES, period=10), FixedWeights(NAMES, period=4)
    train(first, batches(15))
    second.load_state_dict(first.state_dict())
    record = train(second, batches(4))[-1]
    assert (record.step, record.period) == (19, 1)


def test_state_holds_plain_values_only():
    balancer = Rebalancing(NAMES, period=3)
    train(balancer, batches(4))
    state = balancer.state_dict()
    assert set(state) == {"weights", "_extra_state"}
    assert through_a_file(state)["_extra_state"]["names"] == list(NAMES)


# ---- foreign states ----


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (EqualContribution(NAMES[:3]), "it holds 3 losses, this balancer 4; not in the state: M17/3"),
        (EqualContribution((*NAMES[:3], "cc/5")), "not in the state: M17/3; only in the state: cc/5"),
        (EqualContribution(NAMES[::-1]), "the same ones in another order"),
        (FixedWeights(NAMES), "the state of a FixedWeights, and this balancer is a EqualContribution"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_state_of_another_balancer_is_refused_untouched(other, message, strict):
    balancer = EqualContribution(NAMES, period=1)
    train(balancer, batches(1))
    weights = balancer.weights.clone()
    with pytest.raises(RuntimeError, match=message):
        balancer.load_state_dict(other.state_dict(), strict=strict)
    assert torch.equal(balancer.weights, weights)
    assert balancer.names == NAMES


def test_state_of_something_else_is_refused():
    balancer = FixedWeights(NAMES)
    with pytest.raises(RuntimeError, match="not that of a loss balancer"):
        balancer.load_state_dict({"weights": torch.ones(4, dtype=torch.float64), "_extra_state": 3})
    with pytest.raises(RuntimeError, match="Missing key"):
        balancer.load_state_dict({"weights": torch.ones(4, dtype=torch.float64)})


# ---- several ranks ----


class Holder(nn.Module):
    """A model that holds its balancer, as a training module does."""

    def __init__(self, balancer):
        super().__init__()
        self.net, self.balancer = nn.Linear(1, 1), balancer

    def forward(self, x):
        return self.net(x)


def train_rank(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    calls = []
    all_reduce = distributed.all_reduce

    def counted(tensor, *args, **kwargs):
        calls.append(tensor.dtype)
        return all_reduce(tensor, *args, **kwargs)

    results = {}
    for name in BALANCERS:
        balancer = make_balancer(name, NAMES, period=3)
        # DistributedDataParallel broadcasts the buffers of rank 0 at every forward pass
        model = nn.parallel.DistributedDataParallel(Holder(balancer))
        distributed.all_reduce = counted
        calls.clear()
        records = []
        for terms in batches(30, seed=1):
            model(torch.ones(1, 1)).sum().backward()
            balancer.observe(terms[rank::2])  # rank 1 is left with none of a batch of one
            record = balancer.step()
            records += [{key: getattr(record, key) for key in NUMBERS}] if record is not None else []
        distributed.all_reduce = all_reduce
        results[name] = {"records": records, "weights": balancer.weights.clone(), "calls": list(calls)}
    balancer = Rebalancing(NAMES, period=3)
    records = train(balancer, [(t[rank::2], c[rank::2]) for t, c in masked_batches(20)])
    results["masked"] = {"records": repr(records), "weights": balancer.weights}
    torch.save(results, f"{folder}/rank{rank}.pt")
    leave_group()


def test_two_ranks_equal_one_process(tmp_path):
    multiprocessing.spawn(train_rank, args=(tmp_path,), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for name in BALANCERS:
        alone = make_balancer(name, NAMES, period=3)
        expected = [{key: getattr(record, key) for key in NUMBERS} for record in train(alone, batches(30, seed=1))]
        for results in ranks:
            # float64 sums of float32 losses are exact here, so the order of summation leaves no trace
            assert results[name]["records"] == expected
            assert torch.equal(results[name]["weights"], alone.weights)
            assert results[name]["calls"] == [torch.float64] * 10  # one per period and nothing else
    alone = Rebalancing(NAMES, period=3)
    expected = repr(train(alone, masked_batches(20)))
    for results in ranks:
        assert results["masked"]["records"] == expected
        assert torch.equal(results["masked"]["weights"], alone.weights)
