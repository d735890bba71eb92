# SPDX-License-Identifier: Apache-2.0
"""The host's side of an evaluation: which work there is, how it is cut up, how much workspace it takes.

Everything follows from shapes and from the choice of losses, nothing from the values of tensors: so nothing waits for
the device, and a step can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from mlr.kernels import counts, geometry, pyramid, slots, stencil
from mlr.kernels import windows as windows_
from mlr.kernels.arguments import Cut, Sizes, Variant, Wanted, Workspace
from mlr.kernels.configs import Shapes
from mlr.kernels.slots import KINDS
from mlr.losses.reference import scale_size
from mlr.losses.space import FAMILIES, SCALES, WINDOWS

TILE: int = geometry.TILE.value
PAD: int = geometry.PAD.value
BLOCK_ROWS: int = windows_.BLOCK_ROWS.value
STRIP: int = stencil.STRIP.value
SLOTS: int = slots.SLOTS.value
TABLE_PITCH: int = slots.TABLE_PITCH.value
#: Rows of scale 0 that a program makes all scales of, under a mask and `area`.
AREA_ROWS: int = pyramid.AREA_ROWS.value

#: Kinds whose sums the row windows make; the stencils make the others.
BY_ROWS = frozenset(FAMILIES["mean"])
#: Most partial sums of an image and scale: single programs add them up.
MAX_PARTIALS = 1024


def cdiv(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def pitch(w: int) -> int:
    """Elements from one row of a plane to the next (geometry.pitch_of)."""
    return cdiv(w, TILE) * TILE + 2 * PAD


def quads(w: int) -> int:
    """Width rounded up to whole quads (geometry.quads_of)."""
    return cdiv(w, 4) * 4


def _aligned(n: int) -> int:
    """Elements, rounded up so that the next tensor starts on a 16-byte boundary even if they are bytes."""
    return cdiv(n, 16) * 16


@dataclass(frozen=True, eq=False)  # one object for each choice: compared by identity
class Plan:
    """One evaluation: numbers for the kernels, sizes of the workspace, programs of each launch.

    Attributes:
        order: ascending order of the caller's losses; None if they are in it.
        place: each one's place in that order; None likewise.
        variant: which variants of the kernels it takes.
        sizes: of the maps.
        wanted: the choice of losses.
        cut: how the work is cut into programs.
        elements: of the tensors of the workspace.
        columns: programs that all images have together in phase 1 for the column sums of scale 0.
        quads: for scales that are made together.
        blocks: programs that an image has in phase 1 for each other scale from 1 on.
        coarse_windows: in phase 2 for the windows of each scale from 1 on.
        strips: in phase 2 for the stencils of each scale from 0 on.
        coarse_gradients: in phase 3 for the gradient of each scale from 1 on.
        grids: programs of each phase.
    """

    order: tuple[int, ...] | None
    place: tuple[int, ...] | None
    variant: Variant
    sizes: Sizes
    wanted: Wanted
    cut: Cut
    elements: Workspace
    columns: int
    quads: int
    blocks: tuple[int, ...]
    coarse_windows: tuple[int, ...]
    strips: tuple[int, ...]
    coarse_gradients: tuple[int, ...]
    grids: tuple[int, int, int, int]


@lru_cache(maxsize=512)
def plan(
    batch: int,
    height: int,
    width: int,
    terms: tuple[int, ...],
    downsample: str,
    grad: bool,
    shapes: Shapes,
    masked: bool = False,
) -> Plan:
    """The plan for losses ``terms`` of maps [batch, height, width]."""
    order = tuple(sorted(range(len(terms)), key=terms.__getitem__))
    place = tuple(sorted(range(len(terms)), key=order.__getitem__))
    sorted_already = order == place == tuple(range(len(terms)))
    kinds: list[set[str]] = [set() for _ in range(SCALES)]
    bits = [0] * SCALES
    for term in terms:
        k, kind = divmod(term, len(KINDS))
        kinds[k].add(KINDS[kind])
        bits[k] |= 1 << kind
    windows = sum(1 << k for k in range(SCALES) if kinds[k] & BY_ROWS)
    stencils = sum(1 << k for k in range(SCALES) if kinds[k] - BY_ROWS)
    means = any(k & WINDOWS.keys() for k in kinds)

    def listed(bits: int, counts: Sequence[int]) -> tuple[int, ...]:
        return tuple(n if bits >> k & 1 else 0 for k, n in enumerate(counts))

    if height * pitch(width) >= 2**31:
        raise ValueError(
            f"the GPU engine takes maps of less than 2^31 pixels, padding included, got {height} x {width}; "
            "cut them into tiles"
        )
    sizes = [scale_size(height, width, k, downsample) for k in range(SCALES)]
    planes = [batch * h * pitch(w) for h, w in sizes]
    plane, planes_of_coarse = sum(planes), sum(planes[1:])
    maps = len(WINDOWS) * plane if grad and means else 0
    column_rows, window_rows, coarse_window_rows = shapes.column_rows, shapes.window_rows, shapes.coarse_window_rows
    strip_rows = shapes.strip_rows
    while cdiv(width, TILE) * cdiv(height, min(column_rows, window_rows)) > MAX_PARTIALS:
        column_rows, window_rows, coarse_window_rows = 2 * column_rows, 2 * window_rows, 2 * coarse_window_rows
    while cdiv(width, STRIP) * cdiv(height, strip_rows) > MAX_PARTIALS:
        strip_rows *= 2
    reps = max(1, sizes[1][0] * sizes[1][1] // (MAX_PARTIALS * shapes.block))
    if masked:
        column_rows = BLOCK_ROWS  # its programs make one block of column sums
    column_tiles = cdiv(width, shapes.block)
    columns = column_tiles * cdiv(height, column_rows)
    # scales 1 and 2 are made together where rows consist of whole quads
    quad_programs = 0
    if width % 4 == 0 and downsample == "bicubic" and min(height, width) >= 4:
        quad_programs = cdiv(width, TILE) * cdiv(cdiv(height, 4), shapes.quad_rows)
    blocks = [cdiv(h * quads(w), shapes.block * reps) for h, w in sizes]
    area_tiles = masked and downsample == "area"
    if area_tiles:  # all scales together
        quad_programs = cdiv(width, TILE) * cdiv(height, AREA_ROWS)
    together = 0b111110 if area_tiles else 0b110 if quad_programs else 0
    used = stencils | windows
    listed_blocks = listed(used & ~together & ~1, blocks)
    count_parts = [
        cdiv(cdiv(w, counts.COUNTED.value) * cdiv(h, counts.COUNT_ROWS.value), counts.COUNT_STRIPS.value)
        for h, w in sizes
    ]
    strips = [cdiv(w, STRIP) * cdiv(h, strip_rows) for h, w in sizes]
    tiles = [
        cdiv(h, coarse_window_rows) if k else cdiv(w, TILE) * cdiv(h, window_rows) for k, (h, w) in enumerate(sizes)
    ]
    coarse_windows = listed(windows & ~1, tiles)
    strip_groups = listed(stencils, [cdiv(n, shapes.strips) for n in strips])
    coarse_gradients = listed(used & ~1 if grad else 0, [cdiv(h, shapes.coarse_rows) for h, _ in sizes])
    listed_columns = columns if (used if masked else windows) & 1 else 0  # under a mask they also store E
    listed_quads = quad_programs if used & together else 0
    counting = sum(listed(used, count_parts)) if masked else 0
    grids = (
        listed_columns + listed_quads + sum(listed_blocks) + counting + 1,
        sum(coarse_windows) + sum(strip_groups) + (tiles[0] if windows & 1 else 0),
        sum(coarse_gradients) + (len(WINDOWS) * cdiv(height, shapes.sign_rows) if maps and windows & 1 else 0),
        SCALES + (cdiv(width, TILE) * cdiv(height, shapes.gradient_rows) if grad else 0),
    )
    errors_partials = max(columns, quad_programs, *blocks[1:])
    borders = len(WINDOWS) * batch * SCALES * 2 if maps and not masked else 0  # rows or columns at the border
    elements = Workspace(
        errors=plane if masked else planes_of_coarse,
        targets=plane if masked else planes_of_coarse,
        sums=(2 if masked else 1) * len(WINDOWS) * plane if means else 0,
        signs=maps,
        column_signs=0 if masked else maps,  # phase 1's column sums are no longer needed then (see launch)
        borders=borders * pitch(width),
        boxes=borders * pitch(width),
        folds=borders * height,
        local=plane if grad else 0,
        centre=plane if grad else 0,
        table=batch * TABLE_PITCH,
        partials=batch * SCALES * errors_partials,
        strip_sums=batch * SCALES * max(strips) * SLOTS,
        row_sums=batch * SCALES * max(tiles) * SLOTS,
        shares=planes_of_coarse if area_tiles else 0,
        counts=batch * SCALES * count_parts[0] * SLOTS if masked else 0,
    )
    return Plan(
        order=None if sorted_already else order,
        place=None if sorted_already else place,
        variant=Variant(
            MEANS=means,
            NORMALS=any(k & set(FAMILIES["normal"]) for k in kinds),
            GRAD=grad,
            AREA=downsample == "area",
            MASKED=masked,
            ALIGNED=width % 4 == 0,
        ),
        sizes=Sizes(batch, height, width, plane // 64, tuple(sum(planes[:k]) // 64 for k in range(1, SCALES))),
        wanted=Wanted(tuple(bits[k] | bits[k + 1] << len(KINDS) for k in (0, 2, 4)), len(terms), stencils, windows),
        cut=Cut(
            column_rows=column_rows,
            column_tiles=column_tiles,
            window_rows=window_rows,
            coarse_window_rows=coarse_window_rows,
            strip_rows=strip_rows,
            gradient_rows=shapes.gradient_rows,
            reps=reps,
            coarse_pixels=shapes.block * reps,
            quad_partials=quad_programs,
            errors_partials=errors_partials,
            strip_partials=max(strips),
            row_partials=max(tiles),
        ),
        elements=Workspace(*map(_aligned, elements)),
        columns=batch * listed_columns,
        quads=batch * listed_quads,
        blocks=listed_blocks[1:],
        coarse_windows=coarse_windows[1:],
        strips=strip_groups,
        coarse_gradients=coarse_gradients[1:],
        grids=(batch * grids[0], batch * grids[1], batch * grids[2], batch * grids[3]),
    )
