# SPDX-License-Identifier: Apache-2.0
"""The masked losses: the definition against brute force, its invariants, and the operator with a mask."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from brute_force import masked_loss
from depth_maps import depth_pair, relative_l2
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

import mlr
from mlr.losses import reference

DOUBLE = torch.float64
SPACE = mlr.LossSpace("all")
POISON = [math.nan, math.inf, -math.inf, -1e30, 0.0]
DOWNSAMPLE = pytest.mark.parametrize("downsample", reference.DOWNSAMPLE)


def poisoned(x, mask, value=None):
    """A copy whose unknown pixels hold numbers that must not be read."""
    mask = mask.reshape(x.shape)
    values = torch.tensor(POISON if value is None else [value], dtype=x.dtype)
    filler = values[torch.arange(x.numel()) % len(values)].reshape(x.shape)
    return torch.where(mask, x, filler)


def holes(batch, height, width, known=0.7, seed=0):
    """A mask [B, 1, H, W] of blobs and single pixels."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(batch, 1, height, width, generator=g) < known**0.5
    blobs = torch.rand(batch, 1, (height + 3) // 4, (width + 3) // 4, generator=g) < known**0.5
    return mask & blobs.repeat_interleave(4, 2).repeat_interleave(4, 3)[..., :height, :width]


def losses(pred, target, mask=None, downsample="bicubic", weights=None, space=SPACE):
    """Terms, gradient and counts of the reference."""
    weights = torch.ones(len(pred), len(space), dtype=pred.dtype) if weights is None else weights
    return reference.multi_loss(pred, target, weights, list(space.indices), downsample, mask)


@pytest.fixture
def maps():
    """pred, target with poison under the mask, and the mask: float64, three images, the last without a known pixel."""
    pred, target = depth_pair(3, 33, 47, DOUBLE, noise=0.3)
    mask = holes(3, 33, 47, 0.9)
    mask[2] = False
    return poisoned(pred, mask), poisoned(target, mask), mask


# --- the definition


def brute_force(pred, target, mask, space, downsample):
    losses = [name.split("/") for name in space.names]
    results = [
        [masked_loss(*(x[i, 0].numpy() for x in (pred, target, mask)), kind, int(k), downsample) for kind, k in losses]
        for i in range(len(pred))
    ]
    terms, counts = np.moveaxis(np.array(results), -1, 0)
    return torch.from_numpy(terms), torch.from_numpy(counts).long()


def check_against_brute_force(pred, target, mask, space, downsample):
    terms, counts = reference.masked_losses(
        poisoned(pred, mask), poisoned(target, mask), space.indices, downsample, mask
    )
    truth, true_counts = brute_force(pred, target, mask, space, downsample)
    assert torch.equal(counts, true_counts)
    torch.testing.assert_close(terms, truth, rtol=1e-9, atol=1e-12)


@DOWNSAMPLE
@pytest.mark.parametrize(
    ("height", "width", "known"), [(1, 1, 1.0), (1, 9, 0.8), (6, 1, 0.8), (17, 31, 0.9), (40, 70, 0.97)]
)
def test_every_loss_against_brute_force(height, width, known, downsample):
    pred, target = depth_pair(2, height, width, DOUBLE, noise=0.5)
    check_against_brute_force(pred, target, holes(2, height, width, known), SPACE, downsample)


@st.composite
def masked_maps(draw, largest=20):
    height, width = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    seed, known = draw(st.integers(0, 2**16)), draw(st.sampled_from([0.0, 0.05, 0.5, 0.9, 0.99, 1.0]))
    pred, target = depth_pair(2, height, width, DOUBLE, seed=seed, noise=0.5)
    mask = holes(2, height, width, known, seed)
    if draw(st.booleans()):  # LiDAR: some rows alone
        mask &= (torch.arange(height) % draw(st.integers(1, 4)) == 0)[:, None]
    names = draw(st.lists(st.sampled_from(SPACE.names), min_size=1, max_size=12, unique=True))
    return pred, target, mask, mlr.LossSpace("+".join(names))


@settings(deadline=None, max_examples=40)
@given(masked_maps(), st.sampled_from(reference.DOWNSAMPLE))
def test_any_losses_of_any_masked_maps_against_brute_force(case, downsample):
    check_against_brute_force(*case, downsample)


@DOWNSAMPLE
@pytest.mark.parametrize("pattern", ["checkerboard", "one pixel", "one row", "one column", "nothing"])
def test_extreme_masks_against_brute_force(pattern, downsample):
    pred, target = depth_pair(1, 12, 19, DOUBLE, noise=0.5)
    mask = torch.zeros(1, 1, 12, 19, dtype=torch.bool)
    if pattern == "checkerboard":
        mask[..., ::2, ::2] = mask[..., 1::2, 1::2] = True
    elif pattern == "one pixel":
        mask[..., 4, 7] = True
    elif pattern == "one row":
        mask[..., 5, :] = True
    elif pattern == "one column":
        mask[..., :, 18] = True
    check_against_brute_force(pred, target, mask, SPACE, downsample)


@DOWNSAMPLE
@pytest.mark.parametrize(("height", "width"), [(3, 5), (9, 34)])
def test_gradient_against_finite_differences(height, width, downsample):
    torch.manual_seed(0)  # errors far from the kinks of |x|
    pred = (torch.randn(1, 1, height, width, dtype=DOUBLE) * 3).requires_grad_()
    target, mask = torch.randn(1, 1, height, width, dtype=DOUBLE), holes(1, height, width, 0.9)
    indices = mlr.LossSpace("*/0+D/1+M5/2+M17/1+N/1+rr/1+Nc/2").indices
    assert torch.autograd.gradcheck(
        lambda p: reference.multi_loss_terms(p, target, indices, downsample, mask), (pred,), eps=1e-7, atol=1e-5
    )


# --- invariants


@DOWNSAMPLE
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (17, 31), (45, 61)])
def test_a_mask_of_ones_changes_no_bit(height, width, dtype, downsample):
    pred, target = depth_pair(2, height, width, dtype)
    mask = torch.ones(2, 1, height, width, dtype=torch.bool)
    terms, grad, _ = losses(pred, target, None, downsample)
    masked_terms, masked_grad, counts = losses(pred, target, mask, downsample)
    assert torch.equal(masked_terms, terms)
    assert torch.equal(masked_grad, grad)
    sizes = [math.prod(reference.scale_size(height, width, int(name[-1]), downsample)) for name in SPACE.names]
    assert counts.tolist() == [sizes, sizes]


