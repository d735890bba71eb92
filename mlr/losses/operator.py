# SPDX-License-Identifier: Apache-2.0
"""The operator ``mlr::multi_loss``: schema, shapes, checks and autograd.

    mlr::multi_loss(pred, target, weights, indices, downsample, mask) -> (terms [B, n], grad like pred, counts [B, n])

One evaluation gives the losses of every image and the gradient of ``sum_bi weights[b, i] terms[b, i]`` by ``pred``.
``weights`` is [B, n], or None when no gradient is wanted (``grad`` is then empty). ``mask`` is bool, True where the
depth is known, or None if it is everywhere (``counts``, the number of valid positions of a loss, is then empty). Which
backend evaluates it is decided in :mod:`mlr.losses.backends`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from mlr.losses import reference
from mlr.losses.space import KINDS, SCALES

_SIGNATURE = (
    "(Tensor pred, Tensor target, Tensor? weights, int[] indices, str downsample, Tensor? mask=None) "
    "-> (Tensor, Tensor, Tensor)"
)

torch.library.define("mlr::multi_loss", _SIGNATURE, tags=(torch.Tag.pt2_compliant_tag,))
# the reference under a name of its own, so that an engine can hand float64 on to it
torch.library.define("mlr::multi_loss_reference", _SIGNATURE, tags=(torch.Tag.pt2_compliant_tag,))

_definitions = torch.library.Library("mlr", "FRAGMENT")
for _name in ("multi_loss", "multi_loss_reference"):
    _definitions.impl(_name, reference.multi_loss, "CompositeExplicitAutograd")


@torch.library.register_fake("mlr::multi_loss")
@torch.library.register_fake("mlr::multi_loss_reference")
def _shapes(
    pred: Tensor,
    target: Tensor,
    weights: Tensor | None,
    indices: Sequence[int],
    downsample: str,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    check_operands(pred, target, weights, indices, downsample, mask)
    size = (pred.shape[0], len(indices))
    terms = pred.new_empty(size, dtype=terms_dtype(pred.dtype))
    counts = pred.new_empty(0 if mask is None else size, dtype=torch.int64)
    if weights is None:
        return terms, pred.new_empty(0), counts
    return terms, torch.empty_like(pred, memory_format=torch.contiguous_format), counts


@torch.library.register_vmap("mlr::multi_loss")
def _vmapped(
    info: Any,
    in_dims: tuple[int | None, ...],
    pred: Tensor,
    target: Tensor,
    weights: Tensor | None,
    indices: Sequence[int],
    downsample: str,
    mask: Tensor | None = None,
) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    """Under ``torch.vmap``: losses are of single images, so the images of all calls make one batch."""

    def together(operand: Tensor, dim: int | None) -> Tensor:
        each = operand.expand(info.batch_size, *operand.shape) if dim is None else operand.movedim(dim, 0)
        return each.flatten(0, 1)

    dims = (*in_dims, None)  # a mask that was left out has none
    preds, targets = together(pred, dims[0]), together(target, dims[1])
    masks = None if mask is None else together(mask, dims[5])
    _refuse_derivatives(preds, targets)
    outputs: tuple[Tensor, ...]
    if weights is None:  # with a derivative for a backward() outside
        terms, counts = _evaluate(preds, targets, list(indices), downsample, masks)
        outputs = terms, preds.new_empty(0), counts
    else:
        outputs = torch.ops.mlr.multi_loss(preds, targets, together(weights, dims[2]), indices, downsample, masks)
    there = (True, weights is not None, mask is not None)
    return (
        tuple(x.unflatten(0, (info.batch_size, -1)) if own else x for x, own in zip(outputs, there, strict=True)),
        tuple(0 if own else None for own in there),
    )


def terms_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type of the losses of a prediction of some type: float64 stays, everything else is computed in float32."""
    return torch.promote_types(dtype, torch.float32)


