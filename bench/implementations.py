# SPDX-License-Identifier: Apache-2.0
"""The implementations that are compared, their inputs, and how exact each must be to be timed at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import formulations
import machine
import masked_formulation
import masks
import torch
from moved import SCALES, indices, reference
from torch import Tensor

import mlr


@dataclass(frozen=True)
class Case:
    """One thing to measure: maps [batch, 1, height, width], a selection of losses, with or without the gradient.

    ``sets`` copies of the inputs are used in turn: 1 leaves small maps in the cache, as a network's fresh prediction
    is; enough of them push every input out of it. ``mask`` is one of :data:`masks.MASKS`.
    """

    sweep: str = "main"
    batch: int = 8
    height: int = 288
    width: int = 384
    losses: str = "all"
    dtype: str = "float32"
    gradient: bool = True
    threads: int = 1
    device: str = "cpu"
    sets: int = 1
    mask: str = "none"
    downsample: str = "bicubic"

    @property
    def terms(self) -> tuple[int, ...]:
        return indices(mlr.LossSpace(self.losses))

    @property
    def type(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    @property
    def pixels(self) -> int:
        return self.batch * self.height * self.width

    @property
    def bytes(self) -> int:
        """The least a loss must move: read both maps, write the gradient."""
        return self.pixels * self.type.itemsize * (3 if self.gradient else 2)

    @property
    def extras(self) -> str:
        """What differs from dense bicubic maps, for the tables."""
        mask = "" if self.mask == "none" else f", mask {self.mask}"
        return mask if self.downsample == "bicubic" else f"{mask}, {self.downsample}"

    def __str__(self) -> str:
        mode = "terms + gradient" if self.gradient else "terms only"
        cache = "" if self.sets == 1 else f", {self.sets} input sets in turn"
        return (
            f"{self.batch} x {self.height} x {self.width}, {len(self.terms)} losses, {self.dtype}, {mode}, "
            f"{self.device}, {self.threads} thread{'s' * (self.threads > 1)}{cache}{self.extras}"
        )


class Inputs(NamedTuple):
    """What every implementation of a case is given.

    ``gain`` is the loss scale of a float16 gradient, which would be subnormal at 1 / HW; it is 1 for the other types.
    ``weights`` [B, n] hold it and the batch's 1/B, ``mean_weights`` neither. ``grad`` is a buffer like pred. ``mask``
    is bool like pred, or None; the target is 0 where it is False, as sensors write it.
    """

    pred: Tensor
    target: Tensor
    weights: Tensor
    mean_weights: Tensor
    gain: Tensor
    grad: Tensor
    mask: Tensor | None = None


Values = tuple[Tensor, "Tensor | None"]
Call = Callable[[Inputs], Values]


def depth_maps(case: Case, seed: int) -> Inputs:
    """A scene of smooth depth with an edge, 1 to 5 m, and a prediction of it: scaled, shifted and noisy."""
    g = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 1, case.height), torch.linspace(0, 1, case.width), indexing="ij")
    phase = torch.rand(case.batch, 3, 1, 1, generator=g)
    waves = torch.sin(6 * x * phase[:, 0:1] + 5 * y * phase[:, 1:2] + 6 * phase[:, 2:3])
    target = 3 + 1.5 * waves + 0.5 * (x + y > 1).float()
    pred = 1.05 * target - 0.1 + 0.05 * torch.randn(target.shape, generator=g)
    gain = float(case.height * case.width) if case.type == torch.float16 else 1.0
    weights = (0.5 + torch.rand(case.batch, len(case.terms), generator=g)) / len(case.terms)
    pred, target = pred.to(case.device, case.type), target.to(case.device, case.type)
    mask = masks.make_mask(case.mask, case.batch, case.height, case.width, g)
    if mask is not None:
        mask = mask.to(case.device)
        target = torch.where(mask, target, 0)
    return Inputs(
        pred,
        target,
        weights.to(case.device) * (gain / case.batch),
        weights.to(case.device),
        torch.tensor(gain, device=case.device),
        torch.empty_like(pred),
        mask,
    )


class Unavailable(Exception):
    """A implementation cannot take part; the message says why."""


def truth(case: Case, inputs: Inputs) -> Values:
    """Values and gradient of the case in float64, by the definition, a few images at a time.

    The definition keeps some hundred maps of every image for its backward pass.
    """
    parts = []
    images = max(1, 1_000_000 // (case.height * case.width))
    for first in range(0, case.batch, images):
        part = slice(first, first + images)
        pred, target, weights = (x[part].double() for x in inputs[:3])
        masked = () if inputs.mask is None else (inputs.mask[part],)
        wanted = weights if case.gradient else None
        parts.append(reference.multi_loss(pred, target, wanted, case.terms, case.downsample, *masked)[:2])
    values, grads = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(grads) if case.gradient else None


def _l1_truth(case: Case, inputs: Inputs) -> Values:
    pred, target = inputs.pred.double(), inputs.target.double()
    weights = inputs.gain.double().expand(case.batch, 1) / case.batch
    values, grad = reference.multi_loss(pred, target, weights if case.gradient else None, (0,))[:2]
    return values.mean().reshape(1, 1), grad if case.gradient else None


def _copy_truth(_: Case, inputs: Inputs) -> Values:
    return inputs.pred.new_zeros((0, 0)), inputs.pred.double() - inputs.target.double()


@dataclass(frozen=True)
class Implementation:
    """A way to compute a case.

    Attributes:
        name: short name, as in the tables.
        about: one line for the reader.
        build: makes the call for a case; raises :class:`Unavailable` where it cannot run.
        truth: what the call must return, in float64.
        values_tolerance: largest relative error of any loss.
        gradient_tolerance: largest relative L2 error of the gradient; the storage type's rounding comes on top.
        slow: takes part in the main cases only, not in sweeps.
        compiles: its first call compiles for minutes, and is made in a process of its own first.
    """

    name: str
    about: str
    build: Callable[[Case], Call]
    truth: Callable[[Case, Inputs], Values] = truth
    values_tolerance: float = 1e-5
    gradient_tolerance: float = 1e-3
    slow: bool = False
    compiles: bool = False


# --- plain PyTorch ----------------------------------------------------------------------------------------------------


def _autograd(case: Case, formulation: formulations.Formulation) -> Call:
    if case.type != torch.float32:
        raise Unavailable(f"plain PyTorch is measured in float32, not {case.dtype}")
    if case.mask != "none" or case.downsample != "bicubic":
        if formulation is formulations.authors:
            raise Unavailable("the authors' program has neither masks nor the area pyramid")
        return _masked_autograd(case, formulation)

    def gradient(inputs: Inputs) -> Values:
        leaf = inputs.pred.detach().requires_grad_()
        values = formulation(leaf, inputs.target, case.terms)
        (grad,) = torch.autograd.grad((values * inputs.weights).sum(), leaf)
        return values.detach(), grad

    def values_only(inputs: Inputs) -> Values:
        with torch.no_grad():
            return formulation(inputs.pred, inputs.target, case.terms), None

    return gradient if case.gradient else values_only


def _masked_autograd(case: Case, formulation: formulations.Formulation) -> Call:
    if min(case.height, case.width) < 2 ** (SCALES - 1):
        raise Unavailable(f"masked plain PyTorch needs maps of at least {2 ** (SCALES - 1)} pixels a side")
    box = formulations.box_by_pooling if formulation is formulations.eager else formulations.box_by_doubling

    def gradient(inputs: Inputs) -> Values:
        leaf = inputs.pred.detach().requires_grad_()
        values = masked_formulation.masked(leaf, inputs.target, inputs.mask, case.terms, case.downsample, box)
        (grad,) = torch.autograd.grad((values * inputs.weights).sum(), leaf)
        return values.detach(), grad

    def values_only(inputs: Inputs) -> Values:
        with torch.no_grad():
            values = masked_formulation.masked(
                inputs.pred, inputs.target, inputs.mask, case.terms, case.downsample, box
            )
            return values, None

    return gradient if case.gradient else values_only


def _compiled(case: Case, formulation: formulations.Formulation) -> Call:
    return _autograd(case, torch.compile(formulation, dynamic=False, fullgraph=True))


def _l1(case: Case) -> Call:
    # half precision is averaged in float32, as autocast does
    def value(pred: Tensor, target: Tensor) -> Tensor:
        if case.type == torch.float32:
            return (pred - target).abs().mean()
        return (pred.float() - target.float()).abs().mean()

    def gradient(inputs: Inputs) -> Values:
        leaf = inputs.pred.detach().requires_grad_()
        total = value(leaf, inputs.target)
        total.backward(inputs.gain)
        return total.detach().reshape(1, 1), leaf.grad

    def values_only(inputs: Inputs) -> Values:
        with torch.no_grad():
            return value(inputs.pred, inputs.target).reshape(1, 1), None

    return gradient if case.gradient else values_only


def _copy(case: Case) -> Call:
    if not case.gradient:
        raise Unavailable("the copy bound is measured with a gradient to write")

    def subtract(inputs: Inputs) -> Values:
        torch.sub(inputs.pred, inputs.target, out=inputs.grad)
        return inputs.pred.new_empty((0, 0)), inputs.grad

    return subtract


# --- the backends -----------------------------------------------------------------------------------------------------


def _operator(case: Case, operator: Callable[..., tuple[Tensor, ...]]) -> Call:
    terms, downsample = list(case.terms), case.downsample

    def call(inputs: Inputs) -> Values:
        weights = inputs.weights if case.gradient else None
        masked = () if inputs.mask is None else (inputs.mask,)
        values, grad = operator(inputs.pred, inputs.target, weights, terms, downsample, *masked)[:2]
        return values, grad if case.gradient else None

    return call


def _natural_backend(name: str) -> None:
    """Refuse to time one backend under another's name."""
    forced = os.environ.get("MLR_BACKEND")
    if forced and forced != name:
        raise Unavailable(f"MLR_BACKEND={forced} is set")


