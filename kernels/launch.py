# SPDX-License-Identifier: Apache-2.0
"""The operator on the host: workspace and the four launches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from mlr.kernels import phases
from mlr.kernels.configs import Shapes, shapes_for
from mlr.kernels.plan import SLOTS, Plan, ascending, plan
from mlr.space import SCALES, WINDOWS


def multi_loss(
    pred: Tensor,
    target: Tensor,
    weights: Tensor | None,
    terms: Sequence[int],
    downsample: str = "bicubic",
    *,
    shapes: Shapes | None = None,
) -> tuple[Tensor, Tensor]:
    """Losses of every image and the gradient of their weighted sum, from four launches.

    Args:
        pred: predicted depth [B, 1, H, W] or [B, H, W], float32, float16 or bfloat16; sums are made in float32.
        target: true depth, the same shape and type.
        weights: [B, n], or None when no gradient is wanted.
        terms: distinct indices ``13 * scale + kind``, in any order.
        downsample: "bicubic" or "area".
        shapes: block shapes, for measurements; by default those of the device.

    Returns:
        ``(terms [B, n] float32, grad)``: ``grad`` has the shape and type of ``pred``, or is empty without weights.
    """
    if not ascending(terms):
        return _in_order(pred, target, weights, terms, downsample, shapes)
    shapes = shapes or shapes_for(pred.device)
    p = plan(
        pred.shape[0], pred.shape[-2], pred.shape[-1], tuple(terms), downsample, weights is not None, shapes
    )
    with _on(pred.device):
        return _launch(_dense(pred), _dense(target), weights, p, downsample == "area", shapes)


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Launches go to the current device, so the tensors' has to be it."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _dense(x: Tensor) -> Tensor:
    """A contiguous tensor that starts on a 16-byte boundary: loads of four pixels rely on it."""
    x = x.detach().contiguous()
    return x.clone() if x.data_ptr() % 16 else x


def _in_order(
    pred: Tensor, target: Tensor, weights: Tensor | None, terms: Sequence[int], downsample: str, shapes: Shapes | None
) -> tuple[Tensor, Tensor]:
    """The kernels number the columns in the order of Table 1; other orders are permuted here, without index tensors,
    whose copy to the device could not be captured in a graph."""
    order = sorted(range(len(terms)), key=terms.__getitem__)
    place = sorted(range(len(terms)), key=order.__getitem__)
    if weights is not None:
        weights = torch.stack([weights[:, j] for j in order], dim=1)
    values, grad = multi_loss(pred, target, weights, [terms[j] for j in order], downsample, shapes=shapes)
    return torch.stack([values[:, i] for i in place], dim=1), grad


def _launch(
    pred: Tensor, target: Tensor, weights: Tensor | None, p: Plan, area: bool, shapes: Shapes
) -> tuple[Tensor, Tensor]:
    batch, height, width = pred.shape[0], pred.shape[-2], pred.shape[-1]
    has_grad = weights is not None
    device = pred.device

    def empty(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(max(n, 1), dtype=dtype, device=device)

    terms = torch.empty((batch, p.count), dtype=torch.float32, device=device)
    grad = torch.empty(pred.shape if has_grad else 0, dtype=pred.dtype, device=device)
    errors, targets = empty(p.coarse), empty(p.coarse)  # E^k and T^k, k >= 1
    sums = empty(p.means * 3 * p.plane)  # of columns of E
    local, centre = empty(has_grad * p.plane), empty(has_grad * p.plane)  # gradient: of stencils, of the signs' own pixel
    maps = has_grad * p.means * len(WINDOWS)
    signs, column_signs = empty(maps * p.plane, torch.uint8), empty(maps * p.plane, torch.uint8)
    borders = maps * batch * SCALES * 2  # rows or columns at the border
    border_signs, boxes = empty(borders * p.pitch, torch.int32), empty(borders * p.pitch, torch.int32)
    folds = empty(borders * height, torch.int32)
    table = empty(batch * 128)  # weights by slot
    partials = empty(batch * SCALES * p.errors_partials)
    strip_sums = empty(batch * SCALES * p.strip_partials * SLOTS)
    row_sums = empty(batch * SCALES * p.row_partials * SLOTS)
    weights = table if weights is None else weights.detach().contiguous()

    phases.pyramid_kernel[(p.grids[0],)](
        pred, target, weights, errors, targets, sums, table, partials, batch, height, width, *p.terms, p.count,
        p.stencils, p.windows, p.column_rows, p.reps, p.column_tiles, p.errors_partials,
        MEANS=p.means, GRAD=has_grad, AREA=area, ALIGNED=p.aligned, BLOCK=shapes.block, QUAD_ROWS=shapes.quad_rows,
        num_warps=shapes.pyramid_warps,
    )  # fmt: skip
    phases.losses_kernel[(p.grids[1],)](
        pred, target, errors, targets, sums, signs, local, centre, table, partials, strip_sums, row_sums,
        batch, height, width, p.stencils, p.windows, p.column_rows, p.window_rows, p.coarse_window_rows, p.strip_rows,
        shapes.block * p.reps, p.column_tiles, p.quad_partials, p.errors_partials, p.strip_partials, p.row_partials,
        MEANS=p.means, NORMALS=p.normals, GRAD=has_grad, AREA=area, ALIGNED=p.aligned, COLUMNS=shapes.window_columns,
        ROWS=shapes.window_tile, WARPS=shapes.losses_warps, UNROLL=shapes.unroll, num_warps=shapes.losses_warps,
    )  # fmt: skip
    if p.grids[2]:
        phases.columns_kernel[(p.grids[2],)](
            signs, column_signs, border_signs, boxes, folds, local, centre, table, row_sums, batch, height, width,
            p.stencils, p.windows, p.coarse_window_rows, shapes.sign_rows, shapes.coarse_rows, p.row_partials,
            MEANS=p.means, AREA=area, WORDS=shapes.sign_words, ROWS=shapes.sign_tile, num_warps=shapes.columns_warps,
        )  # fmt: skip
    phases.gradient_kernel[(p.grids[3],)](
        grad, terms, local, column_signs, boxes, folds, centre, table, strip_sums, row_sums, batch, height, width,
        *p.terms, p.count, p.stencils, p.windows, p.window_rows, p.coarse_window_rows, p.strip_rows, p.strip_partials,
        p.row_partials, shapes.gradient_rows,
        MEANS=p.means, GRAD=has_grad, AREA=area, ALIGNED=p.aligned, ROWS=shapes.gradient_tile,
        num_warps=shapes.gradient_warps,
    )  # fmt: skip
    return terms, grad
