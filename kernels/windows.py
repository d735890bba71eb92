# SPDX-License-Identifier: Apache-2.0
"""The local means of eq. (5) and their signs: columns first, then rows.

A box with replicated borders is separable. The column pass walks down the map with running sums, one lane a column;
clamping the row numbers is the replicated border. The row pass has no row to walk along (lanes lie side by side), so it
cuts the row into segments of r = n // 2 pixels and uses, with t the place in the segment and A, B, C the row at x - r,
x and x + r,

    box[t] = sum over the segment of (A + B) + A[t] + running sum over the segment of (C - A)[t]

whose sums never exceed 2 r + 1 terms. It reads the column sums beyond the borders of the map, which the column pass has
therefore written into the padding.
"""

import triton
import triton.language as tl

from mlr.kernels.geometry import PAD, TILE, pitch_of, quads_of


@triton.jit
def row_error(e_ptr, t_ptr, stride, y, h, x, mask, PAIR: tl.constexpr):
    """One row of E, its number clamped to the map; ``PAIR`` says that E is to be formed from prediction and target."""
    row = tl.minimum(tl.maximum(y, 0), h - 1) * stride
    e = tl.load(e_ptr + row + x, mask=mask, other=0.0).to(tl.float32)
    if PAIR:
        e -= tl.load(t_ptr + row + x, mask=mask, other=0.0).to(tl.float32)
    return e


@triton.jit
def moving_rows(e_ptr, t_ptr, stride, y, h, x, mask, PAIR: tl.constexpr):
    """The rows that leave and enter the windows of 5, 17 and 65 rows as their centre moves from y to y + 1."""
    return (
        row_error(e_ptr, t_ptr, stride, y - 2, h, x, mask, PAIR),
        row_error(e_ptr, t_ptr, stride, y + 3, h, x, mask, PAIR),
        row_error(e_ptr, t_ptr, stride, y - 8, h, x, mask, PAIR),
        row_error(e_ptr, t_ptr, stride, y + 9, h, x, mask, PAIR),
        row_error(e_ptr, t_ptr, stride, y - 32, h, x, mask, PAIR),
        row_error(e_ptr, t_ptr, stride, y + 33, h, x, mask, PAIR),
    )


@triton.jit
def move_down(at, plane_size, mask, s5, s17, s65, total, rows, y, y1):
    """Store the sums of row y and move on to those of row y + 1."""
    old5, new5, old17, new17, old65, new65 = rows
    store = mask & (y < y1)
    tl.store(at, s5, mask=store)
    tl.store(at + plane_size, s17, mask=store)
    tl.store(at + 2 * plane_size, s65, mask=store)
    total += tl.where((y >= 2) & (y < y1), old5, 0.0)
    return s5 + (new5 - old5), s17 + (new17 - old17), s65 + (new65 - old65), total


@triton.jit
def column_sums(e_ptr, t_ptr, stride, sums, plane_size, y0, y1, x, h, w, PAIR: tl.constexpr, MEANS: tl.constexpr):
    """Column sums over 5, 17 and 65 rows for rows y0 .. y1 - 1 and the columns ``x``.

    ``sums`` points to the image's map in the first of three planes. Returns the sum of E over the rows that this
    segment owns: y0 - 2 .. y1 - 3, the last segment also the last two rows; the loop reads these anyway.
    """
    mask = x < (w if PAIR else quads_of(w))
    pitch = pitch_of(w)
    total = tl.zeros_like(x).to(tl.float32)
    if MEANS:
        s5 = tl.zeros_like(x).to(tl.float32)
        for d in tl.static_range(-2, 3):
            s5 += row_error(e_ptr, t_ptr, stride, y0 + d, h, x, mask, PAIR)
        s17 = s5
        for d in tl.range(3, 9, loop_unroll_factor=3):
            s17 += row_error(e_ptr, t_ptr, stride, y0 + d, h, x, mask, PAIR)
            s17 += row_error(e_ptr, t_ptr, stride, y0 - d, h, x, mask, PAIR)
        s65 = s17
        for d in tl.range(9, 33, loop_unroll_factor=4):
            s65 += row_error(e_ptr, t_ptr, stride, y0 + d, h, x, mask, PAIR)
            s65 += row_error(e_ptr, t_ptr, stride, y0 - d, h, x, mask, PAIR)
        # The loads of four rows come first: none of them may pass a store, so that rows one by one would wait for
        # memory once each.
        for y in range(y0, y1, 4):
            rows0 = moving_rows(e_ptr, t_ptr, stride, y, h, x, mask, PAIR)
            rows1 = moving_rows(e_ptr, t_ptr, stride, y + 1, h, x, mask, PAIR)
            rows2 = moving_rows(e_ptr, t_ptr, stride, y + 2, h, x, mask, PAIR)
            rows3 = moving_rows(e_ptr, t_ptr, stride, y + 3, h, x, mask, PAIR)
            at = sums + y * pitch + PAD + x
            s5, s17, s65, total = move_down(at, plane_size, mask, s5, s17, s65, total, rows0, y, y1)
            at += pitch
            s5, s17, s65, total = move_down(at, plane_size, mask, s5, s17, s65, total, rows1, y + 1, y1)
            at += pitch
            s5, s17, s65, total = move_down(at, plane_size, mask, s5, s17, s65, total, rows2, y + 2, y1)
            at += pitch
            s5, s17, s65, total = move_down(at, plane_size, mask, s5, s17, s65, total, rows3, y + 3, y1)
    else:
        for y in range(y0, y1):
            total += tl.where(y >= 2, row_error(e_ptr, t_ptr, stride, y - 2, h, x, mask, PAIR), 0.0)
    if y1 == h:
        total += row_error(e_ptr, t_ptr, stride, h - 1, h, x, mask, PAIR)
        total += tl.where(h >= 2, row_error(e_ptr, t_ptr, stride, h - 2, h, x, mask, PAIR), 0.0)
    return tl.where(x < w, total, 0.0)


