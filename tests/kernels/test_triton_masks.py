# SPDX-License-Identifier: Apache-2.0
"""Masks in the Triton engine: its PTX, run on the CPU, against the masked definition in float64.

Whatever stands under a mask is NaN in every test, and all workspace counts as unwritten.
"""

from __future__ import annotations

import ptx
import pytest
import torch
from depth_maps import depth_pair, relative_l2, term_errors
from triton_versions import VARIANTS_ROUND_ALIKE, counted

import mlr
from mlr import kernels
from mlr.kernels import launch
from mlr.kernels.launch import KERNELS, constants_of, shapes_for
from mlr.kernels.plan import plan
from mlr.losses import reference
from mlr.losses.space import KINDS, WINDOWS

ALL = mlr.LossSpace("all").indices
LONG = pytest.mark.long


def drawn(batch, height, width, share=0.9):
    """Every pixel is known with a probability."""
    return torch.rand(batch, 1, height, width, generator=torch.Generator().manual_seed(7)) < share


def holes(batch, height, width):
    """A hole in the middle and a dark border on the left, as a Kinect leaves them."""
    mask = torch.ones(batch, 1, height, width, dtype=torch.bool)
    mask[:, :, height // 4 : height // 2, width // 4 : 3 * width // 4] = False
    mask[:, :, :, : width // 10] = False
    return mask


def nothing(batch, height, width):
    return torch.zeros(batch, 1, height, width, dtype=torch.bool)


def one_pixel(batch, height, width):
    mask = nothing(batch, height, width)
    mask[:, :, height // 2, width // 2] = True
    return mask


def one_row(batch, height, width):
    mask = nothing(batch, height, width)
    mask[:, :, height // 2] = True
    return mask


def checkerboard(batch, height, width):
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return ((y + x) % 2 == 0).expand(batch, 1, height, width).clone()


def sparse(batch, height, width):
    return drawn(batch, height, width, 0.05)


def everything(batch, height, width):
    return ~nothing(batch, height, width)


MASKS = (drawn, sparse, holes, nothing, one_pixel, one_row, checkerboard, everything)


def masked_pair(mask, dtype=torch.float32):
    """Depth maps with NaN under the mask."""
    batch, _, height, width = mask.shape
    return tuple(x.masked_fill(~mask, torch.nan) for x in depth_pair(batch, height, width, dtype))


def assert_parity(mask, selection="all", downsample="bicubic", dtype=torch.float32, gradient=2e-6):
    """Run the kernels and the definition; compare terms, gradient and counts."""
    indices = mlr.LossSpace(selection).indices
    pred, target = masked_pair(mask, dtype)
    weights = torch.rand(len(pred), len(indices), generator=torch.Generator().manual_seed(1)) + 0.1
    values, grad, counts = kernels.multi_loss(pred, target, weights, indices, downsample, mask)
    truth, true_grad, true_counts = reference.multi_loss(
        pred.double(), target.double(), weights.double(), indices, downsample, mask
    )
    assert torch.equal(counts, true_counts)
    assert term_errors(values, truth, indices).max() <= 1e-5
    assert (values[counts == 0] == 0).all()
    assert (grad[~mask] == 0).all()
    assert (grad.double() - true_grad).norm() <= gradient * true_grad.norm()
    return values, grad, counts


@pytest.fixture
def checked(sm_90):
    """All checks on, programs in a shuffled order, approximate instructions two units in the last place off."""
    with ptx.options(check=True, order=5, jitter=2), ptx.track_empty():
        yield


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: mask.__name__)
def test_parity_without_a_stray_access(checked, mask):
    assert_parity(mask(2, 40, 56))


@pytest.mark.long
@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: mask.__name__)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (7, 1), (3, 200), (33, 47), (45, 61), (96, 128)])
@pytest.mark.parametrize("downsample", reference.DOWNSAMPLE)
def test_parity_of_every_size(checked, mask, height, width, downsample):
    assert_parity(mask(2, height, width), downsample=downsample)


@pytest.mark.parametrize("mask", [drawn, sparse, one_pixel], ids=lambda mask: mask.__name__)
@pytest.mark.parametrize(("height", "width"), [(33, 47), pytest.param(3, 200, marks=LONG)])
def test_parity_of_area(checked, mask, height, width):
    assert_parity(mask(2, height, width), downsample="area")


@pytest.mark.long
def test_parity_on_ampere(sm_80):
    with ptx.options(check=True), ptx.track_empty():
        assert_parity(holes(2, 40, 56))


@pytest.mark.long
@pytest.mark.parametrize("selection", ["D/0", "D/5", "hu", "mean/0", "M/0", "M65/2", "normal/3", "*/1+N/4"])
@pytest.mark.parametrize("downsample", reference.DOWNSAMPLE)
def test_subsets(checked, selection, downsample):
    assert_parity(drawn(2, 40, 56), selection, downsample)


@pytest.mark.long
@pytest.mark.parametrize(("dtype", "gradient"), [(torch.float16, 1e-3), (torch.bfloat16, 5e-3)])
def test_half_precision(checked, dtype, gradient):
    assert_parity(drawn(2, 45, 61), dtype=dtype, gradient=gradient)


def test_the_papers_size(sm_90):
    assert_parity(holes(2, 288, 384) & drawn(2, 288, 384, 0.99))


