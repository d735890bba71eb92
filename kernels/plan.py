# SPDX-License-Identifier: Apache-2.0
"""The host's side of a launch: sizes, workspace, grids. Everything here follows from shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from mlr.reference import scale_size
from mlr.space import KINDS, SCALES

TILE = 128
STRIP = 28
SLOTS = 16
PAD = 32


def cdiv(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


@dataclass(frozen=True)
class Shapes:
    """Block shapes of the kernels: work per program, not results, depends on them."""

    block: int = 128
    columns: int = 256
    rows0: int = 32
    rows: int = 16
    strip_rows: int = 16
    quad_rows: int = 1
    unroll: int = 1
    tile: int = 4
    tile_rows: int = 16
    sign_rows: int = 32
    coarse_rows: int = 16
    words: int = 64
    columns_warps: int = 2
    columns_tile: int = 2
    pyramid_warps: int = 1
    losses_warps: int = 2
    losses_tile: int = 2
    warps: int = 4


@dataclass(frozen=True)
class Plan:
    """One evaluation: which work there is and how it is cut up."""

    sizes: tuple[tuple[int, int], ...]
    plane: int
    coarse: int
    masks: tuple[int, int, int]
    stencils: int
    windows: int
    means: bool
    normals: bool
    reps: int
    rows0: int
    rows: int
    strip_rows: int
    tile_rows: int
    quads: bool
    column_tiles: int
    quad_partials: int
    errors_partials: int
    strip_partials: int
    row_partials: int
    grids: tuple[int, int, int, int]


def pitch(w: int) -> int:
    """Elements from one row of a plane to the next."""
    return cdiv(w, TILE) * TILE + 2 * PAD


@lru_cache(maxsize=256)
def plan(
    batch: int, height: int, width: int, terms: tuple[int, ...], downsample: str, grad: bool, shapes: Shapes
) -> Plan:
    """Plan of an evaluation of ``terms`` (ascending) on maps [batch, height, width]."""
    kinds: list[set[str]] = [set() for _ in range(SCALES)]
    bits = [0] * SCALES
    for term in terms:
        k, kind = divmod(term, len(KINDS))
        kinds[k].add(KINDS[kind])
        bits[k] |= 1 << kind
    box = {"M5", "M17", "M65"}
    windows = sum(1 << k for k in range(SCALES) if kinds[k] & (box | {"M"}))
    stencils = sum(1 << k for k in range(SCALES) if kinds[k] - (box | {"M"}))
    sizes = tuple(scale_size(height, width, k, downsample) for k in range(SCALES))
    planes = [batch * h * pitch(w) for h, w in sizes]
    rows0, rows, strip_rows = shapes.rows0, shapes.rows, shapes.strip_rows
    # partial sums are added up by single programs later on: bound their number on large maps
    while cdiv(width, TILE) * cdiv(height, rows0) > 512:
        rows0, rows = 2 * rows0, 2 * rows
    while cdiv(width, STRIP) * cdiv(height, strip_rows) > 1024:
        strip_rows *= 2
    reps = max(1, sizes[1][0] * sizes[1][1] // (256 * shapes.block))
    blocks = [cdiv(h * cdiv(w, 4) * 4, shapes.block * reps) for h, w in sizes]
    quads = width % 4 == 0
    column_tiles = cdiv(width, shapes.block)
    column_programs = column_tiles * cdiv(height, rows0)
    quad_programs = 0
    if quads and downsample == "bicubic" and min(height, width) >= 4:
        quad_programs = cdiv(width, TILE) * cdiv(cdiv(height, 4), shapes.quad_rows)
    strips = [cdiv(w, STRIP) * cdiv(h, strip_rows) for h, w in sizes]
    tiles = [cdiv(w, TILE) * cdiv(h, rows0 if k == 0 else rows) for k, (h, w) in enumerate(sizes)]
    active = [k for k in range(1, SCALES) if (stencils | windows) >> k & 1]
    window_parts = {k: cdiv(sizes[k][0], rows) for k in range(1, SCALES)}
    gradient_parts = {k: cdiv(sizes[k][0], shapes.coarse_rows) for k in range(1, SCALES)}
    box_anywhere = any(k & box for k in kinds)
    grids = (
        (column_programs * batch if windows & 1 else 0)
        + (quad_programs * batch if (stencils | windows) & 6 else 0)
        + sum(batch * blocks[k] for k in active if k > 2 or not quad_programs)
        + batch,
        sum(batch * window_parts[k] for k in range(1, SCALES) if windows >> k & 1)
        + sum(batch * cdiv(strips[k], shapes.losses_warps) for k in range(SCALES) if stencils >> k & 1)
        + (batch * tiles[0] if windows & 1 else 0),
        (sum(batch * gradient_parts[k] for k in active) + (3 * batch * cdiv(height, shapes.sign_rows) if windows & 1 and box_anywhere else 0))
        if grad
        else 0,
        batch * SCALES + (batch * cdiv(width, TILE) * cdiv(height, shapes.tile_rows) if grad else 0),
    )
    return Plan(
        sizes=sizes,
        plane=sum(planes),
        coarse=sum(planes[1:]),
        masks=(bits[0] | bits[1] << 13, bits[2] | bits[3] << 13, bits[4] | bits[5] << 13),
        stencils=stencils,
        windows=windows,
        means=box_anywhere,
        normals=any(k & {"N", "Nr", "Nc"} for k in kinds),
        reps=reps,
        quads=quads,
        column_tiles=column_tiles,
        quad_partials=quad_programs,
        rows0=rows0,
        rows=rows,
        strip_rows=strip_rows,
        tile_rows=shapes.tile_rows,
        errors_partials=max(column_programs, quad_programs, *blocks[1:]),
        strip_partials=max(strips),
        row_partials=max(tiles),
        grids=grids,
    )


def ascending(terms: Sequence[int]) -> bool:
    """Whether the terms come in the order of Table 1."""
    return all(a < b for a, b in zip(terms, terms[1:], strict=False))