@DOWNSAMPLE
@settings(deadline=None, max_examples=15)
@given(case=masked_maps(40))
def test_whatever_stands_under_the_mask_changes_nothing(downsample, case):
    pred, target, mask, space = case
    expected = losses(pred, target, mask, downsample, space=space)
    for value in (None, *POISON):
        got = losses(poisoned(pred, mask, value), poisoned(target, mask, value), mask, downsample, space=space)
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert (expected[1][~mask] == 0).all()
    assert all(x.isfinite().all() for x in expected)


@DOWNSAMPLE
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_images_do_not_depend_on_their_neighbours(dtype, downsample):
    pred, target = depth_pair(3, 33, 47, dtype)
    mask = holes(3, 33, 47, 0.8)
    together = losses(pred, target, mask, downsample)
    for i in range(3):
        apart = losses(pred[i : i + 1], target[i : i + 1], mask[i : i + 1], downsample)
        assert all(torch.equal(a[i : i + 1], b) for a, b in zip(together, apart, strict=True))


@DOWNSAMPLE
def test_offsets_of_the_prediction_leave_the_means_unchanged(downsample):
    pred, target = depth_pair(2, 33, 47, DOUBLE)
    mask, space = holes(2, 33, 47, 0.8), mlr.LossSpace("mean+gradient")
    terms, grad, _ = losses(pred, target, mask, downsample, space=space)
    shifted_terms, shifted_grad, _ = losses(pred + 7.25, target, mask, downsample, space=space)
    torch.testing.assert_close(shifted_terms, terms, rtol=1e-11, atol=1e-14)
    assert relative_l2(shifted_grad, grad) < 1e-9


@DOWNSAMPLE
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_one_valid_pixel_has_a_depth_loss_and_nothing_else(dtype, downsample):
    pred, target = depth_pair(1, 33, 47, dtype)
    mask = torch.zeros(1, 1, 33, 47, dtype=torch.bool)
    mask[..., 12, 31] = True
    terms, grad, counts = losses(pred, target, mask, downsample, space=mlr.LossSpace("*/0"))
    expected = torch.zeros_like(terms)
    expected[0, 0] = (pred - target).abs()[mask].item()
    assert torch.equal(terms, expected)
    assert counts.tolist() == [[1, 1, 1, 1, 1] + 8 * [0]]
    assert grad[mask].item() == math.copysign(1, (pred - target)[mask].item())
    assert (grad[~mask] == 0).all()


@DOWNSAMPLE
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_an_image_without_a_known_pixel_is_zero_throughout(dtype, downsample):
    pred = torch.full((2, 1, 20, 30), math.nan, dtype=dtype)
    for result in losses(pred, pred, torch.zeros(2, 1, 20, 30, dtype=torch.bool), downsample):
        assert (result == 0).all()
        assert len(result) == 2


