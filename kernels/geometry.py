# SPDX-License-Identifier: Apache-2.0
"""Where things lie: sizes of the scales, planes of the workspace, and which tile a program works on.

A *plane* holds one quantity of all images at all scales. The map of image b at scale k starts at ``offset(k) + b h P``
and has rows of P = ceil(w / 128) 128 + 64 elements: 32 columns of padding on the left, the map, padding on the right.
So a window of radius 32 never leaves its row, rows start on 64-element boundaries, and H and W stay run-time numbers:
one compilation serves every size. Offsets inside a map are 32-bit, starts of maps 64-bit.
"""

import triton
import triton.language as tl

from mlr.kernels.arguments import Sizes

#: Columns of padding on either side of a map: the radius of the widest window.
PAD = tl.constexpr(32)
#: Columns of a tile; maps are as wide as a whole number of them.
TILE = tl.constexpr(128)
#: The same for coarse maps, whose width is seldom a multiple of the former.
COARSE_TILE = tl.constexpr(64)
SCALES = tl.constexpr(6)


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
def known_sizes(sizes, ALIGNED: tl.constexpr):
    """``sizes``, from which the compiler knows that rows consist of whole quads if they do."""
    if ALIGNED:
        return Sizes(sizes.batch, sizes.height, (sizes.width >> 2) * 4, sizes.plane_units, sizes.starts)
    else:
        return sizes


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
def plane_offset(scale, starts):
    """First element of a scale in a plane; ``starts`` holds those of the scales from 1 on in units of 64."""
    offset = 0
    for k in tl.static_range(1, SCALES):
        offset = tl.where(scale == k, starts[k - 1], offset)
    return tl.cast(offset, tl.int64) * 64


@triton.jit
def before_errors(starts, MASKED: tl.constexpr):
    """Elements of scale 0 in a plane. The planes of E and of the target begin after them, unless there is a mask."""
    if MASKED:
        return tl.cast(0, tl.int64)
    else:
        return plane_offset(1, starts)


@triton.jit
def map_starts(plane, image, starts, height, width):
    """First pixels of an image's maps at the scales from 1 on of a plane; not of collapsed ones."""
    maps = ()
    for k in tl.static_range(1, SCALES):
        size = (height >> k) * pitch_of(width >> k).to(tl.int64)
        maps += (plane + plane_offset(k, starts) + (image * size + PAD),)
    return maps


@triton.jit
def border_places(image, scale, batch, height, width):
    """Where the two border rows, and the two border columns, of an image's map lie in their tables: the first element
    for the first window, and elements from one window to the next. Rows have the pitch of scale 0, columns H pixels."""
    place = (image * SCALES + scale) * 2
    windows = batch * SCALES * 2
    pitch = pitch_of(width)
    return place * pitch, windows * pitch.to(tl.int64), place * height, windows * height.to(tl.int64)


@triton.jit
def locate(rest, batch, parts):
    """Scale, image and part of program number ``rest`` of a list: scales ascending, in each all images, all parts.

    ``parts``: how many an image has at each scale, 0 where the scale is not listed. Returns (scale, image, part,
    rest): past the end of the list the scale is -1 and ``rest`` the number of the program in the list that follows.
    """
    scale = rest * 0 - 1
    per_image = 1
    for k in tl.static_range(SCALES):
        programs = batch * parts[k]
        here = (scale < 0) & (rest < programs)
        scale = tl.where(here, k, scale)
        per_image = tl.where(here, parts[k], per_image)
        rest = tl.where(scale < 0, rest - programs, rest)
    return scale, (rest // per_image).to(tl.int64), rest % per_image, rest


@triton.jit
def quarters(tile, ROWS: tl.constexpr):
    """The pixels 4 q, 4 q + 1, 4 q + 2 and 4 q + 3 of a tile [ROWS, 4 Q], each [ROWS, Q]; a lane holds all four."""
    even, odd = tl.split(tl.reshape(tile, [ROWS, tile.shape[1] // 4, 2, 2]))
    m0, m2 = tl.split(even)
    m1, m3 = tl.split(odd)
    return m0, m1, m2, m3


@triton.jit
def quad(m0, m1, m2, m3, ROWS: tl.constexpr):
    """The tile that ``quarters`` are of."""
    return tl.reshape(tl.join(tl.join(m0, m2), tl.join(m1, m3)), [ROWS, 4 * m0.shape[1]])
