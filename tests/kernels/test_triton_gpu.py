# SPDX-License-Identifier: Apache-2.0
"""The Triton engine on a GPU: what no emulation can show."""

from __future__ import annotations

import pytest
import torch
from depth_maps import depth_pair, relative_l2, term_errors

import mlr
from mlr.losses import reference

pytestmark = pytest.mark.gpu
ALL = mlr.LossSpace("all").indices


def maps(batch, height, width, dtype=torch.float32):
    return tuple(x.cuda() for x in depth_pair(batch, height, width, dtype))


def evaluate(pred, target, weights, downsample="bicubic"):
    return torch.ops.mlr.multi_loss(pred, target, weights, list(ALL), downsample)


@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (1, 40), (33, 47), (40, 56), (45, 61), (96, 128), (288, 384), (375, 1242), (1080, 1920)],
)
@pytest.mark.parametrize("downsample", reference.DOWNSAMPLE)
def test_parity(height, width, downsample):
    pred, target = maps(2, height, width)
    weights = torch.rand(2, 78, device="cuda")
    values, grad = evaluate(pred, target, weights, downsample)
    truth, true_grad, _ = reference.multi_loss(pred.double(), target.double(), weights.double(), ALL, downsample)
    assert term_errors(values.cpu(), truth.cpu(), ALL).max() <= 1e-5
    assert relative_l2(grad, true_grad) < 1e-4  # signs of differences within rounding of 0 may flip


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 1e-3), (torch.bfloat16, 5e-3), (torch.float64, 1e-12)])
def test_types(dtype, limit):
    pred, target = maps(2, 96, 128, dtype)
    weights = torch.rand(2, 78, device="cuda", dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    values, grad = evaluate(pred, target, weights)
    truth, true_grad, _ = reference.multi_loss(pred.double(), target.double(), weights.double(), ALL)
    assert grad.dtype == dtype
    assert term_errors(values.cpu(), truth.cpu(), ALL).max() <= 1e-5
    assert relative_l2(grad, true_grad) < limit


def test_repeats_are_equal_to_the_bit():
    pred, target = maps(8, 288, 384)
    weights = torch.rand(8, 78, device="cuda")
    first = evaluate(pred, target, weights)
    for _ in range(10):
        again = evaluate(pred, target, weights)
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])


def test_a_step_is_captured_in_a_cuda_graph_and_replayed_on_new_values():
    pred, target = maps(2, 96, 128)
    weights = torch.rand(2, 78, device="cuda")
    evaluate(pred, target, weights)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        values, grad = evaluate(pred, target, weights)
    pred += 0.1 * torch.randn_like(pred)
    graph.replay()
    expected = evaluate(pred, target, weights)
    assert torch.equal(values, expected[0])
    assert torch.equal(grad, expected[1])


def test_a_second_stream():
    pred, target = maps(2, 288, 384)
    weights = torch.rand(2, 78, device="cuda")
    expected = evaluate(pred, target, weights)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        values, grad = evaluate(pred, target, weights)
    stream.synchronize()
    assert torch.equal(values, expected[0])
    assert torch.equal(grad, expected[1])


def test_training_compiles_without_a_graph_break():
    pred, target = maps(2, 96, 128)
    criterion = mlr.MultiLoss("all")
    leaf = pred.requires_grad_()
    step = torch.compile(lambda p: criterion(p * 2, target).total, fullgraph=True)
    (grad,) = torch.autograd.grad(step(leaf), leaf)
    (expected,) = torch.autograd.grad(criterion(leaf * 2, target).total, leaf)
    assert relative_l2(grad, expected) < 1e-6


def test_more_than_2_to_the_31_elements():
    height, width = 288, 384
    batch = (1 << 31) // (height * width) + 2
    needed = 40 * batch * height * width
    if torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f"needs {needed >> 30} GiB of free GPU memory")
    small = maps(2, height, width)
    pred, target = (x.repeat(batch // 2 + 1, 1, 1, 1)[:batch].half() for x in small)
    values, grad, _ = torch.ops.mlr.multi_loss(pred, target, torch.ones(batch, 1, device="cuda"), [0], "bicubic")
    expected = torch.ops.mlr.multi_loss(pred[-2:], target[-2:], torch.ones(2, 1, device="cuda"), [0], "bicubic")
    assert torch.equal(values[-2:], expected[0])
    assert torch.equal(grad[-2:], expected[1])
