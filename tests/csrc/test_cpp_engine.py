# SPDX-License-Identifier: Apache-2.0
"""The C++ engine against the definition in float64: every instruction set, size, subset, type and layout."""

from __future__ import annotations

import pytest
import torch
from depth_maps import SIZES, cliffs, depth_pair, relative_l2
from hypothesis import given, settings
from hypothesis import strategies as st

from mlr.losses import reference
from mlr.losses.space import KINDS, LossSpace

_C = pytest.importorskip("mlr._C", reason="the C++ engine is not built")


def op(*operands):
    """Terms and gradient of the operator."""
    return torch.ops.mlr.multi_loss(*operands)[:2]


ALL = list(LossSpace("all").indices)


@pytest.fixture(params=_C.instruction_sets())
def instruction_set(request):
    _C.set_instruction_set(request.param)
    yield request.param
    _C.set_instruction_set("")


def weights_for(batch, count, seed=0):
    return torch.randn(batch, count, generator=torch.Generator().manual_seed(seed))


def truth(pred, target, weights, terms, downsample="bicubic"):
    return reference.multi_loss(pred.double(), target.double(), weights.double(), terms, downsample)[:2]


def assert_agrees(pred, target, weights, terms, downsample="bicubic", gradient=2e-6, values=1e-5):
    """Values within 1e-5, apart from differences of nearly equal numbers on tiny maps; gradient in relative L2."""
    got, grad = op(pred, target, weights, terms, downsample)
    exact, exact_grad = truth(pred, target, weights, terms, downsample)
    scale = (pred.double() - target.double()).abs().amax()
    torch.testing.assert_close(got.double(), exact, rtol=values, atol=1e-6 * float(scale))
    assert grad.shape == pred.shape
    assert grad.dtype == pred.dtype
    assert grad.is_contiguous()
    assert (grad - exact_grad).norm() <= gradient * exact_grad.norm()
    return got, grad


def test_kinds_are_those_of_the_loss_space():
    assert _C.KINDS == KINDS


@pytest.mark.parametrize("downsample", reference.DOWNSAMPLE)
@pytest.mark.parametrize("size", [*SIZES, (2, 3), (64, 64), (31, 200), (130, 33)], ids=str)
def test_all_losses_and_their_gradient_on_every_size(instruction_set, size, downsample):
    pred, target = depth_pair(2, *size, seed=sum(size))
    # ties within rounding may flip a sign, which moves single pixels: rare, but seen through the norm
    assert_agrees(pred, target, weights_for(2, len(ALL)), ALL, downsample, gradient=1e-4)


@pytest.mark.parametrize("noise", [0.3, 0.003])
def test_accuracy_at_the_papers_size(instruction_set, noise):
    pred, target = depth_pair(1, 288, 384, noise=noise, seed=3)
    assert_agrees(pred, target, weights_for(1, len(ALL)).abs(), ALL, gradient=1e-6, values=2e-6)


