# SPDX-License-Identifier: Apache-2.0
"""The adjoint of the local means: box^T of the sign maps, on whole numbers and therefore exact.

The adjoint of a box with replicated borders is the zero-padded window sum, except in the first and last row and column,
which also receive what the replicated pixels beyond them would get: pixel i counts there as often as its window reaches
a position at or beyond the border (``border_count``).

Columns come first, four pixels in a 32-bit word: the sign maps hold 0, 1, 2 (sign plus one), so a window sum is at most
130 and never carries into its neighbour's byte. What lies outside the map counts as sign 0, byte 1; a column sum is
therefore the true one plus 2 r + 1 everywhere. The first and last row do not fit a byte and have tables of their own.
"""

import triton
import triton.language as tl

from mlr.kernels.geometry import PAD, TILE, pitch_of
from mlr.kernels.windows import segment_sums

#: Four pixels of sign 0.
ZEROS = tl.constexpr(0x01010101)


@triton.jit
def border_count(i, n, r, START: tl.constexpr):
    """How many positions at or beyond a border see pixel i in their window of radius r (n pixels along the axis)."""
    distance = i if START else n - 1 - i
    # an axis of one pixel has both borders at once
    return tl.where(n == 1, 2 * r + 1, tl.maximum(r + 1 - distance, 0))


@triton.jit
def sign_row(signs, y, h, width, word, inside):
    """Row y of a sign map as words of four pixels."""
    return tl.load(signs + y * (width // 4) + word, mask=inside & (y >= 0) & (y < h), other=ZEROS)


@triton.jit
def sign_columns(signs, column_sums, borders, r, y0, y1, word0, h, w, WORDS: tl.constexpr):
    """Column sums of a sign map over 2 r + 1 rows, rows y0 .. y1 - 1, WORDS words from word0 on (padding included).

    ``signs`` and ``column_sums`` point to words of the image's map, ``borders`` to its two border rows.
    """
    pitch = pitch_of(w)
    lane = word0 + tl.arange(0, WORDS)
    inside = (lane >= PAD // 4) & (lane < (pitch - PAD) // 4)
    store = lane < pitch // 4
    acc = tl.zeros([WORDS], tl.int32)
    for y in range(y0 - r, y0 + r + 1):
        acc += sign_row(signs, y, h, pitch, lane, inside)
    for y in range(y0, y1):
        tl.store(column_sums + y * (pitch // 4) + lane, acc, mask=store)
        acc += sign_row(signs, y + r + 1, h, pitch, lane, inside) - sign_row(signs, y - r, h, pitch, lane, inside)
    for side in tl.static_range(2):
        if (y0 == 0) if side == 0 else (y1 == h):
            b0 = tl.zeros([WORDS], tl.int32)
            b1 = tl.zeros([WORDS], tl.int32)
            b2 = tl.zeros([WORDS], tl.int32)
            b3 = tl.zeros([WORDS], tl.int32)
            first = 0 if side == 0 else tl.maximum(h - 1 - r, 0)
            last = tl.minimum(r + 1, h) if side == 0 else h
            for i in range(first, last):
                count = border_count(i, h, r, side == 0)
                row = sign_row(signs, i, h, pitch, lane, inside)
                b0 += count * ((row & 255) - 1)
                b1 += count * (((row >> 8) & 255) - 1)
                b2 += count * (((row >> 16) & 255) - 1)
                b3 += count * (((row >> 24) & 255) - 1)
            at = borders + side * pitch + 4 * lane
            tl.store(at, b0, mask=store)
            tl.store(at + 1, b1, mask=store)
            tl.store(at + 2, b2, mask=store)
            tl.store(at + 3, b3, mask=store)


@triton.jit
def column_sum(column_sums, borders, r, y, column, edge, h, pitch, EDGES: tl.constexpr):
    """True column sums of the sign map at (y, column), both tiles; ``EDGES``: some rows may be border rows."""
    value = tl.load(column_sums + tl.minimum(y, h - 1) * pitch + column).to(tl.int32) - (2 * r + 1)
    if EDGES:
        side = tl.where(y == 0, 0, pitch)
        value = tl.where(edge, tl.load(borders + side + column, mask=edge, other=0), value)
    return value


@triton.jit
def box_adjoint(column_sums, borders, y, x0, h, w, R: tl.constexpr, ROWS: tl.constexpr):
    """box_n^T of a sign map on a tile [ROWS, 128], times n^2, as float32 (n = 2 R + 1)."""
    pitch = pitch_of(w)
    x = x0 + tl.arange(0, TILE)[None, :]
    edge = ((y == 0) | (y >= h - 1)) & (x >= -1)
    column = x + PAD
    a = column_sum(column_sums, borders, R, y, column - R, edge, h, pitch, True)
    b = column_sum(column_sums, borders, R, y, column, edge, h, pitch, True)
    c = column_sum(column_sums, borders, R, y, column + R, edge, h, pitch, True)
    total = segment_sums(a, b, c, R, ROWS)
    REACH: tl.constexpr = 4 if R == 2 else 2 * R  # a power of two above R
    reach = tl.arange(0, REACH)[None, :]
    for side in tl.static_range(2):
        if (x0 == 0) if side == 0 else (x0 + TILE >= w):
            i = reach if side == 0 else w - 1 - reach
            known = (i >= 0) & (i < w)
            edge_i = ((y == 0) | (y >= h - 1)) & known
            v = column_sum(column_sums, borders, R, y, tl.where(known, i, 0) + PAD, edge_i, h, pitch, True)
            count = tl.where(known, border_count(i, w, R, side == 0), 0)
            fold = tl.sum(v * count, 1)
            total = tl.where(x == (0 if side == 0 else w - 1), fold[:, None], total)
    return total.to(tl.float32)


@triton.jit
def windows_gradient(column_sums, borders, plane_size, border_size, weights, y, x0, h, w, ROWS: tl.constexpr):
    """What the adjoints of the three windows take from the gradient on a tile [ROWS, 128]."""
    g5 = box_adjoint(column_sums, borders, y, x0, h, w, 2, ROWS)
    g17 = box_adjoint(column_sums + plane_size, borders + border_size, y, x0, h, w, 8, ROWS)
    g65 = box_adjoint(column_sums + 2 * plane_size, borders + 2 * border_size, y, x0, h, w, 32, ROWS)
    return (
        g5 * (tl.load(weights + 2) * (1.0 / 25))
        + g17 * (tl.load(weights + 3) * (1.0 / 289))
        + g65 * (tl.load(weights + 4) * (1.0 / 4225))
    )
