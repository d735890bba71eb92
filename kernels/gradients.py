# SPDX-License-Identifier: Apache-2.0
"""Programs of the gradient: column sums of the sign maps and finished coarse maps (phase 3), scale 0 (phase 4)."""

import triton
import triton.language as tl

from mlr.kernels import slots
from mlr.kernels.adjoint import border_columns, border_rows, sign_columns, window_weights, windows_gradient
from mlr.kernels.counts import known_count
from mlr.kernels.geometry import (
    PAD,
    SCALES,
    TILE,
    border_places,
    map_starts,
    pitch_of,
    plane_offset,
    plane_size,
    quad,
    quads_of,
)
from mlr.kernels.masked_adjoint import masked_windows_gradient
from mlr.kernels.masks import known
from mlr.kernels.means import mean_weights
from mlr.kernels.pyramid import (
    gather_area,
    gather_cells,
    gather_collapsed,
    gather_masked_area,
    gather_neighbours,
    has_taps,
)
from mlr.kernels.slots import SLOTS, TABLE_PITCH
from mlr.kernels.sums import mean_sign


@triton.jit
def border_sums(column_sums, borders, boxes, folds, y0, y1, h, w, RADIUS: tl.constexpr):
    """box^T of a window where a row or column is a border."""
    if (y0 == 0) | (y1 == h):
        border_rows(borders, boxes, y0, y1, h, w, RADIUS)
    border_columns(column_sums, folds, y0, y1, h, w, RADIUS, 8)


@triton.jit
def sign_sums(work, sizes, scale, image, plane, first, last, y0, y1, h, w, WORDS: tl.constexpr,
              SIGN_ROWS: tl.constexpr, COARSE_ROWS: tl.constexpr):
    """Column sums of the sign maps ``first`` .. ``last`` - 1 for whole rows, and box^T where a row or column is a
    border."""
    row, border_size, fold, fold_size = border_places(image, scale, sizes.batch, sizes.height, sizes.width)
    size = plane_size(sizes.plane_units)
    borders = work.borders + row
    boxes = work.boxes + row
    folds = work.folds + fold
    for n in tl.range(first, last, disable_licm=True):
        r = tl.where(n == 0, 2, tl.where(n == 1, 8, 32))
        at = plane + n * size
        words = (work.signs + at).to(tl.pointer_type(tl.int32))
        sums = (work.column_signs + at).to(tl.pointer_type(tl.int32))
        if scale > 0:
            sign_columns(words, sums, borders + n * border_size, r, y0, y1, h, w, WORDS, COARSE_ROWS)
        else:
            sign_columns(words, sums, borders + n * border_size, r, y0, y1, h, w, WORDS, SIGN_ROWS)
    tl.debug_barrier()
    for n in tl.range(first, last, disable_licm=True):
        maps = work.column_signs + plane + n * size
        border = borders + n * border_size
        box = boxes + n * border_size
        columns = folds + n * fold_size
        if n == 0:
            border_sums(maps, border, box, columns, y0, y1, h, w, 2)
        elif n == 1:
            border_sums(maps, border, box, columns, y0, y1, h, w, 8)
        else:
            border_sums(maps, border, box, columns, y0, y1, h, w, 32)


@triton.jit
def masked_means(own, shift, sums, plane_size, weights, y, x0, h, w, MEANS: tl.constexpr, ROWS: tl.constexpr,
                 COLUMNS: tl.constexpr):
    """The gradient of the means under a mask on a tile; ``own`` is its part of the pixel itself, marked as E is."""
    total = own - shift
    if MEANS:
        total -= masked_windows_gradient(sums, plane_size, weights, y, x0, h, w, ROWS, COLUMNS)
    return tl.where(known(own), total, 0.0)


