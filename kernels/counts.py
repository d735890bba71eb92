# SPDX-License-Identifier: Apache-2.0
"""Under a mask: at how many positions a loss has a value.

The gradient of a scale mixes kinds, which are means over different numbers of positions. Phase 2 must therefore know
the numbers, so phase 1 counts them, from the mask itself. Partial counts stand in a table [B, SCALES, parts of scale 0,
SLOTS]; later phases add them up.
"""

import triton
import triton.language as tl

from mlr.kernels import slots
from mlr.kernels.geometry import SCALES, scale_size
from mlr.kernels.masks import bits_set
from mlr.kernels.pyramid import block_exponent, clamped_tap
from mlr.kernels.slots import SLOTS

LANES = tl.constexpr(32)
#: Columns that the lanes of a strip count at; the other lanes are there for their left neighbours.
COUNTED = tl.constexpr(30)
#: Rows and strips that a program counts at.
COUNT_ROWS = tl.constexpr(32)
COUNT_STRIPS = tl.constexpr(4)


@triton.jit
def count_parts(scale, height, width, AREA: tl.constexpr):
    """Programs that count the positions of an image at a scale, each on several strips."""
    h, w = scale_size(height, width, scale, AREA)
    return tl.cdiv(tl.cdiv(w, COUNTED) * tl.cdiv(h, COUNT_ROWS), COUNT_STRIPS)


@triton.jit
def known_pixels(mask, i, j, scale, height, width, AREA: tl.constexpr):
    """V^k, 0 or 1, at the pixels (i [S, 1], j [S, L]) of scale k; ``mask`` points to that of an image.

    ``j`` are the columns of scale 0 that a pixel reads, as ``columns_read`` gives them.
    """
    if scale == 0:
        found = (tl.load(mask + (i * width + j[0])) != 0).to(tl.int32)
    elif AREA:
        ey = block_exponent(height, scale)
        ex = block_exponent(width, scale)
        corner = mask + ((i << ey) * width + j[0])
        found = tl.zeros_like(j[0])
        for _ in range(1 << ey):
            for column in range(1 << ex):
                found |= tl.load(corner + column).to(tl.int32)
            corner += width
        found = (found != 0).to(tl.int32)
    else:
        least = tl.full(j[0].shape, 1, tl.int32)  # of the bytes, of which any but 0 is True
        for down in tl.static_range(4):
            row = mask + clamped_tap(i, height, height, width, scale, down) * width
            for right in tl.static_range(4):
                least = tl.minimum(least, tl.load(row + j[right]).to(tl.int32))
        found = least
    return found


@triton.jit
def columns_read(j, scale, height, width, AREA: tl.constexpr):
    """The columns of scale 0 that the columns j of a scale read: the first one, or under `bicubic` all four."""
    if AREA:
        columns = (j << block_exponent(width, scale),)
    else:
        columns = ()
        for right in tl.static_range(4):
            columns += (tl.where(scale == 0, j, clamped_tap(j, width, height, width, scale, right)),)
    return columns


@triton.jit
def store_count(partial, positions):
    """Add up and store the set bits of a block."""
    tl.store(partial, tl.sum(tl.sum(bits_set(positions), 1), 0))


@triton.jit
def count_positions(mask, counts, scale, image, part, height, width, AREA: tl.constexpr):
    """Valid positions of every kind of the stencils on some strips of a scale, to ``counts``.

    A lane has a column: bit i of ``rows`` says whether row i is known. 32 positions and the two rows below them that
    second derivatives read are then one number, neighbours below are a shift and neighbours to the right a shuffle.
    """
    h, w = scale_size(height, width, scale, AREA)
    parts = count_parts(0, height, width, AREA)
    mask += image * height * width.to(tl.int64)
    lane = tl.arange(0, LANES)[None, :]
    per_row = tl.cdiv(w, COUNTED)
    strip = (part * COUNT_STRIPS + tl.arange(0, COUNT_STRIPS))[:, None]
    y0 = (strip // per_row) * COUNT_ROWS
    x = (strip % per_row) * COUNTED + lane
    columns = columns_read(tl.minimum(x, w - 1), scale, height, width, AREA)
    rows = tl.zeros([COUNT_STRIPS, LANES], tl.int64)
    for i in range(COUNT_ROWS + 2):
        row = known_pixels(mask, tl.minimum(y0 + i, h - 1), columns, scale, height, width, AREA)
        rows |= row.to(tl.int64) << i
    right1 = tl.minimum(lane + 1, LANES - 1) + tl.zeros([COUNT_STRIPS, LANES], tl.int32)
    right2 = tl.minimum(lane + 2, LANES - 1) + tl.zeros([COUNT_STRIPS, LANES], tl.int32)
    pairs = rows & tl.gather(rows, right1, 1)
    inside = tl.maximum(tl.minimum(h - y0, COUNT_ROWS), 0).to(tl.int64)
    positions = tl.where((lane < COUNTED) & (x < w), ((inside * 0 + 1) << inside) - 1, 0).to(tl.int32)
    d = rows.to(tl.int32) & positions
    r = pairs.to(tl.int32) & positions
    c = d & (rows >> 1).to(tl.int32)
    rr = r & tl.gather(rows, right2, 1).to(tl.int32)
    rc = r & (pairs >> 1).to(tl.int32)
    cc = c & (rows >> 2).to(tl.int32)
    partial = counts + ((image * SCALES + scale) * parts + part) * SLOTS
    store_count(partial + slots.D, d)
    store_count(partial + slots.R, r)
    store_count(partial + slots.C, c)
    store_count(partial + slots.RR, rr)
    store_count(partial + slots.RC, rc)
    store_count(partial + slots.CC, cc)
    store_count(partial + slots.N, r & c)
    store_count(partial + slots.NR, rr & rc)
    store_count(partial + slots.NC, rc & cc)


@triton.jit
def position_counts(counts, scale, image, height, width, AREA: tl.constexpr):
    """Valid positions [SLOTS] of every kind of an image and scale. Those of the means are the known pixels, as D's."""
    number = count_parts(scale, height, width, AREA)
    parts = count_parts(0, height, width, AREA)
    slot = tl.arange(0, SLOTS)
    column = tl.where((slot >= slots.M) & (slot <= slots.M65), slots.D, slot)
    start = counts + (image * SCALES + scale) * parts * SLOTS
    total = tl.zeros([SLOTS], tl.int32)
    for first in range(0, number, 64):
        part = first + tl.arange(0, 64)[:, None]
        total += tl.sum(tl.load(start + (part * SLOTS + column[None, :]),
                                mask=(part < number) & (column < slots.KIND_COUNT)[None, :], other=0), 0)
    return total


@triton.jit
def known_count(counts, scale, image, height, width, AREA: tl.constexpr):
    """Known pixels of an image and scale, in float32."""
    number = count_parts(scale, height, width, AREA)
    parts = count_parts(0, height, width, AREA)
    start = counts + (image * SCALES + scale) * parts * SLOTS + slots.D
    total = tl.zeros([128], tl.int32)
    for first in range(0, number, 128):
        part = first + tl.arange(0, 128)
        total += tl.load(start + part * SLOTS, mask=part < number, other=0)
    return tl.sum(total, 0).to(tl.float32)