@DOWNSAMPLE
def test_a_coarse_bicubic_pixel_keeps_its_unmasked_value(downsample):
    pred, target = depth_pair(1, 64, 96, DOUBLE)
    mask = torch.ones(1, 1, 64, 96, dtype=torch.bool)
    mask[..., 30:33, 40:44] = False
    error = torch.where(mask, pred - target, 0)
    for scale in range(1, 6):
        valid = reference.resample_mask(mask, scale, downsample)
        masked = reference.resample(error, scale, downsample, mask)
        whole = reference.resample(pred - target, scale, downsample)
        assert (masked[~valid] == 0).all()
        if downsample == "bicubic":
            assert torch.equal(masked[valid], whole[valid])
            assert valid.all() == (scale > 2)  # a pixel of scale 3 reads four rows of eight: not the hole's
        else:
            assert valid.all() == (scale > 1)


# --- the operator with a mask


@DOWNSAMPLE
def test_total_gradient_and_counts_agree_with_autograd(maps, downsample):
    pred, target, mask = maps
    pred.requires_grad_()
    weights, upstream = torch.rand(3, 78, dtype=DOUBLE), torch.randn(3, 78, dtype=DOUBLE)
    terms, counts = reference.masked_losses(pred, target, SPACE.indices, downsample, mask)
    truth = (terms * weights).sum(1).mean()
    (true_grad,) = torch.autograd.grad(2 * truth + (terms * upstream).sum(), pred, retain_graph=True)
    (total_grad,) = torch.autograd.grad(truth, pred)
    out = mlr.MultiLoss(SPACE, downsample)(pred, target, weights, mask)
    torch.testing.assert_close(out.total, truth)
    torch.testing.assert_close(out.terms, terms.detach())
    assert torch.equal(out.counts, counts)
    assert relative_l2(torch.autograd.grad(out.total, pred)[0], total_grad) < 1e-13
    total, terms, counts = mlr.multi_loss(pred, target, weights, SPACE, downsample, mask=mask)
    assert torch.equal(counts, out.counts)
    got = torch.autograd.grad(2 * total + (terms * upstream).sum(), pred)[0]
    assert relative_l2(got, true_grad) < 1e-13
    terms, counts = mlr.multi_loss_terms(pred, target, SPACE, downsample, mask=mask)
    got = torch.autograd.grad(((terms * (upstream + 2 * weights / 3)).sum()), pred)[0]
    assert relative_l2(got, true_grad) < 1e-13
    assert torch.equal(counts, out.counts)


def test_masks_of_any_layout_agree(maps):
    pred, target, mask = maps
    expected = losses(pred, target, mask)
    wide = torch.zeros(3, 2, 70, 99, dtype=torch.bool)
    wide[:, 1:, 2:68:2, 3:97:2] = mask
    layouts = {
        "3-d": mask[:, 0],
        "strided": wide[:, 1:, 2:68:2, 3:97:2],
        "transposed": mask.mT.contiguous().mT,
        "channels_last": mask.contiguous(memory_format=torch.channels_last),
        "flipped twice": mask.flip(-1).contiguous().flip(-1),
    }
    for name, layout in layouts.items():
        assert all(torch.equal(a, b) for a, b in zip(losses(pred, target, layout), expected, strict=True)), name
    one = losses(pred, target, mask[:1, 0].expand(3, -1, -1))
    assert torch.equal(one[2], expected[2][:1].expand(3, -1))
    flat = losses(pred[:, 0], target[:, 0], mask)
    assert torch.equal(flat[0], expected[0])
    assert torch.equal(flat[1], expected[1][:, 0])


def test_without_a_mask_there_are_no_counts(maps):
    pred, target = (torch.nan_to_num(x, 1.0, 1.0, 1.0).clamp(min=1) for x in maps[:2])
    assert mlr.MultiLoss(SPACE)(pred, target).counts is None
    assert len(mlr.multi_loss(pred, target)) == 2
    assert isinstance(mlr.multi_loss_terms(pred, target), torch.Tensor)
    assert losses(pred, target)[2].shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_predictions_with_a_mask(dtype):
    pred, target = (x.to(dtype) for x in depth_pair(2, 96, 128))
    mask = holes(2, 96, 128, 0.9)
    half = poisoned(pred, mask).requires_grad_()
    out = mlr.MultiLoss(SPACE)(half, poisoned(target, mask), mask=mask)
    exact = pred.double().requires_grad_()
    truth = mlr.MultiLoss(SPACE)(exact, target.double(), mask=mask)
    got = torch.autograd.grad(out.total * 2.0**14, half)[0]
    expected = torch.autograd.grad(truth.total * 2.0**14, exact)[0]
    assert got.dtype == dtype
    assert out.terms.dtype == torch.float32
    assert torch.equal(out.counts, truth.counts)
    assert (got[~mask] == 0).all()
    assert relative_l2(got, expected) < (0.02 if dtype == torch.float16 else 0.05)


