# SPDX-License-Identifier: Apache-2.0
"""The C++ engine's gradient for weights of any finite size, against the definition in float64."""

from __future__ import annotations

import pytest
import torch
from depth_maps import depth_pair

from mlr.losses import reference
from mlr.losses.space import LossSpace

_C = pytest.importorskip("mlr._C", reason="the C++ engine is not built")

op = torch.ops.mlr.multi_loss
ALL = list(LossSpace("all").indices)
LARGEST = torch.finfo(torch.float32).max


@pytest.fixture(params=_C.instruction_sets())
def instruction_set(request):
    _C.set_instruction_set(request.param)
    yield request.param
    _C.set_instruction_set("")


def errors(grad, pred, target, weights, indices, downsample="bicubic", mask=None):
    """Per image: |difference| / |gradient| in float64, beyond what float32 cannot hold."""
    exact = reference.multi_loss(pred.double(), target.double(), weights.double(), indices, downsample, mask)[1]
    held = exact.clamp(-LARGEST, LARGEST)
    difference = (grad.double().clamp(-LARGEST, LARGEST) - held).flatten(1).norm(dim=1)
    subnormal = 2.0**-149 * held[0].numel() ** 0.5
    return ((difference - subnormal).clamp(min=0) / held.flatten(1).norm(dim=1).clamp(min=1e-300)).tolist()


@pytest.mark.parametrize("exponent", [-38, -30, -20, -12, 0, 6, 12, 20, 30, 38])
@pytest.mark.parametrize("downsample", reference.DOWNSAMPLE)
def test_every_size_of_weight(instruction_set, downsample, exponent):
    pred, target = depth_pair(1, 45, 61)
    weights = torch.randn(1, len(ALL), generator=torch.Generator().manual_seed(0)).clamp(-3, 3) * 10.0**exponent
    for mask in (None, torch.rand(1, 1, 45, 61, generator=torch.Generator().manual_seed(1)) < 0.9):
        grad = op(pred, target, weights, ALL, downsample, mask)[1]
        assert max(errors(grad, pred, target, weights, ALL, downsample, mask)) < 1e-4


@pytest.mark.parametrize(("large", "small"), [(1e38, 1e-38), (1e20, 1e-20), (1e-30, 1e-38), (1e30, 1.0)])
def test_a_small_weight_acts_where_a_large_one_does_not(instruction_set, large, small):
    """The maps differ from row 30 on, so row 29 has a gradient of c/0 alone and the rows below of D/0 too."""
    target = torch.full((1, 1, 40, 4), 2.0)
    pred = target.clone()
    pred[:, :, 30:] += 0.25
    weights, indices = torch.tensor([[large, small]]), list(LossSpace("D/0+c/0").indices)
    grad = op(pred, target, weights, indices, "bicubic")[1]
    exact = reference.multi_loss(pred.double(), target.double(), weights.double(), indices)[1]
    torch.testing.assert_close(grad.double(), exact, rtol=1e-5, atol=2.0**-149)
    assert exact[..., 29, :].all()


def test_an_image_with_large_weights_leaves_its_neighbours_their_bits(instruction_set):
    pred, target = depth_pair(3, 50, 70)
    weights = torch.rand(3, len(ALL), generator=torch.Generator().manual_seed(0))
    values, grad, _ = op(pred, target, weights, ALL, "area")
    large = weights.clone()
    large[1, ::2] *= 1e30
    got, got_grad, _ = op(pred, target, large, ALL, "area")
    assert torch.equal(got, values)
    assert torch.equal(got_grad[[0, 2]], grad[[0, 2]])
    assert max(errors(got_grad[1:2], pred[1:2], target[1:2], large[1:2], ALL, "area")) < 1e-4


def test_scaling_weights_by_a_power_of_two_scales_the_gradient_exactly(instruction_set):
    pred, target = depth_pair(1, 50, 70)
    weights = torch.rand(1, len(ALL), generator=torch.Generator().manual_seed(0)) + 0.5
    grad = op(pred, target, weights, ALL, "bicubic")[1]
    for power in (-60, 40, 90):
        assert torch.equal(op(pred, target, weights * 2.0**power, ALL, "bicubic")[1], grad * 2.0**power)


def test_large_weights_on_equal_maps_pull_nowhere(instruction_set):
    _, target = depth_pair(1, 32, 32)
    assert not op(target.clone(), target, torch.full((1, len(ALL)), 3e38), ALL, "bicubic")[1].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(instruction_set, dtype):
    pred, target = (x.to(dtype) for x in depth_pair(2, 32, 40))
    for weight in (1e-20, 1e9):
        weights = torch.full((2, 1), weight)
        grad = op(pred, target, weights, [5], "bicubic")[1]
        exact = reference.multi_loss(pred.double(), target.double(), weights.double(), [5])[1]
        assert grad.dtype == dtype
        assert torch.equal(grad.double(), exact.float().to(dtype).double())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_spoil_their_own_image_alone(instruction_set, bad):
    pred, target = depth_pair(2, 32, 40)
    weights = torch.ones(2, 2)
    weights[1, 0] = bad
    grad = op(pred, target, weights, [0, 5], "bicubic")[1]
    assert grad[0].isfinite().all()
    assert not grad[1].isfinite().all()
