# SPDX-License-Identifier: Apache-2.0
"""Built-in indoor scenes with exact depth: furnished rooms, ray-cast by numpy, the same for everyone.

A scene is a function of (seed, index) alone. The camera is NYU Depth v2's: its colour intrinsics scaled to the picture,
about 1.4 m above the floor, slightly tilted, 0.7 to 10 m from what it sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlr.data.datasets.base import DepthDataset
from mlr.data.synthetic.holes import camera_holes, check_hole_share
from mlr.data.synthetic.shapes import Array, Box, Cylinder, Shape, Sphere, dot
from mlr.data.synthetic.surfaces import Paint
from mlr.utils.counted import counted

#: NYU's colour camera at 640 x 480: focal lengths and principal point in pixels.
NYU_INTRINSICS = (518.8579, 519.4696, 325.5824, 253.7362)

#: Depth of every pixel lies in this range, metres.
DEPTH_RANGE = (0.7, 10.0)

#: Validation scenes come from this index on, training scenes before it.
VALIDATION_SCENES = 1_000_000


@dataclass
class Scene:
    """A furnished room and a camera in it.

    Attributes:
        solids: shapes and their paint; the first is the room.
        eye: [3], the camera's place.
        turn: [3, 3], camera to world; camera axes are x right, y up, z ahead.
        lamp: [3], the light's place.
        lamp_power: its strength at one metre, [3].
        ambient: light from everywhere, [3].
    """

    solids: list[tuple[Shape, Paint]]
    eye: Array
    turn: Array
    lamp: Array
    lamp_power: Array
    ambient: Array


def render(seed: int, index: int, height: int, width: int) -> tuple[np.ndarray, Array]:
    """Picture and depth of a scene.

    Args:
        seed: of the whole data set.
        index: of the scene.
        height: of the picture, pixels.
        width: of the picture, pixels.

    Returns:
        RGB [H, W, 3] uint8 and depth [H, W] float32: metres along the optical axis.

    Example:
        >>> image, depth = render(0, 0, 96, 128)
        >>> bool((depth > 0.7).all() and (depth < 10).all())
        True
    """
    for attempt in range(100):
        random = np.random.default_rng((seed, index, attempt))
        scene = furnish(random)
        rays = camera_rays(height, width) @ scene.turn.T
        depth, hit = trace(scene, rays, height, width)
        if depth.min() > DEPTH_RANGE[0] and depth.max() < DEPTH_RANGE[1]:
            return develop(shade(scene, rays, depth, hit), random), depth
    raise AssertionError("a hundred rooms in a row were unusable")


def camera_rays(height: int, width: int) -> Array:
    """Directions [H, W, 3] through the pixels' centres with z = 1, so that a hit's t is its depth."""
    fx, fy, cx, cy = (np.float32(v * s) for v, s in zip(NYU_INTRINSICS, (width / 640, height / 480) * 2, strict=True))
    u, v = np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32) + 0.5
    x, y = np.broadcast_arrays((u - cx) / fx, -(v[:, None] - cy) / fy)
    return np.stack([x, y, np.ones_like(x)], -1)


def trace(scene: Scene, rays: Array, height: int, width: int) -> tuple[Array, np.ndarray]:
    """Depth [H, W] and the number of the solid that is seen, [H, W]."""
    depth = np.full((height, width), np.inf, np.float32)
    hit = np.zeros((height, width), np.int16)
    for number, (shape, _) in enumerate(scene.solids):
        window = (slice(None), slice(None)) if number == 0 else _window(scene, shape, height, width)
        if window is None:
            continue
        t = shape.intersect(scene.eye, rays[window])
        nearer = t < depth[window]
        depth[window] = np.where(nearer, t, depth[window])
        hit[window] = np.where(nearer, number, hit[window])
    return depth, hit


def _window(scene: Scene, shape: Shape, height: int, width: int) -> tuple[slice, slice] | None:
    """The part of the picture that the sphere around a shape can cover; None if it lies behind the camera."""
    x, y, z = (shape.centre - scene.eye) @ scene.turn
    nearest = z - shape.radius
    if z + shape.radius <= 0:
        return None
    if nearest <= 0.1:
        return slice(None), slice(None)
    fx, fy, cx, cy = (v * s for v, s in zip(NYU_INTRINSICS, (width / 640, height / 480) * 2, strict=True))
    # the sphere lies in a box of half side r: its projection is widest on the near or the far face of it
    spans = []
    for middle, focal, centre in ((x, fx, cx), (-y, fy, cy)):
        edges = [(middle + s * shape.radius) / d for s in (-1, 1) for d in (nearest, z + shape.radius)]
        spans.append((int(min(edges) * focal + centre) - 1, int(max(edges) * focal + centre) + 2))
    (left, right), (top, bottom) = spans
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        return None
    return slice(max(top, 0), bottom), slice(max(left, 0), right)


def shade(scene: Scene, rays: Array, depth: Array, hit: np.ndarray) -> Array:
    """Linear colours [H, W, 3]: ambient light, and the lamp where nothing stands between."""
    points = (scene.eye + rays * depth[..., None]).reshape(-1, 3)
    colours = np.empty_like(points)
    owner = hit.ravel()
    for number in np.flatnonzero(np.bincount(owner)):
        shape, paint = scene.solids[number]
        where = np.flatnonzero(owner == number)
        at = points.take(where, axis=0)
        normal, uv, face = shape.surface(at)
        colour, glow = paint.shade(uv.astype(np.float32), face)
        to_lamp = scene.lamp - at
        distance = np.sqrt(dot(to_lamp, to_lamp))
        facing = np.maximum(dot(normal, to_lamp) / distance, 0)
        lit = facing / (0.5 + distance * distance) * ~_shadowed(scene, at, to_lamp)
        up = 0.75 + 0.25 * normal[:, 1]  # light bounced off the ceiling is a little stronger from above
        light = scene.ambient * up[:, None] + scene.lamp_power * lit[:, None]
        if glow.any():
            light = light * (1 - glow[:, None]) + 1.2 * glow[:, None]
        colours[where] = colour * light
    return colours.reshape(rays.shape)


def _shadowed(scene: Scene, points: Array, to_lamp: Array) -> np.ndarray:
    """Whether a solid stands between points and the lamp."""
    dark = np.zeros(len(points), bool)
    squared = dot(to_lamp, to_lamp)
    # Only points whose way to the lamp passes the sphere around a shape are cast. With the lamp as origin, the point
    # q and the centre c, the way comes nearest at f q, f = c.q / |q|^2 in [0, 1], where |c - f q|^2 is
    # |c|^2 + f (f |q|^2 - 2 c.q): scalars, no vectors.
    for shape, _ in scene.solids[1:]:
        centre = shape.centre - scene.lamp
        lift = -(to_lamp @ centre)
        foot = np.clip(lift / squared, 0, 1)
        miss = dot(centre, centre) + foot * (foot * squared - 2 * lift)
        # a millimetre more, so that rounding drops no shadow
        near = np.flatnonzero((miss < np.float32((shape.radius + 1e-3) ** 2)) & ~dark)
        if len(near):
            t = shape.intersect(points[near], to_lamp[near])
            dark[near[t < 1]] = True
    return dark


def develop(linear: Array, random: np.random.Generator) -> np.ndarray:
    """What a camera makes of light: exposure, vignetting, gamma, noise, 8 bits."""
    height, width, _ = linear.shape
    exposure = random.uniform(0.45, 0.6) / max(float(linear.mean()), 1e-3)
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
    linear = linear * (np.float32(exposure) * (1 - 0.12 * (x * x + y * y)))[..., None]
    image = np.clip(linear / (1 + 0.35 * linear), 0, 1) ** np.float32(1 / 2.2)
    image += random.uniform(0.004, 0.015) * random.standard_normal(image.shape, dtype=np.float32)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


# --- furnishing -------------------------------------------------------------------------------------------------------


def _colour(random: np.random.Generator, light: tuple[float, float], saturation: float) -> Array:
    """A colour of some lightness whose channels differ by up to ``saturation``."""
    value = random.uniform(*light)
    return np.clip(value * (1 + saturation * random.uniform(-1, 1, 3)), 0.02, 0.95).astype(np.float32)


def _paint(
    random: np.random.Generator,
    patterns: tuple[str, ...],
    light: tuple[float, float],
    saturation: float,
    contrast: float = 0.25,
    size: tuple[float, float] = (0.2, 0.8),
) -> Paint:
    colour = _colour(random, light, saturation)
    other = np.clip(colour * (1 + contrast * random.choice([-1, 1])), 0.02, 0.95).astype(np.float32)
    noise = random.uniform(-1, 1, (64, 64)).astype(np.float32)
    return Paint(colour, other, str(random.choice(patterns)), random.uniform(*size), random.uniform(0.02, 0.1), noise)


def _room(random: np.random.Generator) -> tuple[Box, Paint, Array]:
    """The room itself with what hangs on its walls and lies on its floor, and its sides."""
    sides = np.array([random.uniform(3.2, 6), random.uniform(2.4, 3), random.uniform(4, 8)], np.float32)
    half = sides / 2
    box = Box(half, half, inward=True)
    walls = _paint(random, ("plain", "plain", "stripes", "bricks"), (0.35, 0.8), 0.15, 0.1)
    patches: list[tuple[int, float, float, float, float, Paint]] = []
    # faces: 0/1 left and right, 2/3 floor and ceiling, 4/5 behind and ahead; coordinates are relative to the centre
    whole = (-10.0, -10.0, 10.0, 10.0)
    floor = _paint(random, ("planks", "checks", "plain", "bricks"), (0.15, 0.5), 0.3, 0.35, (0.3, 0.9))
    patches.append((2, *whole, floor))
    patches.append((3, *whole, _paint(random, ("plain",), (0.75, 0.9), 0.05, 0.03)))
    for face in (0, 1, 5):
        length = float(half[2] if face < 2 else half[0])
        skirting = _paint(random, ("plain",), (0.3, 0.9), 0.05, 0.05)
        patches.append((face, -10, float(-half[1]), 10, float(-half[1]) + 0.1, skirting))
        for _ in range(random.integers(0, 4)):
            kind = random.choice(["picture", "window", "door"])
            w, h = {"picture": (random.uniform(0.3, 1.1), random.uniform(0.3, 0.8)),
                    "window": (random.uniform(0.7, 1.6), random.uniform(0.8, 1.3)),
                    "door": (0.9, 2.0)}[str(kind)]  # fmt: skip
            u = random.uniform(-length + w / 2, length - w / 2)
            v = float(-half[1]) + (1.0 if kind == "door" else random.uniform(1.35, 1.7))
            frame = _paint(random, ("plain",), (0.1, 0.9), 0.2, 0.1)
            inner = _paint(random, ("plain", "stripes", "checks"), (0.1, 0.8), 0.6, 0.6, (0.05, 0.3))
            if kind == "window":
                inner = Paint(np.array([0.8, 0.9, 1.0], np.float32), inner.second, "plain", 2.0, 0.01, inner.noise, 0.9)
            rim = 0.06
            patches.append((face, u - w / 2, v - h / 2, u + w / 2, v + h / 2, frame))
            patches.append((face, u - w / 2 + rim, v - h / 2 + rim, u + w / 2 - rim, v + h / 2 - rim, inner))
    if random.random() < 0.5:  # a rug
        u, v, w, h = *random.uniform(-1, 1, 2), *random.uniform(0.5, 1.3, 2)
        patches.append(
            (2, u - w, v - h, u + w, v + h, _paint(random, ("stripes", "checks", "plain"), (0.1, 0.6), 0.6, 0.5))
        )
    return box, Paint(**{**walls.__dict__, "patches": patches}), sides


def _block(centre: tuple[float, float, float], sides: tuple[float, float, float], yaw: float) -> Box:
    return Box(np.array(centre, np.float32), np.array(sides, np.float32) / 2, yaw)


def _furniture(random: np.random.Generator, x: float, z: float, yaw: float) -> list[tuple[Shape, Paint]]:
    """A piece of furniture standing at (x, z)."""
    wood = _paint(random, ("planks", "plain"), (0.12, 0.5), 0.4, 0.3, (0.3, 0.8))
    bright = _paint(random, ("plain", "stripes", "checks"), (0.1, 0.7), 0.7, 0.4, (0.08, 0.4))
    kind = random.choice(["cabinet", "table", "sofa", "shelf", "bin", "ball", "column"])

    def turned(dx: float, dz: float) -> tuple[float, float]:
        return x + np.cos(yaw) * dx + np.sin(yaw) * dz, z - np.sin(yaw) * dx + np.cos(yaw) * dz

    if kind == "table":
        w, h, d = random.uniform(0.8, 1.6), random.uniform(0.45, 0.8), random.uniform(0.5, 0.9)
        parts: list[tuple[Shape, Paint]] = [(_block((x, h, z), (w, 0.05, d), yaw), wood)]
        for sx in (-1, 1):
            for sz in (-1, 1):
                px, pz = turned(sx * (w / 2 - 0.06), sz * (d / 2 - 0.06))
                parts.append((Cylinder(np.array([px, h / 2, pz], np.float32), 0.03, h / 2), wood))
        return parts + _on_top(random, x, h + 0.025, z, min(w, d) / 4)
    if kind == "sofa":
        w, seat = random.uniform(1.2, 2), random.uniform(0.38, 0.45)
        bx, bz = turned(0, 0.35)
        return [
            (_block((x, seat / 2, z), (w, seat, 0.8), yaw), bright),
            (_block((bx, 0.45, bz), (w, 0.9, 0.18), yaw), bright),
        ]
    if kind == "shelf":
        w, h = random.uniform(0.6, 1.2), random.uniform(1.4, 2.1)
        return [(_block((x, h / 2, z), (w, h, 0.32), yaw), wood)]
    if kind == "bin":
        r, h = random.uniform(0.15, 0.35), random.uniform(0.2, 0.4)
        return [(Cylinder(np.array([x, h, z], np.float32), r, h), bright)]
    if kind == "ball":
        r = random.uniform(0.15, 0.4)
        return [(Sphere(np.array([x, r, z], np.float32), r), bright)]
    if kind == "column":
        return [(Cylinder(np.array([x, 1.5, z], np.float32), random.uniform(0.12, 0.25), 1.5), wood)]
    w, h, d = random.uniform(0.4, 1.3), random.uniform(0.4, 1.2), random.uniform(0.4, 0.7)
    return [(_block((x, h / 2, z), (w, h, d), yaw), wood), *_on_top(random, x, h, z, min(w, d) / 4)]


def _on_top(random: np.random.Generator, x: float, y: float, z: float, room: float) -> list[tuple[Shape, Paint]]:
    """Perhaps something small on a surface at height y."""
    paint = _paint(random, ("plain", "checks", "stripes"), (0.1, 0.8), 0.7, 0.5, (0.03, 0.15))
    kind, r = random.choice(["ball", "vase", "case", "nothing"]), min(random.uniform(0.06, 0.16), room)
    if kind == "ball":
        return [(Sphere(np.array([x, y + r, z], np.float32), r), paint)]
    if kind == "vase":
        return [(Cylinder(np.array([x, y + 1.5 * r, z], np.float32), 0.7 * r, 1.5 * r), paint)]
    if kind == "case":
        return [(_block((x, y + r / 2, z), (2 * r, r, 1.5 * r), random.uniform(0, 3)), paint)]
    return []


def furnish(random: np.random.Generator) -> Scene:
    """Draw a room, what stands in it, its light and a camera near one wall that looks across it."""
    box, walls, sides = _room(random)
    eye = np.array(
        [random.uniform(1.2, sides[0] - 1.2), random.uniform(1.2, 1.65), random.uniform(0.3, 0.8)], np.float32
    )
    # look at a point across the room
    yaw = np.arctan2(random.uniform(0.8, sides[0] - 0.8) - eye[0], sides[2] - eye[2]) + random.uniform(-0.12, 0.12)
    pitch, roll = random.uniform(-0.3, -0.02), random.uniform(-0.03, 0.03)
    turn = _rotation(1, yaw) @ _rotation(0, -pitch) @ _rotation(2, roll)
    solids: list[tuple[Shape, Paint]] = [(box, walls)]
    taken = [(float(eye[0]), float(eye[2]), 1.1)]
    for _ in range(random.integers(4, 10)):
        by_wall = random.random() < 0.5
        x = random.uniform(0.5, sides[0] - 0.5)
        z = float(sides[2]) - 0.45 if by_wall else random.uniform(1.6, sides[2] - 0.5)
        if any(np.hypot(x - tx, z - tz) < reach + 0.5 for tx, tz, reach in taken):
            continue
        solids += _furniture(random, x, z, 0.0 if by_wall else random.uniform(-np.pi, np.pi))
        taken.append((x, z, 0.55))
    lamp = np.array(
        [
            random.uniform(0.25, 0.75) * sides[0],
            sides[1] - random.uniform(0.15, 0.5),
            random.uniform(0.2, 0.7) * sides[2],
        ],
        np.float32,
    )
    warmth = np.array([1.0, random.uniform(0.85, 1.0), random.uniform(0.65, 1.0)], np.float32)
    ambient = np.array([0.9, 0.95, 1.0], np.float32) * np.float32(random.uniform(0.25, 0.5))
    return Scene(solids, eye, turn, lamp, warmth * np.float32(random.uniform(1.5, 3.5)), ambient)


def _rotation(axis: int, angle: float) -> Array:
    """Rotation matrix about an axis."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3, dtype=np.float32)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