def test_autocast_with_a_mask():
    pred, target = depth_pair(2, 33, 47)
    mask = holes(2, 33, 47, 0.8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = mlr.MultiLoss(SPACE)(pred.bfloat16(), target, mask=mask)
    expected = mlr.MultiLoss(SPACE)(pred.bfloat16().float(), target, mask=mask)
    torch.testing.assert_close(out.terms, expected.terms)
    assert torch.equal(out.counts, expected.counts)


@pytest.mark.parametrize("weights", [None, torch.rand(3, 78, dtype=DOUBLE)])
def test_opcheck(maps, weights):
    pred, target, mask = maps
    pred, target = torch.nan_to_num(pred), torch.nan_to_num(target)  # opcheck compares with ==
    torch.library.opcheck(
        torch.ops.mlr.multi_loss, (pred, target, weights, list(SPACE.indices), "bicubic"), {"mask": mask}
    )


def test_compiles_without_a_graph_break(maps):
    pred, target, mask = maps
    pred.requires_grad_()
    criterion = mlr.MultiLoss(SPACE)

    def step(p, t, w, m):
        out = criterion(p, t, w, m)
        total, terms, counts = mlr.multi_loss(p * 2, t, w, mask=m)
        return out.total + total * 2 + (terms**2 * (counts > 3)).sum() + 0 * out.counts.sum()

    weights = torch.rand(78, dtype=DOUBLE)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    value, truth = (torch.autograd.grad(f(pred, target, weights, mask), pred)[0] for f in (compiled, step))
    assert relative_l2(value, truth) < 1e-13


@pytest.mark.parametrize("mode", ["real", "symbolic"])
def test_a_step_can_be_traced(maps, mode):
    pred, target, mask = maps
    pred.requires_grad_()

    def step(p, t, m):
        return torch.autograd.grad(mlr.MultiLoss(SPACE)(p, t, mask=m).total, p)[0]

    traced = make_fx(step, tracing_mode=mode)(pred, target, mask)
    torch.testing.assert_close(traced(pred, target, mask), step(pred, target, mask))


def test_batched_upstream_gradients(maps):
    pred, target, mask = maps
    pred.requires_grad_()
    total = mlr.MultiLoss(SPACE)(pred, target, mask=mask).total
    upstream = torch.tensor([1.0, -2.0], dtype=DOUBLE)
    (single,) = torch.autograd.grad(total, pred, retain_graph=True)
    (batched,) = torch.autograd.grad(total, pred, upstream, is_grads_batched=True)
    torch.testing.assert_close(batched, torch.stack([single, -2 * single]))


def test_double_backward_raises(maps):
    pred, target, mask = maps
    pred.requires_grad_()
    for value in (
        mlr.MultiLoss(SPACE)(pred, target, mask=mask).total,
        mlr.multi_loss_terms(pred, target, SPACE, mask=mask)[0].sum(),
    ):
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.grad(value, pred, create_graph=True)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.ones(2, 1, 8, 8), TypeError, r"mask must be bool.*got torch.float32.*known_depth\(target\)"),
        (torch.ones(2, 1, 8, 8, dtype=torch.uint8), TypeError, "mask must be bool.*torch.uint8"),
        (torch.ones(2, 1, 8, 8, requires_grad=True), ValueError, "no gradient for the mask"),
        (torch.ones(2, 1, 8, 9, dtype=torch.bool), ValueError, r"\[2, 1, 8, 8\] or \[B, H, W\].*got \[2, 1, 8, 9\]"),
        (torch.ones(1, 1, 8, 8, dtype=torch.bool), ValueError, r"got \[1, 1, 8, 8\]"),
        (torch.ones(8, 8, dtype=torch.bool), ValueError, r"got \[8, 8\]"),
        (torch.ones(2, 1, 8, 8, dtype=torch.bool, device="meta"), TypeError, "device of pred, cpu, got meta"),
        ([[True]], TypeError, "mask must be a bool tensor.*got list"),
        ("known", TypeError, "mask must be a bool tensor.*got str"),
    ],
)
@pytest.mark.parametrize("function", [mlr.MultiLoss(SPACE), mlr.multi_loss, mlr.multi_loss_terms])
def test_wrong_masks_are_refused(function, mask, error, message):
    pred = torch.ones(2, 1, 8, 8, requires_grad=True)
    with pytest.raises(error, match=message):
        function(pred, torch.ones(2, 1, 8, 8), mask=mask)


def test_known_depth():
    target = torch.tensor([0.0, -1.0, 1e-4, 1e-3, 5.0, 80.0, 81.0, math.nan, math.inf, -math.inf])
    assert mlr.known_depth(target).tolist() == [False, False, False, True, True, True, True, False, False, False]
    assert mlr.known_depth(target, lowest=4.0, highest=80.0).sum() == 2
    millimetres = torch.tensor([0, 1, 5000], dtype=torch.int32)
    assert mlr.known_depth(millimetres).tolist() == [False, True, True]
