# SPDX-License-Identifier: Apache-2.0
"""The operator ``mlr::multi_loss``: schema, shapes, checks and autograd.

    mlr::multi_loss(pred, target, weights, terms, downsample) -> (terms [B, n], grad like pred)

One evaluation gives the losses of every image and the gradient of ``sum_bi weights[b, i] terms[b, i]`` by ``pred``.
``weights`` is [B, n], or None when no gradient is wanted (``grad`` is then empty). Which engine evaluates it is
decided in :mod:`mlr.losses.backends`.
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

_SIGNATURE = "(Tensor pred, Tensor target, Tensor? weights, int[] terms, str downsample) -> (Tensor, Tensor)"

torch.library.define("mlr::multi_loss", _SIGNATURE, tags=(torch.Tag.pt2_compliant_tag,))
# the reference under a name of its own, so that an engine can hand float64 on to it
torch.library.define("mlr::multi_loss_reference", _SIGNATURE, tags=(torch.Tag.pt2_compliant_tag,))

_definitions = torch.library.Library("mlr", "FRAGMENT")
for _name in ("multi_loss", "multi_loss_reference"):
    _definitions.impl(_name, reference.multi_loss, "CompositeExplicitAutograd")


@torch.library.register_fake("mlr::multi_loss")
@torch.library.register_fake("mlr::multi_loss_reference")
def _shapes(
    pred: Tensor, target: Tensor, weights: Tensor | None, terms: Sequence[int], downsample: str
) -> tuple[Tensor, Tensor]:
    check_operands(pred, target, weights, terms, downsample)
    values = pred.new_empty((pred.shape[0], len(terms)), dtype=terms_dtype(pred.dtype))
    return values, pred.new_empty(0) if weights is None else torch.empty_like(
        pred, memory_format=torch.contiguous_format
    )


def terms_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type of the losses of a prediction of some type: float64 stays, everything else is computed in float32."""
    return torch.promote_types(dtype, torch.float32)


def check_operands(pred: Tensor, target: Tensor, weights: Tensor | None, terms: Sequence[int], downsample: str) -> None:
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
    if downsample not in reference.DOWNSAMPLE:
        raise ValueError(f"downsample must be one of {', '.join(reference.DOWNSAMPLE)}, got {downsample!r}")
    if not terms or len(set(terms)) != len(terms) or min(terms) < 0 or max(terms) >= len(KINDS) * SCALES:
        raise ValueError(f"terms must be distinct indices 13 * scale + kind in 0..77, at least one, got {list(terms)}")
    if weights is not None and (weights.shape != (pred.shape[0], len(terms)) or weights.device != pred.device):
        raise ValueError(
            f"weights must be [B, n] = [{pred.shape[0]}, {len(terms)}] on {pred.device}, "
            f"got {list(weights.shape)} on {weights.device}"
        )


def _refuse_derivatives(pred: Tensor, target: Tensor) -> None:
    """Refuse what would silently be zero: a gradient for the target, and forward-mode derivatives."""
    if target.requires_grad and torch.is_grad_enabled():
        raise ValueError("the losses give no gradient for the target; pass target.detach()")
    if pred.requires_grad and torch.is_grad_enabled() and torch.compiler.is_exporting():
        raise RuntimeError(
            "torch.export would drop the gradient of the losses: export the network alone, or under torch.no_grad()"
        )
    if not torch.compiler.is_compiling() and any(forward_ad.unpack_dual(x).tangent is not None for x in (pred, target)):
        raise RuntimeError(
            "the losses have no forward-mode derivative (torch.func.jvp, forward_ad): use backward(), or "
            "mlr.losses.reference.multi_loss_terms"
        )