def test_sums_of_equal_errors_on_wide_maps(instruction_set):
    x = torch.arange(3840)
    error = torch.where(x // 8 % 2 == 0, 0.25, 0.05).expand(1, 1, 64, -1)
    assert_agrees(error.contiguous(), torch.zeros(1, 1, 64, 3840), torch.ones(1, 2), list(LossSpace("D/0+M/0").indices),
                  gradient=1e-6, values=5e-6)  # fmt: skip


def test_normals_that_face_apart(instruction_set):
    pred, target = cliffs(2, 33, 47)
    terms = list(LossSpace("normal/0").indices)
    values, grad = op(pred, target, torch.ones(2, 3), terms, "bicubic")
    exact, exact_grad = truth(pred, target, torch.ones(2, 3), terms)
    torch.testing.assert_close(values.double(), exact, rtol=5e-7, atol=0)
    assert relative_l2(grad, exact_grad) < 1e-6


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_subset_in_any_order_on_any_size(data):
    height, width = data.draw(st.integers(1, 80)), data.draw(st.integers(1, 150))
    terms = data.draw(st.lists(st.sampled_from(ALL), min_size=1, max_size=8, unique=True))
    downsample = data.draw(st.sampled_from(reference.DOWNSAMPLE))
    chosen = data.draw(st.sampled_from(_C.instruction_sets()))
    pred, target = depth_pair(1, height, width, seed=height * width)
    weights = weights_for(1, len(terms), seed=width) * torch.tensor(
        data.draw(st.lists(st.sampled_from([0.0, 1.0, -2.0]), min_size=len(terms), max_size=len(terms)))
    )
    _C.set_instruction_set(chosen)
    try:
        values, _ = assert_agrees(pred, target, weights, terms, downsample, gradient=1e-3)
        assert torch.equal(op(pred, target, None, terms, downsample)[0], values)
    finally:
        _C.set_instruction_set("")


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_alone(instruction_set, kind):
    terms = list(LossSpace(f"{kind}/*").indices)
    pred, target = depth_pair(1, 70, 101, seed=5)
    assert_agrees(pred, target, weights_for(1, 6), terms, gradient=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(instruction_set, dtype):
    pred, target = (x.to(dtype) for x in depth_pair(2, 45, 61))
    weights = weights_for(2, len(ALL)) * (45 * 61 if dtype == torch.float16 else 1)  # 1 / HW would be subnormal
    assert_agrees(pred, target, weights, ALL, gradient=2 * torch.finfo(dtype).eps)


def test_float64_is_the_references():
    pred, target = depth_pair(1, 33, 47, torch.float64)
    weights = weights_for(1, len(ALL)).double()
    for got, exact in zip(
        op(pred, target, weights, ALL, "area"), truth(pred, target, weights, ALL, "area"), strict=True
    ):
        assert torch.equal(got, exact)


def strided(maps, how):
    """The same maps in another layout."""
    batch, _, height, width = maps.shape
    if how == "sliced":
        large = torch.full((2 * batch, 1, height + 3, width + 5), float("nan"))
        large[::2, :, 1:-2, 2:-3] = maps
        return large[::2, :, 1:-2, 2:-3]
    if how == "transposed":
        return maps.mT.contiguous().mT
    if how == "channels_last":
        return maps.contiguous(memory_format=torch.channels_last)
    if how == "every other column":
        large = torch.full((batch, 1, height, 2 * width), float("nan"))
        large[..., ::2] = maps
        return large[..., ::2]
    return maps.squeeze(1)


@pytest.mark.parametrize("how", ["sliced", "transposed", "channels_last", "every other column", "3-D"])
def test_layout_does_not_matter(instruction_set, how):
    pred, target = depth_pair(2, 37, 50)
    weights = weights_for(2, len(ALL))
    values, grad = op(pred, target, weights, ALL, "bicubic")
    p, t = strided(pred, how), strided(target, how)
    got, got_grad = op(p, t, weights, ALL, "bicubic")
    assert torch.equal(got, values)
    assert torch.equal(got_grad.reshape(grad.shape), grad)
    assert got_grad.is_contiguous()


def test_expanded_target():
    pred, target = depth_pair(3, 20, 30)
    one = target[:1].expand(3, -1, -1, -1)
    weights = weights_for(3, len(ALL))
    for a, b in zip(op(pred, one, weights, ALL, "area"), op(pred, one.contiguous(), weights, ALL, "area"), strict=True):
        assert torch.equal(a, b)


def test_weights_of_any_type_and_stride():
    pred, target = depth_pair(2, 20, 30)
    weights = weights_for(len(ALL), 2).mT
    exact = op(pred, target, weights.contiguous(), ALL, "bicubic")[1]
    assert torch.equal(op(pred, target, weights, ALL, "bicubic")[1], exact)
    assert torch.equal(op(pred, target, weights.double(), ALL, "bicubic")[1], exact)


def test_terms_alone_have_the_same_bits_and_no_gradient(instruction_set):
    pred, target = depth_pair(2, 61, 90)
    values, grad = op(pred, target, None, ALL, "bicubic")
    assert grad.shape == (0,)
    assert torch.equal(values, op(pred, target, weights_for(2, len(ALL)), ALL, "bicubic")[0])


def test_equal_maps_cost_nothing_and_pull_nowhere(instruction_set):
    _, target = depth_pair(1, 50, 70)
    values, grad = op(target.clone(), target, weights_for(1, len(ALL)), ALL, "bicubic")
    assert not values.any()
    assert not grad.any()


@pytest.mark.parametrize("selection", ["D/4", "r/4", "N/5", "M65/3", "*/3-5", "M/1"])
def test_scales_that_only_pass_a_gradient_on_read_no_stale_memory(instruction_set, selection):
    terms = list(LossSpace(selection).indices)
    pred, target = depth_pair(1, 79, 138)
    nan = torch.full_like(pred, float("nan"))
    op(nan, nan, weights_for(1, len(ALL)), ALL, "bicubic")  # leaves NaN in the engine's workspace
    assert_agrees(pred, target, weights_for(1, len(terms)), terms, gradient=1e-4)


def test_zero_weights_give_a_zero_gradient(instruction_set):
    pred, target = depth_pair(2, 50, 70)
    weights = weights_for(2, len(ALL))
    weights[1] = 0
    grad = op(pred, target, weights, ALL, "bicubic")[1]
    assert grad[0].any()
    assert not grad[1].any()


def test_the_gradient_of_the_windows_cancels_exactly(instruction_set):
    target = torch.full((1, 1, 150, 220), 3.0)
    pred = target + torch.arange(220.0).square() / 100  # below its local mean, away from the border
    _, grad = op(pred, target, torch.ones(1, 3), list(LossSpace("M5/0+M17/0+M65/0").indices), "bicubic")
    assert grad.any()
    assert not grad[..., 32:-32, 64:-64].any()


def test_opposite_slopes_reach_the_obtuse_branch(instruction_set):
    x = torch.arange(40.0)
    pred, target = (s * x.repeat(30, 1)[None, None] for s in (8.0, -8.0))
    terms = list(LossSpace("normal").indices)  # the other losses are all ties on a plane
    values, _ = assert_agrees(pred, target, weights_for(1, len(terms)), terms)
    assert values[0, 0] > 1.9


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_pixel_spoils_its_own_image_alone(instruction_set, poison):
    pred, target = depth_pair(3, 70, 90)
    weights = weights_for(3, len(ALL))
    clean, clean_grad = op(pred, target, weights, ALL, "bicubic")
    for y, x in ((0, 0), (35, 40), (69, 89)):
        bad = pred.clone()
        bad[1, 0, y, x] = poison
        values, grad = op(bad, target, weights, ALL, "bicubic")
        for image in (0, 2):
            assert torch.equal(values[image], clean[image])
            assert torch.equal(grad[image], clean_grad[image])
        assert not values[1, : len(KINDS)].isfinite().any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": [0, 0]}, "distinct"),
        ({"indices": [len(ALL)]}, f"0..{len(ALL) - 1}"),
        ({"indices": []}, "at least one"),
        ({"downsample": "cubic"}, "bicubic or area"),
        ({"target": torch.ones(1, 1, 5, 8)}, "shape of pred"),
        ({"target": torch.ones(1, 1, 5, 7, dtype=torch.float16)}, "type"),
        ({"weights": torch.ones(2, 1)}, "weights must be"),
    ],
)
def test_bad_operands_are_refused_with_their_reason(change, message):
    operands = {"pred": torch.ones(1, 1, 5, 7), "target": torch.ones(1, 1, 5, 7), "weights": torch.ones(1, 1)}
    with pytest.raises(RuntimeError, match=message):
        op(*({**operands, "indices": [0], "downsample": "area"} | change).values())


def test_the_workspace_stays_small():
    # 288 x 384: the bound of 4 MB a thread, beside pred, target and grad
    assert _C.workspace_bytes(288, 384, ALL) < 4e6
    assert _C.workspace_bytes(288, 384, [0]) < _C.workspace_bytes(288, 384, ALL) / 2
