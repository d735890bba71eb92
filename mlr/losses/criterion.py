# SPDX-License-Identifier: Apache-2.0
"""The losses as a module and as functions: what a training loop calls."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, overload

import torch
from torch import Tensor, nn

from mlr.losses import operator
from mlr.losses.masks import unknown_depth
from mlr.losses.space import LossSpace
from mlr.utils.named import in_order

_ALL = LossSpace("all")


class _Fields(NamedTuple):
    total: Tensor
    terms: Tensor
    counts: Tensor | None = None


class MultiLossOutput(_Fields):
    """What :class:`MultiLoss` returns: a named tuple ``(total, terms, counts)``.

    Attributes:
        total: scalar, differentiable: the mean over the images of the weighted sum of losses.
        terms: [B, n], detached: every loss of every image, in the order of ``names``.
        counts: [B, n] int64: number of valid positions of every loss under the mask; None without a mask. A loss of
            count 0 is 0 and absent: balancers leave it out of their means.
        names: names of the losses. They belong to the type, one for each :class:`LossSpace`, so that they survive
            torch.compile and pytrees.
    """

    __slots__ = ()
    names: ClassVar[tuple[str, ...]] = ()

    def named(self) -> dict[str, Tensor]:
        """Mean of every loss over the images that have it, by name: for loggers. Does not wait for the device.

        A loss that no image has is NaN.
        """
        if self.counts is None:
            means = self.terms.mean(0)
        else:
            present = self.counts > 0
            means = torch.where(present, self.terms, 0).sum(0) / present.sum(0)
        return dict(zip(self.names, means.unbind(), strict=True))

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade_output, (self.names, *self)


@functools.lru_cache(maxsize=64)
def _output_type(names: tuple[str, ...]) -> type[MultiLossOutput]:
    """The type of the outputs over some losses."""
    return type("MultiLossOutput", (MultiLossOutput,), {"names": names, "__slots__": (), "__module__": __name__})


def _remade_output(names: tuple[str, ...], *values: Tensor | None) -> MultiLossOutput:
    return _output_type(names)(*values)  # type: ignore[arg-type]


def _maps(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Bring the maps to one type: the wider one, so that an autocast prediction keeps the target's precision.

    float64 is the prediction's to ask for, as it has no fast engine: a float64 or integer target counts as float32.
    """
    if not (isinstance(pred, Tensor) and isinstance(target, Tensor)):
        raise TypeError(f"pred and target must be tensors, got {type(pred).__name__} and {type(target).__name__}")
    known = target.dtype if target.is_floating_point() and target.dtype != torch.float64 else torch.float32
    dtype = torch.promote_types(pred.dtype, known) if pred.is_floating_point() else pred.dtype
    return pred.to(dtype), target.to(dtype)


def _operands(
    pred: Tensor, target: Tensor, weights: Tensor | Mapping[str, Any] | None, space: LossSpace
) -> tuple[Tensor, Tensor, Tensor]:
    """Bring the maps to one type, and the weights to [B, n] of a total that is the mean over the images."""
    pred, target = _maps(pred, target)
    dtype = operator.terms_dtype(pred.dtype)
    batch, count = pred.shape[:1].numel(), len(space)  # of a scalar 1: the operator refuses it
    if weights is None:
        weights = torch.full((count,), 1 / count, dtype=dtype, device=pred.device)
    elif not isinstance(weights, Tensor):
        weights = _by_name(weights, space, dtype, pred.device)
    elif weights.is_complex():
        raise TypeError(f"weights must be a tensor of real numbers, got {weights.dtype}")
    elif weights.shape not in ((count,), (batch, count)):
        raise ValueError(
            f"weights must be [n] = [{count}] or [B, n] = [{batch}, {count}] for this space of {count} losses, "
            f"got {list(weights.shape)}"
        )
    return pred, target, (weights.to(pred.device, dtype) / batch).expand(batch, count)


