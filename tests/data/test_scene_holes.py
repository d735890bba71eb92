# SPDX-License-Identifier: Apache-2.0
"""Built-in scenes with artificial holes: the same for everyone, in training alone, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlr.data import DepthData, open_dataset
from mlr.data.synthetic.holes import MOST_HOLES, camera_holes

SMALL = {"length": 6, "height": 48, "width": 64}


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 70), st.floats(0.001, MOST_HOLES))
def test_holes_reach_their_share_and_end_with_the_disc_that_reaches_it(seed, height, width, share):
    holes = camera_holes(np.random.default_rng(seed), height, width, share)
    assert holes.shape == (height, width)
    assert np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]]).all()
    assert holes.mean() >= share
    disc = np.pi * (2 + min(height, width) / 16) ** 2  # a pixel more all around
    border = height * width - max(height - 2, 0) * max(width - 2, 0)
    assert holes.sum() <= max(share * height * width + disc, border)
    assert np.array_equal(holes, camera_holes(np.random.default_rng(seed), height, width, share))


def test_a_frame_of_the_usual_size_has_the_share_that_was_asked_for():
    shares = [camera_holes(np.random.default_rng(seed), 288, 384, 0.12).mean() for seed in range(20)]
    assert 0.12 <= np.mean(shares) < 0.124
    assert not camera_holes(np.random.default_rng(0), 288, 384, 0).any()


def test_only_the_depth_in_holes_changes_and_only_in_training():
    whole, with_holes = (open_dataset("rooms", split="all", hole_share=share, **SMALL) for share in (0, "0.12"))
    again = open_dataset("rooms", split="train", hole_share=0.12, **SMALL)
    masks = []
    for index in range(2 * SMALL["length"]):
        complete, frame = whole[index], with_holes[index]
        known = frame["depth"] > 0
        assert torch.equal(frame["image"], complete["image"])
        assert torch.equal(frame["depth"], complete["depth"].where(known, 0))
        assert torch.equal(frame["valid"].bool(), known)
        if index < SMALL["length"]:
            assert 0.8 < known.float().mean() <= 0.88
            assert torch.equal(again[index]["depth"], frame["depth"])
            masks.append(known)
        else:  # scores count every pixel
            assert known.all()
    assert all(not torch.equal(masks[0], mask) for mask in masks[1:])
    other = open_dataset("rooms", hole_share=0.12, seed=1, **SMALL)[0]
    assert not torch.equal(other["depth"] > 0, masks[0])


@pytest.mark.parametrize("holes", ["mask", "colorize", "nearest"])
def test_batches_mark_the_holes_in_training_and_nothing_in_validation(holes):
    data = DepthData(
        size=(48, 64), batch_size=2, workers=0, augment="none", holes=holes, options="hole_share=0.12", train_length=2,
        val_length=2,
    )  # fmt: skip
    data.setup("fit")
    (train,), (val,) = data.train_dataloader(), data.val_dataloader()
    assert data.masked == (holes == "mask")
    assert 0.12 <= 1 - data.known_share() < 0.16
    assert torch.equal(train["depth"] > 0, train["valid"] if holes == "mask" else torch.ones_like(train["valid"]))
    assert 0.12 <= (~train["valid"]).float().mean() < 0.16
    assert val["valid"].all()
    assert (val["depth"] > 0).all()
    assert "12 % holes" in data.describe()


@pytest.mark.parametrize("split", ["train", "val", "all"])
@pytest.mark.parametrize("share", ["-0.1", "12", "nan"])
def test_a_share_that_cannot_be_made_is_refused(split, share):
    with pytest.raises(ValueError, match=f"hole_share must be a share of the pixels, 0 to 0.9, got {float(share)}"):
        open_dataset("rooms", split=split, hole_share=share)
