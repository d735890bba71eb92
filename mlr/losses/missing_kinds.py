# SPDX-License-Identifier: Apache-2.0
"""Engines that lack a kind of loss: the reference computes what they lack, and the results are joined.

An engine publishes the kinds that it has and numbers its losses ``number of its kinds * scale + its kind``, as Python
numbers them by :data:`mlr.losses.space.KINDS`. A kind that is new in the table works on every engine at once; a fused
kernel for it may follow.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mlr.losses import reference
from mlr.losses.space import KINDS

#: A kernel of the operator ``mlr::multi_loss``.
Kernel = Callable[..., tuple[Tensor, Tensor, Tensor]]


def missing_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    """Kinds of the table that an engine with these kinds lacks."""
    return tuple(kind for kind in KINDS if kind not in kinds)


def with_all_kinds(kernel: Kernel, kinds: Sequence[str]) -> Kernel:
    """A kernel for all kinds out of one for some.

    Args:
        kernel: an engine's kernel of the operator, which takes the engine's indices.
        kinds: the engine's kinds in its order.

    Returns:
        ``kernel`` itself if its kinds are those of the table. Otherwise a kernel that takes the table's indices, hands
        float64 and the kinds that the engine lacks to the reference, and everything else, in one call, to the engine.
    """
    if tuple(kinds) == KINDS:
        return kernel

    @functools.lru_cache(maxsize=256)
    def split(indices: tuple[int, ...]) -> tuple[list[int], list[int], list[int], list[int]]:
        """Positions of the engine's losses and their engine's indices; those of the reference's losses and theirs."""
        own, own_indices, rest, rest_indices = [], [], [], []
        for position, index in enumerate(indices):
            scale, kind = divmod(index, len(KINDS))
            if KINDS[kind] in kinds:
                own.append(position)
                own_indices.append(len(kinds) * scale + kinds.index(KINDS[kind]))
            else:
                rest.append(position)
                rest_indices.append(index)
        return own, own_indices, rest, rest_indices

    def complete(
        pred: Tensor,
        target: Tensor,
        weights: Tensor | None,
        indices: Sequence[int],
        downsample: str,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        own, own_indices, rest, rest_indices = split(tuple(indices))
        if pred.dtype == torch.float64 or not own:
            return reference.multi_loss(pred, target, weights, indices, downsample, mask)
        if not rest:
            return kernel(pred, target, weights, own_indices, downsample, mask)
        dtype = pred.dtype
        pred, target = pred.float(), target.float()  # half gradients would be rounded before they are added
        own_weights, rest_weights = (None if weights is None else _columns(weights, w) for w in (own, rest))
        terms, grad, counts = kernel(pred, target, own_weights, own_indices, downsample, mask)
        other_terms, other_grad, other_counts = reference.multi_loss(
            pred, target, rest_weights, rest_indices, downsample, mask
        )
        order = own + rest
        back = [order.index(position) for position in range(len(order))]
        terms = _columns(torch.cat([terms, other_terms], dim=1), back)
        if mask is not None:
            counts = _columns(torch.cat([counts, other_counts], dim=1), back)
        return terms, (grad if weights is None else grad + other_grad).to(dtype), counts

    return complete


def _columns(x: Tensor, which: list[int]) -> Tensor:
    """Columns of [B, n]; without an index tensor, whose copy to a GPU would wait."""
    columns = x.unbind(dim=1)
    return torch.stack([columns[i] for i in which], dim=1)
