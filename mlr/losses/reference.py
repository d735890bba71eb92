# SPDX-License-Identifier: Apache-2.0
"""The 78 losses in plain PyTorch, written to be read beside section 3.1 of the paper.

This is the definition: the C++ and Triton engines are tested against it. It accepts any floating type and any map of at
least 1 x 1 pixel, on any device, and is differentiable by autograd.

With ``E = pred - target`` every kind but the normals is a function of ``E`` alone, because resampling, averaging and
differences are linear; the normals also need the target. The prediction at scale k is ``target^k + E^k``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mlr.losses.space import KINDS, SCALES, WINDOWS

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


def _bicubic_axis(x: Tensor, dim: int, out: int, scale: int, collapsed: bool) -> Tensor:
    length = x.shape[dim]
    first, weights = bicubic_taps(length, scale, collapsed)
    start = torch.arange(out, device=x.device) * 2**scale + first
    taps = [x.index_select(dim, (start + t).clamp(0, length - 1)) * w for t, w in enumerate(weights) if w]
    return torch.stack(taps).sum(0)


def resample(x: Tensor, scale: int, downsample: str = "bicubic") -> Tensor:
    """Reduce maps to a scale: D^k of section 3.1.

    ``bicubic`` samples the input map directly and equals ``F.interpolate(x, scale_factor=2**-k, mode="bicubic")``
    without antialiasing; ``area`` halves k times by the mean of 2 x 2 pixels.

    Args:
        x: maps [B, 1, H, W].
        scale: k, 0 to 5.
        downsample: "bicubic" or "area".

    Returns:
        Maps [B, 1, h, w] of :func:`scale_size`.
    """
    if scale == 0:
        return x
    if downsample == "bicubic":
        height, width = scale_size(x.shape[-2], x.shape[-1], scale)
        collapsed = 0 in (x.shape[-2] >> scale, x.shape[-1] >> scale)
        return _bicubic_axis(_bicubic_axis(x, -1, width, scale, collapsed), -2, height, scale, collapsed)
    for _ in range(scale):  # a side of one pixel stays
        x = F.avg_pool2d(x, (min(x.shape[-2], 2), min(x.shape[-1], 2)))
    return x


# --- operators on one scale -------------------------------------------------------------------------------------------


def diff_r(x: Tensor) -> Tensor:
    """Horizontal derivative: ``x[y, x+1] - x[y, x]``, 0 in the last column (eq. 6)."""
    return F.pad(x[..., :, 1:] - x[..., :, :-1], (0, 1))


def diff_c(x: Tensor) -> Tensor:
    """Vertical derivative: ``x[y+1, x] - x[y, x]``, 0 in the last row."""
    return F.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))


def box_mean(x: Tensor, n: int) -> Tensor:
    """Mean over the n x n window around each pixel, borders replicated: ``D * J_n / n^2`` of eq. (5)."""
    r = n // 2
    x = F.avg_pool2d(F.pad(x, (r, r, 0, 0), mode="replicate"), (1, n), stride=1)
    return F.avg_pool2d(F.pad(x, (0, 0, r, r), mode="replicate"), (n, 1), stride=1)


def normal_distance(e1: Tensor, e2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
    """``1 - cos`` of the normals a = (b1 + e1, b2 + e2, 1) and b = (b1, b2, 1), eq. (7) and (8), per pixel.

    The plain form loses all digits once the maps agree to three, so where the angle is acute this uses
    ``1 - cos = |a x b|^2 / (|a||b| (|a||b| + a.b))`` with the cross product written in the difference e = a - b.
    """
    a1, a2 = b1 + e1, b2 + e2
    dot = a1 * b1 + a2 * b2 + 1
    norms = torch.sqrt((a1 * a1 + a2 * a2 + 1) * (b1 * b1 + b2 * b2 + 1))
    cross = e1 * e1 + e2 * e2 + (e1 * b2 - e2 * b1) ** 2
    acute = cross / (norms * (norms + dot.clamp(min=0)))
    return torch.where(dot >= 0, acute, 1 - dot / norms)


def _mean(x: Tensor) -> Tensor:
    """Mean over the pixels of each image, zeros at the border included: ``1/HW sum`` of eq. (3) to (8)."""
    return x.mean(dim=(-3, -2, -1))


def _losses(error: Tensor, target: Callable[[], Tensor]) -> dict[str, Callable[[], Tensor]]:
    """The 13 kinds on one scale as functions of nothing, so that only the ones asked for are computed."""

    def window(n: int) -> Callable[[], Tensor]:
        return lambda: _mean((error - box_mean(error, n)).abs())

    def normal(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        return lambda: _mean(normal_distance(first(error), second(error), first(target()), second(target())))

    def rr(x: Tensor) -> Tensor:
        return diff_r(diff_r(x))

    def rc(x: Tensor) -> Tensor:
        return diff_r(diff_c(x))

    def cc(x: Tensor) -> Tensor:
        return diff_c(diff_c(x))

    return {
        "D": lambda: _mean(error.abs()),  # eq. (3)
        "M": lambda: _mean((error - error.mean(dim=(-2, -1), keepdim=True)).abs()),  # eq. (4)
        **{kind: window(n) for kind, n in WINDOWS.items()},  # eq. (5)
        "r": lambda: _mean(diff_r(error).abs()),  # eq. (6)
        "c": lambda: _mean(diff_c(error).abs()),
        "rr": lambda: _mean(rr(error).abs()),
        "rc": lambda: _mean(rc(error).abs()),
        "cc": lambda: _mean(cc(error).abs()),
        "N": normal(diff_r, diff_c),  # eq. (8)
        "Nr": normal(rr, rc),
        "Nc": normal(rc, cc),
    }


# --- the operator -----------------------------------------------------------------------------------------------------


def multi_loss_terms(pred: Tensor, target: Tensor, terms: Sequence[int], downsample: str = "bicubic") -> Tensor:
    """Values of the selected losses, one per image and loss; differentiable by autograd in both maps.

    Half-precision input is computed in float32.

    Args:
        pred: predicted depth [B, 1, H, W] or [B, H, W], metres.
        target: true depth, the same shape, metres.
        terms: indices ``13 * scale + kind`` (:attr:`mlr.LossSpace.terms`).
        downsample: "bicubic" or "area", see :func:`resample`.

    Returns:
        Terms [B, n] in the order of ``terms``; float64 for float64 input, else float32.
    """
    work = torch.promote_types(pred.dtype, torch.float32)
    shape = (pred.shape[0], 1, *pred.shape[-2:])
    pred, target = pred.to(work).reshape(shape), target.to(work).reshape(shape)
    error = pred - target
    columns: dict[int, Tensor] = {}
    for scale in range(SCALES):
        wanted = [t for t in terms if t // len(KINDS) == scale]
        if wanted:
            losses = _losses(resample(error, scale, downsample), partial(resample, target, scale, downsample))
            columns |= {t: losses[KINDS[t % len(KINDS)]]() for t in wanted}
    return torch.stack([columns[t] for t in terms], dim=1)


def multi_loss(
    pred: Tensor, target: Tensor, weights: Tensor | None, terms: Sequence[int], downsample: str = "bicubic"
) -> tuple[Tensor, Tensor]:
    """The operator ``mlr::multi_loss`` by autograd: terms and the gradient of their weighted sum.

    Args:
        pred: predicted depth [B, 1, H, W] or [B, H, W].
        target: true depth, the same shape.
        weights: [B, n], or None when no gradient is wanted.
        terms: indices ``13 * scale + kind``.
        downsample: "bicubic" or "area".

    Returns:
        ``(terms [B, n], grad)``: ``grad`` is the gradient of ``sum_bi weights[b, i] terms[b, i]`` by ``pred`` in its
        shape and type, or empty where ``weights`` is None.
    """
    if weights is None:
        with torch.no_grad():
            return multi_loss_terms(pred, target, terms, downsample), pred.new_empty(0)
    with torch.inference_mode(False), torch.enable_grad():
        # copies, because tensors made in inference mode cannot be recorded
        leaf, target, weights = (
            x.detach().clone(memory_format=torch.contiguous_format) for x in (pred, target, weights)
        )
        values = multi_loss_terms(leaf.requires_grad_(), target, terms, downsample)
        (grad,) = torch.autograd.grad((values * weights).sum(), leaf)
    return values.detach(), grad
