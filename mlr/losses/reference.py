# SPDX-License-Identifier: Apache-2.0
"""The losses in plain PyTorch, written to be read beside section 3.1 of the paper.

This is the definition: the C++ and Triton engines are tested against it. It accepts any floating type and any map of at
least 1 x 1 pixel, on any device, and is differentiable by autograd. The formulas of the kinds stand in
:mod:`mlr.losses.kinds`; this module makes the maps of every scale, and the operator.

A mask marks the pixels whose depth is known. ``E = pred - target`` and the target are set to 0 elsewhere, so whatever
stands under the mask reaches neither a value nor a gradient. The mask has a value at every scale too, V^k; a position
counts for a kind if every pixel that it reads is valid, and the loss is the mean over these positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mlr.losses.kinds import KIND_TABLE, ScaleMaps
from mlr.losses.space import SCALES

#: Ways to reduce a depth map to scale k: the authors' program and the paper's words.
DOWNSAMPLE: tuple[str, ...] = ("bicubic", "area")

#: Taps of cubic convolution (A = -0.75) half-way between two pixels, where every sample of an even reduction lies.
HALFWAY = (-3 / 32, 19 / 32, 19 / 32, -3 / 32)


# --- scales -----------------------------------------------------------------------------------------------------------


def scale_size(height: int, width: int, scale: int, downsample: str = "bicubic") -> tuple[int, int]:
    """Height and width of a map at a scale: floor(H / 2^k) x floor(W / 2^k).

    A side shorter than 2^k makes the bicubic map 1 x 1, as in the authors' program; the area map keeps one pixel along
    that side alone.
    """
    size = height >> scale, width >> scale
    if downsample == "bicubic" and 0 in size:
        return 1, 1
    return max(size[0], 1), max(size[1], 1)


def bicubic_taps(length: int, scale: int, collapsed: bool) -> tuple[int, tuple[float, float, float, float]]:
    """First input position of output 0 and the four weights of one axis; output i starts 2^k i further.

    ``collapsed`` says that the map is shorter than 2^k along either axis: its only output then samples the middle of
    the map, which is a pixel itself where the side is odd.
    """
    if not collapsed:
        return 2 ** (scale - 1) - 2, HALFWAY
    if length % 2 == 0:
        return length // 2 - 2, HALFWAY
    return (length - 1) // 2 - 1, (0.0, 1.0, 0.0, 0.0)


def _bicubic_axis(x: Tensor, dim: int, out: int, scale: int, collapsed: bool) -> list[tuple[Tensor, float]]:
    """The inputs of every output along an axis and their weights, weights of 0 left out."""
    length = x.shape[dim]
    first, weights = bicubic_taps(length, scale, collapsed)
    start = torch.arange(out, device=x.device) * 2**scale + first
    return [(x.index_select(dim, (start + t).clamp(0, length - 1)), w) for t, w in enumerate(weights) if w]


def _bicubic(x: Tensor, scale: int) -> Tensor:
    """A map sampled directly at a scale; of a mask, whether every pixel that is read with a weight other than 0 is."""
    height, width = scale_size(x.shape[-2], x.shape[-1], scale)
    collapsed = 0 in (x.shape[-2] >> scale, x.shape[-1] >> scale)
    for dim, out in ((-1, width), (-2, height)):
        taps = _bicubic_axis(x, dim, out, scale, collapsed)
        if x.dtype == torch.bool:
            x = torch.stack([value for value, _ in taps]).all(0)
        else:
            x = torch.stack([value * weight for value, weight in taps]).sum(0)
    return x


def _halved(x: Tensor) -> Tensor:
    """Mean of 2 x 2 pixels; a side of one pixel stays."""
    return F.avg_pool2d(x, (min(x.shape[-2], 2), min(x.shape[-1], 2)))


def resample(x: Tensor, scale: int, downsample: str = "bicubic", mask: Tensor | None = None) -> Tensor:
    """Reduce maps to a scale: D^k of section 3.1.

    ``bicubic`` samples the input map directly and equals ``F.interpolate(x, scale_factor=2**-k, mode="bicubic")``
    without antialiasing; ``area`` halves k times by the mean of 2 x 2 pixels, of the valid ones under a mask.

    Args:
        x: maps [B, 1, H, W]; under a mask 0 at invalid pixels.
        scale: k, 0 to 5.
        downsample: "bicubic" or "area".
        mask: bool [B, 1, H, W], or None if every pixel is valid.

    Returns:
        Maps [B, 1, h, w] of :func:`scale_size`; under a mask 0 at the invalid pixels of :func:`resample_mask`.
    """
    if scale == 0:
        return x
    if downsample == "bicubic":
        x = _bicubic(x, scale)
        return x if mask is None else torch.where(_bicubic(mask, scale), x, 0)
    for _ in range(scale):
        x = _halved(x)
        if mask is not None:
            share = _halved(mask.to(x.dtype))
            mask = share > 0
            x = x / torch.where(mask, share, 1)
    return x


def resample_mask(mask: Tensor, scale: int, downsample: str = "bicubic") -> Tensor:
    """Reduce a mask to a scale: V^k.

    ``bicubic``: a pixel is valid if all of the (up to 16) pixels are that it reads with a weight other than 0;
    ``area``: if any of its four children is.

    Args:
        mask: bool [B, 1, H, W].
        scale: k, 0 to 5.
        downsample: "bicubic" or "area".
    """
    if scale == 0:
        return mask
    if downsample == "bicubic":
        return _bicubic(mask, scale)
    for _ in range(scale):
        mask = _halved(mask.float()) > 0
    return mask


# --- the operator -----------------------------------------------------------------------------------------------------


def masked_losses(
    pred: Tensor,
    target: Tensor,
    indices: Sequence[int],
    downsample: str = "bicubic",
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Values of the selected losses and their counts, one per image and loss; autograd differentiates the values.

    Half-precision input is computed in float32.

    Args:
        pred: predicted depth [B, 1, H, W] or [B, H, W], metres.
        target: true depth, the same shape, metres.
        indices: ``len(KINDS) * scale + kind`` of every loss (:attr:`mlr.LossSpace.indices`).
        downsample: "bicubic" or "area", see :func:`resample`.
        mask: bool [B, 1, H, W] or [B, H, W], True where the depth is known; None if it is everywhere.

    Returns:
        ``(terms [B, n], counts [B, n])`` in the order of ``indices``: terms are float64 for float64 input, else
        float32; counts are the int64 numbers of valid positions. A loss without a valid position is 0.
    """
    work = torch.promote_types(pred.dtype, torch.float32)
    shape = (pred.shape[0], 1, *pred.shape[-2:])
    target = target.to(work).reshape(shape)
    error = pred.to(work).reshape(shape) - target
    if mask is not None:
        mask = mask.reshape(shape)
        error, target = torch.where(mask, error, 0), torch.where(mask, target, 0)
    results: dict[int, tuple[Tensor, Tensor]] = {}
    for scale in range(SCALES):
        selected = [i for i in indices if i // len(KIND_TABLE) == scale]
        if selected:
            maps = ScaleMaps(
                resample(error, scale, downsample, mask),
                partial(resample, target, scale, downsample, mask),
                None if mask is None else resample_mask(mask, scale, downsample),
            )
            results |= {i: KIND_TABLE[i % len(KIND_TABLE)].loss(maps) for i in selected}
    terms, counts = zip(*(results[i] for i in indices), strict=True)
    return torch.stack(terms, dim=1), torch.stack(counts, dim=1)


def multi_loss_terms(
    pred: Tensor,
    target: Tensor,
    indices: Sequence[int],
    downsample: str = "bicubic",
    mask: Tensor | None = None,
) -> Tensor:
    """Terms [B, n] of :func:`masked_losses` alone, for any derivative that autograd can take."""
    return masked_losses(pred, target, indices, downsample, mask)[0]


def multi_loss(
    pred: Tensor,
    target: Tensor,
    weights: Tensor | None,
    indices: Sequence[int],
    downsample: str = "bicubic",
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator ``mlr::multi_loss`` by autograd: terms, the gradient of their weighted sum, and counts.

    Args:
        pred: predicted depth [B, 1, H, W] or [B, H, W].
        target: true depth, the same shape.
        weights: [B, n], or None when no gradient is wanted.
        indices: ``len(KINDS) * scale + kind`` of every loss.
        downsample: "bicubic" or "area".
        mask: bool [B, 1, H, W] or [B, H, W], True where the depth is known; None if it is everywhere.

    Returns:
        ``(terms [B, n], grad, counts)``: ``grad`` is the gradient of ``sum_bi weights[b, i] terms[b, i]`` by ``pred``
        in its shape and type, or empty where ``weights`` is None; ``counts`` [B, n] int64, or empty without a mask.
    """
    if weights is None:
        with torch.no_grad():
            terms, counts = masked_losses(pred, target, indices, downsample, mask)
        return terms, pred.new_empty(0), counts if mask is not None else _no_counts(pred)
    with torch.inference_mode(False), torch.enable_grad():
        # copies, because tensors made in inference mode cannot be recorded
        leaf, target, weights = (
            x.detach().clone(memory_format=torch.contiguous_format) for x in (pred, target, weights)
        )
        mask = None if mask is None else mask.clone(memory_format=torch.contiguous_format)
        terms, counts = masked_losses(leaf.requires_grad_(), target, indices, downsample, mask)
        (grad,) = torch.autograd.grad((terms * weights).sum(), leaf)
    return terms.detach(), grad, counts if mask is not None else _no_counts(pred)


def _no_counts(pred: Tensor) -> Tensor:
    return pred.new_empty(0, dtype=torch.int64)
