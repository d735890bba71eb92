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

from mlr.kernels.counts import count_parts, count_positions, position_counts
from mlr.kernels.geometry import (
    COARSE_TILE,
    PAD,
    SCALES,
    TILE,
    before_errors,
    locate,
    pitch_of,
    plane_offset,
    plane_size,
    scale_size,
)
from mlr.kernels.gradients import coarse_gradient, fine_gradient, sign_sums
from mlr.kernels.masked_adjoint import masked_sign_sums
from mlr.kernels.means import coarse_windows, fine_columns, fine_windows
from mlr.kernels.pyramid import reduce_area, reduce_maps, reduce_quads
from mlr.kernels.slots import SLOTS, TABLE_PITCH
from mlr.kernels.stencil import STRIP, walk
from mlr.kernels.sums import term_values, weight_table

# What every kernel may be told: numbers a launch, and a scale's place in a plane or programs in a list.
_RUN_TIME = [
    "batch", "height", "width", "plane_units", "column_programs", "quad_programs", "coarse_programs", "strip_programs",
    "terms01", "terms23", "terms45", "count", "column_rows", "window_rows", "coarse_window_rows", "strip_rows", "reps",
    "column_tiles", "quad_partials", "block", "errors_partials", "strip_partials", "row_partials", "stencils",
    "windows", "gradient_rows", *(f"start{k}" for k in range(1, 6)),
    *(f"coarse{k}" for k in range(1, 6)), *(f"strips{k}" for k in range(6)),
]  # fmt: skip


