# SPDX-License-Identifier: Apache-2.0
"""The losses as a module and as functions: what a training loop calls."""

from __future__ import annotations

from typing import NamedTuple, overload

import torch
from torch import Tensor, nn

from mlr.losses import operator as engine
from mlr.losses.reference import DOWNSAMPLE
from mlr.losses.space import LossSpace


class MultiLossOutput(NamedTuple):
    """What :class:`MultiLoss` returns.

    Attributes:
        total: scalar, differentiable: the mean over the images of the weighted sum of losses.
        terms: [B, n], detached: every loss of every image, in the order of the space's names.
        counts: [B, n] int64: number of valid positions of every loss under the mask; None without a mask. A loss of
            count 0 is 0 and absent: balancers leave it out of their means.
    """

    total: Tensor
    terms: Tensor
    counts: Tensor | None = None


def _maps(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Bring the maps to one type: the wider one, so that an autocast prediction keeps the target's precision.

    float64 is the prediction's to ask for, as it has no fast engine: a float64 or integer target counts as float32.
    """
    if not (isinstance(pred, Tensor) and isinstance(target, Tensor)):
        raise TypeError(f"pred and target must be tensors, got {type(pred).__name__} and {type(target).__name__}")
    known = target.dtype if target.is_floating_point() and target.dtype != torch.float64 else torch.float32
    dtype = torch.promote_types(pred.dtype, known) if pred.is_floating_point() else pred.dtype
    return pred.to(dtype), target.to(dtype)


def _operands(pred: Tensor, target: Tensor, weights: Tensor | None, space: LossSpace) -> tuple[Tensor, Tensor, Tensor]:
    """Bring the maps to one type and the weights, [n] or [B, n], to the weights per image of a total that is a mean
    over the images."""
    pred, target = _maps(pred, target)
    dtype = engine.terms_dtype(pred.dtype)
    batch, count = pred.shape[:1].numel(), len(space)  # of a scalar 1: the engine refuses it
    if weights is not None and (not isinstance(weights, Tensor) or weights.is_complex()):
        raise TypeError(f"weights must be a tensor of real numbers, got {getattr(weights, 'dtype', type(weights))}")
    if weights is None:
        weights = torch.full((count,), 1 / count, dtype=dtype, device=pred.device)
    elif weights.shape not in ((count,), (batch, count)):
        raise ValueError(
            f"weights must be [n] = [{count}] or [B, n] = [{batch}, {count}] for this space of {count} losses, "
            f"got {list(weights.shape)}"
        )
    return pred, target, (weights.to(pred.device, dtype) / batch).expand(batch, count)


@overload
def multi_loss(
    pred: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    space: LossSpace | None = None,
    downsample: str = "bicubic",
    mask: None = None,
) -> tuple[Tensor, Tensor]: ...
@overload
def multi_loss(
    pred: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    space: LossSpace | None = None,
    downsample: str = "bicubic",
    *,
    mask: Tensor,
) -> tuple[Tensor, Tensor, Tensor]: ...
def multi_loss(
    pred: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    space: LossSpace | None = None,
    downsample: str = "bicubic",
    mask: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Weighted sum of losses, eq. (2), and the losses themselves, from one evaluation.

    ``total = mean_b sum_i w_i terms[b, i]``

    Args:
        pred: predicted depth [B, 1, H, W] or [B, H, W], metres.
        target: true depth, same shape, metres; one of float64 or integers is taken as float32 unless
            ``pred`` is float64.
        weights: [n], or [B, n] for weights per image; None for equal weights 1/n.
        space: the losses; None for all 78.
        downsample: "bicubic" (the authors' program) or "area" (the paper's words; for sparse masks).
        mask: bool [B, 1, H, W] or [B, H, W], True where the depth is known (:func:`mlr.known_depth`); None if it is
            everywhere. Whatever stands elsewhere changes nothing.

    Returns:
        ``(total, terms)``: a scalar and [B, n]; both are differentiable in ``pred``. With a mask
        ``(total, terms, counts)``: counts [B, n] int64 are the numbers of valid positions. The gradient of the total
        costs nothing more; one through individual terms evaluates the losses again, for which ``pred``, ``target`` and
        ``mask`` are kept: none may change in place before the backward pass. :class:`MultiLoss` keeps none.

    Raises:
        TypeError, ValueError: for maps, masks or weights that do not fit, and for a target that requires a gradient.

    Example:
        >>> pred = torch.rand(2, 1, 24, 32, requires_grad=True)
        >>> total, terms = multi_loss(pred, torch.rand(2, 1, 24, 32), space=LossSpace("depth+gradient"))
        >>> total.backward()
        >>> terms.shape
        torch.Size([2, 36])
    """
    space = space or LossSpace("all")
    pred, target, weights = _operands(pred, target, weights, space)
    total, terms, counts = engine.weighted_total(pred, target, weights, space.indices, downsample, mask)
    return (total, terms) if counts is None else (total, terms, counts)


@overload
def multi_loss_terms(
    pred: Tensor, target: Tensor, space: LossSpace | None = None, downsample: str = "bicubic", mask: None = None
) -> Tensor: ...
@overload
def multi_loss_terms(
    pred: Tensor, target: Tensor, space: LossSpace | None = None, downsample: str = "bicubic", *, mask: Tensor
) -> tuple[Tensor, Tensor]: ...
def multi_loss_terms(
    pred: Tensor,
    target: Tensor,
    space: LossSpace | None = None,
    downsample: str = "bicubic",
    mask: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The losses of every image, [B, n], differentiable in ``pred`` with any upstream gradient.

    Args:
        pred, target, space, downsample, mask: as for :func:`multi_loss`.

    Returns:
        Terms [B, n]; with a mask ``(terms, counts)``.

    Raises:
        TypeError, ValueError: for maps or masks that do not fit, and for a target that requires a gradient.

    Example:
        >>> multi_loss_terms(torch.ones(1, 8, 8), torch.zeros(1, 8, 8), space=LossSpace("D/0+r/0"))
        tensor([[1., 0.]])
    """
    space = space or LossSpace("all")
    terms, counts = engine.terms_and_counts(*_maps(pred, target), space.indices, downsample, mask)
    return terms if counts is None else (terms, counts)


class MultiLoss(nn.Module):
    """The paper's overall loss, eq. (2), over a space of losses, all of them and their gradient in one pass.

    ``total = mean_b sum_i w_i terms[b, i]``

    Args:
        space: the losses, as a :class:`mlr.LossSpace` or a selection such as "all" or "depth+gradient".
        downsample: how a map is brought to scale k: "bicubic" (the authors' program) or "area" (the paper's words; for
            sparse masks).

    Example:
        >>> from mlr import known_depth
        >>> criterion = MultiLoss("depth+gradient")
        >>> pred, target = torch.rand(2, 1, 24, 32, requires_grad=True), torch.rand(2, 1, 24, 32)
        >>> out = criterion(pred, target, mask=known_depth(target))
        >>> out.total.backward()
        >>> out.terms.shape, pred.grad.shape
        (torch.Size([2, 36]), torch.Size([2, 1, 24, 32]))
    """

    def __init__(self, space: LossSpace | str = "all", downsample: str = "bicubic") -> None:
        super().__init__()
        if downsample not in DOWNSAMPLE:
            raise ValueError(f"downsample must be one of {', '.join(DOWNSAMPLE)}, got {downsample!r}")
        self.space = space if isinstance(space, LossSpace) else LossSpace(space)
        self.downsample = downsample

    def forward(
        self, pred: Tensor, target: Tensor, weights: Tensor | None = None, mask: Tensor | None = None
    ) -> MultiLossOutput:
        """Weighted total and losses.

        Args:
            pred, target, mask: as for :func:`multi_loss`.
            weights: [n] (for instance ``balancer.weights``), or [B, n] per image; None for equal weights 1/n.

        Returns:
            ``total`` (scalar, differentiable in ``pred`` and ``weights``), ``terms`` ([B, n], detached) and ``counts``
            ([B, n], None without a mask).
        """
        pred, target, weights = _operands(pred, target, weights, self.space)
        return MultiLossOutput(
            *engine.weighted_total(
                pred, target, weights, self.space.indices, self.downsample, mask, differentiable_terms=False
            )
        )

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"{self.space.selection!r}, {len(self.space)} losses, downsample={self.downsample!r}"