def test_a_mask_of_ones_gives_the_unmasked_results(sm_90):
    pred, target = depth_pair(2, 40, 56)
    weights = torch.rand(2, len(ALL), generator=torch.Generator().manual_seed(1))
    values, grad, counts = kernels.multi_loss(pred, target, weights, ALL, "bicubic", everything(2, 40, 56))
    plain, plain_grad, none = kernels.multi_loss(pred, target, weights, ALL)
    means = torch.tensor([KINDS[i % len(KINDS)] in WINDOWS for i in ALL])
    assert not VARIANTS_ROUND_ALIKE or torch.equal(values[:, ~means], plain[:, ~means])
    assert ((values - plain).abs() <= 1e-6 * plain).all()
    assert relative_l2(grad, plain_grad) <= 1e-6
    assert none.shape == (0,)
    sizes = [reference.scale_size(40, 56, i // len(KINDS)) for i in ALL]
    assert counts.tolist() == 2 * [[h * w for h, w in sizes]]


def test_what_stands_under_the_mask_the_batch_and_the_order_of_programs_change_nothing(sm_90):
    mask = drawn(3, 40, 56)
    mask[1] = one_row(1, 40, 56)[0]
    pred, target = masked_pair(mask)
    weights = torch.rand(3, len(ALL), generator=torch.Generator().manual_seed(1))
    first = kernels.multi_loss(pred, target, weights, ALL, "bicubic", mask)
    for value in (0.0, -1.0, 1e30, torch.inf):
        again = kernels.multi_loss(
            pred.masked_fill(~mask, value), target.masked_fill(~mask, -value), weights, ALL, "bicubic", mask
        )
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    with ptx.options(order=17):
        again = kernels.multi_loss(pred, target, weights, ALL, "bicubic", mask)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    alone = kernels.multi_loss(pred[1:2], target[1:2], weights[1:2], ALL, "bicubic", mask[1:2])
    assert all(torch.equal(a[1:2], b) for a, b in zip(first, alone, strict=True))


def test_masks_of_any_strides_any_true_byte_and_any_order_of_losses(sm_90):
    mask = drawn(2, 40, 56)
    pred, target = masked_pair(mask)
    weights = torch.rand(2, len(ALL), generator=torch.Generator().manual_seed(1))
    first = kernels.multi_loss(pred, target, weights, ALL, "bicubic", mask)
    wide = torch.zeros(2, 1, 40, 112, dtype=torch.bool)
    wide[..., ::2] = mask
    bytes_ = (mask * torch.tensor([1, 2, 128, 255], dtype=torch.uint8).repeat(14)).view(torch.bool)
    order = torch.randperm(len(ALL), generator=torch.Generator().manual_seed(3)).tolist()
    for same in (wide[..., ::2], mask[:, 0].mT.contiguous().mT, bytes_):
        again = kernels.multi_loss(pred, target, weights, ALL, "bicubic", same)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    values, grad, counts = kernels.multi_loss(pred, target, weights[:, order], [ALL[i] for i in order], "bicubic", mask)
    assert torch.equal(values, first[0][:, order])
    assert torch.equal(counts, first[2][:, order])
    assert torch.equal(grad, first[1])


def test_a_negative_zero_of_the_network_is_a_known_pixel(sm_90):
    pred, target = torch.full((1, 1, 40, 56), -0.0), torch.zeros(1, 1, 40, 56)
    _, _, counts = kernels.multi_loss(pred, target, torch.ones(1, 78), ALL, "bicubic", everything(1, 40, 56))
    values, grad, _ = kernels.multi_loss(pred, target, torch.ones(1, 78), ALL, "bicubic", drawn(1, 40, 56))
    assert (counts > 0).all()
    assert not values.any()
    assert not grad.any()


def test_nan_at_a_known_pixel_is_not_hidden(sm_90):
    mask = drawn(1, 40, 56)
    mask[..., 20, 20] = True
    pred, target = masked_pair(mask)
    pred[..., 20, 20] = torch.nan
    values, grad, _ = kernels.multi_loss(pred, target, torch.ones(1, 78), ALL, "bicubic", mask)
    assert values[0, :5].isnan().all()
    assert grad.isnan().any()


def test_means_are_exactly_zero_where_they_are_by_definition(sm_90):
    """On a map of one pixel, with a mask or without."""
    pred, target = torch.full((1, 1, 1, 1), 1.7), torch.full((1, 1, 1, 1), 0.3)
    indices = mlr.LossSpace("mean").indices
    for mask in (None, everything(1, 1, 1)):
        values, grad, _ = kernels.multi_loss(pred, target, torch.ones(1, len(indices)), indices, "bicubic", mask)
        assert not values.any()
        assert not grad.any()


def test_four_launches_whatever_the_mask_holds(sm_90, monkeypatch):
    launched = []

    def compiled(*key):
        function = original(*key)
        return type("Recorder", (), {"__getitem__": lambda _, grid: launched.append(grid) or function[grid]})()

    original = launch.compiled
    monkeypatch.setattr(launch, "compiled", compiled)
    for mask in (everything, nothing, sparse):
        known = mask(2, 40, 56)
        kernels.multi_loss(*masked_pair(known), torch.ones(2, 78), ALL, "bicubic", known)
    assert len(launched) == 12
    assert launched[:4] == launched[4:8] == launched[8:]
    shapes = shapes_for(torch.device("cpu"))
    assert len(constants_of(plan(2, 40, 56, ALL, "bicubic", True, shapes, True).variant, shapes)) == len(KERNELS)


@counted
def test_a_masked_step_stays_within_its_budget_of_instructions(sm_90):
    """Lane instructions a pixel of the paper's size: at most 1.6 times those of the unmasked step."""
    pred, target = depth_pair(2, 288, 384)
    ptx.counts.clear()
    with ptx.options(count=True):
        kernels.multi_loss(pred, target, torch.ones(2, len(ALL)), ALL, "bicubic", drawn(2, 288, 384))
    lanes = sum(sum(ptx.counts[kernel.fn.__name__].lane_instructions.values()) for kernel in KERNELS)
    assert lanes / pred.numel() <= 1.6 * 873
