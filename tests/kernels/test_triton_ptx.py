# SPDX-License-Identifier: Apache-2.0
"""The Triton engine as it was compiled: its PTX, run on the CPU, against the definition in float64.

Checked runs stop at the first access outside a tensor, read of memory that nobody wrote, or byte that two programs of
one launch share.
"""

from __future__ import annotations

import ast
from pathlib import Path

import ptx
import pytest
import torch
from depth_maps import cliffs, depth_pair, relative_l2, term_errors
from triton_versions import VARIANTS_ROUND_ALIKE, counted

import mlr
from mlr import kernels
from mlr.kernels import launch
from mlr.kernels.launch import KERNELS, constants_of, shapes_for
from mlr.kernels.plan import plan
from mlr.losses import reference

ALL = mlr.LossSpace("all").indices
SMALL = [(1, 1), (1, 40), (7, 1), (33, 47), (40, 56), (45, 61)]


def assert_parity(pred, target, selection="all", downsample="bicubic", gradient=2e-6):
    """Run the kernels and the definition; compare terms and gradient."""
    terms = mlr.LossSpace(selection).indices
    weights = torch.rand(pred.shape[0], len(terms), generator=torch.Generator().manual_seed(1)) + 0.1
    values, grad, _ = kernels.multi_loss(pred, target, weights, terms, downsample)
    truth, true_grad, _ = reference.multi_loss(pred.double(), target.double(), weights.double(), terms, downsample)
    assert values.dtype == torch.float32
    assert (grad.dtype, grad.shape) == (pred.dtype, pred.shape)
    assert term_errors(values, truth, terms).max() <= 1e-5
    assert relative_l2(grad, true_grad) <= gradient
    return values, grad


@pytest.fixture
def checked(sm_90):
    """All checks on, programs in a shuffled order, approximate instructions two units in the last place off."""
    with ptx.options(check=True, order=5, jitter=2), ptx.track_empty():
        yield


@pytest.mark.parametrize(("height", "width"), SMALL)
@pytest.mark.parametrize("downsample", reference.DOWNSAMPLE)
def test_parity_without_a_stray_access(checked, height, width, downsample):
    assert_parity(*depth_pair(2, height, width), downsample=downsample)


@pytest.mark.parametrize(("height", "width"), [(96, 128), (375, 1242)])
def test_parity_of_larger_maps(sm_90, height, width):
    assert_parity(*depth_pair(1, height, width))


def test_parity_of_the_papers_size(sm_90):
    assert_parity(*depth_pair(8, 288, 384))


@pytest.mark.long
@pytest.mark.parametrize(("height", "width"), [*SMALL, (96, 128)])
def test_parity_on_ampere(sm_80, height, width):
    with ptx.options(check=True), ptx.track_empty():
        assert_parity(*depth_pair(2, height, width))


@pytest.mark.parametrize("selection", ["D/0", "D/5", "hu", "coarse", "mean/0", "M/0", "M65/2", "normal/3", "*/1+N/4"])
@pytest.mark.parametrize(("height", "width"), [(33, 47), (40, 56)])
def test_subsets(checked, selection, height, width):
    assert_parity(*depth_pair(2, height, width), selection=selection)


def test_normals_that_face_apart(checked):
    assert_parity(*cliffs(2, 40, 56), selection="normal/0")


@pytest.mark.parametrize(("dtype", "gradient"), [(torch.float16, 1e-3), (torch.bfloat16, 5e-3)])
def test_half_precision(checked, dtype, gradient):
    assert_parity(*depth_pair(2, 45, 61, dtype), gradient=gradient)


def test_terms_alone_are_the_same_terms(checked):
    pred, target = depth_pair(2, 45, 61)
    values, grad, _ = kernels.multi_loss(pred, target, None, ALL)
    assert grad.shape == (0,)
    beside_a_gradient = kernels.multi_loss(pred, target, torch.ones(2, 78), ALL)[0]
    torch.testing.assert_close(values, beside_a_gradient, rtol=0 if VARIANTS_ROUND_ALIKE else 1e-6, atol=0)


def test_weights_may_be_zero_negative_and_differ_by_image(checked):
    pred, target = depth_pair(2, 40, 56)
    weights = torch.randn(2, 78, generator=torch.Generator().manual_seed(2))
    weights[:, ::5] = 0
    _, grad, _ = kernels.multi_loss(pred, target, weights, ALL)
    _, truth, _ = reference.multi_loss(pred.double(), target.double(), weights.double(), ALL)
    assert relative_l2(grad, truth) < 2e-6


def test_any_order_of_terms_and_any_strides(checked):
    pred, target = depth_pair(2, 40, 56)
    order = torch.randperm(78, generator=torch.Generator().manual_seed(3)).tolist()
    weights = torch.rand(2, 78)
    values, grad, _ = kernels.multi_loss(pred, target, weights, ALL)
    shuffled, same, _ = kernels.multi_loss(pred.mT.contiguous().mT, target[:, 0][:, None], weights[:, order], order)
    assert torch.equal(shuffled, values[:, order])
    assert torch.equal(same, grad)
    wide = torch.full((2, 1, 50, 70), torch.nan)
    wide[:, :, 3:43, 5:61] = pred
    assert torch.equal(kernels.multi_loss(wide[:, :, 3:43, 5:61], target, weights, ALL)[1], grad)


def test_results_do_not_depend_on_the_order_of_programs_nor_on_the_batch(sm_90):
    pred, target = depth_pair(3, 45, 61)
    weights = torch.rand(3, 78)
    values, grad, _ = kernels.multi_loss(pred, target, weights, ALL)
    for order in (1, 17):
        with ptx.options(order=order):
            again = kernels.multi_loss(pred, target, weights, ALL)
        assert torch.equal(again[0], values)
        assert torch.equal(again[1], grad)
    alone = kernels.multi_loss(pred[1:2], target[1:2], weights[1:2], ALL)
    assert torch.equal(alone[0][0], values[1])
    assert torch.equal(alone[1][0], grad[1])


