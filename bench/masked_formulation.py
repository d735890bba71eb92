# SPDX-License-Identifier: Apache-2.0
"""The 78 losses under a mask as careful people write them in PyTorch: what the backends' masks are measured against.

It shares nothing with mlr's reference, so a parity check against both means something. Maps have at least 32 pixels a
side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from formulations import NORMALS, by_scale, derivatives, one_minus_cos, reduce_map, stack_losses
from moved import KINDS, WINDOWS
from torch import Tensor


def masked(
    pred: Tensor,
    target: Tensor,
    mask: Tensor | None,
    terms: Sequence[int],
    downsample: str,
    box: Callable[[Tensor, int], Tensor],
) -> Tensor:
    """Losses [B, n] over the valid positions.

    Args:
        pred: predicted depth [B, 1, H, W].
        target: true depth, the same shape.
        mask: bool, the same shape, or None.
        terms: indices of the losses.
        downsample: "bicubic" or "area".
        box: n x n mean with replicated borders.
    """
    valid = torch.ones_like(pred, dtype=torch.bool) if mask is None else mask
    error, target = torch.where(valid, pred - target, 0), torch.where(valid, target, 0)
    values: dict[int, Tensor] = {}
    area = (error, target, valid)
    for scale, kinds in by_scale(terms):
        if downsample == "area":
            if scale:
                area = _halve_until(area, error.shape[-2] >> scale)
            e, t, v = area
        else:
            v = _valid_bicubic(valid, scale)
            e, t = (torch.where(v, reduce_map(x, scale), 0) for x in (error, target))
        values |= _one_scale(e, t, v, kinds, scale, box)
    return stack_losses(values, terms)


def _halve_until(maps: tuple[Tensor, Tensor, Tensor], height: int) -> tuple[Tensor, Tensor, Tensor]:
    """Means of the valid ones of 2 x 2 pixels, again and again."""
    e, t, v = maps
    while e.shape[-2] > height:
        share = F.avg_pool2d(v.to(e.dtype), 2)
        v = share > 0
        e, t = (F.avg_pool2d(x, 2) / share.clamp(min=0.25) for x in (e, t))
    return e, t, v


def _valid_bicubic(valid: Tensor, scale: int) -> Tensor:
    """Whether all 4 x 4 pixels that a pixel of a scale reads are valid."""
    if scale == 0:
        return valid
    invalid, first = (~valid).float(), 2 ** (scale - 1) - 2
    invalid = F.pad(invalid, (1, 1, 1, 1), mode="replicate") if first < 0 else invalid[..., first:, first:]
    found = F.max_pool2d(invalid, 4, stride=2**scale)
    return found[..., : valid.shape[-2] >> scale, : valid.shape[-1] >> scale] == 0


def _shifted(valid: Tensor, dy: int, dx: int) -> Tensor:
    """V at a pixel further down and right, replicated at the border."""
    padded = F.pad(valid.float(), (0, dx, 0, dy), mode="replicate")
    return padded[..., dy:, dx:] > 0


def _one_scale(
    e: Tensor, t: Tensor, v: Tensor, kinds: Sequence[str], scale: int, box: Callable[[Tensor, int], Tensor]
) -> dict[int, Tensor]:
    normals = {name for kind in kinds if kind in NORMALS for name in NORMALS[kind]}
    of_e, of_t = derivatives(e, normals | set(kinds)), derivatives(t, normals)
    right, down, corner = _shifted(v, 0, 1), _shifted(v, 1, 0), _shifted(v, 1, 1)
    reads = {"r": v & right, "c": v & down, "rc": v & right & down & corner}
    reads |= {"rr": reads["r"] & _shifted(v, 0, 2), "cc": reads["c"] & _shifted(v, 2, 0)}
    reads |= {kind: reads[first] & reads[second] for kind, (first, second) in NORMALS.items()}
    numbers = v.to(e.dtype)
    count = numbers.sum((2, 3), keepdim=True).clamp(min=1)
    centred = torch.where(v, e - e.sum((2, 3), keepdim=True) / count, 0)
    values = {}
    for kind in kinds:
        at = reads.get(kind, v)
        if kind == "D":
            value = e.abs()
        elif kind == "M":
            value = centred.abs()
        elif kind in WINDOWS:
            n = WINDOWS[kind]
            # a window around a valid pixel has a share of at least 1 / n^2
            value = (centred - box(centred, n) / box(numbers, n).clamp(min=0.5 / n**2)).abs()
        elif kind in NORMALS:
            first, second = NORMALS[kind]
            value = one_minus_cos(of_e[first], of_e[second], of_t[first], of_t[second])
        else:
            value = of_e[kind].abs()
        total = torch.where(at, value, 0).sum((1, 2, 3))
        values[len(KINDS) * scale + KINDS.index(kind)] = total / at.sum((1, 2, 3)).clamp(min=1)
    return values
