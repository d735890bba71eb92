# SPDX-License-Identifier: Apache-2.0
"""The operator on the host: compiled kernels, workspace and the four launches.

A call of a Triton kernel through its decorator binds and inspects all arguments in Python, which takes longer than the
kernel. Here all tensors are contiguous, start on 16-byte boundaries and have types known beforehand, so that the
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
from mlr.kernels.arguments import Cut, Maps, Sizes, Variant, Wanted, Workspace
from mlr.kernels.configs import Shapes, compiler_options, masked_shapes, shapes_for
from mlr.kernels.plan import Plan, plan
from mlr.kernels.slots import KINDS
from mlr.losses.space import SCALES

KERNELS = (phases.pyramid_kernel, phases.losses_kernel, phases.columns_kernel, phases.gradient_kernel)
#: What each phase reads and writes of the workspace.
USED = tuple(
    frozenset(names.split())
    for names in (
        "errors targets sums table partials shares counts",
        "errors targets sums signs local centre table partials strip_sums row_sums counts",
        "signs column_signs borders boxes folds local centre table row_sums counts",
        "errors local shares column_signs boxes folds centre table strip_sums row_sums counts",
    )
)
#: Stands for a number when a kernel is compiled. Triton compiles 1 in, and multiples of 16 to kernels of their own.
NUMBER = 3

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
                    KERNELS, constants_of(p.variant, shapes), shapes.registers, strict=True
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
def constants_of(variant: Variant, shapes: Shapes) -> tuple[dict[str, Any], ...]:
    """Compile-time arguments of the four kernels in the order of their signatures, and their warps."""

    def pick(names: str, warps: int, **blocks: int) -> dict[str, Any]:
        chosen = Variant(**{name: getattr(variant, name) for name in names.split()})
        return {"VARIANT": chosen} | blocks | {"num_warps": warps}

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
    constants: dict[str, Any],
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


def arguments(
    kernel: JITFunction, dtype: torch.dtype, constants: dict[str, Any], wide: bool = False
) -> tuple[Any, ...]:
    """Stand-ins for a kernel's run-time arguments: tensors of the right types, ``NUMBER`` for all numbers."""
    variant = constants["VARIANT"]
    tensor = WideTensor if wide else MockTensor
    maps = tensor(dtype)
    work = Workspace(*map(tensor, types_of(variant.MASKED)))
    numbers = (NUMBER,) * (SCALES - 1)
    sizes = Sizes(NUMBER, NUMBER, NUMBER, NUMBER, numbers)
    wanted = Wanted((NUMBER, NUMBER, NUMBER), NUMBER, NUMBER, NUMBER)
    every = _arguments(
        Maps(maps, maps, tensor(torch.uint8) if variant.MASKED else None),
        tensor(torch.float32),
        (maps, tensor(torch.float32), tensor(torch.int64) if variant.MASKED else None),
        work,
        (sizes, wanted, Cut(*(NUMBER,) * len(Cut._fields))),
        ((numbers, NUMBER, NUMBER), (numbers, NUMBER, (NUMBER, *numbers), NUMBER), (numbers, NUMBER)),
        variant,
    )
    return every[KERNELS.index(kernel)]


@lru_cache
def types_of(masked: bool) -> tuple[torch.dtype, ...]:
    """Types of the tensors of the workspace."""
    types = dict.fromkeys(Workspace._fields, torch.float32)
    types |= dict.fromkeys(("borders", "boxes", "folds", "counts"), torch.int32)
    if not masked:  # under a mask they hold signs over the numbers of known pixels
        types |= dict.fromkeys(("signs", "column_signs"), torch.uint8)
    return tuple(types.values())


@lru_cache
def _left_out(phase: int, masked: bool, area: bool) -> tuple[bool, ...]:
    """Which tensors of the workspace a phase does without: the compiled kernel has no parameter for them."""
    used = USED[phase] - ({"borders", "boxes", "folds"} if masked else {"counts"})
    if not (masked and area):
        used -= {"shares", "errors"} if KERNELS[phase] is phases.gradient_kernel else {"shares"}
    return tuple(name not in used for name in Workspace._fields)


