# SPDX-License-Identifier: Apache-2.0
"""The four launches. Each is one grid over all images, scales and tiles; what a phase reads, earlier ones have written.

1. ``pyramid_kernel``   scales 1-5 of E and target; column sums of scale 0; table of weights
2. ``losses_kernel``    stencils of all scales; row windows, signs and |.| sums (coarse scales: both directions)
3. ``columns_kernel``   column sums of the sign maps; coarse scales: their finished gradient
4. ``gradient_kernel``  scale 0: row sums of the sign maps + local gradient + adjoint of the pyramid; the terms

Four is the least: means and coarse maps need all of scale 0, signs need the means, adjoints need the neighbours' signs,
and scale 0 gathers from all finished scales. Within a launch no program waits for another. Where a coarse program runs
two directions in turn it owns whole rows, writes them, and passes a barrier of its own.
"""

import triton
import triton.language as tl

from mlr.kernels.adjoint import border_columns, border_rows, quad, sign_columns, windows_gradient
from mlr.kernels.geometry import PAD, SCALES, SLOTS, TILE, locate, pitch_of, plane_offset, quads_of, scale_size
from mlr.kernels.pyramid import gather_area, gather_bicubic, gather_collapsed, reduce_maps, reduce_quads
from mlr.kernels.stencil import STRIP, walk
from mlr.kernels.windows import column_sums, pad_columns, window_signs

KINDS = tl.constexpr(13)
#: Slot of the sum of the signs of M in the partial sums of the windows.
SIGN_SLOT = tl.constexpr(13)

_RUN_TIME = [
    "batch", "height", "width", "terms01", "terms23", "terms45", "count", "column_rows", "window_rows",
    "coarse_window_rows", "strip_rows", "reps",
    "column_tiles", "quad_partials", "block", "errors_partials", "strip_partials", "row_partials", "stencils",
    "windows", "gradient_rows", "coarse_rows", "sign_rows",
]  # fmt: skip


@triton.jit
def selected(slot, terms01, terms23, terms45):
    """Whether the loss in a slot 16 k + kind is wanted: 13 bits a scale, two scales in each number."""
    scale = slot // SLOTS
    kind = slot % SLOTS
    word = tl.where(scale < 2, terms01, tl.where(scale < 4, terms23, terms45))
    return (kind < KINDS) & (scale < SCALES) & (((word >> ((scale % 2) * KINDS + kind)) & 1) != 0)


@triton.jit
def add_partials(partial, count, slot):
    """Sum of one slot of the partial sums of an image and scale, in a fixed order."""
    total = tl.zeros([TILE], tl.float32)
    for first in range(0, count, TILE):
        i = first + tl.arange(0, TILE)
        total += tl.load(partial + i * SLOTS + slot, mask=i < count, other=0.0)
    return tl.sum(total, 0)