@triton.jit
def replicate(sums, plane_size, y0, y1, column, place, end, pitch, ROWS: tl.constexpr, LANES: tl.constexpr):
    """Copies of a column in the places ``place`` .. ``end`` - 1 of each row, in all three planes."""
    lane = place + tl.arange(0, LANES)[None, :]
    for first in range(y0, y1, ROWS):
        y = first + tl.arange(0, ROWS)[:, None]
        row = sums + y * pitch
        for n in tl.static_range(3):
            edge = tl.load(row + n * plane_size + PAD + column, mask=y < y1, other=0.0)
            tl.store(row + n * plane_size + lane, edge + tl.zeros([ROWS, LANES], tl.float32),
                     mask=(y < y1) & (lane < end))


@triton.jit
def pad_columns(sums, plane_size, y0, y1, left, right, w, ROWS: tl.constexpr):
    """The padding of the column sums at the ``left`` and at the ``right`` border: replicated columns."""
    if left:
        replicate(sums, plane_size, y0, y1, 0, 0, PAD, pitch_of(w), ROWS, 32)
    if right:
        replicate(sums, plane_size, y0, y1, w - 1, PAD + w, quads_of(w) + 2 * PAD, pitch_of(w), ROWS, 64)


@triton.jit
def sign(x):
    """-1, 0 or 1 in float32: the derivative of |x|, 0 at 0."""
    bits = (x.to(tl.int32, bitcast=True) & -0x80000000) | 0x3F800000
    return tl.where(x == 0.0, 0.0, bits.to(tl.float32, bitcast=True))


@triton.jit
def sign_byte(s):
    """A sign plus one, as a byte: 2^23 + 1 + s has it in its lowest bits, which is cheaper than a conversion."""
    return (s + 8388609.0).to(tl.int32, bitcast=True).to(tl.uint8)


@triton.jit
def box_row(row, x, w, RADIUS: tl.constexpr, ROWS: tl.constexpr):
    """Sums over 2 r + 1 columns around the columns x of a tile [ROWS, 128] of column sums.

    What lies to the right of the padding has no part in the columns of the map and is not read.
    """
    end = quads_of(w) + PAD
    at = row + x
    a = tl.load(at - RADIUS, mask=x - RADIUS < end, other=0.0)
    b = tl.load(at, mask=x < end, other=0.0)
    c = tl.load(at + RADIUS, mask=x + RADIUS < end, other=0.0)
    return segment_sums(a, b, c, RADIUS, ROWS)


@triton.jit
def segment_sums(a, b, c, RADIUS: tl.constexpr, ROWS: tl.constexpr):
    """The running-window identity on A, B and C of a tile [ROWS, 128]."""
    SEGMENTS: tl.constexpr = TILE // RADIUS
    whole = tl.sum(tl.reshape(a + b, [ROWS, SEGMENTS, RADIUS]), 2)
    moving = tl.cumsum(tl.reshape(c - a, [ROWS, SEGMENTS, RADIUS]), 2)
    return tl.reshape(whole[:, :, None] + moving, [ROWS, TILE]) + a


@triton.jit
def window_signs(sums, signs, plane_size, e, mean, weights, centre, y, x, inside, h, w, pitch, ROWS: tl.constexpr,
                 MEANS: tl.constexpr, GRAD: tl.constexpr):
    """Signs of E - mean and of E - box E on a tile: (|.| of M, M5, M17, M65 and the sign of M), as tiles.

    Writes the signs of the three windows plus one as bytes (0, 1, 2) and, to ``centre``, the weighted sum of all four
    signs: the part of the gradient that stays at its own pixel.
    """
    line = tl.minimum(y, h - 1) * pitch + PAD
    row = line + x
    d = tl.where(inside, e - mean, 0.0)
    m = tl.abs(d)
    s = sign(d)
    sign_m = s
    own = s * tl.load(weights + 1)
    m5 = tl.zeros_like(m)
    m17 = tl.zeros_like(m)
    m65 = tl.zeros_like(m)
    if MEANS:
        store = (y < h) & (x < pitch)
        d = tl.where(inside, e - box_row(sums + line, x, w, 2, ROWS) * (1.0 / 25), 0.0)
        m5 = tl.abs(d)
        if GRAD:
            s = sign(d)
            own += s * tl.load(weights + 2)
            tl.store(signs + row, sign_byte(s), mask=store)
        d = tl.where(inside, e - box_row(sums + plane_size + line, x, w, 8, ROWS) * (1.0 / 289), 0.0)
        m17 = tl.abs(d)
        if GRAD:
            s = sign(d)
            own += s * tl.load(weights + 3)
            tl.store(signs + plane_size + row, sign_byte(s), mask=store)
        d = tl.where(inside, e - box_row(sums + 2 * plane_size + line, x, w, 32, ROWS) * (1.0 / 4225), 0.0)
        m65 = tl.abs(d)
        if GRAD:
            s = sign(d)
            own += s * tl.load(weights + 4)
            tl.store(signs + 2 * plane_size + row, sign_byte(s), mask=store)
    if GRAD:
        tl.store(centre + row, own, mask=(y < h) & (x < quads_of(w)))
    return m, m5, m17, m65, sign_m