def check_operands(
    pred: Tensor,
    target: Tensor,
    weights: Tensor | None,
    indices: Sequence[int],
    downsample: str,
    mask: Tensor | None = None,
) -> None:
    """Refuse operands that have no meaning, saying what was given and what was expected."""
    if not pred.is_floating_point():
        raise TypeError(f"pred must be a floating-point depth map, got {pred.dtype}; convert it to float32 metres")
    if pred.ndim not in (3, 4) or (pred.ndim == 4 and pred.shape[1] != 1) or 0 in pred.shape:
        raise ValueError(f"pred must be [B, 1, H, W] or [B, H, W] with B, H, W >= 1, got {list(pred.shape)}")
    if target.shape != pred.shape:
        raise ValueError(
            f"target must have the shape of pred, {list(pred.shape)}, got {list(target.shape)}; "
            "resize the prediction or the depth map before the loss"
        )
    if target.dtype != pred.dtype or target.device != pred.device:
        raise TypeError(
            f"target must have the type and device of pred, {pred.dtype} on {pred.device}, "
            f"got {target.dtype} on {target.device}"
        )
    check_downsample(downsample)
    if not indices or len(set(indices)) != len(indices) or min(indices) < 0 or max(indices) >= len(KINDS) * SCALES:
        raise ValueError(
            f"indices must be distinct numbers {len(KINDS)} * scale + kind in 0..{len(KINDS) * SCALES - 1}, at least "
            f"one, got {list(indices)}"
        )
    if weights is not None and (weights.shape != (pred.shape[0], len(indices)) or weights.device != pred.device):
        raise ValueError(
            f"weights must be [B, n] = [{pred.shape[0]}, {len(indices)}] on {pred.device}, "
            f"got {list(weights.shape)} on {weights.device}"
        )
    if mask is not None:
        _check_mask(mask, pred)


def check_downsample(downsample: str) -> None:
    """Refuse an unknown way to reduce maps."""
    if downsample not in reference.DOWNSAMPLE:
        raise ValueError(f"downsample must be one of {', '.join(reference.DOWNSAMPLE)}, got {downsample!r}")


def _check_mask(mask: Tensor, pred: Tensor) -> None:
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask must be a bool tensor, True where the depth is known, got {type(mask).__name__}")
    if mask.requires_grad:
        raise ValueError("the losses give no gradient for the mask; pass a bool mask such as `mask > 0.5`")
    if mask.dtype != torch.bool:
        raise TypeError(
            f"mask must be bool, True where the depth is known, got {mask.dtype}; make one by mlr.known_depth(target) "
            "or by a comparison such as `mask > 0.5`"
        )
    batch, height, width = pred.shape[0], pred.shape[-2], pred.shape[-1]
    if mask.shape not in ((batch, 1, height, width), (batch, height, width)):
        raise ValueError(
            f"mask must be [B, 1, H, W] = [{batch}, 1, {height}, {width}] or [B, H, W], the size of pred, "
            f"got {list(mask.shape)}"
        )
    if mask.device != pred.device:
        raise TypeError(f"mask must be on the device of pred, {pred.device}, got {mask.device}")


def _refuse_derivatives(pred: Tensor, target: Tensor) -> None:
    """Refuse what would silently be zero: a gradient for the target, and forward-mode derivatives."""
    if target.requires_grad and torch.is_grad_enabled():
        raise ValueError("the losses give no gradient for the target; pass target.detach()")
    # PyTorch 2.10's torch.compile takes is_exporting() for true; the flag behind it is right
    if pred.requires_grad and torch.is_grad_enabled() and torch.compiler._is_exporting_flag:
        raise RuntimeError(
            "torch.export would drop the gradient of the losses: export the network alone, or under torch.no_grad()"
        )
    if not torch.compiler.is_compiling() and any(forward_ad.unpack_dual(x).tangent is not None for x in (pred, target)):
        raise RuntimeError(
            "the losses have no forward-mode derivative (torch.func.jvp, forward_ad): use backward(), or "
            "mlr.losses.reference.multi_loss_terms"
        )


