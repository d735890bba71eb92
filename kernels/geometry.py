# SPDX-License-Identifier: Apache-2.0
"""Where things lie: sizes of the scales, planes of the workspace, and which tile a program works on.

A *plane* holds one quantity of all images at all scales. The map of image b at scale k starts at ``offset(k) + b h P``
and has rows of P = ceil(w / 128) 128 + 64 elements: 32 columns of padding on the left, the map, padding on the right.
So a window of radius 32 never leaves its row, rows start on 64-element boundaries, and H and W stay run-time numbers:
one compilation serves every size. Offsets inside a map are 32-bit, starts of maps 64-bit.
"""

import triton
import triton.language as tl

#: Columns of padding on either side of a map: the radius of the widest window.
PAD = tl.constexpr(32)
#: Columns of a tile; maps are as wide as a whole number of them.
TILE = tl.constexpr(128)
#: Scales, and kinds rounded up to a power of two: the pitch of tables [scale, kind].
SCALES = tl.constexpr(6)
SLOTS = tl.constexpr(16)


@triton.jit
def scale_size(height, width, scale, AREA: tl.constexpr):
    """floor(H / 2^k) x floor(W / 2^k); a side too short for the scale has one pixel, and under `bicubic` both have."""
    h = height >> scale
    w = width >> scale
    if not AREA:
        collapsed = (h == 0) | (w == 0)
        h = tl.where(collapsed, 1, h)
        w = tl.where(collapsed, 1, w)
    return tl.maximum(h, 1), tl.maximum(w, 1)


@triton.jit
def pitch_of(w):
    """Elements from one row of a plane to the next."""
    return ((w + TILE - 1) >> 7) * TILE + 2 * PAD  # a product, so that the compiler knows where rows start


@triton.jit
def quads_of(w):
    """Width rounded up to whole quads. Planes hold numbers up to there, so that loads of four need no care."""
    return ((w + 3) >> 2) * 4


@triton.jit
def plane_size(units):
    """Elements of a plane, of which the host gives the number in units of 64: it may take more than 32 bits."""
    return units.to(tl.int64) * 64


@triton.jit
def plane_offset(scale, batch, height, width, AREA: tl.constexpr):
    """First element of a scale in a plane."""
    offset = tl.cast(0, tl.int64)
    for k in tl.static_range(SCALES - 1):
        h, w = scale_size(height, width, k, AREA)
        offset += tl.where(k < scale, batch * h * pitch_of(w).to(tl.int64), 0)
    return offset


@triton.jit
def map_starts(plane, image, batch, height, width):
    """First pixels of an image's maps at all scales of a plane, under `bicubic`, up to the first that is collapsed."""
    starts = ()
    for k in tl.static_range(SCALES):
        size = (height >> k) * pitch_of(width >> k).to(tl.int64)
        starts += (plane + image * size + PAD,)
        plane += batch * size
    return starts


@triton.jit
def locate(rest, batch, height, width, scales, rows, columns, group, FIRST: tl.constexpr, AREA: tl.constexpr):
    """Scale, image and part of program number ``rest`` of a list: scales ascending, in each all images, all parts.

    A scale is listed if its bit in ``scales`` is set. Its maps are cut into tiles of ``rows`` x ``columns``, of which a
    part is a ``group``; tiles of one column cover whole quads. Returns (scale, image, part, rest): past the end of the
    list the scale is -1 and ``rest`` the number of the program in the list that follows.
    """
    scale = rest * 0 - 1
    parts = 1
    for k in tl.static_range(FIRST, SCALES):
        h, w = scale_size(height, width, k, AREA)
        w = tl.where(columns == 1, quads_of(w), w)
        n = tl.cdiv(tl.cdiv(h, rows) * tl.cdiv(w, columns), group)
        programs = tl.where((scales >> k) & 1 != 0, batch * n, 0)
        here = (scale < 0) & (rest < programs)
        scale = tl.where(here, k, scale)
        parts = tl.where(here, n, parts)
        rest = tl.where(scale < 0, rest - programs, rest)
    return scale, (rest // parts).to(tl.int64), rest % parts, rest
