# SPDX-License-Identifier: Apache-2.0
"""Block shapes: how the work of each launch is cut into programs. Speed depends on them, results do not.

They come from a table by architecture, never from a search at import or at the first call; ``bench/gpu_check.py
--sweep`` measures alternatives. Shapes that are compiled into a kernel are marked so; the others are run-time numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch


@dataclass(frozen=True)
class Shapes:
    """Block shapes of the four launches (see ``phases``); rows are rows of a map per program.

    Attributes:
        column_rows: phase 1, column sums of scale 0.
        block: phase 1, lanes of a program (compiled).
        quad_rows: phase 1, rows of scale 2 that a program of the pyramid makes (compiled).
        pyramid_warps: phase 1, warps of a program (compiled).
        window_rows: phase 2, row windows of scale 0.
        coarse_window_rows: phase 2, windows in both directions of a coarse scale.
        strip_rows: phase 2, stencils.
        window_tile: phase 2, rows of a tile of the windows (compiled).
        window_columns: phase 2, columns of a pass of the column sums of a coarse scale (compiled).
        unroll: phase 2, steps of the stencils' loop written out (compiled).
        losses_warps: phase 2, warps of a program (compiled).
        sign_rows: phase 3, column sums of the sign maps of scale 0.
        coarse_rows: phase 3, gradient of a coarse scale.
        sign_words: phase 3, words of four pixels of a pass of the column sums (compiled).
        sign_tile: phase 3, rows of a tile of the coarse gradient (compiled).
        columns_warps: phase 3, warps of a program (compiled).
        gradient_rows: phase 4, gradient of scale 0.
        gradient_tile: phase 4, rows of a tile (compiled).
        gradient_warps: phase 4, warps of a program (compiled).
    """

    column_rows: int = 32
    block: int = 128
    quad_rows: int = 1
    pyramid_warps: int = 1
    window_rows: int = 32
    coarse_window_rows: int = 16
    strip_rows: int = 24
    window_tile: int = 2
    window_columns: int = 256
    unroll: int = 2
    losses_warps: int = 2
    sign_rows: int = 32
    coarse_rows: int = 16
    sign_words: int = 64
    sign_tile: int = 2
    columns_warps: int = 2
    gradient_rows: int = 16
    gradient_tile: int = 4
    gradient_warps: int = 4


#: By the name of Triton's backend and its architecture; "" holds what is right nowhere in particular.
TABLE: dict[str, Shapes] = {"": Shapes(), "sm_80": Shapes(), "sm_90": Shapes()}
# a wavefront of AMD has 64 lanes: half the wavefronts keep the same number of pixels a lane
TABLE["gfx942"] = replace(Shapes(), gradient_warps=2, columns_warps=1, losses_warps=2)


@lru_cache
def shapes_for(device: torch.device) -> Shapes:
    """Block shapes of a device."""
    if device.type != "cuda":
        return TABLE[""]
    properties = torch.cuda.get_device_properties(device)
    name = getattr(properties, "gcnArchName", "").split(":")[0] or f"sm_{properties.major}{properties.minor}"
    return TABLE.get(name, TABLE[""])