def _first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Make a backward refuse ``create_graph=True``.

    The saved gradient is a constant to autograd, so a second derivative through it would silently be zero.
    """

    @functools.wraps(backward)
    def checked(ctx: Any, *grads: Tensor | None) -> Any:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(
                "the losses have no second derivative: double backward (create_graph=True) through mlr's losses is not "
                "supported; use mlr.losses.reference.multi_loss_terms for it"
            )
        return backward(ctx, *grads)

    return checked


def _scaled(grad: Tensor, factor: Tensor) -> Tensor:
    """``factor * grad``. On the CPU the factor can be read without waiting; if it is 1, ``grad`` is not copied."""
    if factor.device.type == "cpu" and not torch.compiler.is_compiling() and _is_one(factor):
        return grad
    # with dimensions of its own the factor keeps its precision: a scalar would be rounded to the type of the maps
    return (grad * factor.reshape((1,) * grad.ndim)).to(grad.dtype)


def _is_one(factor: Tensor) -> bool:
    """Whether a number is 1; False where it cannot be known, as for a tensor that is traced, fake or batched."""
    try:
        return bool(factor.item() == 1)
    except RuntimeError:
        return False


def _in_function_transform() -> bool:
    """Whether a transform of torch.func runs: the operator gives it no derivative, the reference does."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


def _gradient_scale(pred: Tensor, weights: Tensor) -> Tensor | None:
    """What a float16 gradient is divided by until the upstream factor is known; None for other types.

    A float16 gradient of 1 / HW would be subnormal, one of large weights infinite. It is made per pixel and for weights
    that add up to 1.
    """
    if pred.dtype != torch.float16:
        return None
    most = weights.abs().sum(1).amax()
    return torch.where(most > 0, most, 1) / (pred.shape[-2] * pred.shape[-1])


class _Total(torch.autograd.Function):
    """``total = sum_bi weights[b, i] terms[b, i]`` with the gradient that came out of the same evaluation.

    The sum is not part of the operator, which is opaque to compilers. The terms carry no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        pred: Tensor,
        target: Tensor,
        weights: Tensor,
        mask: Tensor | None,
        indices: list[int],
        downsample: str,
    ) -> tuple[Tensor, Tensor, Tensor]:
        scale = _gradient_scale(pred, weights)
        evaluated = weights if scale is None else weights / scale
        terms, grad, counts = torch.ops.mlr.multi_loss(pred, target, evaluated, indices, downsample, mask)
        # the losses are the caller's, who may change them
        kept = terms.clone() if ctx.needs_input_grad[2] else None
        ctx.save_for_backward(grad, scale, kept)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(terms, counts)
        return (terms * weights).sum(), terms, counts

    @staticmethod
    @_first_order
    def backward(ctx: Any, grad_total: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad_total is None:
            return None, None, None, None, None, None
        grad, scale, terms = ctx.saved_tensors
        grad_pred = _scaled(grad, grad_total if scale is None else grad_total * scale)
        return grad_pred, None, None if terms is None else grad_total * terms, None, None, None


class _TotalAndTerms(torch.autograd.Function):
    """The same total with terms that carry a gradient too.

    The forward pass stores the gradient of the total alone. A gradient through terms needs a second evaluation.
    """

    @staticmethod
    def forward(
        ctx: Any,
        pred: Tensor,
        target: Tensor,
        weights: Tensor,
        mask: Tensor | None,
        indices: list[int],
        downsample: str,
    ) -> tuple[Tensor, Tensor, Tensor]:
        scale = _gradient_scale(pred, weights)
        evaluated = weights if scale is None else weights / scale
        terms, grad, counts = torch.ops.mlr.multi_loss(pred, target, evaluated, indices, downsample, mask)
        kept = terms.clone() if ctx.needs_input_grad[2] else None
        ctx.save_for_backward(grad, scale, kept, pred, target, weights, mask)
        ctx.indices, ctx.downsample = indices, downsample
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(counts)
        return (terms * weights).sum(), terms, counts

    @staticmethod
    @_first_order
    def backward(
        ctx: Any, grad_total: Tensor | None, grad_terms: Tensor | None, _: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        grad, scale, terms, pred, target, weights, mask = ctx.saved_tensors
        if grad_total is None:
            grad_total = weights.new_zeros(())
        if grad_terms is None:
            grad_pred = _scaled(grad, grad_total if scale is None else grad_total * scale)
        else:
            upstream = grad_total * weights + grad_terms
            grad_pred = torch.ops.mlr.multi_loss(pred, target, upstream, ctx.indices, ctx.downsample, mask)[1]
        return grad_pred, None, None if terms is None else grad_total * terms, None, None, None


class _Terms(torch.autograd.Function):
    """The losses alone; an arbitrary upstream gradient [B, n] is a weighting, evaluated when it arrives."""

    @staticmethod
    def forward(
        ctx: Any, pred: Tensor, target: Tensor, mask: Tensor | None, indices: list[int], downsample: str
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(pred, target, mask)
        ctx.indices, ctx.downsample = indices, downsample
        ctx.set_materialize_grads(False)
        terms, _, counts = torch.ops.mlr.multi_loss(pred, target, None, indices, downsample, mask)
        ctx.mark_non_differentiable(counts)
        return terms, counts

    @staticmethod
    @_first_order
    def backward(ctx: Any, grad_terms: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad_terms is None:
            return None, None, None, None, None
        pred, target, mask = ctx.saved_tensors
        upstream = grad_terms.contiguous()
        grad = torch.ops.mlr.multi_loss(pred, target, upstream, ctx.indices, ctx.downsample, mask)[1]
        return grad, None, None, None, None


def weighted_total(
    pred: Tensor,
    target: Tensor,
    weights: Tensor,
    indices: Sequence[int],
    downsample: str,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Total ``sum_bi weights[b, i] terms[b, i]``, detached terms and counts.

    Args:
        pred: predicted depth [B, 1, H, W] or [B, H, W].
        target: true depth, same shape, type and device.
        weights: [B, n].
        indices: n indices ``len(KINDS) * scale + kind``.
        downsample: "bicubic" or "area".
        mask: bool [B, 1, H, W] or [B, H, W], or None.

    Returns:
        ``(total, terms [B, n], counts [B, n])``; counts are None without a mask.
    """
    total, terms, counts = _total_and_terms(_Total, pred, target, weights, indices, downsample, mask)
    return total, terms.detach() if terms.requires_grad else terms, counts


