# SPDX-License-Identifier: Apache-2.0
"""Paint for built-in scenes: textures as functions of surface coordinates in metres."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mlr.data.synthetic.shapes import Array

#: Side of the tile of random numbers that noise repeats with.
_TILE = 64


@dataclass(frozen=True)
class Paint:
    """Colour of a surface.

    Attributes:
        colour: [3], linear light in 0-1.
        second: [3], the other colour of a pattern.
        pattern: a key of :data:`PATTERNS`.
        size: metres between repetitions.
        grain: strength of fine noise.
        noise: [64, 64] random numbers in -1..1.
        glow: share of the colour that needs no light (a window, a lamp).
        patches: rectangles (face, u0, v0, u1, v1, paint) that hang on it: pictures, windows, doors, rugs.
    """

    colour: Array
    second: Array
    pattern: str
    size: float
    grain: float
    noise: Array
    glow: float = 0.0
    patches: list[tuple[int, float, float, float, float, Paint]] = field(default_factory=list)

    def shade(self, uv: Array, face: Array) -> tuple[Array, Array]:
        """Colours [n, 3] and glow [n] at surface coordinates [n, 2] on faces [n]."""
        owner = np.zeros(len(uv), np.int8)
        u, v = np.ascontiguousarray(uv[:, 0]), np.ascontiguousarray(uv[:, 1])
        for number, (side, u0, v0, u1, v1, _) in enumerate(self.patches, 1):
            owner[(face == side) & (u > u0) & (u < u1) & (v > v0) & (v < v1)] = number
        if not owner.any():
            return self._plain_shade(uv), np.full(len(uv), self.glow, np.float32)
        colour, glow = np.empty((len(uv), 3), np.float32), np.empty(len(uv), np.float32)
        for number in np.unique(owner):
            paint = self.patches[number - 1][-1] if number else self
            mine = np.flatnonzero(owner == number)
            colour[mine], glow[mine] = paint._plain_shade(uv[mine]), paint.glow
        return colour, glow

    def _plain_shade(self, uv: Array) -> Array:
        mix = PATTERNS[self.pattern](uv / np.float32(self.size), self.noise)[:, None]
        colour = self.colour + (self.second - self.colour) * mix
        return colour * (1 + np.float32(self.grain) * value_noise(uv * np.float32(23), self.noise))[:, None]


def value_noise(uv: Array, noise: Array) -> Array:
    """Smooth noise in -1..1 of cell size 1, by bilinear interpolation of a repeating tile."""
    cell = np.floor(uv)
    u, v = np.ascontiguousarray((uv - cell).T)
    i, j = np.ascontiguousarray(cell.T).astype(np.int32) % _TILE
    i1, j1 = (i + 1) % _TILE, (j + 1) % _TILE
    flat, i, i1 = noise.ravel(), i * _TILE, i1 * _TILE  # take() by one index is faster than by two
    upper = flat.take(i + j) * (1 - u) + flat.take(i1 + j) * u
    return upper * (1 - v) + (flat.take(i + j1) * (1 - u) + flat.take(i1 + j1) * u) * v


def _plain(uv: Array, noise: Array) -> Array:
    return 0.5 + 0.5 * value_noise(uv, noise)


def _checks(uv: Array, noise: Array) -> Array:
    return ((np.floor(uv[:, 0]) + np.floor(uv[:, 1])) % 2).astype(np.float32)


def _stripes(uv: Array, noise: Array) -> Array:
    return (np.floor(uv[:, 0]) % 2).astype(np.float32)


def _planks(uv: Array, noise: Array) -> Array:
    """Boards of their own shade, with a grain drawn out along them and a dark joint."""
    board = np.floor(uv[:, 0] * 4)
    shade = noise[board.astype(np.int32) % _TILE, 7]
    grain = value_noise(np.stack([uv[:, 0] * 40, uv[:, 1] * 2 + board * 3.7], -1), noise)
    joint = (uv[:, 0] * 4 - board) < 0.06
    return np.clip(0.5 + 0.35 * shade + 0.25 * grain, 0, 1) * ~joint + joint


def _bricks(uv: Array, noise: Array) -> Array:
    row = np.floor(uv[:, 1] * 4)
    u = uv[:, 0] * 2 + 0.5 * (row % 2)
    return ((u - np.floor(u) < 0.06) | (uv[:, 1] * 4 - row < 0.12)).astype(np.float32)


#: Share of the second colour at coordinates in units of the pattern's size.
PATTERNS: dict[str, Callable[[Array, Array], Array]] = {
    "plain": _plain,
    "checks": _checks,
    "stripes": _stripes,
    "planks": _planks,
    "bricks": _bricks,
}