@triton.jit(do_not_specialize=_RUN_TIME)
def pyramid_kernel(pred, target, mask, weights, errors, targets, sums, table, partials, shares, counts, batch,
                   height, width, plane_units,
                   start1, start2, start3, start4, start5, coarse1, coarse2, coarse3, coarse4, coarse5, column_programs,
                   quad_programs, terms01, terms23, terms45, count, stencils, windows, column_rows, reps, column_tiles,
                   errors_partials, MEANS: tl.constexpr, GRAD: tl.constexpr, AREA: tl.constexpr, MASKED: tl.constexpr,
                   ALIGNED: tl.constexpr, BLOCK: tl.constexpr, QUAD_ROWS: tl.constexpr):
    """Phase 1. A program is a segment of columns of scale 0, a block of coarse pixels or an image's weights; under a
    mask
    also some strips of a scale, on which it counts positions.

    ``ALIGNED``: rows consist of whole quads of pixels, so four of them are loaded at once.
    """
    pid = tl.program_id(0)
    if ALIGNED:
        width = (width >> 2) * 4
    starts = (start1, start2, start3, start4, start5)
    if pid < column_programs:
        fine_columns(pred, target, mask, errors, targets, sums, partials, pid, column_tiles, height, width,
                     plane_units, column_rows,
                     errors_partials, MEANS, BLOCK)
    elif pid < column_programs + quad_programs:
        per_image = quad_programs // batch
        image = ((pid - column_programs) // per_image).to(tl.int64)
        part = (pid - column_programs) % per_image
        if AREA and MASKED:
            reduce_area(pred, target, mask, errors, targets, shares, partials, part, image, starts, height, width,
                        errors_partials)
        elif ALIGNED and not AREA:
            across = tl.cdiv(width, TILE)
            partial = partials + (image * SCALES + 1) * errors_partials + part
            first_errors = errors
            first_targets = targets
            if MASKED:
                first_errors += plane_offset(1, starts)
                first_targets += plane_offset(1, starts)
            reduce_quads(pred, target, mask, first_errors, first_targets, partial, partial + errors_partials,
                         (part // across) * QUAD_ROWS, (part % across) * TILE, stencils | windows, image,
                         plane_offset(2, starts) - plane_offset(1, starts), height, width, QUAD_ROWS)
    else:
        scale, image, part, rest = locate(pid - column_programs - quad_programs, batch,
                                          (0, coarse1, coarse2, coarse3, coarse4, coarse5))
        if scale > 0:
            if not (AREA and MASKED):
                start = plane_offset(scale, starts) - before_errors(starts, MASKED)
                reduce_maps(pred, target, mask, errors, targets,
                            partials + (image * SCALES + scale) * errors_partials, part, scale, image, start, height,
                            width, reps, AREA, BLOCK)
        elif MASKED:
            used = stencils | windows
            parts = ()
            for k in tl.static_range(SCALES):
                parts += (((used >> k) & 1) * count_parts(k, height, width, AREA),)
            scale, image, part, rest = locate(rest, batch, parts)
            if scale >= 0:
                count_positions(mask, counts, scale, image, part, height, width, AREA)
            else:
                weight_table(weights, table, rest.to(tl.int64), height, width, terms01, terms23, terms45, count, GRAD,
                             AREA, True)
        else:
            weight_table(weights, table, rest.to(tl.int64), height, width, terms01, terms23, terms45, count, GRAD, AREA,
                         False)


@triton.jit
def strips(pred, target, errors, targets, local, table, strip_sums, counts, scale, image, part, starts, height, width,
           strip_rows, strip_partials, NORMALS: tl.constexpr, GRAD: tl.constexpr, AREA: tl.constexpr,
           STRIPS: tl.constexpr, UNROLL: tl.constexpr):
    """Stencils on ``STRIPS`` strips of a map."""
    h, w = scale_size(height, width, scale, AREA)
    pitch = pitch_of(w)
    per_row = tl.cdiv(w, STRIP)
    worker = part * STRIPS + tl.arange(0, STRIPS)
    y0 = ((worker // per_row) * strip_rows)[:, None]
    x0 = ((worker % per_row) * STRIP)[:, None]
    partial = strip_sums + ((image * SCALES + scale) * strip_partials + worker) * SLOTS
    active = worker < per_row * tl.cdiv(h, strip_rows)
    plane = plane_offset(scale, starts) + image * h * pitch.to(tl.int64) + PAD
    coarse = plane - before_errors(starts, counts is not None)
    start = image * height * width.to(tl.int64)
    weights = table + image * TABLE_PITCH + scale * SLOTS
    if counts is not None:
        numbers = position_counts(counts, scale, image, height, width, AREA)
        walk(errors + coarse, targets + coarse, None, pitch, weights, numbers, local + plane, pitch, y0, strip_rows, x0,
             h, w, partial, active, STRIPS, NORMALS, GRAD, UNROLL)
    elif pred.dtype.element_ty == tl.float32:  # one walk serves both sources
        e_ptr = pred + start
        t_ptr = target + start
        if scale > 0:
            e_ptr = errors + coarse
            t_ptr = targets + coarse
        walk(e_ptr, t_ptr, tl.where(scale == 0, -1.0, 0.0), tl.where(scale == 0, width, pitch), weights, None,
             local + plane, pitch, y0, strip_rows, x0, h, w, partial, active, STRIPS, NORMALS, GRAD, UNROLL)
    elif scale == 0:
        walk(pred + start, target + start, -1.0, width, weights, None, local + plane, pitch, y0, strip_rows, x0, h, w,
             partial, active, STRIPS, NORMALS, GRAD, UNROLL)
    else:
        walk(errors + coarse, targets + coarse, 0.0, pitch, weights, None, local + plane, pitch, y0, strip_rows, x0,
             h, w,
             partial, active, STRIPS, NORMALS, GRAD, UNROLL)


@triton.jit(do_not_specialize=_RUN_TIME)
def losses_kernel(pred, target, errors, targets, sums, signs, local, centre, table, partials, strip_sums, row_sums,
                  counts, batch, height, width, plane_units, start1, start2, start3, start4, start5, coarse1,
                  coarse2, coarse3,
                  coarse4, coarse5, strips0, strips1, strips2, strips3, strips4, strips5, stencils, windows,
                  coarse_programs, strip_programs, column_rows, window_rows, coarse_window_rows, strip_rows, block,
                  column_tiles, quad_partials, errors_partials, strip_partials, row_partials,
                  MEANS: tl.constexpr, NORMALS: tl.constexpr, GRAD: tl.constexpr, AREA: tl.constexpr,
                  MASKED: tl.constexpr, ALIGNED: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, STRIPS:
                  tl.constexpr,
                  UNROLL: tl.constexpr):
    """Phase 2. A program is windows on rows of a coarse map, stencils on strips, or windows on a tile of scale 0."""
    pid = tl.program_id(0)
    if ALIGNED:
        width = (width >> 2) * 4
    starts = (start1, start2, start3, start4, start5)
    if pid < coarse_programs:
        scale, image, part, _ = locate(pid, batch, (0, coarse1, coarse2, coarse3, coarse4, coarse5))
        coarse_windows(errors, sums, signs, centre, table, partials, row_sums, scale, image, part, starts, height,
                       width, plane_units, coarse_window_rows, block, quad_partials, errors_partials, row_partials,
                       counts, MEANS, GRAD, AREA, COLUMNS, ROWS)
    elif pid < coarse_programs + strip_programs:
        scale, image, part, _ = locate(pid - coarse_programs, batch,
                                       (strips0, strips1, strips2, strips3, strips4, strips5))
        strips(pred, target, errors, targets, local, table, strip_sums, counts, scale, image, part, starts, height,
               width,
               strip_rows, strip_partials, NORMALS, GRAD, AREA, STRIPS, UNROLL)
    else:
        fine_windows(pred, target, errors, sums, signs, centre, table, partials, row_sums,
                     pid - coarse_programs - strip_programs, height, width, plane_units, column_rows, window_rows,
                     column_tiles, errors_partials, row_partials, counts, MEANS, GRAD, AREA, ROWS)


@triton.jit(do_not_specialize=_RUN_TIME)
def columns_kernel(signs, column_signs, borders, boxes, folds, local, centre, table, row_sums, counts, batch, height,
                   width,
                   plane_units, start1, start2, start3, start4, start5, coarse1, coarse2, coarse3, coarse4, coarse5,
                   stencils, windows, coarse_programs, coarse_window_rows, row_partials,
                   MEANS: tl.constexpr, AREA: tl.constexpr, MASKED: tl.constexpr, SIGN_ROWS: tl.constexpr,
                   COARSE_ROWS: tl.constexpr,
                   WORDS: tl.constexpr, ROWS: tl.constexpr):
    """Phase 3. A program is some rows of a coarse map, or of one sign map of scale 0.

    ``borders`` holds the border rows of (window, image, scale): two rows of the pitch of scale 0 each.
    """
    pid = tl.program_id(0)
    if pid < coarse_programs:
        scale, image, part, _ = locate(pid, batch, (0, coarse1, coarse2, coarse3, coarse4, coarse5))
        y0 = part * COARSE_ROWS
        rows = COARSE_ROWS
        first = 0
        last = 3 * ((windows >> scale) & 1)
    else:
        rest = pid - coarse_programs
        per_map = tl.cdiv(height, SIGN_ROWS)
        scale = 0
        image = (rest // (3 * per_map)).to(tl.int64)
        first = (rest % (3 * per_map)) // per_map
        last = first + 1
        y0 = (rest % per_map) * SIGN_ROWS
        rows = SIGN_ROWS
    h, w = scale_size(height, width, scale, AREA)
    y1 = tl.minimum(y0 + rows, h)
    size = plane_size(plane_units)
    plane = plane_offset(scale, (start1, start2, start3, start4, start5)) + image * h * pitch_of(w).to(tl.int64)
    if MEANS and MASKED:
        masked_sign_sums(signs, column_signs, scale, plane, size, first, last, y0, y1, h, w, SIGN_ROWS, COARSE_ROWS)
        tl.debug_barrier()
    elif MEANS:
        sign_sums(signs, column_signs, borders, boxes, folds, batch, height, width, size, scale, image, plane, first,
                  last, y0, y1, h, w, WORDS, SIGN_ROWS, COARSE_ROWS)
        tl.debug_barrier()
    if scale > 0:
        coarse_gradient(column_signs, boxes, folds, local, centre, table, row_sums, batch, height, width, size, scale,
                        image, plane, stencils, windows, coarse_window_rows, row_partials, counts, y0, y1, h, w,
                        MEANS, AREA, ROWS * TILE // COARSE_TILE, COARSE_TILE)


@triton.jit(do_not_specialize=_RUN_TIME)
def gradient_kernel(grad, terms, positions, local, errors, shares, column_signs, boxes, folds, centre, table,
                    strip_sums, row_sums, counts, batch, height, width, plane_units, start1, start2, start3, start4,
                    start5, terms01, terms23, terms45, count,
                    stencils, windows, window_rows, coarse_window_rows, strip_rows, strip_partials, row_partials,
                    gradient_rows,
                    MEANS: tl.constexpr, GRAD: tl.constexpr, AREA: tl.constexpr, MASKED: tl.constexpr,
                    ALIGNED: tl.constexpr, ROWS: tl.constexpr):
    """Phase 4. A program is a tile of the gradient, or the losses of one image and scale."""
    pid = tl.program_id(0)
    if ALIGNED:
        width = (width >> 2) * 4
    if pid < batch * SCALES:
        term_values(terms, strip_sums, row_sums, (pid // SCALES).to(tl.int64), pid % SCALES, height, width, terms01,
                    terms23, terms45, count, window_rows, coarse_window_rows, strip_rows, strip_partials,
                    row_partials, counts, positions, AREA)
    elif GRAD:
        fine_gradient(grad, local, errors, shares, column_signs, boxes, folds, centre, table, row_sums, counts,
                      pid - batch * SCALES,
                      (start1, start2, start3, start4, start5), batch, height, width, plane_units, stencils, windows,
                      window_rows, row_partials, gradient_rows, MEANS, AREA, ROWS)

