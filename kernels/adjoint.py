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

from mlr.kernels.geometry import COARSE_TILE, PAD, TILE, pitch_of

#: Four pixels of sign 0.
ZEROS = tl.constexpr(0x01010101)


@triton.jit
def border_count(i, n, r, START: tl.constexpr):
    """How many positions at or beyond a border see pixel i in their window of radius r (n pixels along the axis)."""
    distance = i if START else n - 1 - i
    # an axis of one pixel has both borders at once
    return tl.where(n == 1, 2 * r + 1, tl.maximum(r + 1 - distance, 0))


@triton.jit
def sign_row(signs, y, h, words, INSIDE: tl.constexpr):
    """Row y of a sign map in words of four pixels; rows outside the map, of which there are none if INSIDE, are 0."""
    if INSIDE:
        return tl.load(signs + y * words)
    else:
        # a negative number is a large one without its sign
        known = tl.cast(y, tl.uint32, bitcast=True) < tl.cast(h, tl.uint32, bitcast=True)
        return tl.load(signs + y * words, mask=known, other=ZEROS)


@triton.jit
def four_rows(signs, at, acc, r, y, h, words, inside, store, INSIDE: tl.constexpr):
    """Store the column sums ``acc`` of row y and those of the next three; returns those of the fourth.

    The loads of all come before the stores, as in ``windows``.
    """
    d0 = sign_row(signs, y + r + 1, h, words, INSIDE) - sign_row(signs, y - r, h, words, INSIDE)
    d1 = sign_row(signs, y + r + 2, h, words, INSIDE) - sign_row(signs, y + 1 - r, h, words, INSIDE)
    d2 = sign_row(signs, y + r + 3, h, words, INSIDE) - sign_row(signs, y + 2 - r, h, words, INSIDE)
    d3 = sign_row(signs, y + r + 4, h, words, INSIDE) - sign_row(signs, y + 3 - r, h, words, INSIDE)
    padding = (2 * r + 1) * ZEROS
    tl.store(at, tl.where(inside, acc, padding), mask=store)
    acc += d0
    at += words
    tl.store(at, tl.where(inside, acc, padding), mask=store if INSIDE else store & (y + 1 < h))
    acc += d1
    at += words
    tl.store(at, tl.where(inside, acc, padding), mask=store if INSIDE else store & (y + 2 < h))
    acc += d2
    at += words
    tl.store(at, tl.where(inside, acc, padding), mask=store if INSIDE else store & (y + 3 < h))
    return acc + d3


