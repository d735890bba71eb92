# SPDX-License-Identifier: Apache-2.0
"""What mlr predict reads: kinds of images, turned videos, names of folders and patterns."""

import struct

import numpy as np
import pytest
from PIL import Image
from test_predict_command import film, picture, shoot

from mlr.data import read_image
from mlr.prediction.inputs import find_inputs
from mlr.prediction.video import read_video


def test_every_kind_of_image_becomes_rgb(tmp_path):
    grey = np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)
    three = np.repeat(grey[..., None], 3, 2)

    def read(image: Image.Image, name: str = "x.png") -> np.ndarray:
        image.save(tmp_path / name)
        return read_image(tmp_path / name)

    np.testing.assert_array_equal(read(Image.fromarray(grey)), three)
    np.testing.assert_array_equal(read(Image.fromarray(grey).convert("P")), three)
    np.testing.assert_array_equal(read(Image.fromarray(grey.astype(np.uint16) * 257)), three)
    np.testing.assert_array_equal(read(Image.fromarray(grey.astype(np.int32) * 257), "x.tif"), three)
    np.testing.assert_array_equal(read(Image.fromarray(np.dstack([picture(0), grey]))), picture(0))
    assert read(Image.fromarray(grey).convert("1")).shape == (48, 64, 3)
    with pytest.raises(ValueError, match=r"x\.tif holds float32 values of no known range"):
        read(Image.fromarray(grey.astype(np.float32)), "x.tif")


def test_turned_video_is_turned_back(tmp_path):
    clip = film(tmp_path / "clip.mp4", 1, bright_corner=True)
    stored = next(read_video(clip))
    content = clip.read_bytes()
    upright, turned = (struct.pack(">9i", *rows) for rows in (
        (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30),
        (0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30),  # a quarter clockwise
    ))  # fmt: skip
    track = content.index(b"tkhd")
    clip.write_bytes(content[:track] + content[track:].replace(upright, turned, 1))
    shown = next(read_video(clip))
    assert shown.shape == (64, 48, 3)
    np.testing.assert_array_equal(shown, np.rot90(stored, -1))
    assert shown[:16, 32:].mean() > 200  # the upper left corner came to the right
    assert shown[16:].mean() < 60


def test_names_of_files_folders_and_patterns(tmp_path):
    shots = shoot(tmp_path / "shots", "a/rgb.png", "b/rgb.png", "b/.hidden.png", ".trash/1.png", "out/1.png")
    (shots / "a/rgb.txt").write_text("")

    def names(*words: object) -> list[str]:
        return [file.name for file in find_inputs(map(str, words), shots / "out")[0]]

    assert names(shots / "a/rgb.png") == ["rgb"]
    assert names(shots) == ["a/rgb", "b/rgb"]
    assert names(shots / "*/rgb.png") == ["a/rgb", "b/rgb"]
    assert names(shots / "**/*.png") == ["a/rgb", "b/rgb"]
    assert names(shots / "[ab]") == ["a/rgb", "b/rgb"]
    assert names(shots, shots / "*/rgb.png", shots) == ["a/rgb", "b/rgb"]
    assert find_inputs([str(shots)], tmp_path)[1] == 1
    odd = shoot(tmp_path, "x[1].png") / "x[1].png"
    assert names(odd) == ["x[1]"]


def test_links_are_followed_once_and_broken_ones_are_named(tmp_path):
    shots, elsewhere = shoot(tmp_path / "shots", "a.png"), shoot(tmp_path / "elsewhere", "b.png")
    (shots / "more").symlink_to(elsewhere)
    (shots / "again").symlink_to(shots)
    (shots / "c.png").symlink_to("/nowhere/c.png")
    unread: list[str] = []
    files, ignored = find_inputs([str(shots)], tmp_path / "out", unread)
    assert [file.name for file in files] == ["a", "more/b"]
    assert any(line.endswith("c.png is a broken link") for line in unread)
    assert ignored == len(unread)
    assert [file.name for file in find_inputs([str(shots / "*.png")], tmp_path / "out")[0]] == ["a"]
    shoot(shots / "d", "e.png")
    assert [file.name for file in find_inputs([str(shots / "d*")], tmp_path / "out")[0]] == ["d/e"]
