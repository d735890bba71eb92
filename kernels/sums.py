# SPDX-License-Identifier: Apache-2.0
"""Weights in, losses out: the table of weights, the choice of losses, sums of partial sums in a fixed order."""

import triton
import triton.language as tl

from mlr.kernels.geometry import SCALES, SLOTS, TILE, scale_size
from mlr.kernels.stencil import STRIP

KINDS = tl.constexpr(13)
#: Slot of the sum of the signs of M in the partial sums of the windows.
SIGN_SLOT = tl.constexpr(13)


@triton.jit
def selected(slot, terms01, terms23, terms45):
    """Whether the loss in a slot 16 k + kind is wanted: 13 bits a scale, two scales in each number."""
    scale = slot // SLOTS
    kind = slot % SLOTS
    word = tl.where(scale < 2, terms01, tl.where(scale < 4, terms23, terms45))
    return (kind < KINDS) & (scale < SCALES) & (((word >> ((scale % 2) * KINDS + kind)) & 1) != 0)


@triton.jit
def weight_table(weights, table, image, height, width, terms01, terms23, terms45, count, GRAD: tl.constexpr,
                 AREA: tl.constexpr):
    """An image's weights by slot, over the number of pixels of the scale; 0 for losses that are not wanted."""
    slot = tl.arange(0, 128)
    value = tl.zeros([128], tl.float32)
    if GRAD:
        wanted = selected(slot, terms01, terms23, terms45)
        column = tl.cumsum(wanted.to(tl.int32), 0) - 1
        h, w = scale_size(height, width, slot // SLOTS, AREA)
        value = tl.load(weights + image * count + column, mask=wanted, other=0.0).to(tl.float32)
        value /= h.to(tl.float32) * w.to(tl.float32)
    tl.store(table + image * 128 + slot, value)


@triton.jit
def add_partials(partial, count, slot):
    """Sum of one slot of the partial sums of an image and scale, in a fixed order."""
    total = tl.zeros([TILE], tl.float32)
    for first in range(0, count, TILE):
        i = first + tl.arange(0, TILE)
        total += tl.load(partial + i * SLOTS + slot, mask=i < count, other=0.0)
    return tl.sum(total, 0)


@triton.jit
def mean_error(partials, image, scale, count, errors_partials, h, w):
    """Mean of E^k from the ``count`` partial sums of phase 1."""
    start = partials + (image * SCALES + scale) * errors_partials
    total = tl.zeros([TILE], tl.float32)
    for first in range(0, count, TILE):
        i = first + tl.arange(0, TILE)
        total += tl.load(start + i, mask=i < count, other=0.0)
    return tl.sum(total, 0) / (h.to(tl.float32) * w.to(tl.float32))


@triton.jit
def window_partials(scale, h, w, rows):
    """Partial sums of the windows of a map: of tiles at scale 0, of ``rows`` whole rows at the others."""
    return tl.cdiv(h, rows) * tl.where(scale == 0, tl.cdiv(w, TILE), 1)


@triton.jit
def mean_sign(row_sums, image, scale, row_partials, h, w, rows):
    """Mean of the sign of E - mean E: what the adjoint of the mean takes from every pixel."""
    count = window_partials(scale, h, w, rows)
    partial = row_sums + (image * SCALES + scale) * row_partials * SLOTS
    return add_partials(partial, count, SIGN_SLOT) / (h * w).to(tl.float32)


@triton.jit
def term_values(terms, strip_sums, row_sums, image, scale, height, width, terms01, terms23, terms45, count,
                window_rows, coarse_window_rows,
                strip_rows, strip_partials, row_partials, AREA: tl.constexpr):
    """The losses of an image and scale: partial sums added in double precision and in a fixed order."""
    h, w = scale_size(height, width, scale, AREA)
    strips = tl.cdiv(w, STRIP) * tl.cdiv(h, strip_rows)
    tiles = window_partials(scale, h, w, tl.where(scale == 0, window_rows, coarse_window_rows))
    slot = tl.arange(0, 128)
    before = tl.sum((selected(slot, terms01, terms23, terms45) & (slot < scale * SLOTS)).to(tl.int32), 0)
    kind = tl.arange(0, SLOTS)
    mine = selected(scale * SLOTS + kind, terms01, terms23, terms45)
    by_rows = (kind >= 1) & (kind <= 4)
    start = (image * SCALES + scale) * SLOTS
    total = tl.zeros([SLOTS], tl.float64)
    for first in range(0, tiles, 64):
        i = first + tl.arange(0, 64)[:, None]
        part = tl.load(row_sums + start * row_partials + i * SLOTS + kind[None, :],
                       mask=(i < tiles) & (mine & by_rows)[None, :], other=0.0)
        total += tl.sum(part.to(tl.float64), 0)
    for first in range(0, strips, 64):
        i = first + tl.arange(0, 64)[:, None]
        part = tl.load(strip_sums + start * strip_partials + i * SLOTS + kind[None, :],
                       mask=(i < strips) & (mine & (by_rows == 0))[None, :], other=0.0)
        total += tl.sum(part.to(tl.float64), 0)
    column = before + tl.cumsum(mine.to(tl.int32), 0) - 1
    tl.store(terms + image * count + column, (total / (h * w).to(tl.float64)).to(tl.float32), mask=mine)
