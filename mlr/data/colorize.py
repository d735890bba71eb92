# SPDX-License-Identifier: Apache-2.0
"""Filling missing depth along the image: the colorization scheme that NYU Depth v2 was filled with.

Levin, Lischinski and Weiss, "Colorization using optimization" (SIGGRAPH 2004), with the weights of the NYU toolbox. A
pixel without depth is a weighted mean of its eight neighbours, and neighbours of a like grey weigh more::

    x_p = sum_q w_pq x_q,   w_pq ~ exp(-(g_p - g_q)^2 / s_p),   s_p = 0.6 var of the grey in the 3 x 3 window

Known depth is fixed and the equations are solved for the unknown pixels alone. The toolbox solves for all pixels with a
soft pull on the known ones and then writes those back. On the frame in tests/data the two differ by 0.6 mm on average
and 7 cm at most, and the toolbox's form takes 30 times as long.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

#: The eight neighbours of a pixel, (row, column).
_NEIGHBOURS = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0))

#: Rec. 601 luma, as in MATLAB's rgb2gray.
_LUMA = np.array([0.298936, 0.587043, 0.114021])

#: The variance factor, the least weight that the most similar neighbour keeps, and the least variance, of grey in 0-1.
_VARIANCE_FACTOR, _LEAST_WEIGHT, _LEAST_VARIANCE = 0.6, 0.01, 2e-6


def to_grey(image: NDArray) -> NDArray[np.float64]:
    """Grey in 0-1 of an RGB or grey picture.

    Args:
        image: [H, W, 3] or [H, W]; uint8 in 0-255, or floats in 0-1.

    Raises:
        ValueError: for another shape, type or range. Floats in 0-255 would make every edge infinitely strong.
    """
    image = np.asarray(image)
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[-1] != 3):
        raise ValueError(f"the image must be [H, W, 3] or [H, W], got shape {list(image.shape)}")
    if image.dtype == np.uint8:
        image = image / 255.0
    elif not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"the image must be uint8 in 0-255 or floating point in 0-1, got {image.dtype}")
    elif image.size and not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(f"a floating-point image must lie in 0-1, got {image.min():g} to {image.max():g}")
    return image.astype(np.float64) if image.ndim == 2 else image @ _LUMA


def colorize(image: NDArray, depth: NDArray, valid: NDArray | None = None) -> NDArray:
    """Fill missing depth so that it varies smoothly except across edges of the image.

    The result never leaves the range of the known depth, and known depth comes back unchanged.

    Args:
        image: [H, W, 3] or [H, W]; uint8, or floats in 0-1.
        depth: [H, W], any unit; 0 (or less), NaN and infinity count as missing.
        valid: [H, W] bool, where depth is known, instead of that rule.

    Returns:
        [H, W], depth at every pixel, in the type of ``depth`` (float32 if that is an integer type).

    Raises:
        ValueError: if shapes differ or no pixel has depth.

    Example:
        >>> grey = np.array([[0.0, 0.0, 1.0, 1.0]] * 2)
        >>> depth = np.array([[1.0, 0.0, 0.0, 5.0]] * 2)
        >>> colorize(grey, depth).round(1).tolist()
        [[1.0, 1.0, 5.0, 5.0], [1.0, 1.0, 5.0, 5.0]]
    """
    depth = np.asarray(depth)
    if not np.issubdtype(depth.dtype, np.floating):
        depth = depth.astype(np.float32)
    if depth.ndim != 2 or depth.shape != np.shape(image)[:2]:
        raise ValueError(f"image and depth must have one height and width, got {np.shape(image)} and {depth.shape}")
    with np.errstate(invalid="ignore"):
        known = (np.isfinite(depth) & (depth > 0)) if valid is None else np.asarray(valid, dtype=bool)
    if known.shape != depth.shape:
        raise ValueError(f"valid must have the shape of depth {depth.shape}, got {known.shape}")
    if not known.any():
        raise ValueError("no pixel has depth: there is nothing to fill from")
    if known.all():
        return depth.copy()
    matrix, right = _equations(to_grey(image), depth, known)
    # An M-matrix, diagonally dominant by rows: elimination needs no pivoting. Its pattern, unlike its values, is
    # symmetric: the ordering for that makes half the fill-in of the general one.
    factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    filled = depth.copy()
    # the exact solution is a mean of known depth; rounding may carry it a digit beyond
    filled[~known] = factors.solve(right).clip(depth[known].min(), depth[known].max())
    return filled


def _equations(grey: NDArray, depth: NDArray, known: NDArray) -> tuple[sparse.csc_array, NDArray]:
    """The equations of the unknown pixels: (I - W_uu) x_u = W_uk d_k."""
    height, width = grey.shape
    unknown = np.flatnonzero(~known)
    rows, columns = np.divmod(unknown, width)
    # one pixel of border, NaN, so that neighbours outside the picture can be told and take no part
    framed = np.full((height + 2, width + 2), np.nan)
    framed[1:-1, 1:-1] = grey
    centre = grey.ravel()[unknown]
    around = np.stack([framed[rows + 1 + i, columns + 1 + j] for i, j in _NEIGHBOURS])  # [8, unknown]
    inside = ~np.isnan(around)
    difference = np.where(inside, around - centre, 0.0)
    squares = difference**2

    count = 1 + inside.sum(0)
    # about the centre's grey: its own difference is zero, and the population variance is that of the window
    variance = squares.sum(0) / count - (difference.sum(0) / count) ** 2
    nearest = np.where(inside, squares, np.inf).min(0)
    nearest[~np.isfinite(nearest)] = 0  # a picture of one pixel has no neighbours
    spread = np.maximum(_VARIANCE_FACTOR * variance, -nearest / np.log(_LEAST_WEIGHT))
    weights = np.where(inside, np.exp(-squares / np.maximum(spread, _LEAST_VARIANCE)), 0.0)
    weights /= weights.sum(0)

    number = np.full(grey.size, -1, np.int32)  # of a pixel among the unknown
    number[unknown] = np.arange(unknown.size, dtype=np.int32)
    value = np.where(known, depth, 0).astype(np.float64).ravel()
    offsets = np.array([i * width + j for i, j in _NEIGHBOURS])[:, None]
    neighbour = np.where(inside, unknown + offsets, 0)
    right = (weights * value[neighbour]).sum(0)  # unknown neighbours have the value 0
    row = np.broadcast_to(np.arange(unknown.size, dtype=np.int32), neighbour.shape)
    linked = inside & (number[neighbour] >= 0)
    diagonal = np.arange(unknown.size, dtype=np.int32)
    matrix = sparse.coo_array(
        (
            np.concatenate([np.ones(unknown.size), -weights[linked]]),
            (np.concatenate([diagonal, row[linked]]), np.concatenate([diagonal, number[neighbour[linked]]])),
        ),
        shape=(unknown.size, unknown.size),
    )
    return matrix.tocsc(), right
