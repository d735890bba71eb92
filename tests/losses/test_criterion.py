# SPDX-License-Identifier: Apache-2.0
"""MultiLoss and its output: names, weights by name, unknown depth, transforms of torch.func."""

from __future__ import annotations

import copy
import math
import pickle
import warnings

import pytest
import torch
from depth_maps import depth_pair, relative_l2
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

import mlr
from mlr.losses import reference
from mlr.losses.masks import unknown_depth

DOUBLE = torch.float64
SPACE = mlr.LossSpace("all")


@pytest.fixture
def maps():
    return depth_pair(2, 17, 31, DOUBLE)


# --- names of the output


def test_terms_by_name(maps):
    out = mlr.MultiLoss("depth+normal")(*maps)
    named = out.named()
    assert tuple(named) == mlr.LossSpace("depth+normal").names == out.names
    assert torch.equal(torch.stack(list(named.values())), out.terms.mean(0))
    total, terms, counts = out
    assert (total, terms, counts) == (out.total, out.terms, None) == out[:3]


def test_terms_by_name_are_means_over_the_images_that_have_them(maps):
    mask = torch.ones(2, 17, 31, dtype=torch.bool)
    mask[0] = False
    out = mlr.MultiLoss("*/0")(*maps, mask=mask)
    assert out.named()["D/0"] == out.terms[1, 0]
    nothing = mlr.MultiLoss("*/0")(*maps, mask=torch.zeros_like(mask))
    assert all(value.isnan() for value in nothing.named().values())


def test_names_survive_compilers_pytrees_and_files(maps):
    criterion = mlr.MultiLoss("hu")
    out = criterion(*maps)
    leaves, spec = pytree.tree_flatten(out)
    copies = [
        torch.compile(criterion, fullgraph=True, backend="aot_eager")(*maps),
        pytree.tree_unflatten(leaves, spec),
        pytree.tree_map(torch.clone, out._replace(counts=out.terms > 0)),
        pickle.loads(pickle.dumps(out)),
        copy.deepcopy(criterion)(*maps),
        pickle.loads(pickle.dumps(criterion))(*maps),
        out._replace(total=out.total * 2),
    ]
    for other in copies:
        assert isinstance(other, mlr.MultiLossOutput)
        assert tuple(other.named()) == ("D/0", "r/0", "c/0", "N/0")
    assert len(leaves) == 3


# --- weights by name


def by_function(*operands, **options):
    return mlr.multi_loss(*operands, space=mlr.LossSpace("D/0+r/0"), **options)


@pytest.mark.parametrize("function", [mlr.MultiLoss("D/0+r/0"), by_function])
def test_weights_by_name(maps, function):
    pred, target = maps
    by_name = function(pred, target, weights={"r/0": 3.0, "D/0": 1})
    assert torch.equal(by_name[0], function(pred, target, weights=torch.tensor([1.0, 3.0]))[0])
    for weights, message in (
        ({"r/0": 1.0}, "there is none for D/0"),
        ({"r/0": 1.0, "D/0": 1.0, "c/0": 1.0}, "not in use: c/0"),
        ({"r/0": 1.0, "D/0": torch.ones(2)}, "numbers or scalar tensors"),
    ):
        with pytest.raises(ValueError, match=message):
            function(pred, target, weights=weights)
    with pytest.raises(TypeError, match=r"tensor of real numbers or numbers by name, such as \{'D/0': 1.0\}, got list"):
        function(pred, target, weights=[1.0, 3.0])


def test_weights_by_name_may_be_learned(maps):
    weights = {name: torch.tensor(0.5, requires_grad=True) for name in ("D/0", "r/0")}
    out = mlr.MultiLoss("D/0+r/0")(*maps, weights)
    out.total.backward()
    assert [w.grad.item() for w in weights.values()] == pytest.approx(out.terms.mean(0).tolist())


# --- unknown depth


def target_with(value, share=0.25):
    target = torch.full((2, 1, 16, 16), 2.0)
    target.view(-1)[: int(share * target.numel())] = value
    return target


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_unknown_depth_is_told_once_with_its_share(value):
    criterion, target = mlr.MultiLoss("D/0"), target_with(value)
    with pytest.warns(UserWarning, match=r"25\.00% of the target.*mask=mlr\.known_depth\(target\)"):
        criterion(torch.ones_like(target), target)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        criterion(torch.ones_like(target), target)


def test_the_warning_points_at_the_call():
    target = target_with(0.0)
    with pytest.warns(UserWarning, match="known_depth") as told:
        mlr.MultiLoss("D/0")(torch.ones_like(target), target)
    assert told[0].filename == __file__


@pytest.mark.filterwarnings("error")
def test_known_depth_and_masks_are_not_told():
    target = target_with(0.0)
    criterion = mlr.MultiLoss("D/0")
    criterion(torch.ones_like(target), target, mask=mlr.known_depth(target))
    criterion(torch.ones_like(target), target.clamp(min=1))
    mlr.MultiLoss("D/0")(torch.ones_like(target), target.clamp(min=1).int())


def test_a_call_with_a_mask_does_not_use_up_the_look():
    target, criterion = target_with(0.0), mlr.MultiLoss("D/0")
    criterion(torch.ones_like(target), target, mask=mlr.known_depth(target))
    with pytest.warns(UserWarning, match=r"25\.00%"):
        criterion(torch.ones_like(target), target)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.uint8])
def test_whole_numbers_that_are_no_metres_are_told(dtype):
    target = torch.full((1, 1, 8, 8), 250, dtype=dtype)
    with pytest.warns(UserWarning, match=r"whole numbers up to 250.*target\.float\(\) / 1000"):
        mlr.MultiLoss("D/0")(torch.ones(1, 1, 8, 8), target)
    target = torch.zeros(1, 1, 8, 8, dtype=dtype)
    with pytest.warns(UserWarning, match=r"100\.00% of the target"):
        mlr.MultiLoss("D/0")(torch.ones(1, 1, 8, 8), target)


