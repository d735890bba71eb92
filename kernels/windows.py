# SPDX-License-Identifier: Apache-2.0
"""The local means of eq. (5) and their signs: columns first, then rows.

A box with replicated borders is separable. The column pass walks down the map with moving sums, one lane a column;
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

#: Rows that the column sums are made for at a time.
BLOCK_ROWS = tl.constexpr(16)
#: Takes any normal float32 number beyond 1.
HUGE = tl.constexpr(2.0**127)


@triton.jit
def error_rows(e_ptr, t_ptr, stride, y, h, FIRST: tl.constexpr, COUNT: tl.constexpr, PAIR: tl.constexpr,
               INSIDE: tl.constexpr):
    """Rows y + FIRST .. y + FIRST + COUNT - 1 of E around a row y of the map, their numbers clamped unless ``INSIDE``.

    ``PAIR``: E is formed from prediction and target.
    """
    rows = ()
    if INSIDE:
        e_ptr += (y + FIRST) * stride
        t_ptr += (y + FIRST) * stride
    for i in tl.static_range(COUNT):
        row = y + (FIRST + i)
        at = 0 if INSIDE else (tl.maximum(row, 0) if FIRST + i < 0 else tl.minimum(row, h - 1)) * stride
        e = tl.load(e_ptr + at).to(tl.float32)
        if PAIR:
            e -= tl.load(t_ptr + at).to(tl.float32)
        if INSIDE:
            e_ptr += stride
            t_ptr += stride
        rows += (e,)
    return rows


@triton.jit
def block_sums(e_ptr, t_ptr, stride, at, pitch, plane_size, mask, y, h, PAIR: tl.constexpr, INSIDE: tl.constexpr):
    """Column sums for BLOCK_ROWS rows from y on, stored from ``at`` on; returns the sum of E over those of the map.

    They take 64 more rows of E, each loaded once and before the first store, which no load may pass. ``INSIDE`` says
    that the map has them all.
    """
    above = error_rows(e_ptr, t_ptr, stride, y, h, -32, 24, PAIR, INSIDE)
    below = error_rows(e_ptr, t_ptr, stride, y, h, 8 + BLOCK_ROWS, 24, PAIR, INSIDE)
    far = above[0]
    for i in tl.static_range(1, 24):
        far += above[i]
    for i in tl.static_range(25 - BLOCK_ROWS):
        far += below[i]
    changes = ()
    for i in tl.static_range(BLOCK_ROWS - 1):
        changes += (below[25 - BLOCK_ROWS + i] - above[i],)
    near = error_rows(e_ptr, t_ptr, stride, y, h, -8, 16 + BLOCK_ROWS, PAIR, INSIDE)
    s5 = near[6]
    for i in tl.static_range(7, 11):
        s5 += near[i]
    s17 = s5
    for i in tl.static_range(6):
        s17 += near[i] + near[11 + i]
    s65 = s17 + far
    for i in tl.static_range(17, 16 + BLOCK_ROWS):
        s65 += near[i]
    total = tl.zeros_like(s5)
    for i in tl.static_range(BLOCK_ROWS):
        store = mask if INSIDE else mask & (y + i < h)
        tl.store(at, s5, mask=store)
        tl.store(at + plane_size, s17, mask=store)
        tl.store(at + 2 * plane_size, s65, mask=store)
        at += pitch
        total += near[8 + i] if INSIDE else tl.where(y + i < h, near[8 + i], 0.0)
        if i < BLOCK_ROWS - 1:
            s5 += near[11 + i] - near[6 + i]
            s17 += near[17 + i] - near[i]
            s65 += changes[i]
    return total


@triton.jit
def column_sums(e_ptr, t_ptr, stride, sums, plane_size, y0, y1, x, h, w, PAIR: tl.constexpr, MEANS: tl.constexpr):
    """Column sums over 5, 17 and 65 rows for rows y0 .. y1 - 1, whole blocks or up to the last, and the columns ``x``.

    ``sums`` points to the image's map in the first of three planes. Returns the sum of E over these rows.
    """
    mask = x < w
    pitch = pitch_of(w)
    e_ptr += tl.minimum(x, w - 1)
    t_ptr += tl.minimum(x, w - 1)
    total = tl.zeros_like(x).to(tl.float32)
    for y in range(y0, y1, BLOCK_ROWS):
        if MEANS:
            at = sums + y * pitch + PAD + x
            if (y >= 32) & (h - y >= 32 + BLOCK_ROWS):
                total += block_sums(e_ptr, t_ptr, stride, at, pitch, plane_size, mask, y, h, PAIR, True)
            else:
                total += block_sums(e_ptr, t_ptr, stride, at, pitch, plane_size, mask, y, h, PAIR, False)
        else:
            rows = error_rows(e_ptr, t_ptr, stride, y, h, 0, BLOCK_ROWS, PAIR, False)
            for i in tl.static_range(BLOCK_ROWS):
                total += tl.where(y + i < h, rows[i], 0.0)
    return tl.where(mask, total, 0.0)


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
    """-1, 0 or 1 in float32: the derivative of |x|, 0 at 0. A subnormal x, which no depths differ by, may give less."""
    return tl.clamp(x * HUGE, -1.0, 1.0)


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