@triton.jit
def weight_table(weights, table, image, height, width, terms01, terms23, terms45, count, GRAD: tl.constexpr,
                 AREA: tl.constexpr):
    """An image's weights by slot, over the number of pixels of the scale; 0 for losses that are not wanted."""
    slot = tl.arange(0, 128)
    value = tl.zeros([128], tl.float32)
    if GRAD:
        wanted = selected(slot, terms01, terms23, terms45)
        column = tl.cumsum(wanted.to(tl.int32), 0) - 1
        h, w = scale_size(height, width, slot // SLOTS, AREA)
        value = tl.load(weights + image * count + column, mask=wanted, other=0.0).to(tl.float32)
        value /= h.to(tl.float32) * w.to(tl.float32)
    tl.store(table + image * 128 + slot, value)


@triton.jit
def fine_columns(pred, target, sums, partials, rest, tiles, batch, height, width, column_rows, errors_partials,
                 MEANS: tl.constexpr, AREA: tl.constexpr, BLOCK: tl.constexpr):
    """Column sums of a tile of scale 0, ``tiles`` to a row; the outermost ones also fill the padding."""
    per_image = tiles * tl.cdiv(height, column_rows)
    image = (rest // per_image).to(tl.int64)
    part = rest % per_image
    tile = part % tiles
    y0 = (part // tiles) * column_rows
    y1 = tl.minimum(y0 + column_rows, height)
    size = plane_offset(SCALES, batch, height, width, AREA)
    start = image * height * width.to(tl.int64)
    pitch = pitch_of(width)
    out = sums + image * height * pitch.to(tl.int64)
    x = tile * BLOCK + tl.arange(0, BLOCK)
    total = column_sums(pred + start, target + start, width, out, size, y0, y1, x, height, width, True, MEANS)
    tl.store(partials + image * SCALES * errors_partials + part, tl.sum(total, 0))
    if MEANS:
        tl.debug_barrier()
        pad_columns(out, size, y0, y1, tile == 0, tile == tiles - 1, width, 4)


@triton.jit(do_not_specialize=_RUN_TIME)
def pyramid_kernel(pred, target, weights, errors, targets, sums, table, partials, batch, height, width, terms01,
                   terms23, terms45, count, stencils, windows, column_rows, reps, column_tiles, errors_partials,
                   MEANS: tl.constexpr, GRAD: tl.constexpr, AREA: tl.constexpr, ALIGNED: tl.constexpr,
                   BLOCK: tl.constexpr, QUAD_ROWS: tl.constexpr):
    """Phase 1. A program is a segment of columns of scale 0, a block of coarse pixels or an image's weights.

    ``ALIGNED``: rows consist of whole quads of pixels, so four of them are loaded at once.
    """
    pid = tl.program_id(0)
    if ALIGNED:
        width = (width // 4) * 4
    scales = stencils | windows
    first = tl.where(windows & 1 != 0, batch * column_tiles * tl.cdiv(height, column_rows), 0)
    if ALIGNED and not AREA:
        small = (height < 4) | (width < 4)  # scale 2 is collapsed
        across = tl.cdiv(width, TILE)
        per_image = across * tl.cdiv(tl.cdiv(height, 4), QUAD_ROWS)
        second = tl.where((scales & 6 != 0) & (small == 0), batch * per_image, 0)
        scales = tl.where(small, scales, scales & -7)
    else:
        second = 0
    if pid < first:
        fine_columns(pred, target, sums, partials, pid, column_tiles, batch, height, width, column_rows,
                     errors_partials, MEANS,
                     AREA, BLOCK)
    elif pid < first + second:
        if ALIGNED and not AREA:
            image = ((pid - first) // per_image).to(tl.int64)
            part = (pid - first) % per_image
            partial = partials + (image * SCALES + 1) * errors_partials + part
            reduce_quads(pred, target, errors, targets, partial, partial + errors_partials,
                         (part // across) * QUAD_ROWS, (part % across) * TILE, stencils | windows, image, batch, height,
                         width, QUAD_ROWS)
    else:
        scale, image, part, rest = locate(pid - first - second, batch, height, width, scales, 1, 1, BLOCK * reps, 1,
                                          AREA)
        if scale > 0:
            reduce_maps(pred, target, errors, targets, partials + (image * SCALES + scale) * errors_partials, part,
                        scale, image, batch, height, width, reps, AREA, BLOCK)
        else:
            weight_table(weights, table, rest.to(tl.int64), height, width, terms01, terms23, terms45, count, GRAD, AREA)


@triton.jit
def windows_rows(e_ptr, t_ptr, stride, sums, signs, centre, plane_size, mean, weights, partial, y0, y1, x0, h, w,
                 PAIR: tl.constexpr, MEANS: tl.constexpr, GRAD: tl.constexpr, ROWS: tl.constexpr):
    """Row windows, signs and partial sums of the tile of coarse_window_rows y0 .. y1 - 1 and 128 columns from x0 on."""
    pitch = pitch_of(w)
    x = x0 + tl.arange(0, TILE)[None, :]
    m = tl.zeros([ROWS, TILE], tl.float32)
    m5 = m
    m17 = m
    m65 = m
    s = m
    for first in range(y0, y1, ROWS):
        y = first + tl.arange(0, ROWS)[:, None]
        inside = (y < y1) & (x < w)
        known = inside if PAIR else (y < y1) & (x < quads_of(w))
        at = y * stride + x
        e = tl.load(e_ptr + at, mask=known, other=0.0).to(tl.float32)
        if PAIR:
            e -= tl.load(t_ptr + at, mask=known, other=0.0).to(tl.float32)
        dm, d5, d17, d65, ds = window_signs(sums, signs, plane_size, e, mean, weights, centre, y, x, inside, y1,
                                            w, pitch, ROWS, MEANS, GRAD)
        m += dm
        m5 += d5
        m17 += d17
        m65 += d65
        s += ds
    tl.store(partial + 1, tl.sum(tl.sum(m, 1), 0))
    tl.store(partial + 2, tl.sum(tl.sum(m5, 1), 0))
    tl.store(partial + 3, tl.sum(tl.sum(m17, 1), 0))
    tl.store(partial + 4, tl.sum(tl.sum(m65, 1), 0))
    tl.store(partial + SIGN_SLOT, tl.sum(tl.sum(s, 1), 0))


@triton.jit
def mean_error(partials, image, scale, count, errors_partials, h, w):
    """Mean of E^k from the ``count`` partial sums of phase 1."""
    start = partials + (image * SCALES + scale) * errors_partials
    total = tl.zeros([TILE], tl.float32)
    for first in range(0, count, TILE):
        i = first + tl.arange(0, TILE)
        total += tl.load(start + i, mask=i < count, other=0.0)
    return tl.sum(total, 0) / (h.to(tl.float32) * w.to(tl.float32))


@triton.jit
def coarse_windows(errors, sums, signs, centre, table, partials, row_sums, scale, image, part, batch, height, width,
                   coarse_window_rows, block, quad_partials, errors_partials, row_partials, MEANS: tl.constexpr,
                   GRAD: tl.constexpr,
                   AREA: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr):
    """Windows in both directions on some whole rows of a coarse map."""
    h, w = scale_size(height, width, scale, AREA)
    pitch = pitch_of(w)
    y0 = part * coarse_window_rows
    y1 = tl.minimum(y0 + coarse_window_rows, h)
    size = plane_offset(SCALES, batch, height, width, AREA)
    plane = plane_offset(scale, batch, height, width, AREA) + image * h * pitch.to(tl.int64)
    e_ptr = errors + (plane - plane_offset(1, batch, height, width, AREA)) + PAD
    if MEANS:
        for x0 in range(0, w, COLUMNS):
            column_sums(e_ptr, e_ptr, pitch, sums + plane, size, y0, y1, x0 + tl.arange(0, COLUMNS), h, w, False, True)
        tl.debug_barrier()
        pad_columns(sums + plane, size, y0, y1, True, True, w, 4)
        tl.debug_barrier()
    count = tl.cdiv(h * quads_of(w), block)
    if scale <= 2:
        count = tl.where(quad_partials > 0, quad_partials, count)
    mean = mean_error(partials, image, scale, count, errors_partials, h, w)
    tiles = tl.cdiv(w, TILE)
    for tile in range(tiles):
        partial = row_sums + ((image * SCALES + scale) * row_partials + part * tiles + tile) * SLOTS
        windows_rows(e_ptr, e_ptr, pitch, sums + plane, signs + plane, centre + plane, size, mean,
                     table + image * 128 + scale * SLOTS, partial, y0, y1, tile * TILE, h, w, False, MEANS, GRAD, ROWS)


@triton.jit
def fine_windows(pred, target, sums, signs, centre, table, partials, row_sums, rest, batch, height, width, column_rows,
                 window_rows, column_tiles, errors_partials, row_partials, MEANS: tl.constexpr, GRAD: tl.constexpr,
                 AREA: tl.constexpr, ROWS: tl.constexpr):
    """Row windows on a tile of scale 0."""
    pitch = pitch_of(width)
    tiles = tl.cdiv(width, TILE)
    per_image = tiles * tl.cdiv(height, window_rows)
    image = (rest // per_image).to(tl.int64)
    part = rest % per_image
    y0 = (part // tiles) * window_rows
    start = image * height * width.to(tl.int64)
    plane = image * height * pitch.to(tl.int64)
    size = plane_offset(SCALES, batch, height, width, AREA)
    mean = mean_error(partials, image, 0, column_tiles * tl.cdiv(height, column_rows), errors_partials, height, width)
    windows_rows(pred + start, target + start, width, sums + plane, signs + plane, centre + plane, size, mean,
                 table + image * 128, row_sums + (image * SCALES * row_partials + part) * SLOTS, y0,
                 tl.minimum(y0 + window_rows, height), (part % tiles) * TILE, height, width, True, MEANS, GRAD, ROWS)


@triton.jit
def strips(pred, target, errors, targets, local, table, strip_sums, scale, image, part, batch, height, width,
           strip_rows, strip_partials, NORMALS: tl.constexpr, GRAD: tl.constexpr, AREA: tl.constexpr,
           WARPS: tl.constexpr, UNROLL: tl.constexpr):
    """Stencils on ``WARPS`` strips of a map."""
    h, w = scale_size(height, width, scale, AREA)
    pitch = pitch_of(w)
    per_row = tl.cdiv(w, STRIP)
    worker = part * WARPS + tl.arange(0, WARPS)
    y0 = ((worker // per_row) * strip_rows)[:, None]
    x0 = ((worker % per_row) * STRIP)[:, None]
    partial = strip_sums + ((image * SCALES + scale) * strip_partials + worker) * SLOTS
    keep = worker < per_row * tl.cdiv(h, strip_rows)
    plane = plane_offset(scale, batch, height, width, AREA) + image * h * pitch.to(tl.int64) + PAD
    coarse = plane - plane_offset(1, batch, height, width, AREA)
    start = image * height * width.to(tl.int64)
    weights = table + image * 128 + scale * SLOTS
    if pred.dtype.element_ty == tl.float32:  # one walk serves both sources
        e_ptr = pred + start
        t_ptr = target + start
        if scale > 0:
            e_ptr = errors + coarse
            t_ptr = targets + coarse
        walk(e_ptr, t_ptr, tl.where(scale == 0, -1.0, 0.0), tl.where(scale == 0, width, pitch), weights, local + plane,
             pitch, y0, strip_rows, x0, h, w, partial, keep, WARPS, NORMALS, GRAD, UNROLL)
    elif scale == 0:
        walk(pred + start, target + start, -1.0, width, weights, local + plane, pitch, y0, strip_rows, x0, h, w,
             partial, keep, WARPS, NORMALS, GRAD, UNROLL)
    else:
        walk(errors + coarse, targets + coarse, 0.0, pitch, weights, local + plane, pitch, y0, strip_rows, x0, h, w,
             partial, keep, WARPS, NORMALS, GRAD, UNROLL)


@triton.jit(do_not_specialize=_RUN_TIME)
def losses_kernel(pred, target, errors, targets, sums, signs, local, centre, table, partials, strip_sums, row_sums,
                  batch, height, width, stencils, windows, column_rows, window_rows, coarse_window_rows, strip_rows,
                  block, column_tiles, quad_partials,
                  errors_partials, strip_partials, row_partials,
                  MEANS: tl.constexpr, NORMALS: tl.constexpr, GRAD: tl.constexpr, AREA: tl.constexpr,
                  ALIGNED: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, WARPS: tl.constexpr,
                  UNROLL: tl.constexpr):
    """Phase 2. A program is windows on rows of a coarse map, stencils on strips, or windows on a tile of scale 0."""
    pid = tl.program_id(0)
    if ALIGNED:
        width = (width // 4) * 4
    scale, image, part, rest = locate(pid, batch, height, width, windows, coarse_window_rows, 1 << 30, 1, 1, AREA)
    if scale > 0:
        coarse_windows(errors, sums, signs, centre, table, partials, row_sums, scale, image, part, batch, height, width,
                       coarse_window_rows, block, quad_partials, errors_partials, row_partials, MEANS, GRAD, AREA,
                       COLUMNS, ROWS)
    else:
        scale, image, part, rest = locate(rest, batch, height, width, stencils, strip_rows, STRIP, WARPS, 0, AREA)
        if scale >= 0:
            strips(pred, target, errors, targets, local, table, strip_sums, scale, image, part, batch, height, width,
                   strip_rows, strip_partials, NORMALS, GRAD, AREA, WARPS, UNROLL)
        else:
            fine_windows(pred, target, sums, signs, centre, table, partials, row_sums, rest, batch, height, width,
                         column_rows, window_rows, column_tiles, errors_partials, row_partials, MEANS, GRAD, AREA, ROWS)


@triton.jit
def mean_sign(row_sums, image, scale, row_partials, h, w, rows):
    """Mean of the sign of E - mean E: what the adjoint of the mean takes from every pixel."""
    count = tl.cdiv(w, TILE) * tl.cdiv(h, rows)
    partial = row_sums + (image * SCALES + scale) * row_partials * SLOTS
    return add_partials(partial, count, SIGN_SLOT) / (h * w).to(tl.float32)


@triton.jit
def radius(n):
    """Radius of window n of 5, 17, 65."""
    return tl.where(n == 0, 2, tl.where(n == 1, 8, 32))


@triton.jit
def sign_sums(signs, column_sums, borders, boxes, folds, r, y0, y1, h, w, WORDS: tl.constexpr, ROWS: tl.constexpr):
    """Column sums of a sign map for whole rows, and box^T where a row or column is a border."""
    for word0 in range(0, pitch_of(w) // 4, WORDS):
        sign_columns(signs.to(tl.pointer_type(tl.int32)), column_sums.to(tl.pointer_type(tl.int32)), borders, r, y0, y1,
                     word0, h, w, WORDS)
    tl.debug_barrier()
    border_rows(borders, boxes, r, y0, y1, h, w, 2 * WORDS)
    border_columns(column_sums, folds, r, y0, y1, h, w, ROWS, 128 // ROWS)


@triton.jit
def coarse_gradient(signs, column_signs, borders, boxes, folds, local, centre, table, row_sums, scale, image, part,
                    batch, height,
                    width, stencils, windows, coarse_window_rows, coarse_rows, row_partials, MEANS: tl.constexpr,
                    AREA: tl.constexpr,
                    WORDS: tl.constexpr, ROWS: tl.constexpr):
    """The finished gradient of some whole rows of a coarse map, into ``local``."""
    h, w = scale_size(height, width, scale, AREA)
    pitch = pitch_of(w)
    y0 = part * coarse_rows
    y1 = tl.minimum(y0 + coarse_rows, h)
    size = plane_offset(SCALES, batch, height, width, AREA)
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
                          box + n * border_size, fold + n * fold_size, radius(n), y0, y1, h, w, WORDS, 8)
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


@triton.jit(do_not_specialize=_RUN_TIME)
def columns_kernel(signs, column_signs, borders, boxes, folds, local, centre, table, row_sums, batch, height, width,
                   stencils,
                   windows, coarse_window_rows, sign_rows, coarse_rows, row_partials,
                   MEANS: tl.constexpr, AREA: tl.constexpr, WORDS: tl.constexpr, ROWS: tl.constexpr):
    """Phase 3. A program is some rows of a coarse map, or of one sign map of scale 0.

    ``borders`` holds the border rows of (window, image, scale): two rows of the pitch of scale 0 each.
    """
    pid = tl.program_id(0)
    scale, image, part, rest = locate(pid, batch, height, width, stencils | windows, coarse_rows, 1 << 30, 1, 1, AREA)
    if scale > 0:
        coarse_gradient(signs, column_signs, borders, boxes, folds, local, centre, table, row_sums, scale, image,
                        part, batch, height,
                        width, stencils, windows, coarse_window_rows, coarse_rows, row_partials, MEANS, AREA, WORDS,
                        ROWS)
    else:
        pitch = pitch_of(width)
        per_map = tl.cdiv(height, sign_rows)
        image = (rest // (3 * per_map)).to(tl.int64)
        n = (rest % (3 * per_map)) // per_map
        y0 = (rest % per_map) * sign_rows
        plane = image * height * pitch.to(tl.int64) + n * plane_offset(SCALES, batch, height, width, AREA)
        row = (n.to(tl.int64) * batch + image) * SCALES * 2 * pitch
        fold = (n.to(tl.int64) * batch + image) * SCALES * 2 * height
        sign_sums(signs + plane, column_signs + plane, borders + row, boxes + row, folds + fold, radius(n), y0,
                  tl.minimum(y0 + sign_rows, height), height, width, WORDS, 32)


@triton.jit
def term_values(terms, strip_sums, row_sums, image, scale, height, width, terms01, terms23, terms45, count,
                window_rows, coarse_window_rows,
                strip_rows, strip_partials, row_partials, AREA: tl.constexpr):
    """The losses of an image and scale: partial sums added in double precision and in a fixed order."""
    h, w = scale_size(height, width, scale, AREA)
    strips = tl.cdiv(w, STRIP) * tl.cdiv(h, strip_rows)
    tiles = tl.cdiv(w, TILE) * tl.cdiv(h, tl.where(scale == 0, window_rows, coarse_window_rows))
    slot = tl.arange(0, 128)
    before = tl.sum((selected(slot, terms01, terms23, terms45) & (slot < scale * SLOTS)).to(tl.int32), 0)
    kind = tl.arange(0, SLOTS)
    mine = selected(scale * SLOTS + kind, terms01, terms23, terms45)
    by_rows = (kind >= 1) & (kind <= 4)
    start = (image * SCALES + scale) * SLOTS
    total = tl.zeros([SLOTS], tl.float64)
    for first in range(0, tiles, 64):
        i = first + tl.arange(0, 64)[:, None]
        part = tl.load(row_sums + start * row_partials + i * SLOTS + kind[None, :],
                       mask=(i < tiles) & (mine & by_rows)[None, :], other=0.0)
        total += tl.sum(part.to(tl.float64), 0)
    for first in range(0, strips, 64):
        i = first + tl.arange(0, 64)[:, None]
        part = tl.load(strip_sums + start * strip_partials + i * SLOTS + kind[None, :],
                       mask=(i < strips) & (mine & (by_rows == 0))[None, :], other=0.0)
        total += tl.sum(part.to(tl.float64), 0)
    column = before + tl.cumsum(mine.to(tl.int32), 0) - 1
    tl.store(terms + image * count + column, (total / (h * w).to(tl.float64)).to(tl.float32), mask=mine)


@triton.jit
def fine_gradient(grad, local, column_signs, boxes, folds, centre, table, row_sums, rest, batch, height, width,
                  stencils, windows, window_rows, row_partials, gradient_rows, MEANS: tl.constexpr, AREA: tl.constexpr,
                  ROWS: tl.constexpr):
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
    size = plane_offset(SCALES, batch, height, width, AREA)
    row_size = SCALES * 2 * pitch.to(tl.int64)
    fold_size = SCALES * 2 * height.to(tl.int64)
    has_windows = windows & 1 != 0
    shift = 0.0
    if has_windows:
        shift = tl.load(weights + 1) * mean_sign(row_sums, image, 0, row_partials, height, width, window_rows)
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
                d0, d1, d2, d3 = gather_bicubic(local, y, q, k, used, image, batch, height, width)
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


@triton.jit(do_not_specialize=_RUN_TIME)
def gradient_kernel(grad, terms, local, column_signs, boxes, folds, centre, table, strip_sums, row_sums, batch, height,
                    width, terms01, terms23, terms45, count, stencils, windows, window_rows, coarse_window_rows,
                    strip_rows, strip_partials,
                    row_partials, gradient_rows,
                    MEANS: tl.constexpr, GRAD: tl.constexpr, AREA: tl.constexpr, ALIGNED: tl.constexpr,
                    ROWS: tl.constexpr):
    """Phase 4. A program is a tile of the gradient, or the losses of one image and scale."""
    pid = tl.program_id(0)
    if ALIGNED:
        width = (width // 4) * 4
    if pid < batch * SCALES:
        term_values(terms, strip_sums, row_sums, (pid // SCALES).to(tl.int64), pid % SCALES, height, width, terms01,
                    terms23, terms45, count, window_rows, coarse_window_rows, strip_rows, strip_partials,
                    row_partials, AREA)
    elif GRAD:
        fine_gradient(grad, local, column_signs, boxes, folds, centre, table, row_sums, pid - batch * SCALES, batch,
                      height, width, stencils, windows, window_rows, row_partials, gradient_rows, MEANS, AREA, ROWS)
