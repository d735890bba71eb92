# SPDX-License-Identifier: Apache-2.0
"""The operator on the host: compiled kernels, workspace and the four launches.

A call of a Triton kernel through its decorator binds and inspects forty arguments in Python, which takes longer than
the kernel. Here all tensors are contiguous, start on 16-byte boundaries and have types known beforehand, so that the
kernels are compiled once for each choice of constants (``compiled``) and launched directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor
from triton.runtime.jit import JITFunction, MockTensor

from mlr.kernels import phases
from mlr.kernels.configs import Shapes, compiler_options, masked_shapes, shapes_for
from mlr.kernels.plan import Plan, plan
from mlr.kernels.slots import KINDS
from mlr.losses.space import SCALES

KERNELS = (phases.pyramid_kernel, phases.losses_kernel, phases.columns_kernel, phases.gradient_kernel)
#: Types of the pointers that do not point to float32 numbers; those to the maps of the caller have their type.
MAPS = ("pred", "target", "grad")
POINTERS = {
    "mask": torch.uint8,
    "signs": torch.uint8,
    "column_signs": torch.uint8,
    "borders": torch.int32,
    "boxes": torch.int32,
    "folds": torch.int32,
    "counts": torch.int32,
    "positions": torch.int64,
}

#: Bytes from which on an offset takes more than 31 bits. AMD's compiler uses shorter addresses below.
WIDE = 2**31


class WideTensor(MockTensor):
    """Stands for tensors of ``WIDE`` bytes or more when a kernel is compiled, as Triton's own does for smaller ones."""

    @staticmethod
    def ptr_range() -> int:
        """Bytes behind the pointer."""
        return WIDE


