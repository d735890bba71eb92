# SPDX-License-Identifier: Apache-2.0
"""Depth with holes, used as it is: the mask is False exactly where no depth was measured, whatever moves the frame."""

from __future__ import annotations

import warnings
from pathlib import Path

import data_files as files
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlr.data import DepthData, Folder, make_sample, open_dataset
from mlr.data.datamodule import Transformed
from mlr.data.tools.prepare import prepare
from mlr.data.transforms import POLICIES, finish, resize_sample

FRAME = Path(__file__).resolve().parents[2] / "examples" / "xtion_bookshelf"


def masked_batches(data: DepthData) -> list[dict]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.setup("fit")
    return [*data.train_dataloader(), *data.val_dataloader()]


def assert_masked(batch: dict, size: tuple[int, int]) -> None:
    """Depth is finite, positive where the mask is True and exactly 0 elsewhere."""
    assert batch["valid"].dtype == torch.bool
    assert batch["valid"].shape == batch["depth"].shape == (len(batch["id"]), 1, *size)
    assert torch.equal(batch["valid"], batch["depth"] > 0)
    assert batch["depth"].isfinite().all()
    assert batch["image"].isfinite().all()


@pytest.mark.parametrize("augment", sorted(POLICIES))
def test_lidar_with_a_twentieth_of_its_pixels_trains_as_it_is(tmp_path, augment):
    files.write_kitti(tmp_path)
    data = DepthData("kitti", tmp_path, (32, 96), 1, 0, augment=augment)
    true = {
        round(float(v), 5)
        for split in ("train", "val")
        for v in open_dataset("kitti", tmp_path, split)[0]["depth"].unique()
    }
    for batch in masked_batches(data):
        assert_masked(batch, (32, 96))
        assert 0.02 < batch["valid"].float().mean() < 0.09
        assert {round(float(v), 5) for v in batch["depth"].unique()} <= true | {0.0}
    assert 0.04 < data.known_share() < 0.06
    assert data.left_out() == ""


def test_the_real_frame_trains_with_its_holes():
    data = DepthData("folder", FRAME, (120, 160), 1, 0, augment="none")
    for batch in masked_batches(data):
        assert_masked(batch, (120, 160))
        known = batch["depth"][batch["valid"]]
        assert 0.85 < batch["valid"].float().mean() < 0.93
        assert 1.6 < known.min() < known.max() < 2.6
    assert data.known_share() == pytest.approx(1 - 0.110596, abs=1e-6)


@pytest.mark.parametrize("policy", ["paper", "hu2019"])
def test_what_a_rotation_uncovers_is_not_valid_and_holes_turn_with_the_image(tmp_path, policy):
    image, depth = files.frame(0, (90, 120))
    image[30:50, 40:70], depth[30:50, 40:70] = 0, 0  # a black block without depth
    image[depth > 0] = 200
    files.write(tmp_path / "rgb/0.png", files.encoded(image))
    files.write(tmp_path / "depth/0.png", files.encoded(files.integers(depth, 1000)))
    dataset = Transformed(Folder(tmp_path, unit="mm"), POLICIES[policy]((72, 96)), 0, "mask")
    uncovered = 0
    for epoch in range(12):
        out = dataset[epoch, 0]
        assert torch.equal(out["valid"], out["depth"] > 0)
        grey = out["image"].mean(0)
        dark = grey < grey.mean() / 2
        assert (out["valid"][0] & dark).float().mean() < 0.02  # but for a pixel of interpolation at the block's edge
        uncovered += int((~out["valid"][0] & ~dark).sum()) - int(dark.sum()) // 8
    assert uncovered > 0 or policy == "hu2019"  # whose crop cuts the corners off


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(3, 40), st.integers(3, 40))
def test_resizing_never_mixes_unknown_into_known_depth(seed, height, width):
    random = np.random.default_rng(seed)
    size = tuple(random.integers(3, 40, 2))
    depth = np.where(random.random(size) < 0.5, random.choice([2.0, 7.0], size), 0).astype(np.float32)
    sample = make_sample(np.zeros((*size, 3), np.uint8), depth, "frame")
    small = finish(resize_sample(sample, (height, width)))
    assert set(small["depth"].unique().tolist()) <= {0.0, 2.0, 7.0}
    assert torch.equal(small["valid"], small["depth"] > 0)


