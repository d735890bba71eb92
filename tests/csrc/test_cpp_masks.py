# SPDX-License-Identifier: Apache-2.0
"""The C++ engine under masks against the definition in float64: sizes, subsets, types, layouts and every invariant.

Under the mask stands NaN in every test, and the engine's workspace holds the NaN of an earlier call.
"""

from __future__ import annotations

import pytest
import torch
from depth_maps import SIZES, depth_pair
from hypothesis import given, settings
from hypothesis import strategies as st

from mlr.losses import reference
from mlr.losses.space import KINDS, LossSpace

_C = pytest.importorskip("mlr._C", reason="the C++ engine is not built")

op = torch.ops.mlr.multi_loss
ALL = list(LossSpace("all").indices)
MEANS = list(LossSpace("mean").indices)


@pytest.fixture(params=_C.instruction_sets())
def instruction_set(request):
    _C.set_instruction_set(request.param)
    yield request.param
    _C.set_instruction_set("")


def weights_for(batch, count, seed=0):
    return torch.randn(batch, count, generator=torch.Generator().manual_seed(seed))


def random_mask(batch, height, width, share, seed=0):
    return torch.rand(batch, 1, height, width, generator=torch.Generator().manual_seed(seed)) < share


def blobs(batch, height, width):
    """A border and a rectangle of holes, as depth cameras leave them."""
    mask = torch.ones(batch, 1, height, width, dtype=torch.bool)
    mask[..., : width // 12 + 1] = False
    mask[..., height // 3 : height // 2, width // 2 : width // 2 + width // 5 + 1] = False
    return mask


def lines(batch, height, width):
    """Thinned lines in the lower part, as a laser scanner leaves them."""
    mask = random_mask(batch, height, width, 0.5)
    mask[..., : 2 * height // 5, :] = False
    mask[..., torch.arange(height) % 4 != 0, :] = False
    return mask


def checkerboard(batch, height, width):
    return ((torch.arange(height)[:, None] + torch.arange(width)) % 2 == 0).expand(batch, 1, height, width)


def single(batch, height, width):
    mask = torch.zeros(batch, 1, height, width, dtype=torch.bool)
    mask[..., height // 2, width // 2] = True
    return mask


def row(batch, height, width):
    mask = torch.zeros(batch, 1, height, width, dtype=torch.bool)
    mask[..., height // 2, :] = True
    return mask


def column(batch, height, width):
    return row(batch, width, height).mT


MASKS = {
    "most": lambda b, h, w: random_mask(b, h, w, 0.97),
    "half": lambda b, h, w: random_mask(b, h, w, 0.5),
    "few": lambda b, h, w: random_mask(b, h, w, 0.05),
    "blobs": blobs,
    "lines": lines,
    "checkerboard": checkerboard,
    "one pixel": single,
    "one row": row,
    "one column": column,
}


def poisoned(maps, mask, value=float("nan")):
    return torch.where(mask, maps, value)


def run(pred, target, weights, indices, downsample, mask):
    """The operator on maps that are NaN under the mask, after a call that leaves NaN in the workspace."""
    nan = torch.full_like(pred, float("nan"))
    op(nan, nan, weights, indices, downsample, random_mask(len(pred), *pred.shape[-2:], 0.5, seed=9))
    return op(poisoned(pred, mask), poisoned(target, mask), weights, indices, downsample, mask)


def truth(pred, target, weights, indices, downsample, mask):
    return reference.multi_loss(pred.double(), target.double(), weights.double(), indices, downsample, mask)


def assert_agrees(pred, target, weights, indices, downsample, mask, gradient=1e-4, values=1e-5):
    got, grad, counts = run(pred, target, weights, indices, downsample, mask)
    exact, exact_grad, exact_counts = truth(pred, target, weights, indices, downsample, mask)
    assert torch.equal(counts, exact_counts)
    scale = float((pred.double() - target.double())[mask].abs().max()) if mask.any() else 0.0
    torch.testing.assert_close(got.double(), exact, rtol=values, atol=1e-6 * scale)
    assert not got[counts == 0].any()
    assert not grad[~mask].any()
    # where a window has one known pixel the gradient is 0, and float64 gives some 1e-17
    assert (grad - exact_grad).norm() <= gradient * exact_grad.norm() + 1e-12
    return got, grad, counts


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("downsample", reference.DOWNSAMPLE)
@pytest.mark.parametrize("size", [*SIZES, (31, 200), (130, 33)], ids=str)
def test_all_losses_their_gradient_and_counts(instruction_set, size, downsample, mask):
    pred, target = depth_pair(2, *size, seed=sum(size))
    assert_agrees(pred, target, weights_for(2, len(ALL)), ALL, downsample, MASKS[mask](2, *size))


@pytest.mark.parametrize(("mask", "downsample"), [("blobs", "bicubic"), ("blobs", "area"), ("lines", "area")])
def test_accuracy_at_the_papers_size(instruction_set, mask, downsample):
    pred, target = depth_pair(1, 288, 384, noise=0.3, seed=3)
    valid = MASKS[mask](1, 288, 384)
    assert_agrees(pred, target, weights_for(1, len(ALL)).abs(), ALL, downsample, valid, gradient=1e-6, values=2e-6)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_subset_and_mask_on_any_size(data):
    height, width = data.draw(st.integers(1, 80)), data.draw(st.integers(1, 150))
    indices = data.draw(st.lists(st.sampled_from(ALL), min_size=1, max_size=8, unique=True))
    downsample = data.draw(st.sampled_from(reference.DOWNSAMPLE))
    mask = random_mask(1, height, width, data.draw(st.sampled_from([0.0, 0.03, 0.3, 0.9, 0.995, 1.0])), seed=width)
    if data.draw(st.booleans()):
        mask |= blobs(1, height, width)
    pred, target = depth_pair(1, height, width, seed=height * width)
    weights = weights_for(1, len(indices), seed=width)
    _C.set_instruction_set(data.draw(st.sampled_from(_C.instruction_sets())))
    try:
        values, _, counts = assert_agrees(pred, target, weights, indices, downsample, mask, gradient=1e-3)
        alone, no_grad, same_counts = run(pred, target, None, indices, downsample, mask)
        assert torch.equal(alone, values)
        assert torch.equal(same_counts, counts)
        assert no_grad.shape == (0,)
    finally:
        _C.set_instruction_set("")


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_alone(instruction_set, kind):
    indices = list(LossSpace(f"{kind}/*").indices)
    pred, target = depth_pair(1, 70, 101, seed=5)
    assert_agrees(pred, target, weights_for(1, 6), indices, "area", blobs(1, 70, 101))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(instruction_set, dtype):
    pred, target = (x.to(dtype) for x in depth_pair(2, 45, 61))
    weights = weights_for(2, len(ALL)) * (45 * 61 if dtype == torch.float16 else 1)  # 1 / HW would be subnormal
    gradient = 2 * torch.finfo(dtype).eps
    assert_agrees(pred, target, weights, ALL, "bicubic", random_mask(2, 45, 61, 0.9), gradient)


@pytest.mark.parametrize("downsample", reference.DOWNSAMPLE)
@pytest.mark.parametrize("size", [(1, 1), (17, 31), (64, 64), (150, 190)], ids=str)
def test_a_mask_of_ones_gives_the_bits_of_no_mask(instruction_set, size, downsample):
    pred, target = depth_pair(2, *size)
    ones = torch.ones(2, 1, *size, dtype=torch.bool)
    for indices in (ALL, MEANS, list(LossSpace("N/0+M17/1").indices)):
        weights = weights_for(2, len(indices))
        values, grad, none = op(pred, target, weights, indices, downsample)
        got, got_grad, counts = run(pred, target, weights, indices, downsample, ones)
        assert torch.equal(got, values)
        assert torch.equal(got_grad, grad)
        assert none.shape == (0,)
        pixels = [torch.Size(reference.scale_size(*size, i // len(KINDS), downsample)).numel() for i in indices]
        assert counts.tolist() == 2 * [pixels]


@pytest.mark.parametrize("value", [0.0, -7.0, 1e30, float("inf"), -float("inf")])
@pytest.mark.parametrize("downsample", reference.DOWNSAMPLE)
def test_whatever_stands_under_the_mask_changes_nothing(instruction_set, downsample, value):
    pred, target = depth_pair(2, 77, 90)
    weights = weights_for(2, len(ALL))
    for mask in (blobs(2, 77, 90), lines(2, 77, 90)):
        expected = run(pred, target, weights, ALL, downsample, mask)
        got = op(poisoned(pred, mask, value), poisoned(target, mask, -value), weights, ALL, downsample, mask)
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("downsample", reference.DOWNSAMPLE)
def test_an_image_without_valid_pixels_is_zero_and_its_neighbours_do_not_notice(instruction_set, downsample):
    pred, target = depth_pair(3, 70, 90)
    weights = weights_for(3, len(ALL))
    mask = blobs(3, 70, 90)
    expected = run(pred, target, weights, ALL, downsample, mask)
    mask[1] = False
    got = run(pred, target, weights, ALL, downsample, mask)
    for a, b in zip(got, expected, strict=True):
        assert not a[1].any()
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[2], b[2])


def test_a_single_pixel_equals_every_mean(instruction_set):
    pred, target = depth_pair(1, 60, 80)
    for y, x in ((0, 0), (30, 41), (59, 79)):
        mask = torch.zeros(1, 1, 60, 80, dtype=torch.bool)
        mask[..., y, x] = True
        values, grad, counts = run(pred, target, torch.ones(1, len(MEANS)), MEANS, "area", mask)
        assert not values.any()
        assert not grad.any()
        assert (counts <= 1).all()  # an odd last row has no coarser pixel


def test_means_of_a_map_of_one_pixel_are_exactly_zero(instruction_set):
    indices = list(LossSpace("mean/5").indices)
    for size in ((48, 56), (1, 1), (33, 63)):
        pred, target = depth_pair(4, *size)
        for downsample in reference.DOWNSAMPLE:
            if reference.scale_size(*size, 5, downsample) == (1, 1):
                values, grad, _ = op(pred, target, torch.ones(4, 4), indices, downsample)
                assert not values.any()
                assert not grad.any()
        bad = op(torch.full_like(pred, float("nan")), target, torch.ones(4, 4), indices, "bicubic")[0]
        assert bad.isnan().all()


@pytest.mark.parametrize("mask", ["blobs", "half", "lines"])
def test_constant_offsets_change_no_mean(instruction_set, mask):
    pred, target = depth_pair(1, 90, 120)
    valid = MASKS[mask](1, 90, 120)
    weights = torch.ones(1, len(MEANS))
    values = run(pred, target, weights, MEANS, "area", valid)[0]
    moved = run(pred + 16, target, weights, MEANS, "area", valid)[0]
    torch.testing.assert_close(moved, values, rtol=1e-3, atol=16e-6)
    assert_agrees(pred + 16, target, weights, MEANS, "area", valid, gradient=2e-2)


def strided(mask, how):
    batch, _, height, width = mask.shape
    if how == "sliced":
        large = torch.ones(2 * batch, 1, height + 3, width + 5, dtype=torch.bool)
        large[::2, :, 1:-2, 2:-3] = mask
        return large[::2, :, 1:-2, 2:-3]
    if how == "transposed":
        return mask.mT.contiguous().mT
    if how == "every other column":
        large = torch.ones(batch, 1, height, 2 * width, dtype=torch.bool)
        large[..., ::2] = mask
        return large[..., ::2]
    if how == "expanded":
        return mask[:1].expand(batch, -1, -1, -1)
    return mask.squeeze(1)


@pytest.mark.parametrize("how", ["sliced", "transposed", "every other column", "expanded", "3-D"])
def test_layout_does_not_matter(instruction_set, how):
    pred, target = depth_pair(2, 37, 50)
    weights = weights_for(2, len(ALL))
    mask = blobs(2, 37, 50)
    expected = run(pred, target, weights, ALL, "bicubic", mask)
    p, t = poisoned(pred, mask), poisoned(target, mask)
    got = op(p, t, weights, ALL, "bicubic", strided(mask, how))
    flat = op(p.squeeze(1), t.squeeze(1), weights, ALL, "bicubic", strided(mask, how))
    for a, b, c in zip(got, expected, flat, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(c.reshape(b.shape), b)


@pytest.mark.parametrize("downsample", reference.DOWNSAMPLE)
@pytest.mark.parametrize("size", [(3, 5), (97, 130), (288, 96), (333, 40)], ids=str)
@pytest.mark.parametrize("mask", ["blobs", "few"])
def test_bits_do_not_depend_on_threads_or_batch(instruction_set, mask, size, downsample):
    pred, target = depth_pair(3, *size)
    weights = weights_for(3, len(ALL))
    valid = MASKS[mask](3, *size)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = run(pred, target, weights, ALL, downsample, valid)
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            got = run(pred, target, weights, ALL, downsample, valid)
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
            for i in range(3):
                one = [x[i : i + 1] for x in (pred, target, weights)]
                alone = run(*one, ALL, downsample, valid[i : i + 1])
                assert all(torch.equal(a, b[i : i + 1]) for a, b in zip(alone, expected, strict=True))
    finally:
        torch.set_num_threads(before)


def test_float64_is_the_references():
    pred, target = depth_pair(1, 33, 47, torch.float64)
    weights, mask = weights_for(1, len(ALL)).double(), blobs(1, 33, 47)
    got = op(pred, target, weights, ALL, "area", mask)
    assert all(torch.equal(a, b) for a, b in zip(got, truth(pred, target, weights, ALL, "area", mask), strict=True))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(1, 1, 5, 8, dtype=torch.bool), r"in the size of pred, \[1, 1, 5, 7\], got \[1, 1, 5, 8\]"),
        (torch.ones(2, 1, 5, 7, dtype=torch.bool), "in the size of pred"),
        (torch.ones(1, 2, 5, 7, dtype=torch.bool), "in the size of pred"),
        (torch.ones(5, 7, dtype=torch.bool), "in the size of pred"),
        (torch.ones(1, 1, 5, 7), "must be bool"),
    ],
)
def test_bad_masks_are_refused_with_their_reason(mask, message):
    maps = torch.ones(1, 1, 5, 7)
    with pytest.raises(RuntimeError, match=message):
        op(maps, maps, torch.ones(1, 1), [0], "area", mask)


def test_the_workspace_stays_small():
    assert _C.workspace_bytes(288, 384, ALL, mask=True) < 5e6
    assert _C.workspace_bytes(288, 384, ALL, "area", mask=True) < 5e6
