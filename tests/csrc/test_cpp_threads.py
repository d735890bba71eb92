# SPDX-License-Identifier: Apache-2.0
"""The C++ engine gives the same bits on every run, for any number of threads, and for an image alone or in a batch."""

from __future__ import annotations

import pytest
import torch
from depth_maps import depth_pair

from mlr.losses.space import LossSpace

_C = pytest.importorskip("mlr._C", reason="the C++ engine is not built")


def op(*operands):
    """Terms and gradient of the operator."""
    return torch.ops.mlr.multi_loss(*operands)[:2]


@pytest.fixture(params=_C.instruction_sets())
def instruction_set(request):
    _C.set_instruction_set(request.param)
    threads = torch.get_num_threads()
    yield request.param
    torch.set_num_threads(threads)
    _C.set_instruction_set("")


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("downsample", ["bicubic", "area"])
@pytest.mark.parametrize("size", [(3, 5), (97, 130), (288, 96), (333, 40)], ids=str)
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_bits_do_not_depend_on_threads_or_batch(instruction_set, batch, size, downsample):
    pred, target = depth_pair(batch, *size)
    terms = list(LossSpace("all").indices)
    weights = torch.randn(batch, len(terms), generator=torch.Generator().manual_seed(1))
    torch.set_num_threads(1)
    values, grad = op(pred, target, weights, terms, downsample)
    for threads in (1, 2, 3, 8):  # more than the machine has: image by image, strip by strip, and both
        torch.set_num_threads(threads)
        assert same(op(pred, target, weights, terms, downsample), (values, grad))
        assert torch.equal(op(pred, target, None, terms, downsample)[0], values)
    for i in range(batch):
        one = op(pred[i : i + 1], target[i : i + 1], weights[i : i + 1], terms, downsample)
        assert same(one, (values[i : i + 1], grad[i : i + 1]))


@pytest.mark.parametrize("selection", ["D/0", "mean", "gradient+normal", "M65/0+D/4", "coarse"])
def test_bits_of_subsets_do_not_depend_on_threads(selection):
    pred, target = depth_pair(1, 200, 120)
    terms = list(LossSpace(selection).indices)
    weights = torch.ones(1, len(terms))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = op(pred, target, weights, terms, "area")
        torch.set_num_threads(4)
        assert same(op(pred, target, weights, terms, "area"), alone)
    finally:
        torch.set_num_threads(before)


def test_concurrent_calls_do_not_share_workspaces():
    from concurrent.futures import ThreadPoolExecutor

    cases = [(depth_pair(2, 40 + 7 * i, 60 + 5 * i, seed=i), torch.ones(2, len(LossSpace("all")))) for i in range(8)]
    terms = list(LossSpace("all").indices)

    def run(case):
        (pred, target), weights = case
        return op(pred, target, weights, terms, "bicubic")

    expected = [run(c) for c in cases]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert all(same(a, b) for a, b in zip(pool.map(run, cases), expected, strict=True))
