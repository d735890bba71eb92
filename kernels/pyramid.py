# SPDX-License-Identifier: Apache-2.0
"""The pyramid of section 3.1 (D^k) and its adjoint.

Both kinds of reduction are separable. `bicubic` reads four taps per axis straight from scale 0, `area` averages the
block of 2^k x 2^k pixels (the k-fold 2 x 2 mean). Pyramids are built of E = pred - target and of the target, never of
the prediction: subtracting two resampled depths would lose the digits that decide the sign of a small error.
"""

import triton
import triton.language as tl

from mlr.kernels.geometry import (
    PAD,
    SCALES,
    TILE,
    before_errors,
    pitch_of,
    plane_offset,
    quads_of,
    quarters,
    scale_size,
)
from mlr.kernels.masks import byte_flags, known, marked

#: Rows of scale 0 that ``reduce_area`` takes, so that a pixel of scale 5 is made of one tile.
AREA_ROWS = tl.constexpr(32)


@triton.jit
def tap_weight(tap, collapsed_odd):
    """Cubic convolution half-way between two pixels; a collapsed side of odd length samples its middle pixel."""
    outer = (tap == 0) | (tap == 3)
    weight = tl.where(outer, -0.09375, 0.59375)
    middle = tl.where(tap == 1, 1.0, 0.0)
    return tl.where(collapsed_odd, middle, weight)