def _part(work: Workspace, phase: int, variant: Variant) -> Workspace:
    """What a phase gets of the workspace."""
    left_out = _left_out(phase, bool(variant.MASKED), bool(variant.AREA))
    return Workspace(*(None if out else tensor for tensor, out in zip(work, left_out, strict=True)))


def _arguments(
    maps: Maps,
    weights: Any,
    results: tuple[Any, Any, Any],
    work: Workspace,
    numbers: tuple[Sizes, Wanted, Cut],
    programs: tuple[tuple[Any, ...], ...],
    variant: Variant,
) -> tuple[tuple[Any, ...], ...]:
    """Run-time arguments of the four kernels in the order of their signatures."""
    sizes, wanted, cut = numbers
    parts = [_part(work, phase, variant) for phase in range(len(KERNELS))]
    # under a mask phase 1 copies what is known of the maps
    unmasked = Maps(None, None, None) if variant.MASKED else maps
    return (
        (maps, weights, parts[0], sizes, wanted, cut, *programs[0]),
        (unmasked, parts[1], sizes, cut, *programs[1]),
        (parts[2], sizes, wanted, cut, *programs[2]),
        (*results, parts[3], sizes, wanted, cut),
    )


def _workspace(p: Plan, device: torch.device) -> Workspace:
    """The tensors of the workspace; those of one type are parts of one tensor."""
    types = types_of(bool(p.variant.MASKED))
    tensors: dict[str, Tensor] = {}
    for dtype in (torch.float32, torch.uint8, torch.int32):
        elements = {name: n for name, n, its in zip(Workspace._fields, p.elements, types, strict=True) if its is dtype}
        whole = torch.empty(sum(elements.values()), dtype=dtype, device=device)
        tensors |= zip(elements, whole.split(list(elements.values())), strict=True)
    work = Workspace(**tensors)
    if p.variant.MASKED:  # phase 1's column sums are no longer needed when those of the signs are made
        work = work._replace(column_signs=work.sums)
    return work


def _launch(
    pred: Tensor, target: Tensor, mask: Tensor | None, weights: Tensor | None, p: Plan, shapes: Shapes
) -> tuple[Tensor, Tensor, Tensor]:
    batch, count = p.sizes.batch, p.wanted.count
    device, masked = pred.device, p.variant.MASKED
    terms = torch.empty((batch, count), dtype=torch.float32, device=device)
    grad = torch.empty(pred.shape if p.variant.GRAD else 0, dtype=pred.dtype, device=device)
    positions = torch.empty((batch, count) if masked else 0, dtype=torch.int64, device=device)
    work = _workspace(p, device)
    run_time = _arguments(
        Maps(pred, target, mask),
        work.table if weights is None else weights,
        (grad, terms, positions if masked else None),
        work,
        (p.sizes, p.wanted, p.cut),
        (
            (p.blocks, p.columns, p.quads),
            (p.coarse_windows, batch * sum(p.coarse_windows), p.strips, batch * sum(p.strips)),
            (p.coarse_gradients, batch * sum(p.coarse_gradients)),
        ),
        p.variant,
    )
    steps = [
        step
        for step in zip(KERNELS, p.grids, run_time, constants_of(p.variant, shapes), shapes.registers, strict=True)
        if step[1]
    ]
    if not isinstance(KERNELS[0], JITFunction):  # Triton's interpreter
        for kernel, programs, values, constants, _ in steps:
            kernel[(programs,)](*values, **constants)
        return terms, grad, positions
    current = triton.runtime.driver.active.get_current_device()
    wide = max(pred.nbytes, 4 * max(p.elements)) >= WIDE
    for kernel, programs, values, constants, registers in steps:
        function = compiled(kernel, pred.dtype, constants, current, registers, wide)
        function[(programs, 1, 1)](*values, *list(constants.values())[:-1])
    return terms, grad, positions
