# SPDX-License-Identifier: Apache-2.0
"""The adjoint of the local means: box^T of the sign maps, on whole numbers and therefore exact.

The adjoint of a box with replicated borders is the zero-padded window sum, except in the first and last row and column.
They also receive what the replicated pixels beyond them would get: a pixel counts there as often as its window reaches
a position at or beyond the border, which is r + 1 times less its distance.

Columns come first, four pixels in a 32-bit word: the sign maps hold 0, 1, 2 (sign plus one), so a window sum is at most
130 and never carries into its neighbour's byte. What lies outside the map counts as sign 0, byte 1; a column sum is
therefore the true one plus 2 r + 1 everywhere. The first and last row do not fit a byte and have tables of their own.
"""

import triton
import triton.language as tl

from mlr.kernels import slots
from mlr.kernels.geometry import PAD, TILE, pitch_of, quad, quads_of
from mlr.kernels.windows import ZEROS

#: Groups of lanes that share the first of their column sums.
GROUPS = tl.constexpr(4)


@triton.jit
def pairs(word):
    """Pixels 0 and 2, and 1 and 3, of a word, in the 16-bit halves of two numbers."""
    return word & 0x00FF00FF, (word >> 8) & 0x00FF00FF


@triton.jit
def sign_row(row, y, h, INSIDE: tl.constexpr):
    """Row y of a sign map, which ``row`` points to, in words; rows outside the map, if not all are INSIDE, are 0."""
    if INSIDE:
        return tl.load(row)
    else:
        # a negative number is a large one without its sign
        return tl.load(row, mask=y.to(tl.uint32, bitcast=True) < tl.cast(h, tl.uint32, bitcast=True), other=ZEROS)


@triton.jit
def moving_sums(signs, at, base, r, y, y1, h, words, ROWS: tl.constexpr, INSIDE: tl.constexpr):
    """Store the column sums of the ROWS rows from each group's row y on, if before y1, from ``base``, those of the
    first group's first row. The loads of all come before the stores, which they could not pass."""
    low = signs + (y - r) * words
    high = low + (2 * r + 1) * words
    changes = ()
    change = tl.zeros_like(base)
    for i in tl.static_range(ROWS):
        d = sign_row(high, y + (r + 1 + i), h, INSIDE) - sign_row(low, y - r + i, h, INSIDE)
        low += words
        high += words
        changes += (d,)
        change += d
    acc = base + tl.cumsum(change, 1) - change
    at += y * words
    for i in tl.static_range(ROWS):
        if INSIDE:
            tl.store(at, acc)
        else:
            tl.store(at, acc, mask=y + i < y1)
        at += words
        acc += changes[i]