@triton.jit
def sign_columns(signs, column_sums, borders, r, y0, y1, word0, h, w, WORDS: tl.constexpr):
    """Column sums of a sign map over 2 r + 1 rows, WORDS words from word0 on (padding included).

    They are made for the rows y0 .. y1 - 1, whole fours or up to the last. ``signs`` and ``column_sums`` point to words
    of the image's map, ``borders`` to its two border rows.
    """
    pitch = pitch_of(w)
    words = pitch // 4
    lane = word0 + tl.arange(0, WORDS)
    end = PAD // 4 + tl.cdiv(w, COARSE_TILE) * (COARSE_TILE // 4)  # of the sign maps of all scales
    inside = (lane >= PAD // 4) & (lane < end)
    store = lane < words
    signs += tl.minimum(tl.maximum(lane, PAD // 4), end - 1)  # the padding is not there yet
    first = tl.maximum(y0 - r, 0)
    last = tl.minimum(y0 + r + 1, h)
    acc = tl.zeros([WORDS], tl.int32) + (2 * r + 1 - (last - first)) * ZEROS
    for y in tl.range(first, last, loop_unroll_factor=8):
        acc += sign_row(signs, y, h, words, True)
    for y in range(y0, y1, 4):
        at = column_sums + y * words + lane
        if (y >= r) & (y + r + 4 < h):
            acc = four_rows(signs, at, acc, r, y, h, words, inside, store, True)
        else:
            acc = four_rows(signs, at, acc, r, y, h, words, inside, store, False)
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
                row = tl.where(inside, sign_row(signs, i, h, words, True), ZEROS)
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
def border_rows(borders, boxes, r, y0, y1, h, w, COLUMNS: tl.constexpr):
    """The finished box^T in the first and last row, if they are among the rows y0 .. y1 - 1."""
    pitch = pitch_of(w)
    for side in tl.static_range(2):
        if (y0 == 0) if side == 0 else (y1 == h):
            row = borders + side * pitch + PAD  # with zeros on both sides
            reach = tl.arange(0, 2 * PAD)
            near = reach < w
            first = tl.sum(tl.load(row + reach, mask=near, other=0) * border_count(reach, w, r, True), 0)
            last = w - 1 - reach
            last = tl.sum(tl.load(row + last, mask=near, other=0) * border_count(last, w, r, False), 0)
            for x0 in range(0, w, COLUMNS):
                x = x0 + tl.arange(0, COLUMNS)
                at = row + tl.minimum(x, w - 1) - r
                total = tl.zeros([COLUMNS], tl.int32)
                for _ in tl.range(0, 2 * r + 1):
                    total += tl.load(at)
                    at += 1
                total = tl.where(x == 0, first, tl.where(x == w - 1, last, total))
                tl.store(boxes + side * pitch + PAD + x, total, mask=x < w)


@triton.jit
def border_columns(column_sums, folds, r, y0, y1, h, w, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The finished box^T in the first and last column of the rows y0 .. y1 - 1, border rows excepted: two rows of h."""
    pitch = pitch_of(w)
    for first in range(y0, y1, ROWS):
        y = first + tl.arange(0, ROWS)
        row = column_sums + tl.minimum(y, h - 1)[:, None] * pitch + PAD
        for side in tl.static_range(2):
            total = tl.zeros([ROWS, COLUMNS], tl.int32)
            for near in range(0, tl.minimum(r + 1, w), COLUMNS):
                reach = near + tl.arange(0, COLUMNS)[None, :]
                x = tl.minimum(reach, w - 1) if side == 0 else tl.maximum(w - 1 - reach, 0)
                count = tl.where(reach < w, border_count(x, w, r, side == 0), 0)
                total += (tl.load(row + x).to(tl.int32) - (2 * r + 1)) * count
            tl.store(folds + side * h + y, tl.sum(total, 1), mask=y < y1)


@triton.jit
def pairs(word):
    """Pixels 0 and 2, and 1 and 3, of a word, in the 16-bit halves of two numbers."""
    return word & 0x00FF00FF, (word >> 8) & 0x00FF00FF


@triton.jit
def box_words(at, R: tl.constexpr, ROWS: tl.constexpr):
    """Sums over 2 r + 1 bytes around each byte of the words ``at`` [ROWS, 32], as pairs; r is 8 or 32.

    The running-window identity of ``windows``, two pixels in a number: sums stay below 2^16, so what a lower half
    borrows from the upper one in between is given back in the end.
    """
    QUADS: tl.constexpr = R // 4
    a_even, a_odd = pairs(tl.load(at - QUADS))
    b_even, b_odd = pairs(tl.load(at))
    c_even, c_odd = pairs(tl.load(at + QUADS))
    d_even = c_even - a_even
    d_odd = c_odd - a_odd
    d = d_even + d_odd
    moving = (d + (d << 16) + 0x8000) >> 16  # d0 + d1 + d2 + d3; the lower half may be negative
    s = a_even + b_even + a_odd + b_odd
    whole = tl.sum(tl.reshape((s & 0xFFFF) + (s >> 16), [ROWS, 32 // QUADS, QUADS]), 2)
    before = tl.cumsum(tl.reshape(moving, [ROWS, 32 // QUADS, QUADS]), 2)
    base = (tl.reshape(whole[:, :, None] + before, [ROWS, 32]) - moving) * 0x10001
    even = d_even + (d << 16)
    odd = even + d_odd
    return even + a_even + base, odd + a_odd + base


@triton.jit
def four(even, odd):
    """The four numbers of two pairs."""
    return even & 0xFFFF, odd & 0xFFFF, (even >> 16) & 0xFFFF, (odd >> 16) & 0xFFFF


@triton.jit
def box_words5(at):
    """Sums over five bytes around each byte of the words ``at``."""
    before = tl.load(at - 1)
    word = tl.load(at)
    after = tl.load(at + 1)
    p2 = (before >> 16) & 255
    p3 = (before >> 24) & 255
    n0 = after & 255
    n1 = (after >> 8) & 255
    even, odd = pairs(word)
    both = even + odd
    total = (both & 0xFFFF) + (both >> 16)
    return (
        total - ((word >> 24) & 255) + p2 + p3,
        total + p3,
        total + n0,
        total - (word & 255) + n0 + n1,
    )


@triton.jit
def quad(v0, v1, v2, v3, ROWS: tl.constexpr):
    """A tile [ROWS, 128] from the four pixels of each of [ROWS, 32] words."""
    return tl.reshape(tl.join(tl.join(v0, v2), tl.join(v1, v3)), [ROWS, TILE])


@triton.jit
def windows_gradient(column_sums, plane_size, boxes, box_size, folds, fold_size, weights, y, x0, first, last, h, w,
                     ROWS: tl.constexpr):
    """What the adjoints of the three windows take from the gradient on a tile [ROWS, 128] of rows ``y``.

    ``first`` and ``last`` bound the rows, so that border rows cost nothing where there are none.
    """
    pitch = pitch_of(w)
    w5 = tl.load(weights + 2) * (1.0 / 25)
    w17 = tl.load(weights + 3) * (1.0 / 289)
    w65 = tl.load(weights + 4) * (1.0 / 4225)
    at = column_sums + tl.minimum(y, h - 1) * pitch + (PAD + x0) + 4 * tl.arange(0, 32)[None, :]
    at5 = at.to(tl.pointer_type(tl.int32))
    at17 = (at + plane_size).to(tl.pointer_type(tl.int32))
    at65 = (at + 2 * plane_size).to(tl.pointer_type(tl.int32))
    v0, v1, v2, v3 = box_words5(at5)
    g0 = v0.to(tl.float32) * w5
    g1 = v1.to(tl.float32) * w5
    g2 = v2.to(tl.float32) * w5
    g3 = v3.to(tl.float32) * w5
    even, odd = box_words(at17, 8, ROWS)
    v0, v1, v2, v3 = four(even, odd)
    g0 += v0.to(tl.float32) * w17
    g1 += v1.to(tl.float32) * w17
    g2 += v2.to(tl.float32) * w17
    g3 += v3.to(tl.float32) * w17
    even, odd = box_words(at65, 32, ROWS)
    v0, v1, v2, v3 = four(even, odd)
    # every column sum is too large by 2 r + 1, so a sum of 2 r + 1 of them by its square
    excess = w5 * 25 + w17 * 289 + w65 * 4225
    g0 += v0.to(tl.float32) * w65 - excess
    g1 += v1.to(tl.float32) * w65 - excess
    g2 += v2.to(tl.float32) * w65 - excess
    g3 += v3.to(tl.float32) * w65 - excess
    total = quad(g0, g1, g2, g3, ROWS)
    x = x0 + tl.arange(0, TILE)[None, :]
    for side in tl.static_range(2):
        if (x0 == 0) if side == 0 else (x0 + TILE >= w):
            row = folds + side * h + tl.minimum(y, h - 1)
            fold = (tl.load(row).to(tl.float32) * w5 + tl.load(row + fold_size).to(tl.float32) * w17
                    + tl.load(row + 2 * fold_size).to(tl.float32) * w65)  # fmt: skip
            total = tl.where(x == (0 if side == 0 else w - 1), fold, total)
    for side in tl.static_range(2):
        border = 0 if side == 0 else h - 1
        if (first <= border) & (border <= last):
            row = boxes + side * pitch + PAD + x
            box = (tl.load(row, mask=x < w, other=0).to(tl.float32) * w5
                   + tl.load(row + box_size, mask=x < w, other=0).to(tl.float32) * w17
                   + tl.load(row + 2 * box_size, mask=x < w, other=0).to(tl.float32) * w65)  # fmt: skip
            total = tl.where(y == border, box, total)
    return total