def _reference(case: Case) -> Call:
    return _operator(case, torch.ops.mlr.multi_loss_reference)


def _cpp(case: Case) -> Call:
    if case.device != "cpu":
        raise Unavailable("it runs on the CPU")
    if machine.cpp_instruction_set() is None:
        raise Unavailable("the C++ engine is not built here")
    _natural_backend("cpp")
    return _operator(case, torch.ops.mlr.multi_loss)


def _cpp_with(case: Case, instruction_set: str) -> Call:
    """The C++ engine with another instruction set's kernels than the widest."""
    call = _cpp(case)
    from mlr import _C  # type: ignore[attr-defined, unused-ignore]

    if instruction_set not in _C.instruction_sets():
        raise Unavailable(f"this processor has {', '.join(_C.instruction_sets())}")
    if instruction_set == machine.cpp_instruction_set():
        raise Unavailable(f"cpp runs with {instruction_set} already")

    def at_level(inputs: Inputs) -> Values:
        _C.set_instruction_set(instruction_set)
        try:
            return call(inputs)
        finally:
            _C.set_instruction_set("")

    return at_level


def _triton(case: Case) -> Call:
    if case.device != "cuda":
        raise Unavailable("it runs on a GPU, and this case is on the CPU")
    _natural_backend("triton")
    return _operator(case, torch.ops.mlr.multi_loss)