# --- data set ---------------------------------------------------------------------------------------------------------


class Rooms(DepthDataset):
    """Built-in scenes as a data set; scene i of a seed is the same on every machine and in every worker.

    Args:
        length: number of scenes.
        seed: of the scenes.
        first: index of the first scene, so that training and validation never share one.
        size: (height, width) they are drawn at.
        hole_share: of the pixels whose depth is left out, see :mod:`mlr.data.synthetic.holes`. The images do not
            change, and the holes of scene i of a seed are always the same.

    Raises:
        ValueError: the share of holes is out of range.
    """

    def __init__(
        self, length: int, seed: int = 0, first: int = 0, size: tuple[int, int] = (288, 384), hole_share: float = 0.0
    ) -> None:
        self.length, self.seed, self.first, self.size, self.missing = length, seed, first, size, []
        self.hole_share = check_hole_share(hole_share)
        self.dense = hole_share == 0

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        """Seed and index of the scene."""
        return f"rooms/{self.seed}/{self.first + index}"

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and depth of a scene, 0 in its holes."""
        scene = self.first + index
        image, depth = render(self.seed, scene, *self.size)
        if not self.dense:
            # a stream of its own: holes are independent of what is drawn for the scene
            random = np.random.default_rng(np.random.SeedSequence((self.seed, scene), spawn_key=(0,)))
            depth[camera_holes(random, *self.size, self.hole_share)] = 0
        return image, depth

    def __repr__(self) -> str:
        holes = "" if self.dense else f", {100 * self.hole_share:g} % holes"
        return f"{counted(self.length, 'built-in scene')} from {self.first} on (seed {self.seed}{holes})"


def open_rooms(
    root: str | None,
    split: str = "train",
    length: int = 800,
    seed: int = 0,
    height: int = 288,
    width: int = 384,
    hole_share: float = 0.0,
) -> Rooms:
    """The scenes of a split; ``root`` is not used.

    Validation scenes have no holes, whatever ``hole_share`` says: predictions are scored on the complete true depth.
    """
    if split == "val":
        check_hole_share(hole_share)
        return Rooms(length, seed, VALIDATION_SCENES, (height, width))
    return Rooms(length, seed, 0, (height, width), hole_share)
