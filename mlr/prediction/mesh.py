# SPDX-License-Identifier: Apache-2.0
"""Coloured surfaces of depth maps, as binary glTF 2.0 files (GLB)."""

from __future__ import annotations

import json
import math
import struct
from typing import Any, BinaryIO

import numpy as np

from mlr._version import __version__
from mlr.data.depth_files import DataError
from mlr.prediction.point_cloud import Intrinsics

#: Depth may grow by this factor within a triangle; where it grows more, one thing hides another and the surface is cut.
JUMP = 1.05
#: Vertices of a surface at most: viewers refuse or crawl beyond. Of larger maps every n-th row and column is taken.
VERTICES = 1_000_000

#: Numbers of the glTF 2.0 specification.
FLOAT, UNSIGNED_SHORT, UNSIGNED_INT = 5126, 5123, 5125
VERTEX_BUFFER, INDEX_BUFFER = 34962, 34963
MAGIC, JSON_CHUNK, BINARY_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942


def write_glb(file: BinaryIO, depth: np.ndarray, image: np.ndarray, camera: Intrinsics) -> None:
    """Write the surface that a camera sees: x right, y up, z backward, metres, as glTF has it.

    The material is unlit, so that viewers show the colours of the image.

    Args:
        file: open for writing.
        depth: [H, W] metres; 0 = none.
        image: [H, W, 3] uint8.
        camera: of the image.

    Raises:
        DataError: no three neighbours have depth without a jump between them.
    """
    step = math.ceil(math.sqrt(depth.size / VERTICES))
    points, colours, depth = (values[::step, ::step] for values in (camera.points(depth), image, depth))
    used, corners = np.unique(triangles(depth), return_inverse=True)
    if not len(used):
        raise DataError("the depth holds no surface: no three neighbouring pixels have depth without a jump")
    positions = (points.reshape(-1, 3)[used] * (1, -1, -1)).astype("<f4")
    shades = np.full((len(used), 4), 65535, "<u2")
    shades[:, :3] = np.rint(65535 * linear(colours.reshape(-1, 3)[used]))
    indices = corners.reshape(-1).astype("<u4")
    _write(file, positions, shades, indices)


def triangles(depth: np.ndarray) -> np.ndarray:
    """Triangles [n, 3] of pixel indices, two a square of neighbours, counterclockwise as the camera sees them."""
    pixel = np.arange(depth.size, dtype=np.uint32).reshape(depth.shape)
    left, right, below, across = pixel[:-1, :-1], pixel[:-1, 1:], pixel[1:, :-1], pixel[1:, 1:]
    corners = np.concatenate(
        [np.stack(three, -1).reshape(-1, 3) for three in ((left, below, right), (right, below, across))]
    )
    depths = depth.reshape(-1)[corners]
    nearest, farthest = depths.min(1), depths.max(1)
    return corners[(nearest > 0) & (farthest <= JUMP * nearest)]


def linear(srgb: np.ndarray) -> np.ndarray:
    """Bytes of sRGB as the linear values in [0, 1] that glTF's vertex colours are."""
    value = srgb / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _write(file: BinaryIO, positions: np.ndarray, shades: np.ndarray, indices: np.ndarray) -> None:
    """The header, what the buffers hold in JSON, and the buffers."""
    buffers = [positions.tobytes(), shades.tobytes(), indices.tobytes()]  # of 12, 8 and 4 bytes: all aligned to 4
    starts = [0, len(buffers[0]), len(buffers[0]) + len(buffers[1])]
    content: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": f"mlr {__version__}"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": 2, "material": 0}]}],
        "materials": [
            {
                "doubleSided": True,
                "pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 1},
                "extensions": {"KHR_materials_unlit": {}},
            }
        ],
        "accessors": [
            {
                "bufferView": 0, "componentType": FLOAT, "count": len(positions), "type": "VEC3",
                "min": positions.min(0).tolist(), "max": positions.max(0).tolist(),
            },
            {
                "bufferView": 1, "componentType": UNSIGNED_SHORT, "normalized": True, "count": len(shades),
                "type": "VEC4",
            },
            {"bufferView": 2, "componentType": UNSIGNED_INT, "count": len(indices), "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": len(buffer), "target": target}
            for start, buffer, target in zip(
                starts, buffers, (VERTEX_BUFFER, VERTEX_BUFFER, INDEX_BUFFER), strict=True
            )
        ],
        "buffers": [{"byteLength": sum(map(len, buffers))}],
    }  # fmt: skip
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary = b"".join(buffers)
    file.write(struct.pack("<III", MAGIC, 2, 12 + 8 + len(text) + 8 + len(binary)))
    file.write(struct.pack("<II", len(text), JSON_CHUNK) + text)
    file.write(struct.pack("<II", len(binary), BINARY_CHUNK) + binary)
