# SPDX-License-Identifier: Apache-2.0
"""The adjoint of the local means under a mask.

A window's mean is then a sum over the number of its known pixels, so its adjoint is box^T (sign / number): no map of
whole numbers, and phase 2 stores sign / number in float32. box^T is the sum over the same window of a map that is 0
outside; the first and the last pixel of an axis also receive what the replicated pixels beyond them would, which
is r - i times pixel i counted from that border.

Along the columns the moving sum adds that to the first and the last row. Along the rows it goes into the padding: the
pixel r before the first column is inside the window of that column alone, so it holds the first column's share.
"""

import triton
import triton.language as tl

from mlr.kernels.geometry import PAD, TILE, pitch_of, quads_of
from mlr.kernels.windows import box5_row, box_row


@triton.jit
def border_share(row, step, count, r, inside):
    """Sum of (r - i) times row i of ``count`` rows from a border on, ``step`` elements apart."""
    total = tl.zeros(inside.shape, tl.float32)
    for i in range(count):
        total += (r - i).to(tl.float32) * tl.load(row, mask=inside, other=0.0)
        row += step
    return total


@triton.jit
def map_row(row, at, y, h, inside, INSIDE: tl.constexpr):
    """Row y of a map, which ``row + at`` points to; 0 outside the map, if not all rows are INSIDE."""
    if not INSIDE:
        inside &= (y >= 0) & (y < h)
    return tl.load(row + at, mask=inside, other=0.0)


@triton.jit
def moving_sums(cotangents, sums, r, y0, y1, h, group, at, inside, first, last, pitch, ROWS: tl.constexpr,
                INSIDE: tl.constexpr):
    """Store the sums over 2 r + 1 rows for the ROWS rows from each group's row y0 + ``group`` on, if before y1.

    ``at`` are the offsets of the lanes. The pointers that move are scalars: a lane has four columns, and would move
    four.
    """
    enters = cotangents + (y0 - r) * pitch
    leaves = enters
    total = tl.zeros(inside.shape, tl.float32)
    for i in tl.range(y0 - r, y0 + r + 1, loop_unroll_factor=2):
        total += map_row(enters, at, i + group, h, inside, INSIDE)
        enters += pitch
    out = sums + y0 * pitch
    for y in tl.range(y0, y0 + ROWS, loop_unroll_factor=2):
        if INSIDE:
            tl.store(out + at, total, mask=inside)
        else:
            value = total + tl.where(y + group == 0, first, 0.0) + tl.where(y + group == h - 1, last, 0.0)
            tl.store(out + at, value, mask=inside & (y + group < y1))
        total += map_row(enters, at, y + group + (r + 1), h, inside, INSIDE)
        total -= map_row(leaves, at, y + group - r, h, inside, INSIDE)
        enters += pitch
        leaves += pitch
        out += pitch


@triton.jit
def cotangent_columns(cotangents, sums, r, y0, y1, h, w, ROWS: tl.constexpr, GROUPS: tl.constexpr):
    """Sums over 2 r + 1 rows for the ROWS rows from y0 on, those before y1; groups of lanes share the rows."""
    pitch = pitch_of(w)
    group = (ROWS // GROUPS) * tl.arange(0, GROUPS)[:, None]
    for x0 in range(0, w, TILE):
        x = x0 + tl.arange(0, TILE)[None, :]
        known_column = x < quads_of(w)
        first = tl.zeros([1, TILE], tl.float32)
        last = first
        if y0 == 0:
            first = border_share(cotangents + (PAD + x), pitch, tl.minimum(r, h), r, known_column)
        if y1 == h:
            start = cotangents + (h - 1) * pitch
            last = border_share(start + (PAD + x), -pitch, tl.minimum(r, h), r, known_column)
        at = group * pitch + (PAD + x)
        if GROUPS == 1:
            at = tl.max_contiguous(at, [1, 1])  # false on purpose: a lane then has one column
        inside = known_column & (group >= 0)
        if (y0 >= r) & (y0 + ROWS + r < h):
            moving_sums(cotangents, sums, r, y0, y1, h, group, at, inside, first, last, pitch, ROWS // GROUPS, True)
        else:
            moving_sums(cotangents, sums, r, y0, y1, h, group, at, inside, first, last, pitch, ROWS // GROUPS, False)


@triton.jit
def border_columns(sums, r, y0, y1, w, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """The padding of the rows y0 .. y1 - 1: 0, but for the shares of the first and of the last column.

    On the right it goes on to the end of what the windows of the last tile of WIDTH columns read.
    """
    lane = tl.arange(0, 32)[None, :]
    weight = (r - lane).to(tl.float32)
    for start in range(y0, y1, ROWS):
        y = start + tl.arange(0, ROWS)[:, None]
        row = sums + y * pitch_of(w)
        counted = (y < y1) & (lane < tl.minimum(r, w))
        first = tl.sum(tl.load(row + (PAD + lane), mask=counted, other=0.0) * weight, 1)[:, None]
        last = tl.sum(tl.load(row + (PAD + w - 1 - lane), mask=counted, other=0.0) * weight, 1)[:, None]
        tl.store(row + lane, tl.where(lane + r == PAD, first, 0.0), mask=y < y1)
        for x in range(w, tl.cdiv(w, WIDTH) * WIDTH + PAD, 32):
            tl.store(row + (PAD + x + lane), tl.where(x + lane == w - 1 + r, last, 0.0),
                     mask=(y < y1) & (x + lane < tl.cdiv(w, WIDTH) * WIDTH + PAD))


@triton.jit
def radius_of(n):
    """Radius of window n."""
    return tl.where(n == 0, 2, tl.where(n == 1, 8, 32))


@triton.jit
def masked_sign_sums(cotangents, sums, scale, plane, size, first, last, y0, y1, h, w, SIGN_ROWS: tl.constexpr,
                     COARSE_ROWS: tl.constexpr):
    """Column sums of the maps of the windows ``first`` .. ``last`` - 1 for whole rows, ready for the row windows."""
    for n in tl.range(first, last, disable_licm=True):
        at = plane + n * size
        if scale > 0:
            cotangent_columns(cotangents + at, sums + at, radius_of(n), y0, y1, h, w, COARSE_ROWS, 1)
        else:
            cotangent_columns(cotangents + at, sums + at, radius_of(n), y0, y1, h, w, SIGN_ROWS, 4)
    tl.debug_barrier()
    for n in tl.range(first, last, disable_licm=True):
        at = plane + n * size
        border_columns(sums + at, radius_of(n), y0, y1, w, 8, TILE)


@triton.jit
def masked_windows_gradient(sums, plane_size, weights, y, x0, h, w, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """What the adjoints of the three windows take from the gradient on a tile [ROWS, COLUMNS] of rows ``y``."""
    row = sums + (tl.minimum(y, h - 1) * pitch_of(w) + PAD)
    total = weights[1] * box5_row(row, x0, ROWS, COLUMNS // 4)
    total += weights[2] * box_row(row + plane_size, x0, 8, ROWS, COLUMNS // 4)
    return total + weights[3] * box_row(row + 2 * plane_size, x0, 32, ROWS, COLUMNS // 4)
