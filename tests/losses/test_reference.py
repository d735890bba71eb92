# SPDX-License-Identifier: Apache-2.0
"""The definition against formulas that share nothing with it: interpolate, dense matrices, maps worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from depth_maps import SIZES, depth_pair
from hypothesis import given, settings
from hypothesis import strategies as st

from mlr.losses import kinds, reference
from mlr.losses.space import KINDS, LossSpace

ALL = LossSpace("all")
DOUBLE = torch.float64
sides = st.integers(1, 70)


def terms_of(pred, target, selection="all", downsample="bicubic"):
    return reference.multi_loss_terms(pred, target, LossSpace(selection).indices, downsample)


# --- scales


@settings(deadline=None, max_examples=30)
@given(sides, sides, st.integers(1, 5))
def test_bicubic_scale_equals_interpolate(height, width, scale):
    x = torch.randn(2, 1, height, width, dtype=DOUBLE)
    if min(height, width) >= 2**scale:
        truth = F.interpolate(x, scale_factor=2.0**-scale, mode="bicubic", align_corners=False)
    else:
        truth = F.interpolate(x, size=(1, 1), mode="bicubic", align_corners=False)
    torch.testing.assert_close(reference.resample(x, scale), truth)
    assert reference.scale_size(height, width, scale) == truth.shape[-2:]


@settings(deadline=None, max_examples=30)
@given(sides, sides, st.integers(1, 5))
def test_area_scale_is_the_mean_of_a_cell(height, width, scale):
    x = torch.randn(2, 1, height, width, dtype=DOUBLE)
    y = reference.resample(x, scale, "area")
    assert reference.scale_size(height, width, scale, "area") == y.shape[-2:]
    if min(height, width) >= 2**scale:
        h, w = y.shape[-2:]
        cells = x[..., : h << scale, : w << scale].unflatten(-1, (w, -1)).unflatten(-3, (h, -1))
        torch.testing.assert_close(y, cells.mean(dim=(-3, -1)))


def test_area_scale_keeps_a_side_of_one_pixel():
    x = torch.arange(8, dtype=DOUBLE).reshape(1, 1, 1, 8)
    torch.testing.assert_close(reference.resample(x, 2, "area").flatten(), torch.tensor([1.5, 5.5], dtype=DOUBLE))


# --- windows


def box_matrix(length: int, n: int) -> np.ndarray:
    """Dense matrix of the mean over n replicated neighbours along one axis."""
    matrix = np.zeros((length, length))
    for i in range(length):
        for j in range(i - n // 2, i + n // 2 + 1):
            matrix[i, min(max(j, 0), length - 1)] += 1 / n
    return matrix


@pytest.mark.parametrize("n", [5, 17, 65])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 9), (20, 33), (66, 70)])
def test_box_mean_equals_dense_matrices(n, height, width):
    x = torch.randn(1, 1, height, width, dtype=DOUBLE)
    truth = box_matrix(height, n) @ x[0, 0].numpy() @ box_matrix(width, n).T
    np.testing.assert_allclose(kinds.box_mean(x, n)[0, 0].numpy(), truth, atol=1e-13)


# --- the 13 kinds, against loops in numpy


def numpy_losses(p: np.ndarray, t: np.ndarray) -> dict[str, float]:
    """The kinds of one scale by the paper's formulas, pixel by pixel, both maps apart."""

    def r(x):
        return np.concatenate([x[:, 1:], x[:, -1:]], 1) - x

    def c(x):
        return np.concatenate([x[1:], x[-1:]], 0) - x

    def box(x, n):
        return box_matrix(x.shape[0], n) @ x @ box_matrix(x.shape[1], n).T

    def cosine(first, second):
        a = np.stack([-first(p), -second(p), np.ones_like(p)])
        b = np.stack([-first(t), -second(t), np.ones_like(t)])
        return np.mean(1 - (a * b).sum(0) / np.sqrt((a * a).sum(0) * (b * b).sum(0)))

    def l1(f):
        return np.abs(f(p) - f(t)).mean()

    losses = {"D": l1(lambda x: x), "M": l1(lambda x: x - x.mean())}
    losses |= {f"M{n}": l1(lambda x, n=n: x - box(x, n)) for n in (5, 17, 65)}
    losses |= {"r": l1(r), "c": l1(c), "rr": l1(lambda x: r(r(x))), "rc": l1(lambda x: r(c(x)))}
    losses |= {"cc": l1(lambda x: c(c(x))), "N": cosine(r, c)}
    losses |= {"Nr": cosine(lambda x: r(r(x)), lambda x: c(r(x))), "Nc": cosine(lambda x: r(c(x)), lambda x: c(c(x)))}
    return losses


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (4, 4), (23, 31)])
def test_kinds_equal_the_papers_formulas_on_both_maps(height, width):
    pred, target = depth_pair(1, height, width, DOUBLE, seed=3, noise=0.5)
    truth = numpy_losses(pred[0, 0].numpy(), target[0, 0].numpy())
    assert tuple(truth) == KINDS
    np.testing.assert_allclose(terms_of(pred, target, "*/0")[0].numpy(), list(truth.values()), rtol=1e-9, atol=1e-13)


