# SPDX-License-Identifier: Apache-2.0
"""The operator: checks, workspace and the four launches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from mlr.kernels import phases
from mlr.kernels.plan import SLOTS, Plan, Shapes, ascending, pitch, plan
from mlr.space import SCALES

SHAPES = Shapes()


def multi_loss(
    pred: Tensor, target: Tensor, weights: Tensor | None, terms: Sequence[int], downsample: str = "bicubic"
) -> tuple[Tensor, Tensor]:
    """Values of the losses ``terms`` and the gradient of their weighted sum."""
    order = sorted(range(len(terms)), key=terms.__getitem__)
    if not ascending(terms):
        weights = None if weights is None else torch.stack([weights[:, j] for j in order], 1)
        values, grad = multi_loss(pred, target, weights, [terms[j] for j in order], downsample)
        place = {j: i for i, j in enumerate(order)}
        return torch.stack([values[:, place[j]] for j in range(len(terms))], 1), grad
    batch, height, width = pred.shape[0], pred.shape[-2], pred.shape[-1]
    shapes = SHAPES
    p = plan(batch, height, width, tuple(terms), downsample, weights is not None, shapes)
    pred, target = pred.contiguous(), target.contiguous()
    with torch.cuda.device(pred.device) if pred.is_cuda else nullcontext():
        return _launch(pred, target, weights, p, len(terms), downsample == "area", shapes)


def _launch(
    pred: Tensor, target: Tensor, weights: Tensor | None, p: Plan, count: int, area: bool, shapes: Shapes
) -> tuple[Tensor, Tensor]:
    batch, height, width = pred.shape[0], pred.shape[-2], pred.shape[-1]
    device = pred.device
    has_grad = weights is not None
    grad = torch.empty(pred.shape if has_grad else 0, dtype=pred.dtype, device=device)
    terms = torch.empty((batch, count), dtype=torch.float32, device=device)

    def floats(n: int) -> Tensor:
        return torch.empty(max(n, 1), dtype=torch.float32, device=device)

    def ints(n: int) -> Tensor:
        return torch.empty(max(n, 1), dtype=torch.int32, device=device)

    def bytes_(n: int) -> Tensor:
        return torch.empty(max(n, 1), dtype=torch.uint8, device=device)

    signs_needed = p.plane if has_grad and p.means else 0
    errors, targets = floats(p.coarse), floats(p.coarse)
    sums = floats(3 * p.plane if p.means else 0)
    signs, column_signs = bytes_(3 * signs_needed), bytes_(3 * signs_needed)
    border = 3 * batch * SCALES * 2 if signs_needed else 0
    borders, boxes, folds = ints(border * pitch(width)), ints(border * pitch(width)), ints(border * height)
    local, centre = floats(p.plane if has_grad else 0), floats(p.plane if has_grad else 0)
    table = floats(batch * 128)
    partials = floats(batch * SCALES * p.errors_partials)
    strip_sums = floats(batch * SCALES * p.strip_partials * SLOTS)
    row_sums = floats(batch * SCALES * p.row_partials * SLOTS)
    if weights is None:
        weights = table
    else:
        weights = weights.contiguous()
    warps = shapes.warps
    phases.pyramid_kernel[(p.grids[0],)](
        pred, target, weights, errors, targets, sums, table, partials, batch, height, width, *p.masks, count,
        p.stencils, p.windows, p.rows0, p.reps, p.column_tiles, p.errors_partials,
        MEANS=p.means, GRAD=has_grad, AREA=area, QUADS=p.quads, BLOCK=shapes.block, QUAD_ROWS=shapes.quad_rows,
        num_warps=shapes.pyramid_warps,
    )  # fmt: skip
    phases.losses_kernel[(p.grids[1],)](
        pred, target, errors, targets, sums, signs, local, centre, table, partials, strip_sums, row_sums,
        batch, height, width, p.stencils, p.windows, p.rows0, p.rows, p.strip_rows,
        shapes.block * p.reps, p.column_tiles, p.quad_partials, p.errors_partials, p.strip_partials, p.row_partials,
        MEANS=p.means, NORMALS=p.normals, GRAD=has_grad, AREA=area, QUADS=p.quads, COLUMNS=shapes.columns,
        ROWS=shapes.losses_tile, WARPS=shapes.losses_warps, UNROLL=shapes.unroll, num_warps=shapes.losses_warps,
    )  # fmt: skip
    if p.grids[2]:
        phases.columns_kernel[(p.grids[2],)](
            signs, column_signs, borders, boxes, folds, local, centre, table, row_sums, batch, height, width, p.stencils, p.windows,
            p.rows, shapes.sign_rows, shapes.coarse_rows, p.row_partials,
            MEANS=p.means, AREA=area, WORDS=shapes.words, ROWS=shapes.columns_tile, num_warps=shapes.columns_warps,
        )  # fmt: skip
    phases.gradient_kernel[(p.grids[3],)](
        grad, terms, local, column_signs, boxes, folds, centre, table, strip_sums, row_sums, batch, height, width, *p.masks,
        count, p.stencils, p.windows, p.rows0, p.rows, p.strip_rows, p.strip_partials, p.row_partials,
        p.tile_rows,
        MEANS=p.means, GRAD=has_grad, AREA=area, ROWS=shapes.tile, num_warps=warps,
    )  # fmt: skip
    return terms, grad
