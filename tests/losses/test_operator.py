# SPDX-License-Identifier: Apache-2.0
"""The operator from outside: autograd, compilers, layouts, backends and refusals."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from depth_maps import depth_pair, relative_l2
from torch.fx.experimental.proxy_tensor import make_fx

import mlr
from mlr.losses import operator as engine
from mlr.losses import reference

DOUBLE = torch.float64
SPACE = mlr.LossSpace("all")


@pytest.fixture
def maps():
    pred, target = depth_pair(2, 33, 47, DOUBLE)
    return pred.requires_grad_(), target


def gradient(value, pred):
    (grad,) = torch.autograd.grad(value, pred)
    return grad


# --- autograd


@pytest.mark.parametrize("selection", ["all", "D/0", "coarse", "hu"])
@pytest.mark.parametrize("downsample", reference.DOWNSAMPLE)
def test_total_and_gradient_agree_with_autograd_through_the_definition(maps, selection, downsample):
    pred, target = maps
    space = mlr.LossSpace(selection)
    weights = torch.rand(len(space), dtype=DOUBLE)
    terms = reference.multi_loss_terms(pred, target, space.indices, downsample)
    truth = (terms * weights).sum(1).mean()
    out = mlr.MultiLoss(space, downsample)(pred, target, weights)
    assert not out.terms.requires_grad
    torch.testing.assert_close(out.terms, terms.detach(), rtol=1e-14, atol=0)
    torch.testing.assert_close(out.total, truth, rtol=1e-14, atol=0)
    assert relative_l2(gradient(3 * out.total, pred), gradient(3 * truth, pred)) < 1e-14


def test_individual_terms_take_any_upstream_gradient(maps):
    pred, target = maps
    weights, upstream = torch.rand(78, dtype=DOUBLE), torch.randn(2, 78, dtype=DOUBLE)
    total, terms = mlr.multi_loss(pred, target, weights, SPACE)
    values = reference.multi_loss_terms(pred, target, SPACE.indices)
    truth = gradient(-2 * (values * weights).sum(1).mean() + (values * upstream).sum(), pred)
    assert relative_l2(gradient(-2 * total + (terms * upstream).sum(), pred), truth) < 1e-13
    truth = gradient(
        (reference.multi_loss_terms(pred, target, SPACE.indices) ** 2).sum(), pred
    )  # an upstream gradient that differs by image
    assert relative_l2(gradient((mlr.multi_loss_terms(pred, target, SPACE) ** 2).sum(), pred), truth) < 1e-13


def test_only_terms_used_gives_no_gradient_of_the_total(maps):
    pred, target = maps
    _, terms = mlr.multi_loss(pred, target, None, mlr.LossSpace("D/0+r/0"))
    truth = gradient((pred - target).abs().mean(), pred)
    assert relative_l2(gradient(terms[:, 0].mean(), pred), truth) < 1e-14


def test_weights_may_be_learned_and_may_differ_by_image(maps):
    pred, target = maps
    weights = torch.rand(2, 78, dtype=DOUBLE, requires_grad=True)
    out = mlr.MultiLoss(SPACE)(pred, target, weights)
    torch.testing.assert_close(gradient(out.total, weights), out.terms / 2)
    out = mlr.MultiLoss(SPACE)(pred.detach(), target, weights)
    torch.testing.assert_close(gradient(out.total, weights), out.terms / 2)


def test_default_weights_are_equal(maps):
    out = mlr.MultiLoss("depth")(*maps)
    torch.testing.assert_close(out.total, out.terms.mean())


def test_double_backward_raises(maps):
    pred, target = maps
    for value in (mlr.MultiLoss(SPACE)(pred, target).total, mlr.multi_loss_terms(pred, target, SPACE).sum()):
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.grad(value, pred, create_graph=True)


def test_the_losses_may_be_changed_before_the_backward_pass(maps):
    pred, target = maps
    criterion, weights = mlr.MultiLoss(SPACE), torch.rand(len(SPACE), requires_grad=True)
    (expected,) = torch.autograd.grad(criterion(pred, target, weights).total, weights)
    total, terms, _ = criterion(pred, target, weights)
    terms.zero_()
    total.backward()
    assert torch.equal(weights.grad, expected)


@pytest.mark.parametrize("mode", ["real", "symbolic"])
def test_a_step_can_be_traced(maps, mode):
    pred, target = maps

    def step(p, t):
        return torch.autograd.grad(mlr.MultiLoss(SPACE)(p, t).total, p)[0]

    traced = make_fx(step, tracing_mode=mode)(pred, target)
    torch.testing.assert_close(traced(pred, target), step(pred, target))


@pytest.mark.parametrize("function", [mlr.multi_loss, mlr.multi_loss_terms])
def test_exporting_a_step_is_refused_rather_than_left_without_gradient(maps, function):
    class Step(torch.nn.Module):
        def forward(self, p, t):
            return function(p, t, space=SPACE)

    pred, target = (x.detach() for x in maps)
    with torch.no_grad():
        exported = torch.export.export(Step(), (pred, target)).module()
    torch.testing.assert_close(exported(pred, target), Step()(pred, target))
    with pytest.raises(RuntimeError, match=r"torch\.export would drop the gradient"):
        torch.export.export(Step(), (pred.requires_grad_(), target), strict=False)


def test_a_gradient_for_the_target_is_refused(maps):
    pred, target = maps
    for call in (mlr.MultiLoss(SPACE), mlr.multi_loss, mlr.multi_loss_terms):
        with pytest.raises(ValueError, match="no gradient for the target"):
            call(pred, target.clone().requires_grad_())


def test_validation_needs_no_gradient(maps):
    pred, target = maps
    expected = mlr.MultiLoss(SPACE)(pred, target)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            out = mlr.MultiLoss(SPACE)(pred, target)
        torch.testing.assert_close(out.total, expected.total.detach())


# --- layouts and types


def test_layouts_agree(maps):
    pred, target = (x.detach().float() for x in maps)
    truth, criterion = mlr.MultiLoss(SPACE)(pred, target), mlr.MultiLoss(SPACE)
    wide = torch.full((2, 3, 40, 60), torch.nan)
    wide[:, 1:2, 3:36, 5:52] = pred
    layouts = {
        "3-d": (pred[:, 0], target[:, 0]),
        "sliced": (wide[:, 1:2, 3:36, 5:52], target),
        "transposed": (pred.mT.contiguous().mT, target),
        "channels_last": (pred.contiguous(memory_format=torch.channels_last), target),
    }
    for name, (p, t) in layouts.items():
        out = criterion(p.requires_grad_(p.is_leaf), t)
        assert torch.equal(out.terms, truth.terms), name
    one = criterion(pred[:1], target[:1])
    both = criterion(pred[:1].expand(2, -1, -1, -1), target[:1].expand(2, -1, -1, -1))
    assert torch.equal(both.terms, one.terms.expand(2, -1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_predictions_get_a_gradient_of_their_type(dtype):
    pred, target = depth_pair(2, 96, 128)
    half = pred.to(dtype).requires_grad_()
    out = mlr.MultiLoss(SPACE)(half, target.to(dtype))
    exact = half.detach().double().requires_grad_()
    truth = mlr.MultiLoss(SPACE)(exact, target.to(dtype).double())
    scale = 2.0**14  # what a gradient scaler does; without the engine's gain float16 would have lost the small ones
    got, expected = gradient(out.total * scale, half), gradient(truth.total * scale, exact)
    assert got.dtype == dtype
    assert out.terms.dtype == torch.float32
    assert relative_l2(got, expected) < (0.02 if dtype == torch.float16 else 0.05)


def test_an_autocast_prediction_keeps_the_targets_precision():
    pred, target = depth_pair(2, 33, 47)
    out = mlr.MultiLoss(SPACE)(pred.half(), target)
    torch.testing.assert_close(out.terms, mlr.MultiLoss(SPACE)(pred.half().float(), target).terms)


@pytest.mark.filterwarnings("ignore:the target holds whole numbers")
@pytest.mark.parametrize("dtype", [torch.float64, torch.int32])
def test_a_target_of_another_type_is_computed_in_float32(dtype):
    pred, target = depth_pair(2, 33, 47)
    millimetres = (1000 * target).round().to(dtype)
    out = mlr.MultiLoss(SPACE)(1000 * pred.bfloat16(), millimetres)
    assert out.terms.dtype == torch.float32
    assert torch.equal(out.terms, mlr.MultiLoss(SPACE)((1000 * pred.bfloat16()).float(), millimetres.float()).terms)


def test_equal_weights_do_not_depend_on_the_default_type():
    pred, target = depth_pair(2, 33, 47, DOUBLE)
    out = mlr.MultiLoss(SPACE)(pred, target)
    torch.testing.assert_close(out.total, out.terms.mean(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("weight", [20.0, 1 / 78])
def test_float16_gradients_stay_finite_under_large_weights_and_loss_scales(weight):
    pred, target = (x.half() for x in depth_pair(1, 96, 128))
    pred.requires_grad_()
    weights = torch.full((78,), weight)
    scale = 96 * 128 / (78 * weight)
    truth = gradient(scale * (mlr.multi_loss_terms(pred, target) @ weights).sum(), pred)
    total, terms = mlr.multi_loss(pred, target, weights)
    mixed = gradient(scale * (total + 1e-4 * weight * terms[:, 0].mean()), pred)
    total, _ = mlr.multi_loss(pred, target, weights)
    assert truth.isfinite().all()
    assert relative_l2(gradient(scale * total, pred), truth) < 2e-3
    assert relative_l2(mixed, truth) < 2e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_upstream_factor_is_not_rounded_to_the_type_of_the_maps(dtype):
    assert engine._scaled(torch.ones(2, 2, dtype=dtype, device="meta"), torch.ones((), device="meta")).dtype == dtype
    factor = torch.tensor(2.0**-30)  # nothing in float16
    got = engine._scaled(torch.full((2, 2), 2.0**15, dtype=dtype), factor)
    assert torch.equal(got, torch.full((2, 2), 2.0**-15, dtype=dtype))


def test_batched_upstream_gradients(maps):
    pred, target = maps
    total = mlr.MultiLoss(SPACE)(pred, target).total
    (batched,) = torch.autograd.grad(total, pred, torch.tensor([1.0, -2.0], dtype=DOUBLE), is_grads_batched=True)
    single = gradient(mlr.MultiLoss(SPACE)(pred, target).total, pred)
    torch.testing.assert_close(batched, torch.stack([single, -2 * single]))


@pytest.mark.parametrize("function", [mlr.multi_loss, mlr.multi_loss_terms], ids=lambda f: f.__name__)
@pytest.mark.parametrize("dual", [0, 1])
def test_forward_mode_is_refused_rather_than_zero(maps, function, dual):
    def loss(x):
        operands = [m.detach() for m in maps]
        operands[dual] = x
        result = function(*operands)
        return result[0] if isinstance(result, tuple) else result

    x = maps[dual].detach()
    with pytest.raises(RuntimeError, match="no forward-mode derivative"):
        torch.func.jvp(loss, (x,), (torch.ones_like(x),))


# --- compilers


@pytest.mark.parametrize("weights", [None, torch.rand(2, 78, dtype=DOUBLE)])
def test_opcheck(maps, weights):
    operands = (maps[0].detach(), maps[1], weights, list(SPACE.indices), "bicubic")
    torch.library.opcheck(torch.ops.mlr.multi_loss, operands)


def test_compiles_without_a_graph_break(maps):
    pred, target = maps
    criterion = mlr.MultiLoss(SPACE)

    def step(p, t, w):
        total, terms = mlr.multi_loss(p * 2, t, w)
        return criterion(p, t, w).total + total * 2 + (terms**2).sum()

    weights = torch.rand(78, dtype=DOUBLE)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert (
        relative_l2(gradient(compiled(pred, target, weights), pred), gradient(step(pred, target, weights), pred))
        < 1e-13
    )


# --- backends


def test_backend_override_is_reported_and_undone():
    before = mlr.backend_report()
    with mlr.backend("reference"):
        assert mlr.backend_report().startswith("CPU tensors: reference, chosen by")
        pred, target = depth_pair(1, 17, 31)
        expected = reference.multi_loss_terms(pred, target, SPACE.indices)
        assert torch.equal(mlr.multi_loss_terms(pred, target), expected)
    assert mlr.backend_report() == before
    with pytest.raises(ValueError, match="unknown backend 'cuda'"), mlr.backend("cuda"):
        pass


def test_triton_refuses_cpu_tensors_outside_its_interpreter():
    pred, target = depth_pair(1, 17, 31)
    with mlr.backend("triton"), pytest.raises(RuntimeError, match="TRITON_INTERPRET=1"):
        mlr.multi_loss_terms(pred, target)


def test_the_triton_engine_reads_no_operands_that_do_not_fit():
    pred, target = depth_pair(2, 9, 11)
    weights = torch.ones(2, 1)
    with mlr.backend("triton"):
        with pytest.raises(ValueError, match="target must have the shape of pred"):
            torch.ops.mlr.multi_loss(pred, target[:1], weights, [0], "bicubic")
        with pytest.raises(ValueError, match=r"weights must be \[B, n\] = \[2, 1\]"):
            torch.ops.mlr.multi_loss(pred, target, weights[:1], [0], "bicubic")
        with pytest.raises(ValueError, match="distinct"):
            torch.ops.mlr.multi_loss(pred, target, None, [0, 0], "bicubic")


def test_the_environment_chooses_the_backend_and_a_wrong_name_is_refused():
    code = "import mlr; print(mlr.backend_report())"
    run = [sys.executable, "-W", "ignore", "-c", code]
    out = subprocess.run(run, env={"MLR_BACKEND": "reference"}, capture_output=True, text=True, check=True)
    assert out.stdout.startswith("CPU tensors: reference, chosen by")
    out = subprocess.run(run, env={"MLR_BACKEND": "gpu"}, capture_output=True, text=True)
    assert "unknown backend 'gpu'" in out.stderr


def test_the_loss_engine_imports_nothing_but_torch():
    code = (
        "import sys, mlr; heavy = {'timm', 'lightning', 'h5py', 'torchvision', 'matplotlib', 'scipy', 'triton'} & "
        "set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


# --- refusals


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"target": torch.ones(2, 1, 8, 9)}, ValueError, "shape of pred"),
        ({"pred": torch.ones(2, 3, 8, 8), "target": torch.ones(2, 3, 8, 8)}, ValueError, r"\[B, 1, H, W\]"),
        ({"pred": torch.ones(0, 1, 8, 8), "target": torch.ones(0, 1, 8, 8)}, ValueError, ">= 1"),
        ({"pred": torch.ones(2, 1, 8, 8).int(), "target": torch.ones(2, 1, 8, 8).int()}, TypeError, "floating-point"),
        ({"pred": torch.tensor(1.0), "target": torch.tensor(1.0)}, ValueError, r"\[B, 1, H, W\]"),
        ({"target": [[1.0]]}, TypeError, "must be tensors, got Tensor and list"),
        ({"weights": [1.0] * 78}, TypeError, "must be a tensor of real numbers"),
        ({"weights": torch.ones(78, dtype=torch.complex64)}, TypeError, "real numbers, got torch.complex64"),
        ({"weights": torch.ones(77)}, ValueError, r"weights must be \[n\] = \[78\]"),
        ({"weights": torch.ones(3, 78)}, ValueError, r"\[B, n\] = \[2, 78\]"),
    ],
)
def test_operands_without_a_meaning_are_refused(change, error, message):
    operands = {"pred": torch.ones(2, 1, 8, 8), "target": torch.ones(2, 1, 8, 8), "weights": None} | change
    with pytest.raises(error, match=message):
        mlr.MultiLoss(SPACE)(**operands)


def test_unknown_downsampling_is_refused_before_any_work():
    with pytest.raises(ValueError, match="bicubic, area"):
        mlr.MultiLoss(SPACE, downsample="nearest")
