# SPDX-License-Identifier: Apache-2.0
"""The host's side of an evaluation: which work there is, how it is cut up, how much workspace it takes.

Everything follows from shapes and from the choice of losses, nothing from the values of tensors: so nothing waits for
the device, and a step can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from mlr.kernels import counts, geometry, slots, stencil
from mlr.kernels import windows as windows_
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
    """Elements of four bytes, rounded up so that the next tensor starts on a 16-byte boundary."""
    return cdiv(n, 4) * 4


@dataclass(frozen=True)
class Plan:
    """One evaluation: numbers for the kernels, sizes of the workspace, programs of each launch."""

    order: tuple[int, ...] | None  # ascending order of the caller's losses, and each one's place in it;
    place: tuple[int, ...] | None  # None if they are in it
    grad: bool
    area: bool
    masked: bool
    terms: tuple[int, int, int]  # bits of the wanted losses, two scales in each
    count: int
    stencils: int  # bits of the scales with losses of the stencils
    windows: int  # bits of the scales with losses of the windows
    means: bool  # whether any is a local mean
    normals: bool  # whether any is a normal
    aligned: bool  # whether rows consist of whole quads
    column_rows: int
    column_tiles: int
    window_rows: int
    coarse_window_rows: int
    strip_rows: int
    reps: int
    quad_partials: int
    errors_partials: int
    strip_partials: int
    row_partials: int
    workspace: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # float32, bytes and int32 (see launch)
    plane_units: int  # elements of a plane / 64
    starts: tuple[int, ...]  # first element of the scales from 1 on in a plane / 64
    columns: int  # programs that all images have together: column sums of scale 0, scales 1 and 2 together
    quads: int
    blocks: tuple[int, ...]  # programs an image has at each scale: other coarse pixels, windows of coarse maps,
    coarse_windows: tuple[int, ...]  # stencils (from scale 0 on), gradients of coarse maps
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
        quad_programs = cdiv(width, TILE) * cdiv(height, 32)
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
    sign_maps = 0 if masked else maps
    borders = len(WINDOWS) * batch * SCALES * 2 if sign_maps else 0  # rows or columns at the border
    partial_counts = batch * SCALES * count_parts[0] * SLOTS if masked else 0
    floats = (
        plane if masked else planes_of_coarse,  # errors: E^k, k >= 1, under a mask k >= 0
        plane if masked else planes_of_coarse,  # targets: T^k
        (2 if masked else 1) * len(WINDOWS) * plane if means else 0,  # sums: of columns of E, and of V under a mask
        plane if grad else 0,  # local: gradient of the stencils, later the whole gradient of coarse scales
        plane if grad else 0,  # centre: gradient of the means that stays at its own pixel
        batch * TABLE_PITCH,  # table: weights by slot
        batch * SCALES * errors_partials,  # partials: sums of E^k
        batch * SCALES * max(strips) * SLOTS,  # strip_sums
        batch * SCALES * max(tiles) * SLOTS,  # row_sums
        maps if masked else 0,  # cotangents: signs over the numbers of known pixels
        planes_of_coarse if area_tiles else 0,  # shares: 1 / number of known children
    )
    return Plan(
        order=None if sorted_already else order,
        place=None if sorted_already else place,
        grad=grad,
        area=downsample == "area",
        masked=masked,
        terms=(
            bits[0] | bits[1] << len(KINDS),
            bits[2] | bits[3] << len(KINDS),
            bits[4] | bits[5] << len(KINDS),
        ),
        count=len(terms),
        stencils=stencils,
        windows=windows,
        means=means,
        normals=any(k & set(FAMILIES["normal"]) for k in kinds),
        aligned=width % 4 == 0,
        column_rows=column_rows,
        column_tiles=column_tiles,
        window_rows=window_rows,
        coarse_window_rows=coarse_window_rows,
        strip_rows=strip_rows,
        reps=reps,
        quad_partials=quad_programs,
        errors_partials=errors_partials,
        strip_partials=max(strips),
        row_partials=max(tiles),
        workspace=(
            tuple(map(_aligned, floats)),
            (sign_maps, sign_maps),  # signs, column_signs
            # borders, boxes, folds (see adjoint), counts
            tuple(map(_aligned, (borders * pitch(width), borders * pitch(width), borders * height, partial_counts))),
        ),
        plane_units=plane // 64,
        starts=tuple(sum(planes[:k]) // 64 for k in range(1, SCALES)),
        columns=batch * listed_columns,
        quads=batch * listed_quads,
        blocks=listed_blocks[1:],
        coarse_windows=coarse_windows[1:],
        strips=strip_groups,
        coarse_gradients=coarse_gradients[1:],
        grids=(batch * grids[0], batch * grids[1], batch * grids[2], batch * grids[3]),
    )
