# SPDX-License-Identifier: Apache-2.0
"""The solids that built-in scenes are made of: where rays meet them, and how their surface lies there.

Rays are ``origin + t * direction`` with directions of shape [..., 3]; a miss is ``inf``. World axes: x right, y up, z
ahead, metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # of float32

#: A direction component this small counts as this large: the hit moves by less than float32 can tell.
_TINY = np.float32(1e-7)
#: Hits nearer than this are the surface that the ray starts from.
NEAR = np.float32(1e-3)
_INF = np.float32(np.inf)


def dot(a: Array, b: Array) -> Array:
    """Scalar products of vectors [..., 3]; numpy's sum over so short an axis is many times slower."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def _inverse(direction: Array) -> Array:
    return 1 / np.where(np.abs(direction) < _TINY, _TINY, direction)


@dataclass(frozen=True)
class Box:
    """A box turned about the vertical axis.

    Attributes:
        centre: [3].
        half: [3], half its sides.
        yaw: turn about y, radians.
        inward: whether it is a room, seen from the inside.
    """

    centre: Array
    half: Array
    yaw: float = 0.0
    inward: bool = False

    @property
    def radius(self) -> float:
        """Of the sphere around it."""
        return float(np.linalg.norm(self.half))

    def _local(self, vector: Array) -> Array:
        if self.yaw == 0:
            return vector
        c, s = np.float32(np.cos(self.yaw)), np.float32(np.sin(self.yaw))
        x, z = vector[..., 0], vector[..., 2]
        return np.stack([c * x - s * z, vector[..., 1], s * x + c * z], -1)

    def intersect(self, origin: Array, direction: Array) -> Array:
        """Distance t of the first hit."""
        o, inverse = self._local(origin - self.centre), _inverse(self._local(direction))
        middle, reach = -o * inverse, self.half * np.abs(inverse)
        far = middle + reach
        leave = np.minimum(np.minimum(far[..., 0], far[..., 1]), far[..., 2])
        if self.inward:
            return leave
        near = middle - reach
        enter = np.maximum(np.maximum(near[..., 0], near[..., 1]), near[..., 2])
        return np.where((enter < leave) & (enter > NEAR), enter, _INF)

    def surface(self, points: Array) -> tuple[Array, Array, NDArray[np.int64]]:
        """Outward normals [n, 3], surface coordinates [n, 2] in metres and the face 0-5 of points on it."""
        p = self._local(points - self.centre)
        x, y, z = np.ascontiguousarray(p.T)
        ax, ay, az = (np.abs(value / half) for value, half in zip((x, y, z), self.half, strict=True))
        on_x, on_y = (ax >= ay) & (ax >= az), ay >= az
        axis = np.where(on_x, 0, np.where(on_y, 1, 2))
        face = 2 * axis + (np.where(on_x, x, np.where(on_y, y, z)) > 0)
        u, v = np.where(on_x, z, x), np.where(axis == 1, z, y)
        c, s = np.float32(np.cos(self.yaw)), np.float32(np.sin(self.yaw))
        outward = np.array([[-c, 0, s], [c, 0, -s], [0, -1, 0], [0, 1, 0], [-s, 0, -c], [s, 0, c]], np.float32)
        normal = (-outward if self.inward else outward).take(face, axis=0)
        return normal, np.stack([u, v], -1), face


@dataclass(frozen=True)
class Sphere:
    """A ball.

    Attributes:
        centre: [3].
        radius: metres.
    """

    centre: Array
    radius: float

    def intersect(self, origin: Array, direction: Array) -> Array:
        """Distance t of the first hit."""
        o = origin - self.centre
        a = dot(direction, direction)
        half_b = dot(o, direction)
        root = half_b * half_b - a * (dot(o, o) - np.float32(self.radius**2))
        t = (-half_b - np.sqrt(np.maximum(root, 0))) / a
        return np.where((root > 0) & (t > NEAR), t, _INF)

    def surface(self, points: Array) -> tuple[Array, Array, NDArray[np.int64]]:
        """Normals, longitude and latitude in metres along the surface, face 0."""
        normal = (points - self.centre) / np.float32(self.radius)
        angles = np.stack([np.arctan2(normal[:, 0], normal[:, 2]), np.arcsin(np.clip(normal[:, 1], -1, 1))], -1)
        return normal, angles * np.float32(self.radius), np.zeros(len(points), np.int64)


@dataclass(frozen=True)
class Cylinder:
    """A standing cylinder with flat ends.

    Attributes:
        centre: [3].
        width: its radius, metres.
        half_height: metres.
    """

    centre: Array
    width: float
    half_height: float

    @property
    def radius(self) -> float:
        """Of the sphere around it."""
        return float(np.hypot(self.width, self.half_height))

    def intersect(self, origin: Array, direction: Array) -> Array:
        """Distance t of the first hit: inside both the endless cylinder and the slab between the ends."""
        o = origin - self.centre
        ox, oy, oz = o[..., 0], o[..., 1], o[..., 2]
        dx, dy, dz = direction[..., 0], direction[..., 1], direction[..., 2]
        a = np.maximum(dx * dx + dz * dz, _TINY)
        half_b = ox * dx + oz * dz
        root = half_b * half_b - a * (ox * ox + oz * oz - np.float32(self.width**2))
        side = np.sqrt(np.maximum(root, 0))
        inverse = _inverse(dy)
        middle, reach = -oy * inverse, np.float32(self.half_height) * np.abs(inverse)
        enter = np.maximum((-half_b - side) / a, middle - reach)
        leave = np.minimum((-half_b + side) / a, middle + reach)
        return np.where((root > 0) & (enter < leave) & (enter > NEAR), enter, _INF)

    def surface(self, points: Array) -> tuple[Array, Array, NDArray[np.int64]]:
        """Normals, coordinates along the surface in metres, face 0 (side) or 1 (ends)."""
        p = points - self.centre
        end = np.abs(p[:, 1]) > np.float32(self.half_height - 1e-3)
        normal = np.where(
            end[:, None],
            np.stack([0 * p[:, 0], np.sign(p[:, 1]), 0 * p[:, 0]], -1),
            np.stack([p[:, 0], 0 * p[:, 0], p[:, 2]], -1) / np.float32(self.width),
        )
        around = np.arctan2(p[:, 0], p[:, 2]) * np.float32(self.width)
        uv = np.where(end[:, None], p[:, [0, 2]], np.stack([around, p[:, 1]], -1))
        return normal.astype(np.float32), uv, end.astype(np.int64)


Shape = Box | Sphere | Cylinder
