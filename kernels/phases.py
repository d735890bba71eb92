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
    known_sizes,
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


@triton.jit
def pyramid_kernel(maps, weights, work, sizes, wanted, cut, coarse, column_programs, quad_programs,
                   VARIANT: tl.constexpr, BLOCK: tl.constexpr, QUAD_ROWS: tl.constexpr):
    """Phase 1. A program is a segment of columns of scale 0, a block of coarse pixels or an image's weights; under a
    mask also some strips of a scale, on which it counts positions.

    ``coarse``: programs an image has for each scale from 1 on.
    """
    pid = tl.program_id(0)
    sizes = known_sizes(sizes, VARIANT.ALIGNED)
    if pid < column_programs:
        fine_columns(maps, work, sizes, cut, pid, VARIANT.MEANS, BLOCK)
    elif pid < column_programs + quad_programs:
        per_image = quad_programs // sizes.batch
        image = ((pid - column_programs) // per_image).to(tl.int64)
        part = (pid - column_programs) % per_image
        if VARIANT.AREA and VARIANT.MASKED:
            reduce_area(maps, work, sizes, cut, part, image)
        elif VARIANT.ALIGNED and not VARIANT.AREA:
            reduce_quads(maps, work, sizes, wanted, cut, part, image, QUAD_ROWS)
    else:
        scale, image, part, rest = locate(pid - column_programs - quad_programs, sizes.batch, (0,) + coarse)
        if scale > 0:
            if not (VARIANT.AREA and VARIANT.MASKED):
                reduce_maps(maps, work, sizes, cut, part, scale, image, VARIANT.AREA, BLOCK)
        elif VARIANT.MASKED:
            used = wanted.stencils | wanted.windows
            parts = ()
            for k in tl.static_range(SCALES):
                parts += (((used >> k) & 1) * count_parts(k, sizes.height, sizes.width, VARIANT.AREA),)
            scale, image, part, rest = locate(rest, sizes.batch, parts)
            if scale >= 0:
                count_positions(maps.mask, work.counts, scale, image, part, sizes.height, sizes.width, VARIANT.AREA)
            else:
                weight_table(weights, work.table, rest.to(tl.int64), sizes, wanted, VARIANT.GRAD, VARIANT.AREA, True)
        else:
            weight_table(weights, work.table, rest.to(tl.int64), sizes, wanted, VARIANT.GRAD, VARIANT.AREA, False)


@triton.jit
def strips(maps, work, sizes, cut, scale, image, part, VARIANT: tl.constexpr, STRIPS: tl.constexpr,
           UNROLL: tl.constexpr):
    """Stencils on ``STRIPS`` strips of a map."""
    height, width = sizes.height, sizes.width
    h, w = scale_size(height, width, scale, VARIANT.AREA)
    pitch = pitch_of(w)
    per_row = tl.cdiv(w, STRIP)
    worker = part * STRIPS + tl.arange(0, STRIPS)
    y0 = ((worker // per_row) * cut.strip_rows)[:, None]
    x0 = ((worker % per_row) * STRIP)[:, None]
    partial = work.strip_sums + ((image * SCALES + scale) * cut.strip_partials + worker) * SLOTS
    active = worker < per_row * tl.cdiv(h, cut.strip_rows)
    plane = plane_offset(scale, sizes.starts) + image * h * pitch.to(tl.int64) + PAD
    errors = work.errors + (plane - before_errors(sizes.starts, VARIANT.MASKED))
    targets = work.targets + (plane - before_errors(sizes.starts, VARIANT.MASKED))
    local = work.local + plane
    start = image * height * width.to(tl.int64)
    weights = work.table + image * TABLE_PITCH + scale * SLOTS
    if VARIANT.MASKED:
        numbers = position_counts(work.counts, scale, image, height, width, VARIANT.AREA)
        walk(errors, targets, None, pitch, weights, numbers, local, pitch, y0, cut.strip_rows, x0, h, w, partial,
             active, STRIPS, VARIANT.NORMALS, VARIANT.GRAD, UNROLL)
    elif maps.pred.dtype.element_ty == tl.float32:  # one walk serves both sources
        if scale == 0:
            errors = maps.pred + start
            targets = maps.target + start
        walk(errors, targets, tl.where(scale == 0, -1.0, 0.0), tl.where(scale == 0, width, pitch), weights, None,
             local, pitch, y0, cut.strip_rows, x0, h, w, partial, active, STRIPS, VARIANT.NORMALS, VARIANT.GRAD, UNROLL)
    elif scale == 0:
        walk(maps.pred + start, maps.target + start, -1.0, width, weights, None, local, pitch, y0, cut.strip_rows, x0,
             h, w, partial, active, STRIPS, VARIANT.NORMALS, VARIANT.GRAD, UNROLL)
    else:
        walk(errors, targets, 0.0, pitch, weights, None, local, pitch, y0, cut.strip_rows, x0, h, w, partial, active,
             STRIPS, VARIANT.NORMALS, VARIANT.GRAD, UNROLL)


@triton.jit
def losses_kernel(maps, work, sizes, cut, coarse, coarse_programs, strip_parts, strip_programs, VARIANT: tl.constexpr,
                  COLUMNS: tl.constexpr, ROWS: tl.constexpr, STRIPS: tl.constexpr, UNROLL: tl.constexpr):
    """Phase 2. A program is windows on rows of a coarse map, stencils on strips, or windows on a tile of scale 0.

    ``coarse`` and ``strip_parts``: programs of the first two sorts that an image has for each scale, from 1 and from 0
    on.
    """
    pid = tl.program_id(0)
    sizes = known_sizes(sizes, VARIANT.ALIGNED)
    if pid < coarse_programs:
        scale, image, part, _ = locate(pid, sizes.batch, (0,) + coarse)
        coarse_windows(work, sizes, cut, scale, image, part, VARIANT, COLUMNS, ROWS)
    elif pid < coarse_programs + strip_programs:
        scale, image, part, _ = locate(pid - coarse_programs, sizes.batch, strip_parts)
        strips(maps, work, sizes, cut, scale, image, part, VARIANT, STRIPS, UNROLL)
    else:
        fine_windows(maps, work, sizes, cut, pid - coarse_programs - strip_programs, VARIANT, ROWS)


@triton.jit
def columns_kernel(work, sizes, wanted, cut, coarse, coarse_programs, VARIANT: tl.constexpr, SIGN_ROWS: tl.constexpr,
                   COARSE_ROWS: tl.constexpr, WORDS: tl.constexpr, ROWS: tl.constexpr):
    """Phase 3. A program is some rows of a coarse map, or of one sign map of scale 0.

    ``coarse``: programs of the first sort that an image has for each scale from 1 on.
    """
    pid = tl.program_id(0)
    if pid < coarse_programs:
        scale, image, part, _ = locate(pid, sizes.batch, (0,) + coarse)
        y0 = part * COARSE_ROWS
        rows = COARSE_ROWS
        first = 0
        last = 3 * ((wanted.windows >> scale) & 1)
    else:
        rest = pid - coarse_programs
        per_map = tl.cdiv(sizes.height, SIGN_ROWS)
        scale = 0
        image = (rest // (3 * per_map)).to(tl.int64)
        first = (rest % (3 * per_map)) // per_map
        last = first + 1
        y0 = (rest % per_map) * SIGN_ROWS
        rows = SIGN_ROWS
    h, w = scale_size(sizes.height, sizes.width, scale, VARIANT.AREA)
    y1 = tl.minimum(y0 + rows, h)
    plane = plane_offset(scale, sizes.starts) + image * h * pitch_of(w).to(tl.int64)
    if VARIANT.MEANS and VARIANT.MASKED:
        masked_sign_sums(work.signs, work.column_signs, scale, plane, plane_size(sizes.plane_units), first, last, y0,
                         y1, h, w, SIGN_ROWS, COARSE_ROWS)
        tl.debug_barrier()
    elif VARIANT.MEANS:
        sign_sums(work, sizes, scale, image, plane, first, last, y0, y1, h, w, WORDS, SIGN_ROWS, COARSE_ROWS)
        tl.debug_barrier()
    if scale > 0:
        coarse_gradient(work, sizes, wanted, cut, scale, image, plane, y0, y1, h, w, VARIANT.MEANS, VARIANT.AREA,
                        ROWS * TILE // COARSE_TILE, COARSE_TILE)


@triton.jit
def gradient_kernel(grad, terms, positions, work, sizes, wanted, cut, VARIANT: tl.constexpr, ROWS: tl.constexpr):
    """Phase 4. A program is a tile of the gradient, or the losses of one image and scale."""
    pid = tl.program_id(0)
    sizes = known_sizes(sizes, VARIANT.ALIGNED)
    if pid < sizes.batch * SCALES:
        term_values(terms, positions, work, sizes, wanted, cut, (pid // SCALES).to(tl.int64), pid % SCALES,
                    VARIANT.AREA)
    elif VARIANT.GRAD:
        fine_gradient(grad, work, sizes, wanted, cut, pid - sizes.batch * SCALES, VARIANT.MEANS, VARIANT.AREA, ROWS)