def total_and_terms(
    pred: Tensor,
    target: Tensor,
    weights: Tensor,
    indices: Sequence[int],
    downsample: str,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """:func:`weighted_total` with terms that are differentiable in ``pred``."""
    return _total_and_terms(_TotalAndTerms, pred, target, weights, indices, downsample, mask)


def _total_and_terms(
    function: type[torch.autograd.Function],
    pred: Tensor,
    target: Tensor,
    weights: Tensor,
    indices: Sequence[int],
    downsample: str,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    check_operands(pred, target, weights, indices, downsample, mask)
    _refuse_derivatives(pred, target)
    weights, indices = weights.to(terms_dtype(pred.dtype)), list(indices)
    if torch.is_grad_enabled() and pred.requires_grad and not _in_function_transform():
        total, terms, counts = function.apply(pred, target, weights, mask, indices, downsample)
    else:
        terms, counts = _evaluate(pred, target, indices, downsample, mask)
        total = (terms * weights).sum()
    return total, terms, None if mask is None else counts


def terms_and_counts(
    pred: Tensor, target: Tensor, indices: Sequence[int], downsample: str, mask: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Terms [B, n], differentiable in ``pred`` with any upstream gradient, and counts, None without a mask."""
    check_operands(pred, target, None, indices, downsample, mask)
    _refuse_derivatives(pred, target)
    indices = list(indices)
    if torch.is_grad_enabled() and pred.requires_grad and not _in_function_transform():
        terms, counts = _Terms.apply(pred, target, mask, indices, downsample)
    else:
        terms, counts = _evaluate(pred, target, indices, downsample, mask)
    return terms, None if mask is None else counts


def _evaluate(
    pred: Tensor, target: Tensor, indices: list[int], downsample: str, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Terms and counts without an autograd function of ours: of the operator, or of the reference in a transform."""
    if torch.is_grad_enabled() and pred.requires_grad:
        return reference.masked_losses(pred, target, indices, downsample, mask)
    terms, _, counts = torch.ops.mlr.multi_loss(pred, target, None, indices, downsample, mask)
    return terms, counts