def test_nan_stays_in_its_image(checked):
    pred, target = depth_pair(3, 40, 56)
    clean = kernels.multi_loss(pred, target, torch.ones(3, 78), ALL)
    pred[1, 0, 20, 20] = torch.nan
    values, grad, _ = kernels.multi_loss(pred, target, torch.ones(3, 78), ALL)
    assert torch.equal(values[[0, 2]], clean[0][[0, 2]])
    assert torch.equal(grad[[0, 2]], clean[1][[0, 2]])
    assert values[1].isnan().any()


def test_the_operator_runs_the_kernels_under_compilers_and_checks(sm_90):
    pred, target = depth_pair(2, 40, 56)
    criterion = mlr.MultiLoss("all")
    with mlr.backend("triton"):
        torch.library.opcheck(torch.ops.mlr.multi_loss, (pred, target, torch.rand(2, 78), list(ALL), "bicubic"))
        leaf = pred.clone().requires_grad_()
        compiled_step = torch.compile(lambda p: criterion(p * 2, target).total, fullgraph=True, backend="aot_eager")
        (grad,) = torch.autograd.grad(compiled_step(leaf), leaf)
        double = mlr.multi_loss_terms(pred.double(), target.double())
    exact = pred.double().requires_grad_()
    with mlr.backend("reference"):
        (truth,) = torch.autograd.grad(criterion(exact * 2, target.double()).total, exact)
    assert relative_l2(grad, truth) < 2e-6
    assert torch.equal(double, reference.multi_loss_terms(pred.double(), target.double(), ALL))


def test_at_most_four_launches_and_three_specialisations_for_twenty_random_sizes(sm_90):
    generator = torch.Generator().manual_seed(4)
    shapes = shapes_for(torch.device("cpu"))
    variants: dict[str, set[tuple[object, ...]]] = {kernel.fn.__name__: set() for kernel in KERNELS}
    for height, width in torch.randint(1, 900, (20, 2), generator=generator).tolist():
        p = plan(2, height, width, ALL, "bicubic", True, shapes)
        assert len(p.grids) == 4
        for kernel, constants in zip(KERNELS, constants_of(p.variant, shapes), strict=True):
            variants[kernel.fn.__name__].add(tuple(constants.items()))
    assert max(map(len, variants.values())) <= 3


def test_precompile_leaves_nothing_to_compile(sm_90, monkeypatch):
    kernels.precompile("cpu", torch.float32, ALL)
    monkeypatch.setattr(type(KERNELS[0]), "warmup", lambda *_, **__: pytest.fail("a kernel was compiled"))
    for height, width in ((40, 56), (45, 61)):
        pred, target = depth_pair(1, height, width)
        kernels.multi_loss(pred, target, torch.ones(1, 78), ALL)
        kernels.multi_loss(pred, target, None, ALL)


def leaves(value, path=()):
    """The parts of tuples in tuples, and where they are."""
    if not isinstance(value, tuple):
        return [(path, value)]
    return [leaf for i, part in enumerate(value) for leaf in leaves(part, (*path, i))]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.fn.__name__)
def test_kernels_are_compiled_for_all_values_of_numbers(sm_90, kernel):
    """Triton compiles 1 in, and assumes of multiples of 16 that they are some."""
    shapes = shapes_for(torch.device("cpu"))
    variant = plan(1, 40, 56, ALL, "bicubic", True, shapes).variant
    constants = constants_of(variant, shapes)[KERNELS.index(kernel)]
    registers = shapes.registers[KERNELS.index(kernel)]
    source = launch.compiled(kernel, torch.float32, constants, 1090, registers).src
    given = [path for path, value in leaves(launch.arguments(kernel, torch.float32, constants)) if value == 3]
    assert [path for path, kind in leaves(tuple(source.signature.values())) if kind == "i32"] == given
    assert not any(source.attrs.get(path) for path in given)


def test_signatures_have_less_than_twenty_parameters():
    for file in Path(kernels.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert len(node.args.args) < 20, (file.name, node.name)


def test_large_tensors_get_kernels_of_their_own(sm_90, monkeypatch):
    wide = []

    def compiled(*key):
        wide.append(key[-1])
        return original(*key)

    original = launch.compiled
    monkeypatch.setattr(launch, "compiled", compiled)
    pred, target = depth_pair(1, 40, 56)
    kernels.multi_loss(pred, target, torch.ones(1, 78), ALL)
    monkeypatch.setattr(launch, "WIDE", 4 * 40 * 56)
    kernels.multi_loss(pred, target, torch.ones(1, 78), ALL)
    assert wide == 4 * [False] + 4 * [True]


@counted
def test_the_step_stays_within_its_budget_of_instructions_and_traffic(sm_90):
    """The counts that the cost model starts from, at the paper's size: what a change of the kernels may not undo."""
    batch, height, width = 2, 288, 384
    pred, target = depth_pair(batch, height, width)
    ptx.counts.clear()
    with ptx.options(count=True):
        kernels.multi_loss(pred, target, torch.ones(batch, 78), ALL)
    pixels = batch * height * width
    lanes = sum(sum(ptx.counts[k.fn.__name__].lane_instructions.values()) for k in KERNELS)
    moved = 32 * sum(
        ptx.counts[k.fn.__name__].reads.program_sectors + ptx.counts[k.fn.__name__].writes.program_sectors
        for k in KERNELS
    )
    assert lanes / pixels < 900
    assert moved / batch < 172e6 / 8
