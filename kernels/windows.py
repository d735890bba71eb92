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

from mlr.kernels import slots
from mlr.kernels.geometry import PAD, pitch_of, quad, quads_of, quarters
from mlr.kernels.masks import bits_set, known, marked

#: Rows that the column sums are made for at a time.
BLOCK_ROWS = tl.constexpr(16)
#: Four pixels of sign 0 in a sign map.
ZEROS = tl.constexpr(0x01010101)
#: Takes any normal float32 number beyond 1.
HUGE = tl.constexpr(2.0**127)


@triton.jit
def error_tile(e_ptr, t_ptr, stride, y, h, FIRST: tl.constexpr, PAIR: tl.constexpr, INSIDE: tl.constexpr):
    """Eight rows of E, the first FIRST below a row y of the map; the pointers [1, B] point to columns.

    Row numbers are clamped unless ``INSIDE`` says that the map has them. ``PAIR``: E is formed from prediction and
    target. The contiguity hint is false on purpose: it only steers Triton's layout, to a lane that loads a column. One
    load for eight rows halves the time to compile: Triton's choice of layouts takes time with the number of loads times
    the square of that of operations.
    """
    row = tl.arange(0, 8)[:, None]
    if INSIDE:
        e_ptr += stride * (y + FIRST)
        t_ptr += stride * (y + FIRST)
    elif FIRST < 0:
        row = tl.maximum(row + (y + FIRST), 0)
    else:
        row = tl.minimum(row + (y + FIRST), h - 1)
    e = tl.load(tl.max_contiguous(e_ptr + row * stride, [1, 1])).to(tl.float32)
    if PAIR:
        e -= tl.load(tl.max_contiguous(t_ptr + row * stride, [1, 1])).to(tl.float32)
    return e


@triton.jit
def rows_of(tile):
    """The eight rows of a tile [8, B], each [B]."""
    columns: tl.constexpr = tile.shape[1]
    even, odd = tl.split(tl.reshape(tl.trans(tile), [columns, 4, 2]))
    rows04, rows26 = tl.split(tl.reshape(even, [columns, 2, 2]))
    rows15, rows37 = tl.split(tl.reshape(odd, [columns, 2, 2]))
    row0, row4 = tl.split(rows04)
    row1, row5 = tl.split(rows15)
    row2, row6 = tl.split(rows26)
    row3, row7 = tl.split(rows37)
    return row0, row1, row2, row3, row4, row5, row6, row7


@triton.jit
def error_rows(e_ptr, t_ptr, stride, y, h, FIRST: tl.constexpr, COUNT: tl.constexpr, PAIR: tl.constexpr,
               INSIDE: tl.constexpr):
    """Rows y + FIRST .. y + FIRST + COUNT - 1 of E around a row y of the map, as ``error_tile`` makes them."""
    rows = ()
    for k in tl.static_range(0, COUNT, 8):
        rows += rows_of(error_tile(e_ptr, t_ptr, stride, y, h, FIRST + k, PAIR, INSIDE))
    return rows


@triton.jit
def known_bits(source, column, stride, y, h, rows, INSIDE: tl.constexpr):
    """Bits [B] of the ``rows`` rows from y on, clamped to the map if not all are INSIDE: which pixels are known.

    ``source`` points to a mask or to E with its unknown pixels marked, ``column`` [B] holds the columns.
    """
    bits = tl.zeros_like(column)
    row = source + y * stride
    for k in tl.range(0, rows, loop_unroll_factor=4):
        if not INSIDE:
            row = source + tl.minimum(tl.maximum(y + k, 0), h - 1) * stride
        value = tl.load(row + column)
        flag = known(value) if source.dtype.element_ty == tl.float32 else value != 0
        bits |= flag.to(tl.int32) << k
        row += stride
    return bits


@triton.jit
def column_bits(source, column, stride, y, h, INSIDE: tl.constexpr):
    """``known_bits`` of the rows y - 32 .. y + 47 in three numbers."""
    # 32 and BLOCK_ROWS, which the compiler may not know: it would unroll the loops as a whole, and the registers have
    # no room for all the loads, nor for the row numbers, which ``error_tile`` needs again
    rows = tl.where(h > 0, 32, 0)
    last_rows = tl.where(h > 0, BLOCK_ROWS, 0)
    return (
        known_bits(source, column, stride, y - 32, h, rows, INSIDE),
        known_bits(source, column, stride, y, h, rows, INSIDE),
        known_bits(source, column, stride, y + 32, h, last_rows, INSIDE),
    )


