# SPDX-License-Identifier: Apache-2.0
"""The 78 losses as people write them in PyTorch: the formulations that the backends are measured against.

Both are differentiable functions ``(pred, target, terms) -> values [B, n]`` over the bicubic pyramid, and both compute
only the kinds and scales that are asked for. They share nothing with the backends, so a parity check against them means
something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from moved import KINDS, SCALES, WINDOWS
from torch import Tensor

Formulation = Callable[[Tensor, Tensor, Sequence[int]], Tensor]


def by_scale(terms: Sequence[int]) -> list[tuple[int, list[str]]]:
    """Scales in use, each with its kinds."""
    kinds = [[KINDS[t % len(KINDS)] for t in terms if t // len(KINDS) == scale] for scale in range(SCALES)]
    return [(scale, wanted) for scale, wanted in enumerate(kinds) if wanted]


def stack_losses(values: dict[int, Tensor], terms: Sequence[int]) -> Tensor:
    return torch.stack([values[t] for t in terms], dim=1)


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=(1, 2, 3))


def reduce_map(x: Tensor, scale: int) -> Tensor:
    """A map at a scale by PyTorch's own bicubic interpolation; 1 x 1 where a side is shorter than 2^k."""
    if scale == 0:
        return x
    if min(x.shape[-2:]) < 2**scale:
        return F.interpolate(x, size=(1, 1), mode="bicubic", align_corners=False)
    return F.interpolate(x, scale_factor=2**-scale, mode="bicubic", align_corners=False)


def diff_r(x: Tensor) -> Tensor:
    """Horizontal derivative, 0 in the last column."""
    return F.pad(x[..., 1:] - x[..., :-1], (0, 1))


def diff_c(x: Tensor) -> Tensor:
    """Vertical derivative, 0 in the last row."""
    return F.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))


# --- the authors' way -------------------------------------------------------------------------------------------------


def authors(pred: Tensor, target: Tensor, terms: Sequence[int]) -> Tensor:
    """The paper read line by line, as the authors' program computes it: every operator on both maps, then a difference.

    Both maps are resampled per scale, local means are n x n average poolings of both maps, normals are stacked and
    their cosine divided by the product of the norms.
    """
    values = {}
    for scale, kinds in by_scale(terms):
        p, t = reduce_map(pred, scale), reduce_map(target, scale)
        for kind in kinds:
            values[len(KINDS) * scale + KINDS.index(kind)] = _AUTHORS[kind](p, t)
    return stack_losses(values, terms)