def _by_name(weights: Any, space: LossSpace, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Weights [n] of a mapping from names to numbers, or to scalar tensors, which keep their gradient."""
    if not isinstance(weights, Mapping):
        raise TypeError(
            f"weights must be a tensor of real numbers or numbers by name, such as {{{space.names[0]!r}: 1.0}}, "
            f"got {type(weights).__name__}"
        )
    values = [torch.as_tensor(value, dtype=dtype, device=device) for value in in_order(weights, space.names)]
    if any(value.dim() for value in values):
        raise ValueError("weights by name must be numbers or scalar tensors")
    return torch.stack(values)


@overload
def multi_loss(
    pred: Tensor,
    target: Tensor,
    weights: Tensor | Mapping[str, Any] | None = None,
    space: LossSpace | None = None,
    downsample: str = "bicubic",
    mask: None = None,
) -> tuple[Tensor, Tensor]: ...
@overload
def multi_loss(
    pred: Tensor,
    target: Tensor,
    weights: Tensor | Mapping[str, Any] | None = None,
    space: LossSpace | None = None,
    downsample: str = "bicubic",
    *,
    mask: Tensor,
) -> tuple[Tensor, Tensor, Tensor]: ...
def multi_loss(
    pred: Tensor,
    target: Tensor,
    weights: Tensor | Mapping[str, Any] | None = None,
    space: LossSpace | None = None,
    downsample: str = "bicubic",
    mask: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Weighted sum of losses, eq. (2), and the losses themselves, from one evaluation.

    ``total = mean_b sum_i w_i terms[b, i]``

    Args:
        pred: predicted depth [B, 1, H, W] or [B, H, W], metres, of any floating type.
        target: true depth, same shape, metres. float64 and integers are taken as float32 unless ``pred`` is float64.
        weights: a tensor [n] in the order of ``space.names``, or [B, n] for weights per image; or numbers by name,
            ``{"D/0": 1.0, ...}``, one for every loss; None for equal weights 1/n.
        space: the losses; None for all of them.
        downsample: how a map is reduced to scale k: "bicubic" (the authors' program) or "area" (the paper's words; for
            sparse masks).
        mask: bool [B, 1, H, W] or [B, H, W], True where the depth is known (:func:`mlr.known_depth`); None if it is
            everywhere. Values of ``pred`` and ``target`` elsewhere are ignored.

    Returns:
        ``(total, terms)``: a scalar and [B, n], both differentiable in ``pred``. With a mask
        ``(total, terms, counts)``: counts [B, n] int64 are the numbers of valid positions. The gradient of the total
        costs nothing more. A gradient through terms evaluates the losses again: ``pred``, ``target`` and ``mask`` are
        kept for it, and none may change in place before the backward pass. :class:`MultiLoss` keeps none.

    Raises:
        TypeError, ValueError: for maps, masks or weights that do not fit, and for a target that requires a gradient.

    Example:
        >>> pred = torch.rand(2, 1, 24, 32, requires_grad=True)
        >>> total, terms = multi_loss(pred, torch.rand(2, 1, 24, 32), space=LossSpace("depth+gradient"))
        >>> total.backward()
        >>> terms.shape
        torch.Size([2, 36])
    """
    space = space or _ALL
    pred, target, weights = _operands(pred, target, weights, space)
    total, terms, counts = operator.total_and_terms(pred, target, weights, space.indices, downsample, mask)
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
    space = space or _ALL
    terms, counts = operator.terms_and_counts(*_maps(pred, target), space.indices, downsample, mask)
    return terms if counts is None else (terms, counts)


class MultiLoss(nn.Module):
    """The paper's overall loss, eq. (2), over a space of losses: :func:`multi_loss` as a module.

    On its first call without a mask it reads the target, and warns if depth is unknown (0, negative or not finite)
    somewhere or cannot be in metres. No other call waits for the device.

    Args:
        space: the losses, as a :class:`mlr.LossSpace` or a selection such as "all" or "depth+gradient".
        downsample: as for :func:`multi_loss`.

    Example:
        >>> from mlr import known_depth
        >>> criterion = MultiLoss("depth+gradient")
        >>> pred, target = torch.rand(2, 1, 24, 32, requires_grad=True), torch.rand(2, 1, 24, 32)
        >>> out = criterion(pred, target, mask=known_depth(target))
        >>> out.total.backward()
        >>> out.terms.shape, pred.grad.shape
        (torch.Size([2, 36]), torch.Size([2, 1, 24, 32]))
        >>> list(out.named())[:3]
        ['D/0', 'r/0', 'c/0']
    """

    def __init__(self, space: LossSpace | str = "all", downsample: str = "bicubic") -> None:
        super().__init__()
        operator.check_downsample(downsample)
        self.space = space if isinstance(space, LossSpace) else LossSpace(space)
        self.downsample = downsample
        self._output = _output_type(self.space.names)
        self._look_at_target = True

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weights: Tensor | Mapping[str, Any] | None = None,
        mask: Tensor | None = None,
    ) -> MultiLossOutput:
        """Weighted total and losses.

        Args:
            pred, target, weights, mask: as for :func:`multi_loss`; weights for instance ``balancer.weights``.

        Returns:
            ``total`` (scalar, differentiable in ``pred`` and ``weights``), ``terms`` ([B, n], detached) and ``counts``
            ([B, n], None without a mask).
        """
        if mask is None and self._look_at_target and not torch.compiler.is_compiling():
            self._warn_of_unknown_depth(target)
        pred, target, weights = _operands(pred, target, weights, self.space)
        return self._output(*operator.weighted_total(pred, target, weights, self.space.indices, self.downsample, mask))

    def _warn_of_unknown_depth(self, target: Tensor) -> None:
        """Look at the target once; not yet if it cannot be read now."""
        what = unknown_depth(target)
        if what is None:
            return
        self._look_at_target = False
        if what:
            warnings.warn(what, stacklevel=5)

    def __getstate__(self) -> dict[str, Any]:
        # a type that was made here cannot be pickled by its name
        return {key: value for key, value in self.__dict__.items() if key != "_output"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"_look_at_target": True} | state)
        self._output = _output_type(self.space.names)

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"{self.space.selection!r}, {len(self.space)} losses, downsample={self.downsample!r}"