def multi_loss(
    pred: Tensor,
    target: Tensor,
    weights: Tensor | None,
    indices: Sequence[int],
    downsample: str = "bicubic",
    mask: Tensor | None = None,
    *,
    shapes: Shapes | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses of every image and the gradient of their weighted sum, from four launches.

    Args:
        pred: predicted depth [B, 1, H, W] or [B, H, W], float32, float16 or bfloat16; sums are made in float32.
        target: true depth, the same shape and type.
        weights: [B, n], or None when no gradient is wanted.
        indices: distinct ``len(KINDS) * scale + kind``, in any order.
        downsample: "bicubic" or "area".
        mask: bool [B, 1, H, W] or [B, H, W], True where the depth is known; None if it is everywhere.
        shapes: block shapes, for measurements; by default those of the device.

    Returns:
        ``(terms [B, n] float32, grad, counts)``: ``grad`` has the shape and type of ``pred``, or is empty without
        weights; ``counts`` [B, n] int64 are the numbers of valid positions, or empty without a mask.
    """
    indices = tuple(indices)
    device = pred.device
    shapes = shapes or shapes_for(device)
    if mask is not None:
        shapes = masked_shapes(shapes)
    batch, height, width = pred.shape[0], pred.shape[-2], pred.shape[-1]
    p = plan(batch, height, width, indices, downsample, weights is not None, shapes, mask is not None)
    if weights is not None:
        # other orders are permuted without index tensors, whose copy to the device no graph could capture
        weights = weights if p.order is None else torch.stack([weights[:, j] for j in p.order], dim=1)
        weights = _dense(weights.to(torch.float32))
    with _on(device):
        flags = None if mask is None else _dense(mask).view(torch.uint8)
        values, grad, counts = _launch(_dense(pred), _dense(target), flags, weights, p, shapes)
    if p.place is not None:
        values = torch.stack([values[:, i] for i in p.place], dim=1)
        counts = counts if mask is None else torch.stack([counts[:, i] for i in p.place], dim=1)
    return values, grad, counts


def precompile(
    device: torch.device | str = "cuda",
    dtype: torch.dtype = torch.float32,
    indices: Sequence[int] = tuple(range(len(KINDS) * SCALES)),
    downsample: str = "bicubic",
    masked: bool = False,
) -> None:
    """Compile what a training step needs, so that the first one is as fast as the others.

    Kernels depend on the type of the maps, the reduction, which families of losses there are, whether there is a mask,
    and whether the width is a multiple of 4, but not on sizes, unless a tensor takes 2 GiB. Triton keeps them on disk.

    Args:
        device: the GPU to compile for.
        dtype: type of the maps.
        indices: the losses, as for :func:`multi_loss`.
        downsample: "bicubic" or "area".
        masked: whether the losses get a mask.

    Example:
        >>> mlr.kernels.precompile("cuda", torch.bfloat16, mlr.LossSpace("fine").indices)  # doctest: +SKIP
    """
    device = torch.device(device)
    shapes = masked_shapes(shapes_for(device)) if masked else shapes_for(device)
    with _on(device):
        for width in (64, 65):
            for grad in (True, False):
                p = plan(1, 64, width, tuple(indices), downsample, grad, shapes, masked)
                for kernel, constants, registers in zip(
                    KERNELS, constants_of(p, shapes), shapes.registers, strict=True
                ):
                    device_number = triton.runtime.driver.active.get_current_device()
                    compiled(kernel, dtype, constants, device_number, registers)


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device: switch to the tensors' device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _dense(x: Tensor) -> Tensor:
    """A contiguous tensor that starts on a 16-byte boundary, as the kernels are compiled for."""
    x = x.detach().contiguous()
    return x.clone() if x.data_ptr() % 16 else x


@lru_cache
def constants_of(p: Plan, shapes: Shapes) -> tuple[dict[str, int], ...]:
    """Compile-time arguments of the four kernels in the order of their signatures, and their warps."""
    bits = {
        "MEANS": p.means,
        "NORMALS": p.normals,
        "GRAD": p.grad,
        "AREA": p.area,
        "MASKED": p.masked,
        "ALIGNED": p.aligned,
    }

    def pick(names: str, warps: int, **blocks: int) -> dict[str, int]:
        return {name: bits[name] for name in names.split()} | blocks | {"num_warps": warps}

    return (
        pick("MEANS GRAD AREA MASKED ALIGNED", shapes.pyramid_warps, BLOCK=shapes.block, QUAD_ROWS=shapes.quad_rows),
        pick(
            "MEANS NORMALS GRAD AREA MASKED ALIGNED",
            shapes.losses_warps,
            COLUMNS=shapes.window_columns,
            ROWS=shapes.window_tile,
            STRIPS=shapes.strips,
            UNROLL=shapes.unroll,
        ),
        pick(
            "MEANS AREA MASKED",
            shapes.columns_warps,
            SIGN_ROWS=shapes.sign_rows,
            COARSE_ROWS=shapes.coarse_rows,
            WORDS=shapes.sign_words,
            ROWS=shapes.sign_tile,
        ),
        pick("MEANS GRAD AREA MASKED ALIGNED", shapes.gradient_warps, ROWS=shapes.gradient_tile),
    )


_compiled: dict[tuple[object, ...], Any] = {}


def compiled(
    kernel: JITFunction,
    dtype: torch.dtype,
    constants: dict[str, int],
    device: int,
    registers: int,
    wide: bool = False,
) -> Any:
    """The kernel for maps of some type, compiled at the first call for a device and choice of constants.

    ``wide``: some tensor takes ``WIDE`` bytes or more.
    """
    key = (kernel, dtype, device, registers, wide, *constants.values())
    if key not in _compiled:
        options = compiler_options(triton.runtime.driver.active.get_current_target().backend, registers)
        stand_ins = arguments(kernel, dtype, constants, wide)
        _compiled[key] = kernel.warmup(*stand_ins, grid=(1,), **constants, **options)
    return _compiled[key]


def absent(kernel: JITFunction, constants: dict[str, int]) -> set[str]:
    """Pointers that a kernel does without, and gets None for: the compiled kernel has no such parameter."""
    if not constants["MASKED"]:
        return {"mask", "counts", "positions", "shares"} | ({"errors"} if kernel is phases.gradient_kernel else set())
    names = {"borders", "boxes", "folds"}
    if kernel is phases.losses_kernel:
        names |= {"pred", "target"}
    if not constants["AREA"]:
        names |= {"shares"} | ({"errors"} if kernel is phases.gradient_kernel else set())
    return names


def arguments(
    kernel: JITFunction, dtype: torch.dtype, constants: dict[str, int], wide: bool = False
) -> list[MockTensor | int | None]:
    """Stand-ins for a kernel's run-time arguments: a tensor of the right type, 1 for a number."""
    numbers = {kernel.params[i].name for i in range(len(kernel.params)) if kernel.params[i].do_not_specialize}
    missing = absent(kernel, constants)
    tensor = WideTensor if wide else MockTensor
    types = POINTERS | dict.fromkeys(MAPS, dtype)
    if constants["MASKED"]:  # signs over the numbers of known pixels
        types |= {"signs": torch.float32, "column_signs": torch.float32}
    return [
        1 if name in numbers else None if name in missing else tensor(types.get(name, torch.float32))
        for name in kernel.arg_names
        if name not in constants
    ]


def _launch(
    pred: Tensor, target: Tensor, mask: Tensor | None, weights: Tensor | None, p: Plan, shapes: Shapes
) -> tuple[Tensor, Tensor, Tensor]:
    batch, height, width = pred.shape[0], pred.shape[-2], pred.shape[-1]
    device = pred.device
    terms = torch.empty((batch, p.count), dtype=torch.float32, device=device)
    grad = torch.empty(pred.shape if p.grad else 0, dtype=pred.dtype, device=device)
    positions = torch.empty((batch, p.count) if p.masked else 0, dtype=torch.int64, device=device)
    floats, bytes_, ints = p.workspace
    (errors, targets, sums, local, centre, table, partials, strip_sums, row_sums, cotangents, shares) = torch.empty(
        sum(floats), dtype=torch.float32, device=device
    ).split(floats)
    signs, column_signs = torch.empty(sum(bytes_), dtype=torch.uint8, device=device).split(bytes_)
    borders, boxes, folds, counts = torch.empty(sum(ints), dtype=torch.int32, device=device).split(ints)
    if p.masked:  # the column sums of phase 1 are no longer needed when those of the cotangents are made
        signs, column_signs = cotangents, sums
    size = (batch, height, width, p.plane_units)
    bits = (p.stencils, p.windows)
    run_time = (
        (pred, target, mask, table if weights is None else weights, errors, targets, sums, table, partials, shares,
         counts, *size, *p.starts, *p.blocks, p.columns, p.quads, *p.terms, p.count, *bits, p.column_rows, p.reps,
         p.column_tiles, p.errors_partials),
        (pred, target, errors, targets, sums, signs, local, centre, table, partials, strip_sums, row_sums, counts,
         *size, *p.starts, *p.coarse_windows, *p.strips, *bits, batch * sum(p.coarse_windows), batch * sum(p.strips),
         p.column_rows, p.window_rows, p.coarse_window_rows, p.strip_rows,
         shapes.block * p.reps, p.column_tiles, p.quad_partials, p.errors_partials, p.strip_partials, p.row_partials),
        (signs, column_signs, borders, boxes, folds, local, centre, table, row_sums, counts, *size, *p.starts,
         *p.coarse_gradients, *bits, batch * sum(p.coarse_gradients), p.coarse_window_rows, p.row_partials),
        (grad, terms, positions, local, errors, shares, column_signs, boxes, folds, centre, table, strip_sums,
         row_sums, counts, *size, *p.starts, *p.terms, p.count, *bits, p.window_rows, p.coarse_window_rows,
         p.strip_rows, p.strip_partials, p.row_partials, shapes.gradient_rows),
    )  # fmt: skip
    steps = [
        (kernel, programs, [None if name in absent(kernel, constants) else value
                            for name, value in zip(kernel.arg_names, values, strict=False)], constants)
        for kernel, programs, values, constants in zip(KERNELS, p.grids, run_time, constants_of(p, shapes), strict=True)
        if programs
    ]  # fmt: skip
    if not isinstance(KERNELS[0], JITFunction):  # Triton's interpreter
        for kernel, programs, values, constants in steps:
            kernel[(programs,)](*values, **constants)
        return terms, grad, positions
    current = triton.runtime.driver.active.get_current_device()
    wide = max(pred.nbytes, 4 * max(floats), max(bytes_), 4 * max(ints)) >= WIDE
    for kernel, programs, values, constants in steps:
        function = compiled(kernel, pred.dtype, constants, current, shapes.registers[KERNELS.index(kernel)], wide)
        function[(programs, 1, 1)](*values, *list(constants.values())[:-1])
    return terms, grad, positions
