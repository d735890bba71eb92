# SPDX-License-Identifier: Apache-2.0
"""What the kernels are given, in tuples that the host fills and the device reads.

Triton spreads a tuple out into the parameters of the compiled kernel, and leaves out what is None. It would compile
some values of numbers in tuples in, whatever ``do_not_specialize`` says; ``launch`` compiles for none.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Maps(NamedTuple):
    """The caller's tensors. Under a mask phase 1 copies what is known of them, and the others get none."""

    pred: Any
    target: Any
    mask: Any  # None: all pixels are known


class Workspace(NamedTuple):
    """Tensors that one phase writes and later ones read; a phase gets those that it uses."""

    errors: Any = None  # E^k of the scales from 1 on, under a mask from 0 on
    targets: Any = None  # T^k of the same scales
    sums: Any = None  # column sums of E, and under a mask of V, for each window
    signs: Any = None  # sign maps of the windows; under a mask signs over the numbers of known pixels
    column_signs: Any = None  # column sums of these
    borders: Any = None  # column sums of the sign maps in border rows, without a mask (see adjoint)
    boxes: Any = None  # box^T in border rows
    folds: Any = None  # box^T in border columns
    local: Any = None  # gradient of the stencils, from phase 3 on the whole gradient of coarse scales
    centre: Any = None  # gradient of the means that stays at its own pixel
    table: Any = None  # weights by slot
    partials: Any = None  # partial sums of E^k
    strip_sums: Any = None  # partial sums of the stencils
    row_sums: Any = None  # partial sums of the windows
    shares: Any = None  # under a mask and `area`: 1 / number of known children
    counts: Any = None  # under a mask: partial numbers of positions


class Sizes(NamedTuple):
    """Sizes of the maps and of a plane (see geometry)."""

    batch: Any
    height: Any
    width: Any
    plane_units: Any  # elements of a plane / 64
    starts: Any  # first element of each scale from 1 on in a plane / 64


class Wanted(NamedTuple):
    """The choice of losses."""

    losses: Any  # bits by slot, two scales in each of three numbers
    count: Any
    stencils: Any  # bits of the scales with losses of the stencils
    windows: Any  # bits of the scales with losses of the windows


class Cut(NamedTuple):
    """How the work is cut into programs, and the partial sums that an image and scale has room for."""

    column_rows: Any  # rows of a program of the column sums of scale 0
    column_tiles: Any  # programs beside each other
    window_rows: Any  # rows of a program of the windows at scale 0
    coarse_window_rows: Any  # at the other scales
    strip_rows: Any  # rows of a strip
    gradient_rows: Any  # rows of a program of the gradient at scale 0
    reps: Any  # blocks of pixels of a program of a coarse scale in phase 1
    coarse_pixels: Any  # pixels of such a program
    quad_partials: Any  # programs an image has where scales are made together, or 0
    errors_partials: Any
    strip_partials: Any
    row_partials: Any


class Variant(NamedTuple):
    """Which variant of a kernel is compiled; None where a kernel does not depend on it."""

    MEANS: bool | None = None  # whether there is a local mean
    NORMALS: bool | None = None  # whether there is a normal
    GRAD: bool | None = None
    AREA: bool | None = None
    MASKED: bool | None = None
    ALIGNED: bool | None = None  # whether rows consist of whole quads of pixels, so that four are loaded at once