def _module(case: Case) -> Call:
    """The loss as a training loop calls it: forward, autograd, backward."""
    if case.device == "cpu" and machine.cpp_instruction_set() is None:
        raise Unavailable("no backend but the reference is here")
    _natural_backend("cpp" if case.device == "cpu" else "triton")
    criterion = mlr.MultiLoss(mlr.LossSpace(case.losses), case.downsample)

    def gradient(inputs: Inputs) -> Values:
        leaf = inputs.pred.detach().requires_grad_()
        masked = () if inputs.mask is None else (inputs.mask,)
        # the criterion takes the mean over the batch itself
        out = criterion(leaf, inputs.target, inputs.mean_weights, *masked)
        out.total.backward(inputs.gain)
        return out.terms, leaf.grad

    def values_only(inputs: Inputs) -> Values:
        with torch.no_grad():
            masked = () if inputs.mask is None else (None, inputs.mask)
            return criterion(inputs.pred, inputs.target, *masked).terms, None

    return gradient if case.gradient else values_only


# Plain float32 formulations resample pred and target apart and cancel afterwards, so near-ties of a sign fall the other
# way now and then and the cosine of almost equal normals loses digits: they are held to what float32 can give them.
IMPLEMENTATIONS: dict[str, Implementation] = {
    c.name: c
    for c in (
        Implementation("copy", "reads two maps, writes one: the memory bound", _copy, _copy_truth),
        Implementation("l1", "plain (pred - target).abs().mean(), forward + backward", _l1, _l1_truth),
        Implementation(
            "authors",
            "the paper line by line: both maps resampled and pooled n x n, autograd",
            lambda case: _autograd(case, formulations.authors),
            values_tolerance=2e-2,
            gradient_tolerance=1e-2,
            slow=True,
        ),
        Implementation(
            "eager",
            "the best plain PyTorch: error map, separable pooling, autograd",
            lambda case: _autograd(case, formulations.eager),
            values_tolerance=1e-4,
            gradient_tolerance=1e-2,
        ),
        Implementation(
            "doubling",
            "eager with windows summed by doubling instead of pooling",
            lambda case: _autograd(case, formulations.doubling),
            values_tolerance=1e-4,
            gradient_tolerance=1e-2,
        ),
        Implementation(
            "compile",
            "torch.compile of eager",
            lambda case: _compiled(case, formulations.eager),
            values_tolerance=1e-4,
            gradient_tolerance=1e-2,
            slow=True,
            compiles=True,
        ),
        Implementation("reference", "mlr's definition of the losses, autograd", _reference, slow=True),
        Implementation("cpp", "mlr's C++ engine, the operator alone", _cpp),
        Implementation("cpp-avx2", "the same with AVX2 + FMA", lambda case: _cpp_with(case, "avx2"), slow=True),
        Implementation("cpp-default", "the same without them", lambda case: _cpp_with(case, "default"), slow=True),
        Implementation("triton", "mlr's Triton engine, the operator alone", _triton),
        Implementation("module", "mlr.MultiLoss forward + backward, as a training loop calls it", _module),
    )
}

#: Implementations whose time is the product's own.
OURS: tuple[str, ...] = ("cpp", "cpp-avx2", "cpp-default", "triton", "module")


def select(only: Sequence[str] = (), skip: Sequence[str] = ()) -> list[Implementation]:
    """Implementations by name, in the tables' order.

    Raises:
        ValueError: for a name that nobody has.
    """
    unknown = [name for name in (*only, *skip) if name not in IMPLEMENTATIONS]
    if unknown:
        raise ValueError(f"unknown implementation {', '.join(unknown)}; there are {', '.join(IMPLEMENTATIONS)}")
    return [c for name, c in IMPLEMENTATIONS.items() if (not only or name in only) and name not in skip]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run with a number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
