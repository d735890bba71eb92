# SPDX-License-Identifier: Apache-2.0
"""Programs of the local means: column sums, then row windows with signs and sums, on scale 0 and on coarse maps.

Scale 0 is cut into tiles, columns in phase 1 and rows in phase 2. A program of a coarse map owns whole rows and does
both in phase 2.
"""

import triton
import triton.language as tl

from mlr.kernels import slots
from mlr.kernels.counts import known_count
from mlr.kernels.geometry import (
    COARSE_TILE,
    PAD,
    SCALES,
    TILE,
    before_errors,
    pitch_of,
    plane_offset,
    plane_size,
    quads_of,
    scale_size,
)
from mlr.kernels.masks import marked, over
from mlr.kernels.slots import SLOTS, TABLE_PITCH
from mlr.kernels.sums import mean_error
from mlr.kernels.windows import ZEROS, column_sums, masked_columns, pad_columns, window_signs


@triton.jit
def store_maps(pred, target, mask, errors, targets, y0, y1, x0, h, w, COLUMNS: tl.constexpr):
    """E, unknown pixels marked, and the target of the rows y0 .. y1 - 1 of scale 0 of an image, COLUMNS from x0 on.

    Returns the sums of E over the columns.
    """
    total = tl.zeros([COLUMNS], tl.float32)
    x = x0 + tl.arange(0, COLUMNS)[None, :]
    for first in range(y0, y1, 8):
        y = first + tl.arange(0, 8)[:, None]
        at = tl.max_contiguous(tl.minimum(y, h - 1) * w + tl.minimum(x, w - 1), [1, 1])
        t = tl.load(target + at).to(tl.float32)
        e = tl.load(pred + at).to(tl.float32) - t
        valid = (tl.load(mask + at) != 0) & (x < w)
        stored = (y < y1) & (x < quads_of(w))
        out = tl.max_contiguous(y * pitch_of(w) + (PAD + x), [1, 1])
        tl.store(errors + out, marked(valid, e), mask=stored)
        tl.store(targets + out, tl.where(valid, t, 0.0), mask=stored)
        total += tl.sum(tl.where(valid & (y < y1), e, 0.0), 0)
    return total


