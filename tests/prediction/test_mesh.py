# SPDX-License-Identifier: Apache-2.0
"""mlr predict --format glb: files as the specification of glTF 2.0 has them, and surfaces that are cut at jumps."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlr.data.depth_files import DataError
from mlr.prediction import mesh
from mlr.prediction.mesh import JUMP, linear, triangles, write_glb
from mlr.prediction.point_cloud import Intrinsics

CAMERA = Intrinsics(50.0, 40.0, 5.0, 3.0)
COMPONENTS = {5123: np.dtype("<u2"), 5125: np.dtype("<u4"), 5126: np.dtype("<f4")}
SIZES = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}


def parse(data: bytes) -> tuple[dict, list[np.ndarray]]:
    """The JSON and the accessors' arrays of a GLB file, by sections 3.6 and 4.4 of the specification."""
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    chunks, at = [], 12
    while at < length:
        size, kind = struct.unpack_from("<I4s", data, at)
        assert size % 4 == 0
        chunks.append((kind, data[at + 8 : at + 8 + size]))
        at += 8 + size
    assert at == length
    assert [kind for kind, _ in chunks] == [b"JSON", b"BIN\0"]
    content, binary = json.loads(chunks[0][1]), chunks[1][1]
    assert content["asset"]["version"] == "2.0"
    assert len(content["buffers"]) == 1
    assert len(binary) - 3 <= content["buffers"][0]["byteLength"] <= len(binary)
    arrays = []
    for accessor in content["accessors"]:
        view, kind = content["bufferViews"][accessor["bufferView"]], COMPONENTS[accessor["componentType"]]
        columns, start = SIZES[accessor["type"]], view["byteOffset"]
        assert start % kind.itemsize == 0
        assert (columns * kind.itemsize) % 4 == 0 or view["target"] == 34963  # vertex attributes are aligned
        assert start + view["byteLength"] <= len(binary)
        assert accessor["count"] >= 1
        assert accessor["count"] * columns * kind.itemsize == view["byteLength"]
        arrays.append(np.frombuffer(binary, kind, accessor["count"] * columns, start).reshape(-1, columns))
    (primitive,) = content["meshes"][0]["primitives"]
    assert primitive.get("mode", 4) == 4
    named = [primitive["attributes"]["POSITION"], primitive["attributes"]["COLOR_0"], primitive["indices"]]
    return content, [arrays[i] for i in named]


def written(depth: np.ndarray, image: np.ndarray) -> tuple[dict, list[np.ndarray]]:
    file = io.BytesIO()
    write_glb(file, depth, image, CAMERA)
    return parse(file.getvalue())


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=30)
@given(height=st.integers(2, 9), width=st.integers(2, 11), seed=st.integers(0, 99))
def test_a_smooth_surface_is_whole_and_lies_where_the_points_lie(height, width, seed):
    depth = 2 + 0.01 * np.random.default_rng(seed).random((height, width), np.float32)
    image = picture(height, width)
    content, (positions, colours, indices) = written(depth, image)
    expected = CAMERA.points(depth).reshape(-1, 3) * (1, -1, -1)
    np.testing.assert_allclose(positions, expected, rtol=1e-6)
    assert len(indices) == 2 * 3 * (height - 1) * (width - 1)
    assert indices.max() == len(positions) - 1
    corners = positions[indices.reshape(-1, 3)].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert ((normals * corners[:, 0]).sum(1) < 0).all()  # all face the camera, which is at 0
    accessor = content["accessors"][content["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    np.testing.assert_array_equal(np.float32(accessor["min"]), positions.min(0))
    np.testing.assert_array_equal(np.float32(accessor["max"]), positions.max(0))
    shades = colours[:, :3] / 65535
    srgb = np.where(shades <= 0.0031308, 12.92 * shades, 1.055 * shades ** (1 / 2.4) - 0.055)
    np.testing.assert_array_equal(np.rint(255 * srgb), image.reshape(-1, 3))
    assert (colours[:, 3] == 65535).all()


def test_a_jump_and_unknown_depth_cut_the_surface():
    depth = np.full((6, 8), 2.0, np.float32)
    depth[:, 4:] = 2.0 * JUMP * 1.01
    depth[0, 0] = 0
    _, (positions, _, indices) = written(depth, picture(6, 8))
    corners = positions[indices.reshape(-1, 3)]
    assert len(positions) == 6 * 8 - 1
    assert len(corners) == 2 * 5 * 6 - 1  # two strips of three squares, without the triangle of the unknown pixel
    assert np.ptp(corners[:, :, 2], axis=1).max() == 0
    depth[:, 4:] = 2.0 * JUMP * 0.99
    assert len(triangles(depth)) == 2 * 5 * 7 - 1


@pytest.mark.parametrize("depth", [np.zeros((4, 4)), np.ones((1, 9)), 2.0 ** np.arange(16).reshape(4, 4)])
def test_no_surface_is_explained(depth):
    with pytest.raises(DataError, match="holds no surface"):
        written(depth.astype(np.float32), picture(*depth.shape))


def test_large_maps_are_thinned(monkeypatch):
    monkeypatch.setattr(mesh, "VERTICES", 30)
    depth = np.full((20, 23), 3.0, np.float32)
    image = picture(20, 23)
    _, (positions, colours, _) = written(depth, image)
    step = 4
    assert len(positions) == 5 * 6 <= 30
    np.testing.assert_allclose(positions, CAMERA.points(depth)[::step, ::step].reshape(-1, 3) * (1, -1, -1), rtol=1e-6)
    np.testing.assert_array_equal(colours[:, :3], np.rint(65535 * linear(image[::step, ::step].reshape(-1, 3))))
