# SPDX-License-Identifier: Apache-2.0
"""The masked losses by loops and explicit gathers in float64: every pixel that a position reads is looked up by itself.

Nothing here comes from mlr: formulas, boundaries and the rules of validity are written down a second time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

Map = np.ndarray
Gather = Callable[[int, int], float]

WINDOWS = {"M5": 5, "M17": 17, "M65": 65}


def cubic_weight(distance: float) -> float:
    """Cubic convolution kernel with A = -0.75."""
    a, d = -0.75, abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def bicubic_reads(length: int, out: int, step: float) -> list[list[tuple[int, float]]]:
    """For every output of an axis the inputs that it reads with a weight other than 0, clamped to the border."""
    reads = []
    for i in range(out):
        centre = (i + 0.5) * step - 0.5
        taps = range(math.floor(centre) - 1, math.floor(centre) + 3)
        weighted = [(min(max(j, 0), length - 1), cubic_weight(centre - j)) for j in taps]
        reads.append([(j, w) for j, w in weighted if w != 0])
    return reads


def bicubic(x: Map, valid: Map, scale: int) -> tuple[Map, Map]:
    """Scale k straight from scale 0: valid if all pixels that are read are."""
    height, width = x.shape
    if min(height, width) < 2**scale:
        rows, columns = bicubic_reads(height, 1, height), bicubic_reads(width, 1, width)
    else:
        step = 2**scale
        rows = bicubic_reads(height, height // step, step)
        columns = bicubic_reads(width, width // step, step)
    out, known = np.zeros((len(rows), len(columns))), np.zeros((len(rows), len(columns)), bool)
    for y, row in enumerate(rows):
        for z, column in enumerate(columns):
            known[y, z] = all(valid[i, j] for i, _ in row for j, _ in column)
            if known[y, z]:
                out[y, z] = sum(wi * wj * x[i, j] for i, wi in row for j, wj in column)
    return out, known


def halve(x: Map, valid: Map) -> tuple[Map, Map]:
    """The mean of the valid ones of four children; a side of one pixel stays."""
    height, width = x.shape
    out = np.zeros((max(height // 2, 1), max(width // 2, 1)))
    known = np.zeros(out.shape, bool)
    for y in range(out.shape[0]):
        for z in range(out.shape[1]):
            rows = (2 * y, 2 * y + 1) if height > 1 else (0,)
            columns = (2 * z, 2 * z + 1) if width > 1 else (0,)
            children = [x[i, j] for i in rows for j in columns if valid[i, j]]
            known[y, z] = bool(children)
            out[y, z] = np.mean(children) if children else 0
    return out, known


def at_scale(x: Map, valid: Map, scale: int, downsample: str) -> tuple[Map, Map]:
    """A map and its mask at scale k."""
    if downsample == "bicubic":
        return (x, valid) if scale == 0 else bicubic(x, valid, scale)
    for _ in range(scale):
        x, valid = halve(x, valid)
    return x, valid


def reads(kind: str, y: int, z: int) -> Iterator[tuple[int, int]]:
    """Pixels, not yet clamped, that a kind reads at a position."""
    if kind in ("D", "M", "M5", "M17", "M65"):
        yield y, z
    if kind in ("r", "N"):
        yield from ((y, z), (y, z + 1))
    if kind in ("c", "N"):
        yield from ((y, z), (y + 1, z))
    if kind in ("rr", "Nr"):
        yield from ((y, z), (y, z + 1), (y, z + 2))
    if kind in ("cc", "Nc"):
        yield from ((y, z), (y + 1, z), (y + 2, z))
    if kind in ("rc", "Nr", "Nc"):
        yield from ((y, z), (y, z + 1), (y + 1, z), (y + 1, z + 1))


def derivative(x: Map, name: str, y: int, z: int) -> float:
    """A derivative at a position by the definition: 0 in the last column or row, at the second order too."""
    height, width = x.shape
    if not name:
        return x[y, z]
    first, rest = name[0], name[1:]
    if first == "r":
        return 0.0 if z == width - 1 else derivative(x, rest, y, z + 1) - derivative(x, rest, y, z)
    return 0.0 if y == height - 1 else derivative(x, rest, y + 1, z) - derivative(x, rest, y, z)


def value(kind: str, error: Map, target: Map, valid: Map, y: int, z: int) -> float:
    """What a kind adds at a valid position."""
    if kind == "D":
        return abs(error[y, z])
    if kind == "M":
        return abs(error[y, z] - error[valid].mean())
    if kind in WINDOWS:
        radius = WINDOWS[kind] // 2
        rows = np.clip(np.arange(y - radius, y + radius + 1), 0, error.shape[0] - 1)
        columns = np.clip(np.arange(z - radius, z + radius + 1), 0, error.shape[1] - 1)
        window, known = error[np.ix_(rows, columns)], valid[np.ix_(rows, columns)]
        return abs(error[y, z] - window[known].mean())
    if kind in ("N", "Nr", "Nc"):
        names = {"N": ("r", "c"), "Nr": ("rr", "rc"), "Nc": ("rc", "cc")}[kind]
        a = np.array([derivative(target + error, name, y, z) for name in names] + [1.0])
        b = np.array([derivative(target, name, y, z) for name in names] + [1.0])
        return 1 - a @ b / math.sqrt((a @ a) * (b @ b))
    return abs(derivative(error, kind, y, z))


def masked_loss(
    pred: Map, target: Map, mask: Map, kind: str, scale: int, downsample: str = "bicubic"
) -> tuple[float, int]:
    """A loss of one image [H, W] and the number of positions that it is the mean of."""
    error, known = np.where(mask, pred - target, 0), np.where(mask, target, 0)
    error, valid = at_scale(error, mask, scale, downsample)
    known, _ = at_scale(known, mask, scale, downsample)
    height, width = error.shape
    values = [
        value(kind, error, known, valid, y, z)
        for y in range(height)
        for z in range(width)
        if all(valid[min(i, height - 1), min(j, width - 1)] for i, j in reads(kind, y, z))
    ]
    return (float(np.mean(values)) if values else 0.0), len(values)