@triton.jit
def fine_columns(maps, work, sizes, cut, rest, MEANS: tl.constexpr, BLOCK: tl.constexpr):
    """Column sums of a tile of scale 0; the outermost tiles of a row also fill the padding.

    Under a mask E and the target of the tile are stored, too.
    """
    height, width = sizes.height, sizes.width
    tiles = cut.column_tiles
    per_image = tiles * tl.cdiv(height, cut.column_rows)
    image = (rest // per_image).to(tl.int64)
    part = rest % per_image
    tile = part % tiles
    y0 = (part // tiles) * cut.column_rows
    y1 = tl.minimum(y0 + cut.column_rows, height)
    size = plane_size(sizes.plane_units)
    start = image * height * width.to(tl.int64)
    pitch = pitch_of(width)
    out = work.sums + image * height * pitch.to(tl.int64)
    pred = maps.pred + start
    target = maps.target + start
    x0 = tile * BLOCK
    partial = work.partials + image * SCALES * cut.errors_partials + part
    if maps.mask is None:
        total = column_sums(pred, target, width, out, size, y0, y1, x0, height, width, True, MEANS, BLOCK, False)
        tl.store(partial, tl.sum(total, 0))
    else:
        mask = maps.mask + start
        plane = image * height * pitch.to(tl.int64)
        total = store_maps(pred, target, mask, work.errors + plane, work.targets + plane, y0, y1, x0, height, width,
                           BLOCK)
        tl.store(partial, tl.sum(total, 0))
        if MEANS:
            masked_columns(pred, target, mask, width, out, size, y0, x0, height, width, BLOCK)
    if MEANS:
        tl.debug_barrier()
        pad_columns(out, size, y0, y1, tile == 0, tile == tiles - 1, width, 4, TILE, 3 if maps.mask is None else 6)


@triton.jit
def windows_rows(e_ptr, t_ptr, stride, work, plane, size, mean, weights, unit, partial, y0, y1, x0, x1, h, w,
                 VARIANT: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr):
    """Row windows, signs and partial sums of the rows y0 .. y1 - 1 in tiles of columns, of which x0 .. x1 - 1 start.

    ``e_ptr`` points to E if ``t_ptr`` is None, else to the prediction and ``t_ptr`` to the target; ``plane`` is where
    the map starts in a plane.
    """
    PAIR: tl.constexpr = t_ptr is not None
    zero = tl.zeros([ROWS, TILE // 4], tl.float32)
    totals = (zero, zero, zero, zero, zero)
    for start in range(x0, x1, TILE):
        x = start + tl.arange(0, TILE)[None, :]
        for first in range(y0, y1, ROWS):
            y = first + tl.arange(0, ROWS)[:, None]
            inside = (y < y1) & (x < w)
            known = inside if PAIR else (y < y1) & (x < quads_of(w))
            at = y * stride + x
            e = tl.load(e_ptr + at, mask=known, other=0.0).to(tl.float32)
            if PAIR:
                e -= tl.load(t_ptr + at, mask=known, other=0.0).to(tl.float32)
            totals = window_signs(totals, work.sums + plane, work.signs + plane, size, e, mean, weights, unit,
                                  work.centre + plane, y, start, inside, y1, w, ROWS, TILE, VARIANT.MEANS, VARIANT.GRAD,
                                  VARIANT.MASKED)
    m, m5, m17, m65, signs_m = totals
    sums = tl.sum(tl.join(tl.join(m, m17), tl.join(m5, m65)), 1)
    kind = tl.reshape(tl.arange(0, 4), [2, 2])
    tl.store(partial + slots.M + kind, tl.sum(sums, 0))
    tl.store(partial + slots.SIGN, tl.sum(tl.sum(signs_m, 1), 0))


@triton.jit
def unit_of(pixels, h, w):
    """0.0 if a map has one known pixel, where E is its own mean, else 1.0. ``pixels``: their number, None for all."""
    if pixels is None:
        return tl.where(h * w == 1, 0.0, 1.0)
    else:
        return tl.where(pixels == 1.0, 0.0, 1.0)


@triton.jit
def mean_weights(weights, pixels):
    """The weights of M, M5, M17 and M65 over the number of known pixels."""
    return (
        over(tl.load(weights + slots.M), pixels),
        over(tl.load(weights + slots.M5), pixels),
        over(tl.load(weights + slots.M17), pixels),
        over(tl.load(weights + slots.M65), pixels),
    )


@triton.jit
def neutral_signs(signs, plane_size, y0, y1, w, ROWS: tl.constexpr):
    """Sign 0 in the last columns of a coarse map's pitch that no tile of windows covers."""
    words: tl.constexpr = COARSE_TILE // 4
    end = tl.cdiv(w, COARSE_TILE) * COARSE_TILE
    if end % TILE != 0:
        for first in range(y0, y1, ROWS):
            y = first + tl.arange(0, ROWS)[:, None]
            at = (signs + y * pitch_of(w) + PAD + end).to(tl.pointer_type(tl.int32)) + tl.arange(0, words)[None, :]
            for n in tl.static_range(3):
                tl.store(at + n * (plane_size // 4), tl.zeros([ROWS, words], tl.int32) + ZEROS, mask=y < y1)


@triton.jit
def coarse_windows(work, sizes, cut, scale, image, part, VARIANT: tl.constexpr, COLUMNS: tl.constexpr,
                   ROWS: tl.constexpr):
    """Windows in both directions on some whole rows of a coarse map."""
    h, w = scale_size(sizes.height, sizes.width, scale, VARIANT.AREA)
    pitch = pitch_of(w)
    y0 = part * cut.coarse_window_rows
    y1 = tl.minimum(y0 + cut.coarse_window_rows, h)
    size = plane_size(sizes.plane_units)
    plane = plane_offset(scale, sizes.starts) + image * h * pitch.to(tl.int64)
    errors = work.errors + (plane - before_errors(sizes.starts, VARIANT.MASKED)) + PAD
    if VARIANT.MEANS:
        sums = work.sums + plane
        if VARIANT.GRAD and not VARIANT.MASKED:
            neutral_signs(work.signs + plane, size, y0, y1, w, ROWS)
        for x0 in range(0, w, COLUMNS):
            column_sums(errors, errors, pitch, sums, size, y0, y1, x0, h, w, False, True, COLUMNS, VARIANT.MASKED)
        tl.debug_barrier()
        pad_columns(sums, size, y0, y1, True, True, w, 4, COARSE_TILE, 6 if VARIANT.MASKED else 3)
        tl.debug_barrier()
    count = tl.cdiv(h * quads_of(w), cut.coarse_pixels)
    if VARIANT.MASKED and VARIANT.AREA:
        count = cut.quad_partials
    elif scale <= 2:
        count = tl.where(cut.quad_partials > 0, cut.quad_partials, count)
    pixels = None
    if VARIANT.MASKED:
        pixels = known_count(work.counts, scale, image, sizes.height, sizes.width, VARIANT.AREA)
    mean = mean_error(work.partials, image, scale, count, cut.errors_partials, h, w, pixels)
    weights = work.table + image * TABLE_PITCH + scale * SLOTS
    if VARIANT.MASKED:
        weights = mean_weights(weights, pixels)
    partial = work.row_sums + ((image * SCALES + scale) * cut.row_partials + part) * SLOTS
    windows_rows(errors, None, pitch, work, plane, size, mean, weights, unit_of(pixels, h, w), partial, y0, y1, 0, w, h,
                 w, VARIANT, ROWS * TILE // COARSE_TILE, COARSE_TILE)


@triton.jit
def fine_windows(maps, work, sizes, cut, rest, VARIANT: tl.constexpr, ROWS: tl.constexpr):
    """Row windows on a tile of scale 0."""
    height, width = sizes.height, sizes.width
    pitch = pitch_of(width)
    tiles = tl.cdiv(width, TILE)
    per_image = tiles * tl.cdiv(height, cut.window_rows)
    image = (rest // per_image).to(tl.int64)
    part = rest % per_image
    y0 = (part // tiles) * cut.window_rows
    y1 = tl.minimum(y0 + cut.window_rows, height)
    x0 = (part % tiles) * TILE
    start = image * height * width.to(tl.int64)
    plane = image * height * pitch.to(tl.int64)
    size = plane_size(sizes.plane_units)
    pixels = None
    if VARIANT.MASKED:
        pixels = known_count(work.counts, 0, image, height, width, VARIANT.AREA)
    mean = mean_error(work.partials, image, 0, cut.column_tiles * tl.cdiv(height, cut.column_rows), cut.errors_partials,
                      height, width, pixels)
    weights = work.table + image * TABLE_PITCH
    partial = work.row_sums + (image * SCALES * cut.row_partials + part) * SLOTS
    unit = unit_of(pixels, height, width)
    if VARIANT.MASKED:
        windows_rows(work.errors + plane + PAD, None, pitch, work, plane, size, mean, mean_weights(weights, pixels),
                     unit, partial, y0, y1, x0, x0 + 1, height, width, VARIANT, ROWS, TILE)
    else:
        windows_rows(maps.pred + start, maps.target + start, width, work, plane, size, mean, weights, unit, partial, y0,
                     y1, x0, x0 + 1, height, width, VARIANT, ROWS, TILE)
