# SPDX-License-Identifier: Apache-2.0
"""Block shapes: how the work of each launch is cut into programs. Speed depends on them, results do not.

They come from a table by architecture, never from a search at import or at the first call; ``bench/gpu_check.py
--sweep`` measures alternatives. Shapes that are compiled into a kernel are marked so; the others are run-time numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import triton


@dataclass(frozen=True)
class Shapes:
    """Block shapes of the four launches (see ``phases``); rows are rows of a map per program.

    Attributes:
        column_rows: phase 1, column sums of scale 0; a multiple of 16.
        block: phase 1, lanes of a program (compiled).
        quad_rows: phase 1, rows of scale 2 that a program of the pyramid makes (compiled).
        pyramid_warps: phase 1, warps of a program (compiled).
        window_rows: phase 2, row windows of scale 0.
        coarse_window_rows: phase 2, windows in both directions of a coarse scale; a multiple of 16.
        strip_rows: phase 2, stencils.
        window_tile: phase 2, rows of a tile of the windows (compiled).
        window_columns: phase 2, columns of a pass of the column sums of a coarse scale (compiled).
        strips: phase 2, strips of the stencils side by side, one for 32 lanes of a program (compiled).
        unroll: phase 2, steps of the stencils' loop written out (compiled).
        losses_warps: phase 2, warps of a program (compiled).
        sign_rows: phase 3, column sums of the sign maps of scale 0; a power of two, as is coarse_rows (compiled).
        coarse_rows: phase 3, gradient of a coarse scale (compiled).
        sign_words: phase 3, words of four pixels of a pass of the column sums, 8, 16 or 32 (compiled).
        sign_tile: phase 3, rows of 128 pixels of a tile of the coarse gradient (compiled).
        columns_warps: phase 3, warps of a program (compiled).
        gradient_rows: phase 4, gradient of scale 0.
        gradient_tile: phase 4, rows of a tile, 1, 2 or 4 (compiled); divides gradient_rows.
        gradient_warps: phase 4, warps of a program (compiled).
        registers: most registers of a thread in each phase, 0 for no limit (compiled). Up to 128 leave room for four
            programs of 128 threads on a multiprocessor of NVIDIA and for four wavefronts on a SIMD of AMD; unasked,
            the compiler takes more for loads that it moves ahead.
    """

    column_rows: int = 16
    block: int = 128
    quad_rows: int = 4
    pyramid_warps: int = 4
    window_rows: int = 8
    coarse_window_rows: int = 16
    strip_rows: int = 24
    window_tile: int = 4
    window_columns: int = 128
    strips: int = 4
    unroll: int = 2
    losses_warps: int = 4
    sign_rows: int = 32
    coarse_rows: int = 8
    sign_words: int = 32
    sign_tile: int = 4
    columns_warps: int = 4
    gradient_rows: int = 16
    gradient_tile: int = 4
    gradient_warps: int = 4
    registers: tuple[int, int, int, int] = (124, 128, 124, 124)

    def __post_init__(self) -> None:
        for name, unit in (("column_rows", 16), ("coarse_window_rows", 16), ("sign_rows", 4), ("coarse_rows", 4)):
            if getattr(self, name) <= 0 or getattr(self, name) % unit:
                raise ValueError(f"{name} must be a positive multiple of {unit}, got {getattr(self, name)}")
        for name in ("sign_rows", "coarse_rows"):
            if getattr(self, name) & (getattr(self, name) - 1):
                raise ValueError(f"{name} must be a power of two, got {getattr(self, name)}")
        if self.sign_words not in (8, 16, 32):
            raise ValueError(f"sign_words must be 8, 16 or 32, got {self.sign_words}")
        if self.gradient_tile not in (1, 2, 4) or self.gradient_rows % self.gradient_tile:
            raise ValueError(f"gradient_tile must be 1, 2 or 4 and divide gradient_rows, got {self.gradient_tile}")


#: By architecture; "" is for those without an entry. The defaults were measured on an H100; nothing else has been, so
#: NVIDIA's other GPUs take them over.
TABLE: dict[str, Shapes] = {"": Shapes()}
# with more registers in phase 1, the compiler moves more loads ahead than there is room for (compiled, not measured)
TABLE["sm_100"] = replace(Shapes(), registers=(120, 128, 124, 124))
# A wavefront of AMD has 64 lanes: half as many do the same work with as many pixels a lane. One step of the stencils
# at a time keeps phase 2 below 128 registers; only phase 1 must be told to (compiled, not measured).
TABLE["gfx942"] = replace(
    Shapes(), pyramid_warps=2, losses_warps=2, unroll=1, columns_warps=2, gradient_warps=2, registers=(128, 0, 0, 0)
)


#: Tells AMD's compiler to prefer more wavefronts on a SIMD.
OCCUPANCY: dict[str, int | str] = {"llvm_fn_attrs": "amdgpu-sched-strategy=iterative-maxocc"}


def compiler_options(backend: str, registers: int) -> dict[str, int | str]:
    """Options of Triton's compiler for a backend, "cuda" or "hip", that hold a kernel to some registers a thread.

    AMD's compiler takes no number, and spills where it is told how many wavefronts must fit; to prefer more of them is
    an option that Triton has from 3.8 on. Products and sums are fused, which Triton will not do by itself from 3.10 on.
    """
    options: dict[str, int | str] = {"enable_fp_fusion": True}
    if not registers:
        return options
    if backend == "cuda":
        return options | {"maxnreg": registers}
    from triton.backends.amd.compiler import HIPOptions  # not every build for NVIDIA has it

    return options | (OCCUPANCY if OCCUPANCY.keys() <= HIPOptions.__dataclass_fields__.keys() else {})


def masked_shapes(shapes: Shapes) -> Shapes:
    """Block shapes under a mask (compiled, not measured).

    The moving sums of the adjoint start from all rows of a window, so more rows of a coarse map share them. Phase 1
    takes every register that it may; in phase 3 the compiler spills where it has more than it needs.
    """
    first, second, third, fourth = shapes.registers
    registers = (128 if first else 0, second, 96 if third else 0, fourth)
    return replace(shapes, coarse_rows=2 * shapes.coarse_rows, registers=registers)


def shapes_for(device: torch.device) -> Shapes:
    """Block shapes of a device; for CPU tensors, of the GPU that an active Triton driver compiles for."""
    return TABLE.get(_gpu(device) if device.type == "cuda" else _target(), TABLE[""])


@lru_cache
def _gpu(device: torch.device) -> str:
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return properties.gcnArchName.split(":")[0]
    return f"sm_{properties.major}{properties.minor}"


def _target() -> str:
    try:
        arch = triton.runtime.driver.active.get_current_target().arch
    except RuntimeError:  # no driver: Triton's interpreter
        return ""
    return f"sm_{arch}" if isinstance(arch, int) else arch