@triton.jit
def sign_columns(signs, column_sums, borders, r, y0, y1, h, w, WORDS: tl.constexpr, ROWS: tl.constexpr):
    """Column sums of a sign map over 2 r + 1 rows, for the ROWS rows from y0 on, those before y1.

    ``signs`` and ``column_sums`` point to words of the image's map, ``borders`` to its two border rows. WORDS words are
    made at a time: groups of lanes share the first sum and make ROWS / GROUPS rows each.
    """
    words = pitch_of(w) // 4
    # the groups of a word lie in one warp
    lane = 8 * tl.arange(0, WORDS // 8)[:, None, None] + tl.arange(0, 8)[None, None, :]
    group = tl.arange(0, GROUPS)[None, :, None]
    first = tl.maximum(y0 - r, 0)
    last = tl.minimum(y0 + r + 1, h)
    mine = y0 + group * (ROWS // GROUPS)
    for word0 in range(PAD // 4, words - PAD // 4, WORDS):
        row = signs + word0 + first * words + (group * words + lane)
        acc = tl.zeros([WORDS // 8, GROUPS, 8], tl.int32)
        for _ in tl.range(first, last - (GROUPS - 1), GROUPS, loop_unroll_factor=2):
            acc += tl.load(row)
            row += GROUPS * words
        acc += tl.load(row, mask=group < (last - first) % GROUPS, other=0)
        base = tl.sum(acc, 1)[:, None, :] + (2 * r + 1 - (last - first)) * ZEROS
        at = signs + word0 + lane
        out = column_sums + word0 + lane
        if (y0 >= r) & (y0 + ROWS + r < h):
            moving_sums(at, out, base, r, mine, y1, h, words, ROWS // GROUPS, True)
        else:
            moving_sums(at, out, base, r, mine, y1, h, words, ROWS // GROUPS, False)
    padding = y0 + tl.arange(0, ROWS)[:, None]
    at = column_sums + padding * words + tl.arange(0, PAD // 4)[None, :]
    ones = tl.zeros([ROWS, PAD // 4], tl.int32) + (2 * r + 1) * ZEROS
    tl.store(at, ones, mask=padding < y1)
    tl.store(at + (words - PAD // 4), ones, mask=padding < y1)
    if (y0 == 0) | (y1 == h):  # outside, so that others do not prepare for it
        border_tables(signs, borders, r, y0, y1, h, w, lane, group, WORDS)


@triton.jit
def border_tables(signs, borders, r, y0, y1, h, w, lane, group, WORDS: tl.constexpr):
    """Column sums of the first and last row, if they are among the rows y0 .. y1 - 1, into ``borders``."""
    pitch = pitch_of(w)
    words = pitch // 4
    for side in range(2):
        if tl.where(side == 0, y0 == 0, y1 == h):
            count = tl.minimum(r + 1, h)
            step = tl.where(side == 0, words, -words)
            start = signs + tl.where(side == 0, 0, (h - 1) * words)
            for word0 in range(PAD // 4, words - PAD // 4, WORDS):
                row = start + word0 + (group * step + lane)
                weight = tl.where(h == 1, 2 * r + 1, r + 1) - group  # a single row has both borders at once
                even = tl.zeros([WORDS // 8, GROUPS, 8], tl.int32)
                odd = even
                for i in range(0, count, GROUPS):
                    row_even, row_odd = pairs(tl.load(row, mask=group + i < count, other=0))
                    even += weight * row_even
                    odd += weight * row_odd
                    row += GROUPS * step
                    weight -= GROUPS
                # each group keeps one of the word's pixels
                halves = tl.where(group % 2 == 0, tl.sum(even, 1)[:, None, :], tl.sum(odd, 1)[:, None, :])
                # signs plus one, each as often as it counts
                excess = tl.where(h == 1, 2 * r + 1, count * (r + 1) - count * (count - 1) // 2)
                total = ((halves >> (16 * (group // 2))) & 0xFFFF) - excess
                tl.store(borders + side * pitch + 4 * word0 + (4 * lane + group), total)


@triton.jit
def segment_sums(a, b, c, RADIUS: tl.constexpr):
    """The running-window identity of ``windows`` on A, B and C of a row [1, 128]."""
    SEGMENTS: tl.constexpr = TILE // RADIUS
    whole = tl.sum(tl.reshape(a + b, [1, SEGMENTS, RADIUS]), 2)
    moving = tl.cumsum(tl.reshape(c - a, [1, SEGMENTS, RADIUS]), 2)
    return tl.reshape(whole[:, :, None] + moving, [1, TILE]) + a


@triton.jit
def border_rows(borders, boxes, y0, y1, h, w, RADIUS: tl.constexpr):
    """The finished box^T in the first and last row, if they are among the rows y0 .. y1 - 1."""
    pitch = pitch_of(w)
    for side in range(2):
        if tl.where(side == 0, y0 == 0, y1 == h):
            row = borders + side * pitch + PAD
            box = boxes + side * pitch + PAD
            for x0 in range(0, w, TILE):
                x = x0 + tl.arange(0, TILE)[None, :]
                a = tl.load(row + x - RADIUS, mask=x >= RADIUS, other=0)
                b = tl.load(row + x)
                c = tl.load(row + x + RADIUS, mask=x < pitch - (2 * PAD + RADIUS), other=0)
                tl.store(box + x, segment_sums(a, b, c, RADIUS), mask=(x > 0) & (x != w - 1))
            # the first and the last pixel
            end = tl.arange(0, 2)[:, None]
            reach = tl.arange(0, 2 * PAD)[None, :]
            value = tl.load(row + tl.where(end == 0, reach, w - 1 - reach), mask=reach < w, other=0)
            total = tl.sum(value * tl.where(w == 1, 2 * RADIUS + 1, tl.maximum(RADIUS + 1 - reach, 0)), 1)
            tl.store(box + tl.arange(0, 2) * (w - 1), total)


@triton.jit
def border_columns(column_sums, folds, y0, y1, h, w, RADIUS: tl.constexpr, ROWS: tl.constexpr):
    """The finished box^T in the first and last column of the rows y0 .. y1 - 1, border rows excepted: h rows of two.

    A lane weighs the four columns of a word. What lies outside the map counts as sign 0 and adds nothing, so the last
    column may as well be that of the quad, whose window then reaches further.
    """
    LANES: tl.constexpr = 2 if RADIUS == 2 else RADIUS // 2  # at least the words that r + 4 columns touch
    side = tl.arange(0, 2)[None, :, None]
    x = 4 * tl.arange(0, LANES)[None, None, :]
    heaviest = RADIUS + 1 + side * (quads_of(w) - w)
    w0 = tl.maximum(heaviest - x, 0)  # weights from the border inwards, for byte 0 of a word or for byte 3
    w1 = tl.maximum(heaviest - 1 - x, 0)
    w2 = tl.maximum(heaviest - 2 - x, 0)
    w3 = tl.maximum(heaviest - 3 - x, 0)
    even = tl.where(side == 0, w2 + (w0 << 16), w1 + (w3 << 16))
    odd = tl.where(side == 0, w3 + (w1 << 16), w0 + (w2 << 16))
    word = column_sums + tl.maximum(tl.where(side == 0, PAD + x, PAD + quads_of(w) - 4 - x), 0)
    row = tl.arange(0, ROWS)[:, None]
    end = tl.arange(0, 2)[None, :]
    excess: tl.constexpr = (2 * RADIUS + 1) * 0x10001
    for first in range(y0, y1, ROWS):
        at = word + tl.minimum(first + row, h - 1)[:, :, None] * pitch_of(w)
        sums_even, sums_odd = pairs(tl.load(at.to(tl.pointer_type(tl.int32))))
        total = (sums_even - excess) * even + (sums_odd - excess) * odd
        total = tl.sum((total + 0x8000) >> 16, 2)  # the upper halves; the lower ones may be negative
        if w == 1:  # both borders at once: the pixel counts 2 r + 1 times instead of r + 1
            total = total // (RADIUS + 1) * (2 * RADIUS + 1)
        tl.store(folds + 2 * (first + row) + end, total, mask=first + row < y1)


@triton.jit
def box_words(at, R: tl.constexpr, ROWS: tl.constexpr, WORDS: tl.constexpr):
    """Sums over 2 r + 1 bytes around each byte of the words ``at`` [ROWS, WORDS], as pairs; r is 8 or 32.

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
    whole = tl.sum(tl.reshape((s & 0xFFFF) + (s >> 16), [ROWS, WORDS // QUADS, QUADS]), 2)
    before = tl.cumsum(tl.reshape(moving, [ROWS, WORDS // QUADS, QUADS]), 2)
    base = (tl.reshape(whole[:, :, None] + before, [ROWS, WORDS]) - moving) * 0x10001
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
def window_weights(weights):
    """Weights of the three windows' sums, and what their weighted sum exceeds the truth by."""
    w5 = tl.load(weights + slots.M5) * (1.0 / 25)
    w17 = tl.load(weights + slots.M17) * (1.0 / 289)
    w65 = tl.load(weights + slots.M65) * (1.0 / 4225)
    # every column sum is too large by 2 r + 1, so a sum of 2 r + 1 of them by its square
    return w5, w17, w65, w5 * 25 + w17 * 289 + w65 * 4225


@triton.jit
def windows_gradient(column_sums, plane_size, boxes, box_size, folds, fold_size, weights, y, x0, first, last, h, w,
                     ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """What the adjoints of the three windows take from the gradient on a tile [ROWS, COLUMNS] of rows ``y``.

    ``first`` and ``last`` bound the rows, so that border rows cost nothing where there are none.
    """
    pitch = pitch_of(w)
    w5, w17, w65, excess = weights
    at = column_sums + tl.minimum(y, h - 1) * pitch + (PAD + x0) + 4 * tl.arange(0, COLUMNS // 4)[None, :]
    at5 = at.to(tl.pointer_type(tl.int32))
    at17 = (at + plane_size).to(tl.pointer_type(tl.int32))
    at65 = (at + 2 * plane_size).to(tl.pointer_type(tl.int32))
    v0, v1, v2, v3 = box_words5(at5)
    g0 = v0.to(tl.float32) * w5
    g1 = v1.to(tl.float32) * w5
    g2 = v2.to(tl.float32) * w5
    g3 = v3.to(tl.float32) * w5
    even, odd = box_words(at17, 8, ROWS, COLUMNS // 4)
    v0, v1, v2, v3 = four(even, odd)
    g0 += v0.to(tl.float32) * w17
    g1 += v1.to(tl.float32) * w17
    g2 += v2.to(tl.float32) * w17
    g3 += v3.to(tl.float32) * w17
    even, odd = box_words(at65, 32, ROWS, COLUMNS // 4)
    v0, v1, v2, v3 = four(even, odd)
    g0 += v0.to(tl.float32) * w65 - excess
    g1 += v1.to(tl.float32) * w65 - excess
    g2 += v2.to(tl.float32) * w65 - excess
    g3 += v3.to(tl.float32) * w65 - excess
    total = quad(g0, g1, g2, g3, ROWS)
    x = x0 + tl.arange(0, COLUMNS)[None, :]
    for side in tl.static_range(2):
        if (x0 == 0) if side == 0 else (x0 + COLUMNS >= w):
            row = folds + 2 * tl.minimum(y, h - 1) + side
            fold = (tl.load(row).to(tl.float32) * w5 + tl.load(row + fold_size).to(tl.float32) * w17
                    + tl.load(row + 2 * fold_size).to(tl.float32) * w65)  # fmt: skip
            total = tl.where(x == (0 if side == 0 else w - 1), fold, total)
    for side in tl.static_range(2):
        border = 0 if side == 0 else h - 1
        if (first <= border) & (border <= last):
            # all rows of the tile have a part, so that their layout need not change
            row = boxes + (side * pitch + PAD + x0) + (tl.zeros_like(y) + tl.arange(0, COLUMNS)[None, :])
            mine = (y == border) & (x < quads_of(w))
            box = (tl.load(row, mask=mine, other=0).to(tl.float32) * w5
                   + tl.load(row + box_size, mask=mine, other=0).to(tl.float32) * w17
                   + tl.load(row + 2 * box_size, mask=mine, other=0).to(tl.float32) * w65)  # fmt: skip
            total = tl.where(y == border, box, total)
    return total
