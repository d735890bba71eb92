# SPDX-License-Identifier: Apache-2.0
"""Programs of the gradient: column sums of the sign maps and finished coarse maps (phase 3), scale 0 (phase 4)."""

import triton
import triton.language as tl

from mlr.kernels.adjoint import border_columns, border_rows, quad, sign_columns, windows_gradient
from mlr.kernels.geometry import (
    PAD,
    SCALES,
    SLOTS,
    TILE,
    map_starts,
    pitch_of,
    plane_offset,
    plane_size,
    quads_of,
    scale_size,
)
from mlr.kernels.pyramid import gather_area, gather_bicubic, gather_collapsed, has_taps
from mlr.kernels.sums import mean_sign


@triton.jit
def radius(n):
    """Radius of window n of 5, 17, 65."""
    return tl.where(n == 0, 2, tl.where(n == 1, 8, 32))


@triton.jit
def sign_sums(signs, column_sums, borders, r, y0, y1, h, w, WORDS: tl.constexpr, ROWS: tl.constexpr):
    """Column sums of a sign map for whole rows."""
    sign_columns(signs.to(tl.pointer_type(tl.int32)), column_sums.to(tl.pointer_type(tl.int32)), borders, r, y0, y1,
                 h, w, WORDS, ROWS)


@triton.jit
def border_sums(column_sums, borders, boxes, folds, n, y0, y1, h, w, ROWS: tl.constexpr):
    """box^T of window n where a row or column is a border."""
    if n == 0:
        border_rows(borders, boxes, y0, y1, h, w, 2)
    elif n == 1:
        border_rows(borders, boxes, y0, y1, h, w, 8)
    else:
        border_rows(borders, boxes, y0, y1, h, w, 32)
    border_columns(column_sums, folds, radius(n), y0, y1, h, w, ROWS, 128 // ROWS)


@triton.jit
def coarse_gradient(signs, column_signs, borders, boxes, folds, local, centre, table, row_sums, scale, image, part,
                    batch, height, width, plane_units, stencils, windows, coarse_window_rows, coarse_rows, row_partials,
                    MEANS: tl.constexpr, AREA: tl.constexpr, WORDS: tl.constexpr, ROWS: tl.constexpr):
    """The finished gradient of some whole rows of a coarse map, into ``local``."""
    h, w = scale_size(height, width, scale, AREA)
    pitch = pitch_of(w)
    y0 = part * coarse_rows
    y1 = tl.minimum(y0 + coarse_rows, h)
    size = plane_size(plane_units)
    row_size = 2 * pitch_of(width)
    border_size = batch * SCALES * row_size.to(tl.int64)
    plane = plane_offset(scale, batch, height, width, AREA) + image * h * pitch.to(tl.int64)
    border = borders + (image * SCALES + scale) * row_size
    box = boxes + (image * SCALES + scale) * row_size
    fold_size = batch * SCALES * 2 * height.to(tl.int64)
    fold = folds + (image * SCALES + scale) * 2 * height
    weights = table + image * 128 + scale * SLOTS
    has_windows = (windows >> scale) & 1 != 0
    has_stencil = (stencils >> scale) & 1 != 0
    shift = 0.0
    if has_windows:
        shift = tl.load(weights + 1) * mean_sign(row_sums, image, scale, row_partials, h, w, coarse_window_rows)
        if MEANS:
            for n in range(3):
                sign_sums(signs + plane + n * size, column_signs + plane + n * size, border + n * border_size,
                          radius(n), y0, y1, h, w, WORDS, 2)
            tl.debug_barrier()
            for n in range(3):
                border_sums(column_signs + plane + n * size, border + n * border_size, box + n * border_size,
                            fold + n * fold_size, n, y0, y1, h, w, 8)
            tl.debug_barrier()
    for x0 in range(0, w, TILE):
        for first in range(y0, y1, ROWS):
            x = x0 + tl.arange(0, TILE)[None, :]
            y = first + tl.arange(0, ROWS)[:, None]
            inside = (x < quads_of(w)) & (y < y1)
            at = plane + PAD + y * pitch + x
            grad = tl.load(local + at, mask=inside & has_stencil, other=0.0)
            if has_windows:
                grad += tl.load(centre + at, mask=inside, other=0.0) - shift
                if MEANS:
                    grad -= windows_gradient(column_signs + plane, size, box, border_size, fold, fold_size, weights, y,
                                             x0, first, first + ROWS - 1, h, w, ROWS)
            tl.store(local + at, grad, mask=inside)


@triton.jit
def fine_gradient(grad, local, column_signs, boxes, folds, centre, table, row_sums, rest, batch, height, width,
                  plane_units, stencils, windows, window_rows, row_partials, gradient_rows, MEANS: tl.constexpr,
                  AREA: tl.constexpr, ROWS: tl.constexpr):
    """A tile of the gradient by the prediction: ``gradient_rows`` rows of 128 columns."""
    pitch = pitch_of(width)
    tiles = tl.cdiv(width, TILE)
    per_image = tiles * tl.cdiv(height, gradient_rows)
    image = (rest // per_image).to(tl.int64)
    part = rest % per_image
    x0 = (part % tiles) * TILE
    y0 = (part // tiles) * gradient_rows
    x = x0 + tl.arange(0, TILE)[None, :]
    q = x0 // 4 + tl.arange(0, 32)[None, :]
    plane = image * height * pitch.to(tl.int64)
    weights = table + image * 128
    size = plane_size(plane_units)
    row_size = SCALES * 2 * pitch.to(tl.int64)
    fold_size = SCALES * 2 * height.to(tl.int64)
    has_windows = windows & 1 != 0
    shift = 0.0
    if has_windows:
        shift = tl.load(weights + 1) * mean_sign(row_sums, image, 0, row_partials, height, width, window_rows)
    starts = map_starts(local, image, batch, height, width)
    # hoisting everything out of the loop would keep half of the registers busy
    for first in tl.range(y0, tl.minimum(y0 + gradient_rows, height), ROWS, disable_licm=True):
        y = first + tl.arange(0, ROWS)[:, None]
        inside = (x < width) & (y < height)
        at = plane + PAD + y * pitch + x
        known = (x < quads_of(width)) & (y < height)
        total = tl.load(local + at, mask=known & (stencils & 1 != 0), other=0.0)
        if has_windows:
            total += tl.load(centre + at, mask=known, other=0.0) - shift
            if MEANS:
                total -= windows_gradient(column_signs + plane, size, boxes + image * row_size, batch * row_size,
                                          folds + image * fold_size, batch * fold_size, weights, y, x0, first,
                                          first + ROWS - 1, height, width, ROWS)
        if AREA:
            for k in tl.static_range(1, SCALES):
                if ((stencils | windows) >> k) & 1 != 0:
                    total += gather_area(local, y, x, k, image, batch, height, width)
        else:
            g0 = tl.zeros([ROWS, 32], tl.float32)
            g1 = g0
            g2 = g0
            g3 = g0
            for k in tl.static_range(1, SCALES):
                used = (((stencils | windows) >> k) & 1 != 0) & (height >> k != 0) & (width >> k != 0)
                if used & has_taps(first, k, ROWS):
                    d0, d1, d2, d3 = gather_bicubic(starts[k], y, q, k, height, width)
                    g0 += d0
                    g1 += d1
                    g2 += d2
                    g3 += d3
            total += quad(g0, g1, g2, g3, ROWS)
            if (height < 32) | (width < 32):
                for k in tl.static_range(1, SCALES):
                    if (((stencils | windows) >> k) & 1 != 0) & ((height >> k == 0) | (width >> k == 0)):
                        total += gather_collapsed(local, y, x, k, image, batch, height, width)
        tl.store(grad + (image * height + y) * width.to(tl.int64) + x, total.to(grad.dtype.element_ty), mask=inside)
