# SPDX-License-Identifier: Apache-2.0
"""A balancer as a part of a training program: it never waits for the device, survives casts and copies, and logs."""

import copy
import json
import pickle

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mlr.balancing import BALANCERS, EqualContribution, Rebalancing, make_balancer
from mlr.balancing.sums import widest_float

# a balancer alone, without losses that take its weights
pytestmark = pytest.mark.filterwarnings("ignore:the weights of .* have no effect")
NAMES = ("D/0", "r/0", "N/0")


def feed(balancer, batch):
    """One optimizer step; returns its record."""
    balancer.observe(torch.as_tensor(batch, dtype=torch.float64))
    return balancer.step()


# ---- no waiting for the device ----


class NoReads(TorchDispatchMode):
    """Fails on whatever makes the host wait for a value on the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in {"_local_scalar_dense", "item", "equal", "nonzero", "is_nonzero", "masked_select"}, name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", BALANCERS)
def test_nothing_is_read_back_within_a_period(name):
    balancer = make_balancer(name, NAMES, period=4)
    for step in range(1, 16):
        balancer.observe(torch.rand(2, 3))
        if step % 4 == 0:
            with pytest.raises(AssertionError), NoReads():  # the end of a period does read, so the test can fail
                copy.deepcopy(balancer).step()
            assert balancer.step() is not None
        else:
            with NoReads():
                balancer.observe(torch.rand(2, 3))
                assert balancer.step() is None


@pytest.mark.parametrize("name", BALANCERS)
def test_device_that_cannot_be_read_is_enough_within_a_period(name):
    balancer = make_balancer(name, NAMES, period=3)
    for _ in range(2):
        balancer.observe(torch.empty(2, 3, device="meta"))
        assert balancer.step() is None
    balancer.observe(torch.empty(2, 3, device="meta"))
    with pytest.raises(NotImplementedError, match="meta"):  # the end of the period does read, so the test can fail
        balancer.step()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", BALANCERS)
def test_no_synchronisation_within_a_period_on_a_gpu(name):
    balancer, twin = make_balancer(name, NAMES, period=3), make_balancer(name, NAMES, period=3)
    torch.manual_seed(0)
    batches = [torch.rand(4, 3) + 0.1 for _ in range(12)]
    balancer.observe(batches[0].cuda())  # follows the losses to the GPU
    balancer.step()
    feed(twin, batches[0])
    for step, batch in enumerate(batches[1:], start=2):
        terms = batch.cuda()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("default" if step % 3 == 0 else "error")
        try:
            balancer.observe(terms)
            balancer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        feed(twin, batch)
    assert balancer.weights.is_cuda
    torch.testing.assert_close(balancer.weights.cpu(), twin.weights, rtol=1e-12, atol=0)


# ---- being a module ----


def test_half_precision_models_do_not_round_the_weights():
    model = torch.nn.ModuleDict({"balancer": EqualContribution(NAMES, period=1), "net": torch.nn.Linear(2, 2)})
    feed(model["balancer"], [[1.0, 2.0, 3.0]])
    weights = model["balancer"].weights.clone()
    model.half().to(torch.bfloat16).float()
    assert torch.equal(model["balancer"].weights, weights)


@pytest.mark.parametrize("name", BALANCERS)
def test_a_default_device_does_not_take_what_belongs_on_the_cpu(name):
    balancer = make_balancer(name, NAMES, period=1)
    twin = copy.deepcopy(balancer)
    with torch.device("meta"):
        balancer.memory = make_balancer(name, NAMES, period=1).memory
        assert all(x.device.type == "cpu" for x in balancer.memory.values())
    batches = [torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.0, 2.0, 2.0]]), torch.tensor([[1.0, 4.0, 2.0]])]
    for batch in batches:
        with torch.device("meta"):  # a CPU generator draws nothing on another device
            balancer.observe(batch)
            balancer.step()
        twin.observe(batch)
        twin.step()
    assert torch.equal(balancer.weights, twin.weights)


def test_what_a_subclass_adds_moves_with_it():
    balancer = EqualContribution(NAMES, period=1)
    balancer.register_buffer("extra", torch.zeros(2, dtype=torch.float64))
    balancer.network = torch.nn.Linear(2, 2)
    balancer.half()
    assert balancer.extra.dtype == balancer.network.weight.dtype == torch.float16
    assert balancer.weights.dtype == torch.float64


def test_a_balancer_made_without_memory_takes_a_state():
    state = make_balancer("equal", ("a", "b"), period=4).state_dict()
    with torch.device("meta"):
        made = make_balancer("equal", ("a", "b"), period=4)
    made.to_empty(device="cpu").load_state_dict(state)
    assert made.weights.tolist() == [0.5, 0.5]
    made.observe(torch.ones(1, 2))


def test_a_state_that_was_loaded_in_inference_mode_goes_on():
    balancer = make_balancer("equal", ("a", "b"), period=4)
    with torch.inference_mode():
        balancer.load_state_dict(balancer.state_dict())
    balancer.observe(torch.ones(1, 2))


def test_thewidest_float_of_a_device():
    assert widest_float(torch.device("mps")) is torch.float32  # has no float64
    assert widest_float(torch.device("cuda")) is torch.float64


def test_weights_change_in_place_so_a_captured_graph_sees_them():
    balancer = EqualContribution(NAMES, period=1)
    address = balancer.weights.data_ptr()
    feed(balancer, [[1.0, 2.0, 3.0]])
    assert balancer.weights.data_ptr() == address


@pytest.mark.parametrize("name", BALANCERS)
def test_copies_and_pickles(name):
    balancer = make_balancer(name, NAMES, period=1)
    feed(balancer, [[1.0, 2.0, 3.0]])
    for twin in (copy.deepcopy(balancer), pickle.loads(pickle.dumps(balancer))):
        feed(twin, [[1.0, 1.0, 1.0]])
        assert twin.period_index == 2
        assert balancer.period_index == 1
    assert "3 losses, period=1.0" in repr(balancer)


def test_record_is_plain_and_serialisable():
    balancer = Rebalancing(NAMES, period=1, lam=2)
    feed(balancer, [[1.0, 2.0, 3.0]])
    record = feed(balancer, [[1.0, 2.0, 1.0]])
    out = json.loads(json.dumps(record.as_dict()))
    assert out["lambda"] == 2
    assert out["period"] == 1
    assert out["weights"] == dict(zip(NAMES, balancer.weights.tolist(), strict=True))
    assert sum(out["contributions"].values()) == pytest.approx(1)
    assert set(out) == {
        "period", "step", "lambda", "means", "weights", "contributions", "clipped", "held", "images", "dropped",
        "absent", "empty",
    }  # fmt: skip
    with pytest.raises(AttributeError):
        record.lam = 1
