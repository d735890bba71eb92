# SPDX-License-Identifier: Apache-2.0
"""Weights in, losses out: the table of weights, the choice of losses, sums of partial sums in a fixed order."""

import triton
import triton.language as tl

from mlr.kernels import slots
from mlr.kernels.counts import position_counts
from mlr.kernels.geometry import SCALES, TILE, scale_size
from mlr.kernels.masks import over
from mlr.kernels.slots import KIND_COUNT, SLOTS, TABLE_PITCH
from mlr.kernels.stencil import STRIP


@triton.jit
def selected(slot, wanted):
    """Whether the loss in a slot SLOTS k + kind is wanted: a bit a kind, two scales in each number."""
    scale = slot // SLOTS
    kind = slot % SLOTS
    word = tl.where(scale < 2, wanted.losses[0], tl.where(scale < 4, wanted.losses[1], wanted.losses[2]))
    return (kind < KIND_COUNT) & (scale < SCALES) & (((word >> ((scale % 2) * KIND_COUNT + kind)) & 1) != 0)


@triton.jit
def weight_table(weights, table, image, sizes, wanted, GRAD: tl.constexpr, AREA: tl.constexpr, MASKED: tl.constexpr):
    """An image's weights by slot, 0 for losses that are not wanted.

    They are divided by the number of pixels of the scale; under a mask whoever reads them divides by that of positions.
    """
    slot = tl.arange(0, TABLE_PITCH)
    value = tl.zeros([TABLE_PITCH], tl.float32)
    if GRAD:
        chosen = selected(slot, wanted)
        column = tl.cumsum(chosen.to(tl.int32), 0) - 1
        h, w = scale_size(sizes.height, sizes.width, slot // SLOTS, AREA)
        value = tl.load(weights + image * wanted.count + column, mask=chosen, other=0.0).to(tl.float32)
        if not MASKED:
            value /= h.to(tl.float32) * w.to(tl.float32)
    tl.store(table + image * TABLE_PITCH + slot, value)


@triton.jit
def add_partials(partial, count, slot):
    """Sum of one slot of the partial sums of an image and scale, in a fixed order."""
    total = tl.zeros([TILE], tl.float32)
    for first in range(0, count, TILE):
        i = first + tl.arange(0, TILE)
        total += tl.load(partial + i * SLOTS + slot, mask=i < count, other=0.0)
    return tl.sum(total, 0)


@triton.jit
def mean_error(partials, image, scale, count, errors_partials, h, w, pixels):
    """Mean of E^k from the ``count`` partial sums of phase 1; ``pixels``: number of the known ones, None for all."""
    start = partials + (image * SCALES + scale) * errors_partials
    total = tl.zeros([TILE], tl.float32)
    for first in range(0, count, TILE):
        i = first + tl.arange(0, TILE)
        total += tl.load(start + i, mask=i < count, other=0.0)
    if pixels is None:
        return tl.sum(total, 0) / (h.to(tl.float32) * w.to(tl.float32))
    else:
        return over(tl.sum(total, 0), pixels)


@triton.jit
def window_partials(scale, h, w, rows):
    """Partial sums of the windows of a map: of tiles at scale 0, of ``rows`` whole rows at the others."""
    return tl.cdiv(h, rows) * tl.where(scale == 0, tl.cdiv(w, TILE), 1)


@triton.jit
def mean_sign(row_sums, image, scale, row_partials, h, w, rows, pixels):
    """Mean of the sign of E - mean E: what the adjoint of the mean takes from every pixel (``pixels`` as before)."""
    count = window_partials(scale, h, w, rows)
    partial = row_sums + (image * SCALES + scale) * row_partials * SLOTS
    if pixels is None:
        return add_partials(partial, count, slots.SIGN) / (h * w).to(tl.float32)
    else:
        return over(add_partials(partial, count, slots.SIGN), pixels)


@triton.jit
def term_values(terms, positions, work, sizes, wanted, cut, image, scale, AREA: tl.constexpr):
    """The losses of an image and scale: partial sums added in double precision and in a fixed order.

    Under a mask the numbers of positions go to ``positions``.
    """
    h, w = scale_size(sizes.height, sizes.width, scale, AREA)
    strips = tl.cdiv(w, STRIP) * tl.cdiv(h, cut.strip_rows)
    tiles = window_partials(scale, h, w, tl.where(scale == 0, cut.window_rows, cut.coarse_window_rows))
    slot = tl.arange(0, TABLE_PITCH)
    before = tl.sum((selected(slot, wanted) & (slot < scale * SLOTS)).to(tl.int32), 0)
    kind = tl.arange(0, SLOTS)
    mine = selected(scale * SLOTS + kind, wanted)
    by_rows = (kind >= slots.M) & (kind <= slots.M65)
    start = (image * SCALES + scale) * SLOTS
    total = tl.zeros([SLOTS], tl.float64)
    for first in range(0, tiles, 64):
        i = first + tl.arange(0, 64)[:, None]
        part = tl.load(work.row_sums + start * cut.row_partials + i * SLOTS + kind[None, :],
                       mask=(i < tiles) & (mine & by_rows)[None, :], other=0.0)
        total += tl.sum(part.to(tl.float64), 0)
    for first in range(0, strips, 64):
        i = first + tl.arange(0, 64)[:, None]
        part = tl.load(work.strip_sums + start * cut.strip_partials + i * SLOTS + kind[None, :],
                       mask=(i < strips) & (mine & (by_rows == 0))[None, :], other=0.0)
        total += tl.sum(part.to(tl.float64), 0)
    column = before + tl.cumsum(mine.to(tl.int32), 0) - 1
    if work.counts is None:
        total = total / (h * w).to(tl.float64)
    else:
        number = position_counts(work.counts, scale, image, sizes.height, sizes.width, AREA)
        tl.store(positions + image * wanted.count + column, number.to(tl.int64), mask=mine)
        total = tl.where(number > 0, total / tl.maximum(number, 1).to(tl.float64), 0.0)
    tl.store(terms + image * wanted.count + column, total.to(tl.float32), mask=mine)
