# SPDX-License-Identifier: Apache-2.0
"""The table of loss kinds: the rows of the paper's Table 1, each with its formula in plain PyTorch.

Names, families, windows and documentation derive from :data:`KIND_TABLE`; nothing else lists the kinds. Every kind is a
mean over positions, ``mean_p v(p)`` with ``v >= 0``, so a row gives the map of values ``v`` and the pixels that a
position reads. Under a mask the mean runs over the positions that read valid pixels alone.

With ``E = pred - target`` every kind but the normals is a function of ``E`` alone, because resampling, averaging and
differences are linear. The normals also need the target; the prediction at scale k is ``target^k + E^k``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor


def diff_r(x: Tensor) -> Tensor:
    """Horizontal derivative: ``x[y, x+1] - x[y, x]``, 0 in the last column (eq. 6)."""
    return F.pad(x[..., :, 1:] - x[..., :, :-1], (0, 1))


def diff_c(x: Tensor) -> Tensor:
    """Vertical derivative: ``x[y+1, x] - x[y, x]``, 0 in the last row (eq. 6)."""
    return F.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))


def diff_rr(x: Tensor) -> Tensor:
    """Second horizontal derivative."""
    return diff_r(diff_r(x))


def diff_rc(x: Tensor) -> Tensor:
    """Mixed derivative; the order of the two does not matter."""
    return diff_r(diff_c(x))


def diff_cc(x: Tensor) -> Tensor:
    """Second vertical derivative."""
    return diff_c(diff_c(x))


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


@dataclass(frozen=True)
class ScaleMaps:
    """The maps of one scale, [B, 1, h, w], from which a kind computes its values.

    Attributes:
        error: E, 0 at invalid pixels.
        get_target: makes the target; only the normals call it. It is 0 at invalid pixels.
        valid: V, bool; None if every pixel is valid.
    """

    error: Tensor
    get_target: Callable[[], Tensor]
    valid: Tensor | None = None

    @cached_property
    def target(self) -> Tensor:
        """The target, 0 at invalid pixels."""
        return self.get_target()

    @cached_property
    def centred(self) -> Tensor:
        """``E - mean E``, 0 at invalid pixels: the argument of M, eq. (4)."""
        if self.valid is None:
            return self.error - self.error.mean(dim=(-2, -1), keepdim=True)
        count = self.valid.sum(dim=(-2, -1), keepdim=True).clamp(min=1)
        return torch.where(self.valid, self.error - self.error.sum(dim=(-2, -1), keepdim=True) / count, 0)

    def local_mean_removed(self, n: int) -> Tensor:
        """``E - box_n E``, the argument of eq. (5); the window's mean runs over its valid pixels.

        A constant changes nothing here, so the global mean is removed first: a map of one valid pixel then gives
        exactly 0, and an offset of the prediction costs no digits.
        """
        if self.valid is None:
            return self.centred - box_mean(self.centred, n)
        share = torch.where(self.valid, box_mean(self.valid.to(self.centred.dtype), n), 1)
        return torch.where(self.valid, self.centred - box_mean(self.centred, n) / share, 0)

    def normal_distance(self, first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Tensor:
        """``1 - cos`` of predicted and true normal, whose components are two derivatives of the depth and 1."""
        return normal_distance(first(self.error), second(self.error), first(self.target), second(self.target))


#: Offsets (rows down, columns right) of the pixels that a position reads, clamped at the border.
Offsets = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Kind:
    """A row of Table 1.

    Attributes:
        name: its short name; a loss is ``name/scale``.
        family: "depth", "mean", "gradient" or "normal": the paper's L_D, L_M, L_G and L_N.
        equation: its equation in the paper.
        values: map of values [B, 1, h, w], each >= 0, whose mean is the loss.
        reads: pixels that a position reads; under a mask the position counts if all of them are valid.
        window: side of the averaging window, or None.
    """

    name: str
    family: str
    equation: str
    values: Callable[[ScaleMaps], Tensor]
    reads: Offsets = ((0, 0),)
    window: int | None = None

    def loss(self, maps: ScaleMaps) -> tuple[Tensor, Tensor]:
        """The loss of every image on one scale, and how many positions it is the mean of.

        Returns:
            ``(losses [B], counts [B] int64)``. Without a mask the mean runs over all h w positions, zeros at the border
            included. An image without a valid position has loss 0 and count 0.
        """
        values = self.values(maps)
        if maps.valid is None:
            return values.mean(dim=(-3, -2, -1)), values.new_full((len(values),), values[0].numel(), dtype=torch.int64)
        positions = valid_positions(maps.valid, self.reads)
        counts = positions.sum(dim=(-3, -2, -1))
        return torch.where(positions, values, 0).sum(dim=(-3, -2, -1)) / counts.clamp(min=1), counts


def valid_positions(valid: Tensor, reads: Offsets) -> Tensor:
    """Positions at which all pixels that a kind reads, clamped at the border, are valid.

    Args:
        valid: V of a scale, bool [B, 1, h, w].
        reads: offsets (rows down, columns right), each >= 0.
    """
    height, width = valid.shape[-2:]
    rows, columns = (torch.arange(n, device=valid.device) for n in (height, width))
    shifted = [
        valid.index_select(-2, (rows + dy).clamp(max=height - 1)).index_select(-1, (columns + dx).clamp(max=width - 1))
        for dy, dx in reads
    ]
    return torch.stack(shifted).all(dim=0)


_R: Offsets = ((0, 0), (0, 1))
_C: Offsets = ((0, 0), (1, 0))
_RR: Offsets = ((0, 0), (0, 1), (0, 2))
_RC: Offsets = ((0, 0), (0, 1), (1, 0), (1, 1))
_CC: Offsets = ((0, 0), (1, 0), (2, 0))

#: The rows of Table 1 in the paper's order.
KIND_TABLE: tuple[Kind, ...] = (
    Kind("D", "depth", "(3)", lambda m: m.error.abs()),
    Kind("M", "mean", "(4)", lambda m: m.centred.abs()),
    Kind("M5", "mean", "(5)", lambda m: m.local_mean_removed(5).abs(), window=5),
    Kind("M17", "mean", "(5)", lambda m: m.local_mean_removed(17).abs(), window=17),
    Kind("M65", "mean", "(5)", lambda m: m.local_mean_removed(65).abs(), window=65),
    Kind("r", "gradient", "(6)", lambda m: diff_r(m.error).abs(), _R),
    Kind("c", "gradient", "(6)", lambda m: diff_c(m.error).abs(), _C),
    Kind("rr", "gradient", "(6)", lambda m: diff_rr(m.error).abs(), _RR),
    Kind("rc", "gradient", "(6)", lambda m: diff_rc(m.error).abs(), _RC),
    Kind("cc", "gradient", "(6)", lambda m: diff_cc(m.error).abs(), _CC),
    Kind("N", "normal", "(8)", lambda m: m.normal_distance(diff_r, diff_c), _R + _C),
    Kind("Nr", "normal", "(8)", lambda m: m.normal_distance(diff_rr, diff_rc), _RR + _RC),
    Kind("Nc", "normal", "(8)", lambda m: m.normal_distance(diff_rc, diff_cc), _RC + _CC),
)
