# SPDX-License-Identifier: Apache-2.0
"""Distance to the camera and depth along the axis, by the geometry of points in front of it."""

from __future__ import annotations

import data_files as files
import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlr.data import DataError, open_dataset
from mlr.data.distance import Camera, depth_along_axis, parse_camera
from mlr.data.tools.prepare import prepare

focal = st.floats(5, 900)


@given(focal, focal, st.floats(-3, 20), st.floats(-3, 20), st.integers(1, 9), st.integers(1, 13), st.integers(0, 99))
def test_the_norm_of_a_point_gives_its_third_coordinate(fx, fy, cx, cy, height, width, seed):
    z = np.random.default_rng(seed).uniform(0.1, 50, (height, width))
    v, u = np.mgrid[:height, :width]
    points = np.stack([(u - cx) / fx * z, (v - cy) / fy * z, z])
    camera = Camera(fx, fy, cx, cy)
    np.testing.assert_allclose(depth_along_axis(np.linalg.norm(points, axis=0), camera), z, rtol=1e-12)


def test_a_wall_has_one_depth_and_many_distances():
    """Hypersim's camera: the corner of its 1024 x 768 pixels is 1.234 times as far as the centre."""
    camera = Camera(886.81, 886.81, 511.5, 383.5)
    depth = depth_along_axis(np.full((768, 1024), 2, np.float32), camera)
    assert depth.dtype == np.float32
    assert depth[383, 511] == pytest.approx(2, rel=1e-6)
    assert depth[0, 0] == pytest.approx(2 / np.hypot(1, np.hypot(511.5, 383.5) / 886.81), rel=1e-6)
    np.testing.assert_array_equal(depth, depth[::-1, ::-1])
    assert depth_along_axis(np.zeros((3, 2), np.float32), camera).max() == 0


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "0,1,2,3", "1,-1,2,3", "nan,1,2,3", "1,1,inf,3", "a,b,c,d"])
def test_what_is_no_camera_is_refused(text):
    with pytest.raises(ValueError, match="takes four numbers fx,fy,cx,cy"):
        parse_camera(text)


def test_prepare_converts_before_it_resizes_and_says_so_in_the_file(tmp_path):
    files.write_folder(tmp_path / "shots/train", range(2))
    files.write_folder(tmp_path / "shots/val", range(2, 3))
    out = tmp_path / "x.h5"
    camera = "40,50,31.5,23.5"
    given = {"data_options": "unit=mm", "workers": 0, "quiet": True, "distance_to_depth": camera}
    prepare([f"folder:{tmp_path / 'shots'}"], out, size="24x32", **given)
    plain = open_dataset("folder", tmp_path / "shots", "train", unit="mm")[1]["depth"][0].numpy()
    converted = depth_along_axis(plain, parse_camera(camera))
    packed = open_dataset("packed", out, "train")[1]
    np.testing.assert_array_equal(packed["depth"][0], converted[1::2, 1::2])  # the nearest centre, as in training
    assert packed["valid"].all()
    with h5py.File(out) as file:
        assert file.attrs["distance_to_depth"] == camera
    with pytest.raises(ValueError, match="fx,fy,cx,cy"):
        prepare([f"folder:{tmp_path / 'shots'}"], tmp_path / "y.h5", **{**given, "distance_to_depth": "40"})
    assert not (tmp_path / "y.h5.parts").exists()


def test_parts_of_another_camera_are_not_taken_over(tmp_path, monkeypatch):
    files.write_folder(tmp_path / "shots/train", range(1))
    given = {"splits": "train", "data_options": "unit=mm", "workers": 0, "quiet": True}
    monkeypatch.setattr("mlr.data.tools.prepare.join", lambda *_: (_ for _ in ()).throw(OSError("full")))
    for camera in ("40,40,1,1", "41,40,1,1"):
        expected = (OSError, "full") if camera.startswith("40") else (DataError, "another preparation")
        with pytest.raises(expected[0], match=expected[1]):
            prepare([f"folder:{tmp_path / 'shots'}"], tmp_path / "x.h5", distance_to_depth=camera, **given)