@triton.jit
def first_tap(length, scale, collapsed):
    """Input position of the first tap of output 0, and whether the middle pixel is sampled itself.

    Ordinarily 2^(k-1) - 2; a map shorter than 2^k along either axis is sampled once, in the middle.
    """
    odd = length % 2
    middle = tl.where(odd == 1, (length - 1) // 2 - 1, length // 2 - 2)
    return tl.where(collapsed, middle, (1 << scale) // 2 - 2), collapsed & (odd == 1)


@triton.jit
def clamped_tap(i, length, height, width, scale, TAP: tl.constexpr):
    """Input position of a tap of output i along an axis; a side that samples its middle pixel reads nothing else."""
    collapsed = ((height >> scale) == 0) | ((width >> scale) == 0)
    first, odd = first_tap(length, scale, collapsed)
    return tl.minimum(tl.maximum(first + (i << scale) + tl.where(odd, 1, TAP), 0), length - 1)


@triton.jit
def block_exponent(length, scale):
    """`area`: the exponent of the block's side along an axis, which stops growing where one pixel is left."""
    exponent = 0
    for k in tl.static_range(1, 6):
        exponent += tl.where((k <= scale) & ((length >> k) > 0), 1, 0)
    return exponent


@triton.jit
def reduce_maps(maps, work, sizes, cut, block, scale, image, AREA: tl.constexpr, BLOCK: tl.constexpr):
    """E^k and T^k of ``cut.reps`` blocks of outputs, and the sum of E^k over them.

    Outputs are numbered through the whole map, so small maps leave no lane idle. Under a mask `area` has
    ``reduce_area`` instead.
    """
    pred, target, mask = maps.pred, maps.target, maps.mask
    height, width, reps = sizes.height, sizes.width, cut.reps
    start = plane_offset(scale, sizes.starts) - before_errors(sizes.starts, mask is not None)
    h, w = scale_size(height, width, scale, AREA)
    pitch = pitch_of(w)
    columns = quads_of(w)
    out = start + image * h * pitch.to(tl.int64) + PAD
    source = image * height * width.to(tl.int64)
    collapsed = ((height >> scale) == 0) | ((width >> scale) == 0)
    total = tl.zeros([BLOCK], tl.float32)
    for rep in range(reps):
        o = (block * reps + rep) * BLOCK + tl.arange(0, BLOCK)
        inside = o < h * columns
        i = tl.minimum(o // columns, h - 1)
        j = o % columns
        error = tl.zeros([BLOCK], tl.float32)
        depth = tl.zeros([BLOCK], tl.float32)
        if AREA:
            ey = block_exponent(height, scale)
            ex = block_exponent(width, scale)
            corner = source + (i << ey) * width + (tl.minimum(j, w - 1) << ex)
            for _ in range(1 << ey):  # sums of row sums lose fewer digits than one long sum
                row_error = tl.zeros([BLOCK], tl.float32)
                row_depth = tl.zeros([BLOCK], tl.float32)
                for tx in range(1 << ex):
                    d = tl.load(target + corner + tx).to(tl.float32)
                    row_error += tl.load(pred + corner + tx).to(tl.float32) - d
                    row_depth += d
                error += row_error
                depth += row_depth
                corner += width
            area = 1.0 / (1 << (ey + ex)).to(tl.float32)
            error *= area
            depth *= area
        else:
            y0, odd_y = first_tap(height, scale, collapsed)
            x0, odd_x = first_tap(width, scale, collapsed)
            y0 += i << scale
            x0 += j << scale
            valid = j < w
            for ty in tl.static_range(4):
                row = source + tl.minimum(tl.maximum(y0 + ty, 0), height - 1) * width
                row_error = tl.zeros([BLOCK], tl.float32)
                row_depth = tl.zeros([BLOCK], tl.float32)
                for tx in tl.static_range(4):
                    at = row + tl.minimum(tl.maximum(x0 + tx, 0), width - 1)
                    if mask is not None:
                        at = source + (clamped_tap(i, height, height, width, scale, ty) * width
                                       + clamped_tap(j, width, height, width, scale, tx))  # fmt: skip
                        valid &= tl.load(mask + at) != 0
                    weight = tap_weight(tx, odd_x)
                    d = tl.load(target + at).to(tl.float32)
                    row_error += weight * (tl.load(pred + at).to(tl.float32) - d)
                    row_depth += weight * d
                weight = tap_weight(ty, odd_y)
                error += weight * row_error
                depth += weight * row_depth
            if mask is not None:  # what was made of unknown pixels goes no further
                error = marked(valid, error)
                depth = tl.where(valid, depth, 0.0)
        tl.store(work.errors + out + i * pitch + j, error, mask=inside)
        tl.store(work.targets + out + i * pitch + j, depth, mask=inside)
        total += tl.where(inside & (j < w), error, 0.0)
    tl.store(work.partials + (image * SCALES + scale) * cut.errors_partials + block, tl.sum(total, 0))


@triton.jit
def cubic(a, b, c, d):
    """Cubic convolution half-way between b and c."""
    return 0.59375 * (b + c) - 0.09375 * (a + d)


@triton.jit
def quad_row(pred, target, y, x0, height, width, ROWS: tl.constexpr):
    """Row y [ROWS, 1] reduced along x for the quads of pixels from x0 on: (E, T) of outputs 2 q, 2 q + 1 of scale 1
    and of output q of scale 2, each [ROWS, 32]."""
    row = tl.minimum(tl.maximum(y, 0), height - 1) * width
    x = x0 + tl.arange(0, TILE)[None, :]
    t = tl.load(target + row + x, mask=x < width, other=0.0).to(tl.float32)
    e = tl.load(pred + row + x, mask=x < width, other=0.0).to(tl.float32) - t
    first = x0 + 4 * tl.arange(0, 32)[None, :]
    at = row + tl.maximum(tl.minimum(first, width) - 1, 0)
    t_before = tl.load(target + at).to(tl.float32)
    e_before = tl.load(pred + at).to(tl.float32) - t_before
    at = row + tl.minimum(first + 4, width - 1)
    t_after = tl.load(target + at).to(tl.float32)
    e_after = tl.load(pred + at).to(tl.float32) - t_after
    e0, e1, e2, e3 = quarters(e, ROWS)
    t0, t1, t2, t3 = quarters(t, ROWS)
    return (
        cubic(e_before, e0, e1, e2),
        cubic(e1, e2, e3, e_after),
        cubic(e0, e1, e2, e3),
        cubic(t_before, t0, t1, t2),
        cubic(t1, t2, t3, t_after),
        cubic(t0, t1, t2, t3),
    )


@triton.jit
def quad_flags(mask, y, x0, height, width):
    """Flags of the pixels that ``quad_row`` reads: bytes of the quads, and one bit higher their neighbours."""
    row = tl.minimum(tl.maximum(y, 0), height - 1) * width
    first = x0 + 4 * tl.arange(0, 32)[None, :]
    word = tl.load((mask + (row + tl.minimum(first, width - 4))).to(tl.pointer_type(tl.int32)))
    before = tl.load(mask + (row + tl.maximum(tl.minimum(first, width) - 1, 0))) != 0
    after = tl.load(mask + (row + tl.minimum(first + 4, width - 1))) != 0
    return byte_flags(word) | (before.to(tl.int32) << 1) | (after.to(tl.int32) << 2)


@triton.jit
def have(flags, WANTED: tl.constexpr):
    """Whether all flags that are wanted are set."""
    return (flags & WANTED) == WANTED


@triton.jit
def reduce_quads(maps, work, sizes, wanted, cut, part, image, ROWS: tl.constexpr):
    """Scales 1 and 2 of 4 ROWS x 128 pixels at once, under `bicubic` and where rows consist of whole quads.

    Four rows of pixels, with one above and one below, make two rows of scale 1 and one of scale 2.
    """
    height, width = sizes.height, sizes.width
    MASKED: tl.constexpr = maps.mask is not None
    source = image * height * width.to(tl.int64)
    pred = maps.pred + source
    target = maps.target + source
    first = plane_offset(1, sizes.starts) - before_errors(sizes.starts, MASKED)
    errors = work.errors + first
    targets = work.targets + first
    partial = work.partials + (image * SCALES + 1) * cut.errors_partials + part
    scales = wanted.stencils | wanted.windows
    across = tl.cdiv(width, TILE)
    x0 = (part % across) * TILE
    i = (part // across) * ROWS + tl.arange(0, ROWS)[:, None]
    if MASKED:
        mask = maps.mask + source
        inner = quad_flags(mask, 4 * i + 1, x0, height, width) & quad_flags(mask, 4 * i + 2, x0, height, width)
        above = quad_flags(mask, 4 * i, x0, height, width)
        below = quad_flags(mask, 4 * i + 3, x0, height, width)
        middle = inner & above & below
        above &= inner & quad_flags(mask, 4 * i - 1, x0, height, width)
        below &= inner & quad_flags(mask, 4 * i + 4, x0, height, width)
    a0, b0, _c0, p0, q0, _r0 = quad_row(pred, target, 4 * i - 1, x0, height, width, ROWS)
    a1, b1, c1, p1, q1, r1 = quad_row(pred, target, 4 * i, x0, height, width, ROWS)
    a2, b2, c2, p2, q2, r2 = quad_row(pred, target, 4 * i + 1, x0, height, width, ROWS)
    if MASKED:
        tl.debug_barrier()  # keeps the compiler from loading all rows ahead: there are no registers for the flags, too
    a3, b3, c3, p3, q3, r3 = quad_row(pred, target, 4 * i + 2, x0, height, width, ROWS)
    a4, b4, c4, p4, q4, r4 = quad_row(pred, target, 4 * i + 3, x0, height, width, ROWS)
    a5, b5, _c5, p5, q5, _r5 = quad_row(pred, target, 4 * i + 4, x0, height, width, ROWS)
    q = x0 // 4 + tl.arange(0, 32)[None, :]
    if (scales >> 1) & 1 != 0:
        h, w = scale_size(height, width, 1, False)
        at = image * h * pitch_of(w).to(tl.int64) + PAD + 2 * i * pitch_of(w) + x0 // 2
        j = tl.arange(0, 64)[None, :]
        upper = (2 * i < h) & (x0 // 2 + j < quads_of(w))
        lower = (2 * i + 1 < h) & (x0 // 2 + j < quads_of(w))
        e_up = tl.reshape(tl.join(cubic(a0, a1, a2, a3), cubic(b0, b1, b2, b3)), [ROWS, 64])
        e_low = tl.reshape(tl.join(cubic(a2, a3, a4, a5), cubic(b2, b3, b4, b5)), [ROWS, 64])
        t_up = tl.reshape(tl.join(cubic(p0, p1, p2, p3), cubic(q0, q1, q2, q3)), [ROWS, 64])
        t_low = tl.reshape(tl.join(cubic(p2, p3, p4, p5), cubic(q2, q3, q4, q5)), [ROWS, 64])
        if MASKED:
            within = x0 // 2 + j < w
            valid = tl.reshape(tl.join(have(above, 0x00010103), have(above, 0x01010104)), [ROWS, 64]) & within
            e_up = marked(valid, e_up)
            t_up = tl.where(valid, t_up, 0.0)
            valid = tl.reshape(tl.join(have(below, 0x00010103), have(below, 0x01010104)), [ROWS, 64]) & within
            e_low = marked(valid, e_low)
            t_low = tl.where(valid, t_low, 0.0)
        tl.store(errors + at + j, e_up, mask=upper)
        tl.store(targets + at + j, t_up, mask=upper)
        tl.store(errors + at + pitch_of(w) + j, e_low, mask=lower)
        tl.store(targets + at + pitch_of(w) + j, t_low, mask=lower)
        total = tl.where(x0 // 2 + j < w, tl.where(upper, e_up, 0.0) + tl.where(lower, e_low, 0.0), 0.0)
        tl.store(partial, tl.sum(tl.sum(total, 1), 0))
    if (scales >> 2) & 1 != 0:
        h, w = scale_size(height, width, 2, False)
        start = plane_offset(2, sizes.starts) - plane_offset(1, sizes.starts)
        at = start + image * h * pitch_of(w).to(tl.int64) + PAD + i * pitch_of(w) + q
        inside = (i < h) & (q < quads_of(w))
        error = cubic(c1, c2, c3, c4)
        depth = cubic(r1, r2, r3, r4)
        if MASKED:
            valid = have(middle, 0x01010101) & (q < w)
            error = marked(valid, error)
            depth = tl.where(valid, depth, 0.0)
        tl.store(errors + at, error, mask=inside)
        tl.store(targets + at, depth, mask=inside)
        tl.store(partial + cut.errors_partials, tl.sum(tl.sum(tl.where(inside & (q < w), error, 0.0), 1), 0))


@triton.jit
def children_sum(x):
    """Sums of 2 x 2 pixels."""
    pairs = tl.sum(tl.reshape(x, [x.shape[0], x.shape[1] // 2, 2]), 2)
    return tl.sum(tl.reshape(pairs, [x.shape[0] // 2, 2, x.shape[1] // 2]), 1)


@triton.jit
def reduce_area(maps, work, sizes, cut, part, image):
    """`area` under a mask: all scales of a tile of AREA_ROWS x 128 pixels, each pixel the mean of its known children.

    ``work.shares`` gets 1 / the number of these, which the gradient needs. Children outside the map count as unknown
    ones, so a side of one pixel needs no care.
    """
    height, width, starts = sizes.height, sizes.width, sizes.starts
    source = image * height * width.to(tl.int64)
    across = tl.cdiv(width, TILE)
    y0 = (part // across) * AREA_ROWS
    x0 = (part % across) * TILE
    i = y0 // 2 + tl.arange(0, AREA_ROWS // 2)[:, None]
    j = x0 // 2 + tl.arange(0, TILE // 2)[None, :]
    error = tl.zeros([AREA_ROWS // 2, TILE // 2], tl.float32)
    depth = error
    count = error
    for down in tl.static_range(2):
        for right in tl.static_range(2):
            y = 2 * i + down
            x = 2 * j + right
            at = source + (tl.minimum(y, height - 1) * width + tl.minimum(x, width - 1))
            valid = (tl.load(maps.mask + at) != 0) & (y < height) & (x < width)
            t = tl.load(maps.target + at).to(tl.float32)
            error += tl.where(valid, tl.load(maps.pred + at).to(tl.float32) - t, 0.0)
            depth += tl.where(valid, t, 0.0)
            count += valid.to(tl.float32)
    for k in tl.static_range(1, SCALES):
        h, w = scale_size(height, width, k, True)
        pitch = pitch_of(w)
        i = (y0 >> k) + tl.arange(0, AREA_ROWS >> k)[:, None]
        j = (x0 >> k) + tl.arange(0, TILE >> k)[None, :]
        if k > 1:
            error = children_sum(error)
            depth = children_sum(depth)
            count = children_sum(count)
        valid = (count > 0.0) & (i < h) & (j < w)
        share = tl.where(count > 3.0, 0.25, tl.where(count > 2.0, 1.0 / 3, tl.where(count > 1.0, 0.5, 1.0)))
        error = tl.where(valid, error * share, 0.0)
        depth = tl.where(valid, depth * share, 0.0)
        count = valid.to(tl.float32)
        stored = (i < h) & (j < quads_of(w))
        at = image * h * pitch.to(tl.int64) + (PAD + i * pitch + j)
        tl.store(work.errors + (plane_offset(k, starts) + at), marked(valid, error), mask=stored)
        tl.store(work.targets + (plane_offset(k, starts) + at), depth, mask=stored)
        tl.store(work.shares + (plane_offset(k, starts) - plane_offset(1, starts) + at), share, mask=stored)
        tl.store(work.partials + (image * SCALES + k) * cut.errors_partials + part, tl.sum(tl.sum(error, 1), 0))


@triton.jit
def has_taps(first, scale: tl.constexpr, ROWS: tl.constexpr):
    """Whether scale k >= 1 has taps in some of the rows first .. first + ROWS - 1."""
    CELL: tl.constexpr = 2**scale
    beyond = (first + ROWS + CELL // 2 + 1) & (CELL - 1)  # of the last row beyond a cell's first tap
    return beyond < ROWS + 3


@triton.jit
def half_pixels(near, far, known_near, known_far):
    """A column of scale 1, weighed along y."""
    return 0.59375 * tl.load(near, mask=known_near, other=0.0) - 0.09375 * tl.load(far, mask=known_far, other=0.0)


@triton.jit
def collapsed_axis(x, length):
    """Weights of the pixels of an axis in the only output of a collapsed map, taps clamped to the border adding up."""
    start, odd = first_tap(length, 1, length >= 0)
    weight = tl.zeros_like(x).to(tl.float32)
    for tap in tl.static_range(4):
        position = tl.minimum(tl.maximum(start + tap, 0), length - 1)
        weight += tl.where(position == x, tap_weight(tap, odd), 0.0)
    return weight


@triton.jit
def gather_neighbours(start, y, q, height, width):
    """What scale 1 adds to the gradient of the pixels 4 q .. 4 q + 3 of rows y: the adjoint of ``reduce_maps``.

    ``start`` points to the map of its gradient, which is not collapsed. ``y`` [R, 1] and ``q`` [1, 32].
    A pixel belongs to two outputs along each axis, (1, -1 | 3, 1) half pixels away; where the farther one lies outside
    the map, the tap that was clamped to this pixel is one of the nearer output: its number is clamped.
    """
    h = height >> 1
    w = width >> 1
    pitch = pitch_of(w)
    near = y >> 1
    far = near + 2 * (y & 1) - 1
    known_near = near < h
    known_far = far < h + 1 - height % 2  # it is h at most
    near = near * pitch
    far = tl.minimum(tl.maximum(far, 0), h - 1) * pitch
    c = 2 * q
    j = tl.minimum(tl.maximum(c - 1, 0), w - 1)
    left = half_pixels(start + (near + j), start + (far + j), known_near, known_far)
    j = tl.minimum(c, w - 1)
    mid0 = half_pixels(start + (near + j), start + (far + j), known_near, known_far)
    j = tl.minimum(c + 1, w - 1)
    mid1 = half_pixels(start + (near + j), start + (far + j), known_near, known_far)
    j = tl.minimum(c + 2, w - 1)
    right = half_pixels(start + (near + j), start + (far + j), known_near, known_far)
    if width % 2 == 1:  # the last column of an odd width is the outermost tap of its left neighbour, and no more
        left = tl.where(c - 1 < w, left, 0.0)
        mid0 = tl.where(c < w, mid0, 0.0)
        mid1 = tl.where(c + 1 < w, mid1, 0.0)
        right = tl.where(c + 2 < w, right, 0.0)
    return (
        0.59375 * mid0 - 0.09375 * left,
        0.59375 * mid0 - 0.09375 * mid1,
        0.59375 * mid1 - 0.09375 * mid0,
        0.59375 * mid1 - 0.09375 * right,
    )


@triton.jit
def gather_cells(start, first, q, scale: tl.constexpr, width, ROWS: tl.constexpr):
    """What scale k >= 2 has for the quads q of the rows from ``first`` on, a multiple of ROWS <= 4, weighed along y.

    All taps of an output lie within its own cell of 2^k x 2^k pixels, so a pixel belongs to one output at most, four
    neighbours to the same one, and so do these rows; its taps sit in the middle of the cell.
    """
    CELL: tl.constexpr = 2**scale
    w = width >> scale
    j = q >> (scale - 2)
    tap = tl.arange(0, ROWS)[:, None] + ((first & (CELL - 1)) - (CELL // 2 - 2))
    weight = tl.where((tap == 1) | (tap == 2), 0.59375, -0.09375)
    start += (first >> scale) * pitch_of(w)
    return weight * tl.load(start + (tl.zeros_like(tap) + j), mask=(j < w) & (tap >= 0) & (tap < 4), other=0.0)


@triton.jit
def gather_collapsed(grads, y, x, image, height, width):
    """The same for the single pixel of a scale that the map is too small for; ``grads`` points to the scale."""
    return tl.load(grads + image * (TILE + 2 * PAD) + PAD) * collapsed_axis(y, height) * collapsed_axis(x, width)


@triton.jit
def gather_masked_area(local, error, shares, y, x, scales, image, starts, height, width):
    """The same for `area` under a mask: a pixel's share of its block is the product of those of all scales between.

    ``error`` is E at the pixels (y, x), its unknown ones marked; ``scales`` holds the bits of the scales to gather.
    """
    total = tl.zeros_like(x).to(tl.float32) + tl.zeros_like(y).to(tl.float32)
    for k in tl.static_range(SCALES - 1, 0, -1):
        if scales >> k != 0:
            h, w = scale_size(height, width, k, True)
            pitch = pitch_of(w)
            i = y >> block_exponent(height, k)
            j = x >> block_exponent(width, k)
            at = image * h * pitch.to(tl.int64) + (PAD + tl.minimum(i, h - 1) * pitch + tl.minimum(j, w - 1))
            if (scales >> k) & 1 != 0:
                total += tl.load(local + (plane_offset(k, starts) + at))
            share = tl.load(shares + (plane_offset(k, starts) - plane_offset(1, starts) + at))
            total *= tl.where((i < h) & (j < w), share, 0.0)
    return tl.where(known(error), total, 0.0)


@triton.jit
def gather_area(grads, y, x, scale, image, height, width):
    """The same for `area`: a pixel's share of its block; ``grads`` points to the scale."""
    h, w = scale_size(height, width, scale, True)
    pitch = pitch_of(w)
    start = image * h * pitch.to(tl.int64) + PAD
    ey = block_exponent(height, scale)
    ex = block_exponent(width, scale)
    i = y >> ey
    j = x >> ex
    weight = tl.where((i < h) & (j < w), 1.0 / (1 << (ey + ex)).to(tl.float32), 0.0)
    return weight * tl.load(grads + start + tl.minimum(i, h - 1) * pitch + tl.minimum(j, w - 1))