@pytest.mark.filterwarnings("error")
def test_nothing_is_read_where_nothing_can_be_read():
    target = target_with(0.0)
    pred = torch.ones_like(target)
    criterion = mlr.MultiLoss("D/0")
    torch.compile(criterion, fullgraph=True, backend="eager")(pred, target)
    for mode in ("real", "fake", "symbolic"):
        make_fx(lambda p, t: criterion(p, t).total, tracing_mode=mode)(pred, target)
    torch.vmap(lambda p: criterion(p, target).total)(pred[None])
    criterion(pred.to("meta"), target.to("meta"))
    with torch.no_grad():
        torch.export.export(criterion, (pred, target))
    assert unknown_depth(target.to("meta")) is None
    with pytest.raises(UserWarning, match=r"25\.00%"):  # the look is still to come
        criterion(pred, target)


def test_a_wrong_target_is_refused_as_before():
    with pytest.raises(TypeError, match="must be tensors, got Tensor and list"):
        mlr.MultiLoss("D/0")(torch.ones(1, 1, 2, 2), [[1.0]])


# --- torch.func


@pytest.mark.parametrize("masked", [False, True])
def test_function_transforms_agree_with_backward(maps, masked):
    pred, target = maps
    mask = torch.rand(2, 17, 31) < 0.9 if masked else None
    criterion = mlr.MultiLoss(SPACE)
    functions = [
        lambda x: criterion(x, target, mask=mask).total,
        lambda x: mlr.multi_loss(x, target, mask=mask)[0],
        lambda x: (mlr.multi_loss_terms(x, target, mask=mask)[0] if masked else mlr.multi_loss_terms(x, target)).mean(),
    ]
    for function in functions:
        leaf = pred.clone().requires_grad_()
        (truth,) = torch.autograd.grad(function(leaf), leaf)
        assert relative_l2(torch.func.grad(function)(pred), truth) < 1e-13
        batched = torch.vmap(torch.func.grad(function))(torch.stack([pred, pred + 1]))
        assert relative_l2(batched[0], truth) < 1e-13


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("masked", [False, True])
def test_vmap_makes_one_call_of_all_images(maps, masked):
    pred, target = maps
    mask = torch.rand(2, 1, 17, 31) < 0.9 if masked else None
    weights = torch.rand(3, 2, len(SPACE.indices), dtype=DOUBLE)
    preds = torch.stack([pred, pred + 1, pred * 2], 2)  # batched in another dimension
    calls = []

    def operator(p, t, w, m):
        calls.append(p.shape)
        return torch.ops.mlr.multi_loss(p, t, w, SPACE.indices, "bicubic", m)

    dims = (2, None, 0, None)
    outputs = torch.vmap(operator, in_dims=dims, out_dims=(0, 0, 0 if masked else None))(preds, target, weights, mask)
    assert calls == [pred.shape]
    for i in range(3):
        single = torch.ops.mlr.multi_loss(preds[:, :, i], target, weights[i], SPACE.indices, "bicubic", mask)
        for got, truth, own in zip(outputs, single, (True, True, masked), strict=True):
            assert torch.equal(got[i] if own else got, truth)
    losses = torch.vmap(lambda p: torch.ops.mlr.multi_loss(p, target, None, SPACE.indices, "bicubic")[0])(pred[None])
    assert torch.equal(losses[0], torch.ops.mlr.multi_loss(pred, target, None, SPACE.indices, "bicubic")[0])


def test_jacobians_and_second_derivatives_by_function_transforms():
    pred, target = depth_pair(1, 4, 5, DOUBLE, noise=0.5)
    space = mlr.LossSpace("D/0+M5/0+N/0+Nr/0")

    def ours(x):
        return mlr.multi_loss_terms(x, target, space)[0]

    def plain(x):
        return reference.multi_loss_terms(x, target, space.indices)[0]

    leaf = pred.clone().requires_grad_()
    torch.testing.assert_close(torch.func.jacrev(ours)(pred), torch.autograd.functional.jacobian(plain, leaf))
    second = torch.func.jacrev(torch.func.jacrev(ours))(pred)
    assert second.abs().max() > 0
    truth = torch.autograd.functional.hessian(lambda x: plain(x).sum(), leaf)
    torch.testing.assert_close(second.sum(0), truth)


def test_terms_of_multiloss_stay_detached_in_a_transform(maps):
    pred, target = maps
    criterion = mlr.MultiLoss("D/0")
    assert (torch.func.grad(lambda x: criterion(x, target).terms.sum())(pred) == 0).all()


@pytest.mark.parametrize("masked", [False, True])
def test_backward_through_vmap(maps, masked):
    pred, target = maps
    mask = torch.rand(2, 1, 17, 31) < 0.9 if masked else None
    criterion, scale = mlr.MultiLoss(SPACE), torch.tensor([0.9, 1.1, 1.3], dtype=DOUBLE, requires_grad=True)
    totals = torch.vmap(lambda s: criterion(s * pred, target, mask=mask).total)(scale)
    (got,) = torch.autograd.grad((totals**2).sum(), scale)
    (truth,) = torch.autograd.grad(sum(criterion(s * pred, target, mask=mask).total ** 2 for s in scale), scale)
    torch.testing.assert_close(got, truth)
    with pytest.raises(ValueError, match="no gradient for the target"):
        torch.vmap(lambda t: criterion(pred, t).total)(target[None].clone().requires_grad_())