@pytest.mark.parametrize("holes", ["colorize", "keep"])
def test_a_packed_file_keeps_what_was_measured(tmp_path, holes):
    out = tmp_path / "x.h5"
    prepare([f"folder:{FRAME}"], out, holes=holes, size="120x160", workers=0, quiet=True)
    (batch, _) = masked_batches(DepthData("packed", out, (120, 160), 1, 0, augment="none"))
    whole = resize_sample(Folder(FRAME)[0], (120, 160))
    assert torch.equal(batch["valid"][0], whole["valid"].bool())
    assert torch.equal(batch["depth"][0], whole["depth"].float())


def with_empty_frames(root: Path, empty: set[int]) -> None:
    files.write_folder(root / "train", range(5))
    files.write_folder(root / "val", range(5, 8))
    for split, numbers in (("train", range(5)), ("val", range(5, 8))):
        for number in set(numbers) & empty:
            Image.fromarray(np.zeros(files.SIZE, np.uint16)).save(root / split / "depth" / f"{number:03d}.png")


@pytest.mark.parametrize("workers", [0, 2])
def test_frames_without_any_known_depth_are_left_out_and_counted(tmp_path, workers):
    with_empty_frames(tmp_path, {0, 1, 3, 6})
    data = DepthData("folder", tmp_path, (32, 64), 2, workers, depth_unit="mm", augment="none")
    with pytest.warns(UserWarning, match=r"train/rgb/000\.png: no pixel has a known depth"):
        data.setup("fit")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train, val = list(data.train_dataloader()), list(data.val_dataloader())
    names = sorted(name[-7:-4] for batch in train for name in batch["id"])
    assert names == ["002", "002", "002", "004", "004"]  # the next one stands in
    assert all(valid.any() for batch in train for valid in batch["valid"])
    kept = {
        name[-7:-4]: bool(valid.any()) for batch in val for name, valid in zip(batch["id"], batch["valid"], strict=True)
    }
    assert kept == {"005": True, "006": False, "007": True}  # scores leave out an image without a valid pixel
    said = "no pixel has a known depth, left out: 3 of 5 frames in train (train/rgb/000.png, train/rgb/001.png, "
    assert data.left_out() == f"{said}train/rgb/003.png); 1 of 3 frames in val (val/rgb/006.png)"
    with pytest.warns(UserWarning, match="3 of 5 frames in train"):
        data.teardown("fit")


def test_a_set_without_any_depth_is_refused(tmp_path):
    with_empty_frames(tmp_path, set(range(8)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="in a row are broken or without depth"):
            DepthData("folder", tmp_path, (32, 64), depth_unit="mm", workers=0).setup("fit")


def test_built_in_scenes_stay_full_since_they_are_not_masked():
    data = DepthData("rooms", size=(48, 64), batch_size=2, workers=0, train_length=4, val_length=1)
    data.setup("fit")
    assert not data.masked
    assert all((batch["depth"] > 0).all() for batch in data.train_dataloader())


@pytest.mark.parametrize("frames", [1, 2])
def test_a_single_frame_that_is_trained_and_validated_on_is_said(tmp_path, frames):
    files.write_folder(tmp_path, range(frames))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        DepthData("folder", tmp_path, (32, 64), depth_unit="mm", workers=0).setup("fit")
    said = [str(w.message) for w in told if "for training and for validation" in str(w.message)]
    assert len(said) == (frames == 1)
    assert all(text.startswith("1 pair of ") for text in said)