def _first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Make a backward refuse ``create_graph=True``: the saved gradient is a constant to autograd, so a second
    derivative through it would silently be zero."""

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
    """``factor * grad``; on the CPU, where looking costs nothing, a factor of 1 saves the pass over new memory."""
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


class _WeightedTotal(torch.autograd.Function):
    """``total = sum_bi weights[b, i] terms[b, i]`` with the gradient that came out of the same evaluation.

    It stays outside the operator, so that the operator is opaque to compilers and has one meaning.
    """

    @staticmethod
    def forward(
        ctx: Any,
        pred: Tensor,
        target: Tensor,
        weights: Tensor,
        terms: list[int],
        downsample: str,
        differentiable_terms: bool,
    ) -> tuple[Tensor, Tensor]:
        # A float16 gradient of 1 / HW would be subnormal, one of large weights infinite: it is made per pixel and for
        # weights that add up to 1, and scaled once the upstream factor is known.
        evaluated, unit = weights, None
        if pred.dtype == torch.float16:
            most = weights.abs().sum(1).amax()
            unit = torch.where(most > 0, most, 1) / (pred.shape[-2] * pred.shape[-1])
            evaluated = weights / unit
        values, grad = torch.ops.mlr.multi_loss(pred, target, evaluated, terms, downsample)
        ctx.terms, ctx.downsample, ctx.differentiable_terms = terms, downsample, differentiable_terms
        ctx.set_materialize_grads(False)
        # the losses are the caller's, who may change them
        kept = values.clone() if ctx.needs_input_grad[2] else None
        if differentiable_terms:
            ctx.save_for_backward(weights, kept, grad, unit, pred, target)
        else:
            ctx.save_for_backward(weights, kept, grad, unit)
            ctx.mark_non_differentiable(values)
        return (values * weights).sum(), values

    @staticmethod
    @_first_order
    def backward(ctx: Any, grad_total: Tensor | None, grad_values: Tensor | None) -> tuple[Tensor | None, ...]:
        weights, values, grad, unit, *maps = ctx.saved_tensors
        if grad_total is None:
            grad_total = weights.new_zeros(())
        if ctx.differentiable_terms and grad_values is not None:
            # another weighting than the one evaluated: evaluate again, since the 78 gradients were never apart
            upstream = grad_total * weights + grad_values
            grad_pred = torch.ops.mlr.multi_loss(*maps, upstream, ctx.terms, ctx.downsample)[1]
        else:
            grad_pred = _scaled(grad, grad_total if unit is None else grad_total * unit)
        grad_weights = grad_total * values if ctx.needs_input_grad[2] else None
        return grad_pred, None, grad_weights, None, None, None


class _Terms(torch.autograd.Function):
    """The losses alone; an arbitrary upstream gradient [B, n] is a weighting, evaluated when it arrives."""

    @staticmethod
    def forward(ctx: Any, pred: Tensor, target: Tensor, terms: list[int], downsample: str) -> Tensor:
        ctx.save_for_backward(pred, target)
        ctx.terms, ctx.downsample = terms, downsample
        return torch.ops.mlr.multi_loss(pred, target, None, terms, downsample)[0]

    @staticmethod
    @_first_order
    def backward(ctx: Any, grad_values: Tensor) -> tuple[Tensor | None, ...]:
        grad = torch.ops.mlr.multi_loss(*ctx.saved_tensors, grad_values.contiguous(), ctx.terms, ctx.downsample)[1]
        return grad, None, None, None


def weighted_total(
    pred: Tensor,
    target: Tensor,
    weights: Tensor,
    terms: Sequence[int],
    downsample: str,
    differentiable_terms: bool = True,
) -> tuple[Tensor, Tensor]:
    """Total ``sum_bi weights[b, i] terms[b, i]`` and terms, differentiable in ``pred`` and ``weights``.

    Args:
        pred: predicted depth [B, 1, H, W] or [B, H, W].
        target: true depth, same shape, type and device.
        weights: [B, n].
        terms: n indices ``13 * scale + kind``.
        downsample: "bicubic" or "area".
        differentiable_terms: whether the returned terms carry a gradient too.

    Returns:
        ``(total, terms [B, n])``.
    """
    check_operands(pred, target, weights, terms, downsample)
    _refuse_derivatives(pred, target)
    weights = weights.to(terms_dtype(pred.dtype))
    if torch.is_grad_enabled() and pred.requires_grad:
        return _WeightedTotal.apply(pred, target, weights, list(terms), downsample, differentiable_terms)
    values = torch.ops.mlr.multi_loss(pred, target, None, list(terms), downsample)[0]
    return (values * weights).sum(), values


def term_values(pred: Tensor, target: Tensor, terms: Sequence[int], downsample: str) -> Tensor:
    """Terms [B, n], differentiable in ``pred`` with any upstream gradient."""
    check_operands(pred, target, None, terms, downsample)
    _refuse_derivatives(pred, target)
    if torch.is_grad_enabled() and pred.requires_grad:
        return _Terms.apply(pred, target, list(terms), downsample)
    return torch.ops.mlr.multi_loss(pred, target, None, list(terms), downsample)[0]