def test_four_by_four_map_worked_by_hand():
    """A single error of 16 at (1, 1) of a flat 4 x 4 map: every number below was found with pencil and paper."""
    pred = torch.zeros(1, 1, 4, 4, dtype=DOUBLE)
    pred[0, 0, 1, 1] = 16
    values = dict(zip(LossSpace("*/0").names, terms_of(pred, torch.zeros_like(pred), "*/0")[0].tolist(), strict=True))
    assert values["D/0"] == 1  # 16 / 16
    assert values["M/0"] == pytest.approx((15 * 1 + 15) / 16)  # mean error 1: fifteen pixels at -1, one at 15
    assert values["r/0"] == values["c/0"] == 2  # +16 and -16
    assert values["rr/0"] == 3  # -32 and 16: the padded border takes no part
    assert values["rc/0"] == 4  # four corners of +-16
    # M5: the box of (y, x) holds the pixel (1, 1) once if |y-1| <= 2 and |x-1| <= 2, which is everywhere here
    assert values["M5/0"] == pytest.approx((15 * 16 / 25 + 16 - 16 / 25) / 16)
    # N: derivatives (16, 0) at (1, 0), (0, 16) at (0, 1) and (-16, -16) at (1, 1) against a level floor
    assert values["N/0"] == pytest.approx((2 * (1 - 1 / 257**0.5) + 1 - 1 / 513**0.5) / 16)


def test_coarse_kinds_are_the_fine_kinds_of_the_reduced_maps():
    pred, target = depth_pair(2, 64, 96, DOUBLE)
    for scale in range(1, 6):
        small = terms_of(reference.resample(pred, scale), reference.resample(target, scale), "*/0")
        torch.testing.assert_close(terms_of(pred, target, f"*/{scale}"), small)


def test_normals_keep_their_digits_where_the_maps_agree():
    pred, target = depth_pair(1, 40, 56, noise=1e-4)
    truth = terms_of(pred.double(), target.double(), "normal")
    torch.testing.assert_close(terms_of(pred, target, "normal").double(), truth, rtol=2e-5, atol=0)


def test_opposed_steep_normals_give_no_nan():
    steep = torch.tensor([[0.0, 1e8]]).reshape(1, 1, 1, 2).requires_grad_()
    value = terms_of(steep, -steep.detach(), "N/0")
    value.sum().backward()
    assert value.item() == pytest.approx(1.0)  # 1 - cos is 2 at one pixel, 0 at the other
    assert torch.isfinite(steep.grad).all()


# --- gradients and edges


@pytest.mark.parametrize("downsample", reference.DOWNSAMPLE)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (9, 34)])
def test_gradient_against_finite_differences(height, width, downsample):
    torch.manual_seed(0)  # errors far from the kinks of |x|
    pred = (torch.randn(1, 1, height, width, dtype=DOUBLE) * 3).requires_grad_()
    target = torch.randn(1, 1, height, width, dtype=DOUBLE)
    selection = LossSpace("*/0+D/1+M5/2+N/1+rr/1+Nc/2").indices
    assert torch.autograd.gradcheck(
        lambda p: reference.multi_loss_terms(p, target, selection, downsample), (pred,), eps=1e-7, atol=1e-5
    )


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("downsample", reference.DOWNSAMPLE)
def test_equal_maps_have_zero_loss_and_zero_gradient(height, width, downsample):
    _, target = depth_pair(2, height, width)
    terms, grad, _ = reference.multi_loss(target, target, torch.ones(2, 78), ALL.indices, downsample)
    assert terms.shape == (2, 78)
    assert terms.abs().max() == 0
    assert grad.abs().max() == 0


def test_one_pixel_maps_reduce_to_the_depth_loss():
    values = terms_of(torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), 1.0))[0]
    expected = torch.tensor([2.0 if name.startswith("D/") else 0.0 for name in ALL.names])
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    pred, target = (x.to(dtype) for x in depth_pair(2, 33, 47))
    terms, grad, _ = reference.multi_loss(pred, target, torch.ones(2, 78), ALL.indices)
    assert terms.dtype == torch.float32
    assert grad.dtype == dtype
    torch.testing.assert_close(terms, terms_of(pred.float(), target.float()), rtol=0, atol=0)


def test_nan_stays_in_its_image():
    pred, target = depth_pair(3, 33, 47)
    clean = terms_of(pred, target)
    pred[1, 0, 20, 20] = float("nan")
    terms = terms_of(pred, target)
    assert torch.equal(terms[[0, 2]], clean[[0, 2]])
    assert terms[1].isnan().any()
