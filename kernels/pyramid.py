# SPDX-License-Identifier: Apache-2.0
"""The pyramid of section 3.1 (D^k) and its adjoint.

Both kinds of reduction are separable. `bicubic` reads four taps per axis straight from scale 0, `area` averages the
block of 2^k x 2^k pixels (the k-fold 2 x 2 mean). Pyramids are built of E = pred - target and of the target, never of
the prediction: subtracting two resampled depths would lose the digits that decide the sign of a small error.
"""

import triton
import triton.language as tl

from mlr.kernels.geometry import PAD, pitch_of, plane_offset, scale_size


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
def block_exponent(length, scale):
    """`area`: the exponent of the block's side along an axis, which stops growing where one pixel is left."""
    exponent = 0
    for k in tl.static_range(1, 6):
        exponent += tl.where((k <= scale) & ((length >> k) > 0), 1, 0)
    return exponent


@triton.jit
def reduce_maps(pred, target, errors, targets, partial, block, scale, image, batch, height, width, reps,
                AREA: tl.constexpr, BLOCK: tl.constexpr):
    """E^k and T^k of ``reps`` blocks of outputs, and the sum of E^k over them.

    Outputs are numbered through the whole map, so small maps leave no lane idle.
    """
    h, w = scale_size(height, width, scale, AREA)
    pitch = pitch_of(w)
    first = plane_offset(1, batch, height, width, AREA)
    out = plane_offset(scale, batch, height, width, AREA) - first + image * h * pitch.to(tl.int64) + PAD
    source = image * height * width.to(tl.int64)
    collapsed = ((height >> scale) == 0) | ((width >> scale) == 0)
    total = tl.zeros([BLOCK], tl.float32)
    for rep in range(reps):
        o = (block * reps + rep) * BLOCK + tl.arange(0, BLOCK)
        inside = o < h * w
        i = tl.minimum(o // w, h - 1)
        j = o % w
        error = tl.zeros([BLOCK], tl.float32)
        depth = tl.zeros([BLOCK], tl.float32)
        if AREA:
            ey = block_exponent(height, scale)
            ex = block_exponent(width, scale)
            corner = source + (i << ey) * width + (j << ex)
            for t in range(1 << (ey + ex)):
                at = corner + (t >> ex) * width + (t & ((1 << ex) - 1))
                d = tl.load(target + at).to(tl.float32)
                error += tl.load(pred + at).to(tl.float32) - d
                depth += d
            area = 1.0 / (1 << (ey + ex)).to(tl.float32)
            error *= area
            depth *= area
        else:
            y0, odd_y = first_tap(height, scale, collapsed)
            x0, odd_x = first_tap(width, scale, collapsed)
            y0 += i << scale
            x0 += j << scale
            for ty in tl.static_range(4):
                row = source + tl.minimum(tl.maximum(y0 + ty, 0), height - 1) * width
                row_error = tl.zeros([BLOCK], tl.float32)
                row_depth = tl.zeros([BLOCK], tl.float32)
                for tx in tl.static_range(4):
                    at = row + tl.minimum(tl.maximum(x0 + tx, 0), width - 1)
                    weight = tap_weight(tx, odd_x)
                    d = tl.load(target + at).to(tl.float32)
                    row_error += weight * (tl.load(pred + at).to(tl.float32) - d)
                    row_depth += weight * d
                weight = tap_weight(ty, odd_y)
                error += weight * row_error
                depth += weight * row_depth
        tl.store(errors + out + i * pitch + j, error, mask=inside)
        tl.store(targets + out + i * pitch + j, depth, mask=inside)
        total += tl.where(inside, error, 0.0)
    tl.store(partial + block, tl.sum(total, 0))


@triton.jit
def axis_adjoint(x, i, count, length, scale, collapsed):
    """Weight of input x in output i along one axis: taps that were clamped to the border count there."""
    start, odd = first_tap(length, scale, collapsed)
    start += i << scale
    weight = tl.zeros_like(x).to(tl.float32)
    for tap in tl.static_range(4):
        position = tl.minimum(tl.maximum(start + tap, 0), length - 1)
        weight += tl.where(position == x, tap_weight(tap, odd), 0.0)
    return tl.where((i >= 0) & (i < count), weight, 0.0)


@triton.jit
def gather_scale(grads, y, x, scale, image, batch, height, width, AREA: tl.constexpr):
    """What scale k >= 1 adds to the gradient of pixels (y, x) of scale 0: the adjoint of ``reduce_maps``.

    ``y`` [R, 1] and ``x`` [1, C]. From scale 2 on all taps of an output lie within its own cell of 2^k x 2^k pixels,
    so a pixel belongs to one output at most; at scale 1 the four taps reach into both neighbours.
    """
    h, w = scale_size(height, width, scale, AREA)
    pitch = pitch_of(w)
    start = plane_offset(scale, batch, height, width, AREA) + image * h * pitch.to(tl.int64) + PAD
    if AREA:
        ey = block_exponent(height, scale)
        ex = block_exponent(width, scale)
        i = y >> ey
        j = x >> ex
        weight = tl.where((i < h) & (j < w), 1.0 / (1 << (ey + ex)).to(tl.float32), 0.0)
        total = weight * tl.load(grads + start + tl.minimum(i, h - 1) * pitch + tl.minimum(j, w - 1))
    else:
        collapsed = ((height >> scale) == 0) | ((width >> scale) == 0)
        total = tl.zeros_like(y + x).to(tl.float32)
        for side_y in tl.static_range(2):
            for side_x in tl.static_range(2):
                if scale == 1 or (side_y == 0 and side_x == 0):
                    if scale == 1:
                        i = ((y + 1) >> 1) - side_y
                        j = ((x + 1) >> 1) - side_x
                        if side_y == 1:
                            i = tl.where(collapsed, -1, i)
                        if side_x == 1:
                            j = tl.where(collapsed, -1, j)
                    else:
                        i = y >> scale
                        j = x >> scale
                    i = tl.where(collapsed & (i >= 0), 0, i)
                    j = tl.where(collapsed & (j >= 0), 0, j)
                    weight = axis_adjoint(y, i, h, height, scale, collapsed) * axis_adjoint(
                        x, j, w, width, scale, collapsed
                    )
                    i = tl.minimum(tl.maximum(i, 0), h - 1)
                    j = tl.minimum(tl.maximum(j, 0), w - 1)
                    total += weight * tl.load(grads + start + i * pitch + j)
    return total