@triton.jit
def known_rows(e_ptr, t_ptr, bits, stride, y, h, FIRST: tl.constexpr, COUNT: tl.constexpr, PAIR: tl.constexpr,
               INSIDE: tl.constexpr):
    """``error_rows`` with 0 at unknown pixels; ``bits`` has the rows y - 32 .. y + 47 in three numbers, None for all.

    A bit is tested as the sign, not as ``block_counts`` reads it: else the compiler would keep all 80 numbers that are
    made there in registers up to here.
    """
    if bits is None:
        return error_rows(e_ptr, t_ptr, stride, y, h, FIRST, COUNT, PAIR, INSIDE)
    else:
        kept = ()
        for k in tl.static_range(0, COUNT, 8):
            rows = error_rows(e_ptr, t_ptr, stride, y, h, FIRST + k, 8, PAIR, INSIDE)
            for i in tl.static_range(8):
                word = bits[(FIRST + k + i + 32) // 32]
                kept += (tl.where(word << (31 - (FIRST + k + i) % 32) < 0, rows[i], 0.0),)
        return kept


@triton.jit
def block_sums(e_ptr, t_ptr, bits, stride, at, pitch, plane_size, mask, y, h, PAIR: tl.constexpr,
               INSIDE: tl.constexpr, MASKED: tl.constexpr):
    """Column sums for 16 rows from y on, stored from ``at`` on; returns the sum of E over those of the map.

    They take 64 more rows of E, each loaded once and before the first store, which no load may pass. ``INSIDE`` says
    that the map has them all.
    """
    above = known_rows(e_ptr, t_ptr, bits, stride, y, h, -32, 24, PAIR, INSIDE)
    if MASKED and PAIR:
        tl.debug_barrier()  # as below, where each row takes two loads
    below = known_rows(e_ptr, t_ptr, bits, stride, y, h, 8 + BLOCK_ROWS, 24, PAIR, INSIDE)
    far = above[0]
    for i in tl.static_range(1, 24):
        far += above[i]
    for i in tl.static_range(25 - BLOCK_ROWS):
        far += below[i]
    changes = ()
    for i in tl.static_range(BLOCK_ROWS - 1):
        changes += (below[25 - BLOCK_ROWS + i] - above[i],)
    if MASKED:
        tl.debug_barrier()  # else the compiler loads all rows ahead, which with a mask there are no registers for
    near = known_rows(e_ptr, t_ptr, bits, stride, y, h, -8, 16 + BLOCK_ROWS, PAIR, INSIDE)
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
        # a block of rows: the interpreter of Triton 3.9 refuses a mask that is made with the comparison of a scalar
        store = mask if INSIDE else mask & (tl.full(mask.shape, y + i, tl.int32) < h)
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
def block_counts(bits, at, pitch, plane_size, mask, y, h):
    """Known pixels of the columns over 5, 17 and 65 rows, for 16 rows from y on, stored from ``at`` on; ``bits`` as in
    ``known_rows``."""
    above, near, below = bits
    n5 = bits_set(((above >> 30) & 3) | ((near & 7) << 2))
    n17 = bits_set(((above >> 24) & 0xFF) | ((near & 0x1FF) << 8))
    n65 = bits_set(above) + bits_set(near) + (below & 1)
    for i in tl.static_range(BLOCK_ROWS):
        store = mask & (tl.full(mask.shape, y + i, tl.int32) < h)
        tl.store(at, n5, mask=store)
        tl.store(at + plane_size, n17, mask=store)
        tl.store(at + 2 * plane_size, n65, mask=store)
        at += pitch
        if i < BLOCK_ROWS - 1:
            n5 += ((near >> (i + 3)) & 1) - (((above >> (30 + i)) if i < 2 else (near >> (i - 2))) & 1)
            n17 += ((near >> (i + 9)) & 1) - (((above >> (24 + i)) if i < 8 else (near >> (i - 8))) & 1)
            n65 += ((below >> (i + 1)) & 1) - ((above >> i) & 1)


@triton.jit
def counted_block(e_ptr, t_ptr, source, column, stride, at, pitch, plane_size, mask, y, h, PAIR: tl.constexpr,
                  INSIDE: tl.constexpr):
    """``block_sums`` of the columns ``column`` [B]; after ``block_counts`` if ``source``, as ``known_bits`` takes it,
    is not None."""
    bits = None
    if source is not None:
        counted = column_bits(source, column, stride, y, h, INSIDE)
        counts = (at + 3 * plane_size).to(tl.pointer_type(tl.int32))
        block_counts(counted, counts, pitch, plane_size, mask, y, h)
        if PAIR:
            bits = counted
    return block_sums(e_ptr + column[None, :], t_ptr + column[None, :], bits, stride, at, pitch, plane_size, mask, y, h,
                      PAIR, INSIDE, source is not None)


@triton.jit
def masked_columns(pred, target, mask, stride, sums, plane_size, y, x0, h, w, COLUMNS: tl.constexpr):
    """``column_sums`` under a mask for one block of rows of scale 0."""
    x = x0 + tl.arange(0, COLUMNS)
    column = tl.minimum(x, w - 1)
    at = sums + y * pitch_of(w) + PAD + x
    if (y >= 32) & (h - y >= 32 + BLOCK_ROWS):
        counted_block(pred, target, mask, column, stride, at, pitch_of(w), plane_size, x < w, y, h, True, True)
    else:
        counted_block(pred, target, mask, column, stride, at, pitch_of(w), plane_size, x < w, y, h, True, False)


@triton.jit
def column_sums(e_ptr, t_ptr, stride, sums, plane_size, y0, y1, x0, h, w, PAIR: tl.constexpr,
                MEANS: tl.constexpr, COLUMNS: tl.constexpr, MASKED: tl.constexpr):
    """Column sums over 5, 17 and 65 rows for rows y0 .. y1 - 1, whole blocks or up to the last, COLUMNS from x0 on.

    ``sums`` points to the image's map in the first of three planes, under a mask of six: the others get the numbers of
    known pixels, as int32. Returns the sum of E over these rows.
    """
    pitch = pitch_of(w)
    x = x0 + tl.arange(0, COLUMNS)
    mask = x < w
    column = tl.minimum(x, w - 1)
    source = e_ptr if MASKED else None
    total = tl.zeros([COLUMNS], tl.float32)
    # hoisting out of the loop would take registers that its loads need
    for y in tl.range(y0, y1, BLOCK_ROWS, disable_licm=True):
        if MEANS:
            at = sums + y * pitch + PAD + x
            if (y >= 32) & (h - y >= 32 + BLOCK_ROWS):
                total += counted_block(e_ptr, t_ptr, source, column, stride, at, pitch, plane_size, mask, y, h, PAIR,
                                       True)
            else:
                total += counted_block(e_ptr, t_ptr, source, column, stride, at, pitch, plane_size, mask, y, h, PAIR,
                                       False)
        else:
            for k in tl.static_range(0, BLOCK_ROWS, 8):
                tile = error_tile(e_ptr + column[None, :], t_ptr + column[None, :], stride, y, h, k, PAIR, False)
                total += tl.sum(tl.where(tl.arange(0, 8)[:, None] + (y + k) < h, tile, 0.0), 0)
    return tl.where(mask, total, 0.0)


@triton.jit
def replicate(sums, plane_size, y0, y1, column, place, end, pitch, ROWS: tl.constexpr, PLANES: tl.constexpr):
    """Copies of a column in the places ``place`` .. ``end`` - 1 of each row, in all planes."""
    for start in range(place, end, 32):
        lane = start + tl.arange(0, 32)[None, :]
        for first in range(y0, y1, ROWS):
            y = first + tl.arange(0, ROWS)[:, None]
            row = sums + y * pitch
            for n in tl.static_range(PLANES):
                edge = tl.load(row + n * plane_size + PAD + column, mask=y < y1, other=0.0)
                tl.store(row + n * plane_size + lane, edge + tl.zeros([ROWS, 32], tl.float32),
                         mask=(y < y1) & (lane < end))


@triton.jit
def pad_columns(sums, plane_size, y0, y1, left, right, w, ROWS: tl.constexpr, TILE: tl.constexpr,
                PLANES: tl.constexpr):
    """The padding of the column sums at the ``left`` and at the ``right`` border: replicated columns.

    On the right they go on to the end of what the windows of the last tile read.
    """
    if left:
        replicate(sums, plane_size, y0, y1, 0, 0, PAD, pitch_of(w), ROWS, PLANES)
    if right:
        end = tl.cdiv(w, TILE) * TILE + 2 * PAD
        replicate(sums, plane_size, y0, y1, w - 1, w + PAD, end, pitch_of(w), ROWS, PLANES)


@triton.jit
def sign(x, valid):
    """-1, 0 or 1 in float32: the derivative of |x|, 0 at 0; ``valid`` is 1, or 0 where there is none.

    A subnormal x, which no depths differ by, may give less.
    """
    return tl.clamp(x * HUGE, -valid, valid)


@triton.jit
def sign_words(s, ROWS: tl.constexpr):
    """The signs of a tile plus one, as bytes, four pixels in a word.

    2^23 + n has n in its lowest bits, which is cheaper than a conversion: 257 + s0 + 256 s1 below, and above the same
    less the exponent of the one below, which the sum adds.
    """
    s0, s1, s2, s3 = quarters(s, ROWS)
    lower = s1 * 256.0 + (s0 + (2.0**23 + 257))
    upper = s3 * 256.0 + (s2 + (2.0**23 + 257 + 65536 - 0x4B00))
    return (upper.to(tl.int32, bitcast=True) << 16) + lower.to(tl.int32, bitcast=True)


@triton.jit
def box5_row(row, x0, ROWS: tl.constexpr, QUADS: tl.constexpr):
    """Sums over five columns around each of 4 QUADS columns from x0 on."""
    m0, m1, m2, m3 = quarters(tl.load(row + x0 + tl.arange(0, 4 * QUADS)[None, :]), ROWS)
    at = row + x0 + 4 * tl.arange(0, QUADS)[None, :]
    before = tl.load(at - 1)
    after = tl.load(at + 4)
    inner = m1 + m2
    left = inner + m0
    right = inner + m3
    whole = left + m3
    left += tl.load(at - 2) + before
    right += tl.load(at + 5) + after
    return quad(left, whole + before, whole + after, right, ROWS)


@triton.jit
def box_row(row, x0, RADIUS: tl.constexpr, ROWS: tl.constexpr, QUADS: tl.constexpr):
    """Sums over 2 r + 1 columns around each of 4 QUADS columns from x0 on, r being 8 or 32.

    A running sum takes C[t] and leaves A[t - 1], four pixels at a time.
    """
    SEGMENT: tl.constexpr = RADIUS // 4
    at = row + x0 + tl.arange(0, 4 * QUADS)[None, :]
    a0, a1, a2, a3 = quarters(tl.load(at - RADIUS), ROWS)
    b0, b1, b2, b3 = quarters(tl.load(at), ROWS)
    c0, c1, c2, c3 = quarters(tl.load(at + RADIUS), ROWS)
    c1 = c0 + (c1 - a0)
    c2 = c1 + (c2 - a1)
    c3 = c2 + (c3 - a2)
    change = c3 - a3
    whole = ((a0 + b0) + (a1 + b1)) + ((a2 + b2) + (a3 + b3))
    whole = tl.sum(tl.reshape(whole, [ROWS, QUADS // SEGMENT, SEGMENT]), 2)
    moving = tl.cumsum(tl.reshape(change, [ROWS, QUADS // SEGMENT, SEGMENT]), 2)
    base = tl.reshape(whole[:, :, None] + moving, [ROWS, QUADS]) - change
    return quad(base + c0, base + c1, base + c2, base + c3, ROWS)


@triton.jit
def add_up(total, x, valid, ROWS: tl.constexpr):
    """``total`` [ROWS, Q] and |x| of the valid pixels of a tile [ROWS, 4 Q]: a quarter of the registers of a tile."""
    x0, x1, x2, x3 = quarters(tl.abs(x), ROWS)
    v0, v1, v2, v3 = quarters(valid, ROWS)
    total += x0 * v0
    total += x1 * v1
    total += x2 * v2
    total += x3 * v3
    return total


@triton.jit
def one_window(total, e, box, valid, weight, own, words, store, ROWS: tl.constexpr, GRAD: tl.constexpr):
    """``total`` and |E - box E| on a tile, ``own`` and the weighted signs of E - box E, which go to ``words``."""
    d = e - box
    if GRAD:
        s = sign(d, valid)
        own += s * tl.load(weight)
        tl.store(words, sign_words(s, ROWS), mask=store)
    return add_up(total, d, valid, ROWS), own


@triton.jit
def one_masked_window(total, e, row, count, valid, weight, own, at, store, x0, WINDOW: tl.constexpr,
                      ROWS: tl.constexpr, QUADS: tl.constexpr, GRAD: tl.constexpr):
    """``one_window`` under a mask: the mean runs over the known pixels of the window, which ``count`` has the column
    sums of, and ``at`` gets not the sign but the sign over the number of these pixels."""
    count = count.to(tl.pointer_type(tl.int32))
    if WINDOW == 5:
        box = box5_row(row, x0, ROWS, QUADS)
        number = box5_row(count, x0, ROWS, QUADS)
    else:
        box = box_row(row, x0, WINDOW // 2, ROWS, QUADS)
        number = box_row(count, x0, WINDOW // 2, ROWS, QUADS)
    share = 1.0 / tl.maximum(number, 1).to(tl.float32)
    d = e - box * share
    if GRAD:
        s = sign(d, valid)
        own += s * weight
        tl.store(at, s * share, mask=store)
    return add_up(total, d, valid, ROWS), own


@triton.jit
def window_signs(totals, sums, signs, plane_size, e, mean, weights, unit, centre, y, x0, inside, h, w,
                 ROWS: tl.constexpr, TILE: tl.constexpr, MEANS: tl.constexpr, GRAD: tl.constexpr,
                 MASKED: tl.constexpr):
    """Signs of E - mean and of E - box E on a tile from x0 on; ``totals`` of |.| of M, M5, M17, M65 and of M's signs.

    Writes the signs of the three windows plus one as bytes (0, 1, 2) and, to ``centre``, the weighted sum of all four
    signs: the part of the gradient that stays at its own pixel. Returns the totals with this tile's share. ``unit`` is
    0 where all of these losses are 0 by definition, on a map of one pixel, else 1.

    Under a mask ``weights`` are the four weights, ``signs`` gets what ``one_masked_window`` says, and ``centre`` marks
    unknown pixels as E does.
    """
    m, m5, m17, m65, signs_m = totals
    line = tl.minimum(y, h - 1) * pitch_of(w) + PAD
    if MASKED:
        inside &= known(e)
    valid = tl.where(inside, unit, 0.0)
    s = sign(e - mean, valid)
    if MASKED:  # noqa: SIM108 - two kinds of weights
        own = s * weights[0]
    else:
        own = s * tl.load(weights + slots.M)
    m = add_up(m, e - mean, valid, ROWS)
    s0, s1, s2, s3 = quarters(s, ROWS)
    signs_m += (s0 + s1) + (s2 + s3)
    if MEANS and MASKED:
        x = x0 + tl.arange(0, TILE)[None, :]
        store = (y < h) & (x < quads_of(w))
        at = signs + (line + x)
        row = sums + line
        m5, own = one_masked_window(m5, e, row, row + 3 * plane_size, valid, weights[1], own, at, store, x0, 5, ROWS,
                                    TILE // 4, GRAD)
        row += plane_size
        m17, own = one_masked_window(m17, e, row, row + 3 * plane_size, valid, weights[2], own, at + plane_size, store,
                                     x0, 17, ROWS, TILE // 4, GRAD)
        row += plane_size
        m65, own = one_masked_window(m65, e, row, row + 3 * plane_size, valid, weights[3], own, at + 2 * plane_size,
                                     store, x0, 65, ROWS, TILE // 4, GRAD)
    elif MEANS:
        store = y < h
        words = (signs + line + x0).to(tl.pointer_type(tl.int32)) + tl.arange(0, TILE // 4)[None, :]
        size = plane_size // 4  # in words
        box = box5_row(sums + line, x0, ROWS, TILE // 4) * (1.0 / 25)
        m5, own = one_window(m5, e, box, valid, weights + slots.M5, own, words, store, ROWS, GRAD)
        box = box_row(sums + plane_size + line, x0, 8, ROWS, TILE // 4) * (1.0 / 289)
        m17, own = one_window(m17, e, box, valid, weights + slots.M17, own, words + size, store, ROWS, GRAD)
        box = box_row(sums + 2 * plane_size + line, x0, 32, ROWS, TILE // 4) * (1.0 / 4225)
        m65, own = one_window(m65, e, box, valid, weights + slots.M65, own, words + 2 * size, store, ROWS, GRAD)
    if GRAD:
        if MASKED:
            own = marked(inside, own)
        x = x0 + tl.arange(0, TILE)[None, :]
        tl.store(centre + line + x, own, mask=(y < h) & (x < quads_of(w)))
    return m, m5, m17, m65, signs_m