def _difference(operator: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda p, t: _mean((operator(p) - operator(t)).abs())


def _local(n: int) -> Callable[[Tensor], Tensor]:
    """``D - D * J_n / n^2`` of eq. (5) by an n x n average pooling."""
    return lambda x: x - F.avg_pool2d(F.pad(x, (n // 2,) * 4, mode="replicate"), n, stride=1)


def _angle(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """``1 - cos`` of the normals (-first, -second, 1), eq. (7) and (8)."""

    def loss(p: Tensor, t: Tensor) -> Tensor:
        a, b = (torch.cat([-first(x), -second(x), torch.ones_like(x)], dim=1) for x in (p, t))
        norms = a.square().sum(1, keepdim=True).sqrt() * b.square().sum(1, keepdim=True).sqrt()
        return _mean(1 - (a * b).sum(1, keepdim=True) / (norms + 1e-8))

    return loss


def _rr(x: Tensor) -> Tensor:
    return diff_r(diff_r(x))


def _rc(x: Tensor) -> Tensor:
    return diff_r(diff_c(x))


def _cc(x: Tensor) -> Tensor:
    return diff_c(diff_c(x))


_AUTHORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "D": _difference(lambda x: x),
    "M": _difference(lambda x: x - x.mean(dim=(2, 3), keepdim=True)),
    **{kind: _difference(_local(n)) for kind, n in WINDOWS.items()},
    "r": _difference(diff_r),
    "c": _difference(diff_c),
    "rr": _difference(_rr),
    "rc": _difference(_rc),
    "cc": _difference(_cc),
    "N": _angle(diff_r, diff_c),
    "Nr": _angle(_rr, _rc),
    "Nc": _angle(_rc, _cc),
}


# --- the best plain PyTorch -------------------------------------------------------------------------------------------


#: The two derivatives that make a normal: eq. (7), and the same of the derivative maps.
NORMALS: dict[str, tuple[str, str]] = {"N": ("r", "c"), "Nr": ("rr", "rc"), "Nc": ("rc", "cc")}


def derivatives(x: Tensor, needed: set[str]) -> dict[str, Tensor]:
    """First and second derivatives of a map, each computed once and only if it is needed."""
    maps = {}
    if needed & {"r", "rr"}:
        maps["r"] = diff_r(x)
    if needed & {"c", "rc", "cc"}:
        maps["c"] = diff_c(x)
    if "rr" in needed:
        maps["rr"] = diff_r(maps["r"])
    if "rc" in needed:
        maps["rc"] = diff_r(maps["c"])
    if "cc" in needed:
        maps["cc"] = diff_c(maps["c"])
    return maps


def eager(pred: Tensor, target: Tensor, terms: Sequence[int]) -> Tensor:
    """What one gets by care alone, without a kernel of one's own.

    All linear operators act on the one map E = pred - target, windows are separable poolings, derivatives are shared
    between the losses of a scale, and the normals use the form of ``1 - cos`` that does not cancel.
    """
    return _on_error_map(pred, target, terms, box_by_pooling)


def doubling(pred: Tensor, target: Tensor, terms: Sequence[int]) -> Tensor:
    """:func:`eager` with its windows summed by doubling, which takes 7 additions a row instead of 65.

    PyTorch's average pooling adds up every window anew; on a CPU that is three quarters of :func:`eager`'s time.
    """
    return _on_error_map(pred, target, terms, box_by_doubling)


def _on_error_map(pred: Tensor, target: Tensor, terms: Sequence[int], box: Callable[[Tensor, int], Tensor]) -> Tensor:
    error, values = pred - target, {}
    for scale, kinds in by_scale(terms):
        normals = {name for kind in kinds if kind in NORMALS for name in NORMALS[kind]}
        e = reduce_map(error, scale)
        of_e = derivatives(e, normals | set(kinds))
        of_t = derivatives(reduce_map(target, scale), normals) if normals else {}
        for kind in kinds:
            if kind == "D":
                value = e
            elif kind == "M":
                value = e - e.mean(dim=(2, 3), keepdim=True)
            elif kind in WINDOWS:
                value = e - box(e, WINDOWS[kind])
            elif kind in NORMALS:
                first, second = NORMALS[kind]
                value = one_minus_cos(of_e[first], of_e[second], of_t[first], of_t[second])
            else:
                value = of_e[kind]
            values[len(KINDS) * scale + KINDS.index(kind)] = _mean(value.abs())
    return stack_losses(values, terms)


def box_by_pooling(x: Tensor, n: int) -> Tensor:
    """n x n mean with replicated borders, rows then columns."""
    x = F.avg_pool2d(F.pad(x, (n // 2, n // 2, 0, 0), mode="replicate"), (1, n), stride=1)
    return F.avg_pool2d(F.pad(x, (0, 0, n // 2, n // 2), mode="replicate"), (n, 1), stride=1)


def box_by_doubling(x: Tensor, n: int) -> Tensor:
    """The same mean for n = 2^m + 1: sums of 2, 4, ... 2^m neighbours, each from the one before, and one pixel more."""
    x = F.pad(x, (n // 2,) * 4, mode="replicate")
    for dim in (-1, -2):
        total, length = x, 1
        while length < n - 1:
            rest = total.shape[dim] - length
            total, length = total.narrow(dim, 0, rest) + total.narrow(dim, length, rest), 2 * length
        out = x.shape[dim] - n + 1
        x = total.narrow(dim, 0, out) + x.narrow(dim, n - 1, out)
    return x / (n * n)


def one_minus_cos(e1: Tensor, e2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
    a1, a2 = b1 + e1, b2 + e2
    dot = a1 * b1 + a2 * b2 + 1
    cross = e1 * e1 + e2 * e2 + (e1 * b2 - e2 * b1).square()
    norms = torch.sqrt(cross + dot * dot)  # Lagrange: |a|^2 |b|^2 = |a x b|^2 + (a.b)^2
    return torch.where(dot >= 0, cross / (norms * (norms + dot.clamp(min=0))), 1 - dot / norms)