@triton.jit
def mean_shift(weights, work, sizes, wanted, cut, scale, image, h, w, rows, AREA: tl.constexpr):
    """What M's mean takes from the gradient of every pixel of a map, and the weights of the windows; ``rows`` as in
    ``mean_sign``."""
    shift = 0.0
    if work.counts is not None:
        pixels = known_count(work.counts, scale, image, sizes.height, sizes.width, AREA)
        box_weights = mean_weights(weights, pixels)
        if (wanted.windows >> scale) & 1 != 0:
            shift = box_weights[0] * mean_sign(work.row_sums, image, scale, cut.row_partials, h, w, rows, pixels)
    else:
        if (wanted.windows >> scale) & 1 != 0:
            sign_mean = mean_sign(work.row_sums, image, scale, cut.row_partials, h, w, rows, None)
            shift = tl.load(weights + slots.M) * sign_mean
        box_weights = window_weights(weights)
    return shift, box_weights


@triton.jit
def coarse_gradient(work, sizes, wanted, cut, scale, image, plane, y0, y1, h, w, MEANS: tl.constexpr,
                    AREA: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The finished gradient of some whole rows of a coarse map, into ``work.local``."""
    pitch = pitch_of(w)
    row, border_size, fold, fold_size = border_places(image, scale, sizes.batch, sizes.height, sizes.width)
    size = plane_size(sizes.plane_units)
    MASKED: tl.constexpr = work.counts is not None
    if not MASKED:
        boxes = work.boxes + row
        folds = work.folds + fold
    has_windows = (wanted.windows >> scale) & 1 != 0
    has_stencil = (wanted.stencils >> scale) & 1 != 0
    shift, box_weights = mean_shift(work.table + image * TABLE_PITCH + scale * SLOTS, work, sizes, wanted, cut, scale,
                                    image, h, w, cut.coarse_window_rows, AREA)
    local = work.local + plane + PAD
    centre = work.centre + plane + PAD
    for x0 in range(0, w, COLUMNS):
        for first in range(y0, y1, ROWS):
            column = tl.arange(0, COLUMNS)[None, :]
            y = first + tl.arange(0, ROWS)[:, None]
            inside = (x0 + column < quads_of(w)) & (y < y1)
            at = x0 + (y * pitch + column)
            grad = tl.load(local + at, mask=tl.where(has_stencil, inside, False), other=0.0)
            if has_windows:
                own = tl.load(centre + at, mask=inside, other=0.0)
                if MASKED:
                    grad += masked_means(own, shift, work.column_signs + plane, size, box_weights, y, x0, h, w, MEANS,
                                         ROWS, COLUMNS)
                else:
                    grad += own - shift
                if MEANS and not MASKED:
                    grad -= windows_gradient(work.column_signs + plane, size, boxes, border_size, folds, fold_size,
                                             box_weights, y, x0, first, first + ROWS - 1, h, w, ROWS, COLUMNS)
            tl.store(local + at, grad, mask=inside)


@triton.jit
def fine_gradient(grad, work, sizes, wanted, cut, rest, MEANS: tl.constexpr, AREA: tl.constexpr, ROWS: tl.constexpr):
    """A tile of the gradient by the prediction: ``cut.gradient_rows`` rows of 128 columns."""
    height, width, starts = sizes.height, sizes.width, sizes.starts
    pitch = pitch_of(width)
    tiles = tl.cdiv(width, TILE)
    per_image = tiles * tl.cdiv(height, cut.gradient_rows)
    image = (rest // per_image).to(tl.int64)
    part = rest % per_image
    x0 = (part % tiles) * TILE
    y0 = (part // tiles) * cut.gradient_rows
    column = tl.arange(0, TILE)[None, :]
    x = x0 + column
    q = x0 // 4 + tl.arange(0, 32)[None, :]
    plane = image * height * pitch.to(tl.int64)
    size = plane_size(sizes.plane_units)
    row, border_size, fold, fold_size = border_places(image, 0, sizes.batch, height, width)
    MASKED: tl.constexpr = work.counts is not None
    if not MASKED:
        boxes = work.boxes + row
        folds = work.folds + fold
    has_stencil = wanted.stencils & 1 != 0
    has_windows = wanted.windows & 1 != 0
    shift, box_weights = mean_shift(work.table + image * TABLE_PITCH, work, sizes, wanted, cut, 0, image, height, width,
                                    cut.window_rows, AREA)
    maps = map_starts(work.local, image, starts, height, width)
    used = wanted.stencils | wanted.windows  # the scales gathered from; bicubic: those that are not collapsed
    if not AREA:
        for k in tl.static_range(1, SCALES):
            used &= tl.where(tl.minimum(height, width) >> k == 0, ~(1 << k), -1)
    grad += image * height * width.to(tl.int64) + x0
    own = work.local + plane + (PAD + x0)
    centre = work.centre + plane + (PAD + x0)
    # hoisting everything out of the loop would keep half of the registers busy
    for first in tl.range(y0, tl.minimum(y0 + cut.gradient_rows, height), ROWS, disable_licm=True):
        y = first + tl.arange(0, ROWS)[:, None]
        inside = (x < width) & (y < height)
        at = y * pitch + column
        stored = (x < quads_of(width)) & (y < height)
        total = tl.load(own + at, mask=tl.where(has_stencil, stored, False), other=0.0)
        if has_windows:
            at_pixel = tl.load(centre + at, mask=stored, other=0.0)
            if MASKED:
                total += masked_means(at_pixel, shift, work.column_signs + plane, size, box_weights, y, x0, height,
                                      width, MEANS, ROWS, TILE)
            else:
                total += at_pixel - shift
            if MEANS and not MASKED:
                total -= windows_gradient(work.column_signs + plane, size, boxes, border_size, folds, fold_size,
                                          box_weights, y, x0, first, first + ROWS - 1, height, width, ROWS, TILE)
        if AREA and MASKED:
            error = tl.load(work.errors + (plane + PAD + x0) + at, mask=stored, other=0.0)
            total += gather_masked_area(work.local, error, work.shares, y, x, used & ~1, image, starts, height, width)
        elif AREA:
            for k in tl.static_range(1, SCALES):
                if (used >> k) & 1 != 0:
                    total += gather_area(work.local + plane_offset(k, starts), y, x, k, image, height, width)
        else:
            g0 = tl.zeros([ROWS, 32], tl.float32)
            g1 = g0
            g2 = g0
            g3 = g0
            before = g0  # of outputs whose middle is the quad's right or left border
            after = g0
            for k in tl.static_range(1, SCALES):
                here = (used >> k) & 1 != 0
                if k > 1:
                    here &= (first >> k < height >> k) & has_taps(first, k, ROWS)
                if here:
                    if k == 1:
                        g0, g1, g2, g3 = gather_neighbours(maps[k - 1], y, q, height, width)
                    elif k == 2:
                        g = gather_cells(maps[k - 1], first, q, k, width, ROWS)
                        g0 -= 0.09375 * g
                        g1 += 0.59375 * g
                        g2 += 0.59375 * g
                        g3 -= 0.09375 * g
                    else:
                        g = gather_cells(maps[k - 1], first, q, k, width, ROWS)
                        place = q & (2 ** (k - 2) - 1)
                        before += tl.where(place == 2 ** (k - 3) - 1, g, 0.0)
                        after += tl.where(place == 2 ** (k - 3), g, 0.0)
            g0 += 0.59375 * after
            g1 -= 0.09375 * after
            g2 -= 0.09375 * before
            g3 += 0.59375 * before
            total += quad(g0, g1, g2, g3, ROWS)
            if (height < 32) | (width < 32):
                for k in tl.static_range(1, SCALES):
                    if ((wanted.stencils | wanted.windows) & ~used) >> k & 1 != 0:
                        total += gather_collapsed(work.local + plane_offset(k, starts), y, x, image, height, width)
        tl.store(grad + (y * width + column), total.to(grad.dtype.element_ty), mask=inside)
