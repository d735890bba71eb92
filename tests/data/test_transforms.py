# SPDX-License-Identifier: Apache-2.0
"""The policy of Hu et al., step by step against its description."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from mlr.data import make_sample
from mlr.data.transforms import Lighting, Resize, UnclampedJitter, finish, hu2019, resize_only, resize_sample


def coordinates(height: int = 480, width: int = 640):
    """Image and depth that both say where a pixel came from."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 255 / width, y * 255 / height, 0 * x], -1).astype(np.uint8)
    return make_sample(image, (1 + x / width).astype(np.float32), "frame")


def geometry(size: tuple[int, int]) -> v2.Compose:
    return v2.Compose([t for t in hu2019(size).transforms if not isinstance(t, Lighting | UnclampedJitter)])


def test_jitter_blends_as_it_is_described_and_is_not_cut_off():
    image = torch.rand(3, 5, 7)
    outside = 0
    for seed in range(40):
        torch.manual_seed(seed)
        out = UnclampedJitter(0.4)(tv_tensors.Image(image))
        torch.manual_seed(seed)
        params = UnclampedJitter(0.4).make_params([])
        assert all(abs(a) <= 0.4 for a in params["shares"])
        wanted = image.double().numpy()
        for kind in params["order"]:
            grey = np.tensordot([0.2989, 0.587, 0.114], wanted, 1)[None]
            target = [0 * wanted, np.full_like(wanted, grey.mean()), np.repeat(grey, 3, 0)][kind]
            share = params["shares"][kind]
            wanted = (1 - share) * wanted + share * target
        np.testing.assert_allclose(out.numpy(), wanted, atol=1e-5)
        outside += bool((out > 1).any() | (out < 0).any())
    assert outside > 10


def test_jitter_leaves_depth_alone():
    sample = coordinates(40, 50)
    out = UnclampedJitter(0.4)({**sample, "image": v2.functional.to_dtype(sample["image"], torch.float32, scale=True)})
    assert torch.equal(out["depth"], sample["depth"])


@pytest.mark.parametrize("size", [(228, 304), (288, 384)])
def test_the_centre_is_cut_out_of_a_larger_picture(size):
    steps = hu2019(size).transforms
    larger = next(step.size for step in steps if isinstance(step, Resize))
    assert larger == (round(size[0] * 240 / 228), round(size[1] * 320 / 304))
    if size == (228, 304):
        assert larger == (240, 320)  # their numbers
    torch.manual_seed(0)
    out = finish(hu2019(size)(coordinates()))
    assert out["image"].shape == (3, *size)
    assert out["depth"].shape == out["valid"].shape == (1, *size)


def test_image_and_depth_move_together_and_the_crop_hides_most_uncovered_pixels():
    uncovered, turned = [], 0
    for seed in range(20):
        torch.manual_seed(seed)
        out = finish(geometry((228, 304))(coordinates()))
        where = out["valid"][0]
        difference = (out["image"][0] - (out["depth"][0] - 1))[where].abs()
        assert difference.max() < 2 / 300
        assert (out["depth"] > 0).all()
        uncovered.append(1 - float(where.float().mean()))
        turned += bool((out["depth"][0, :, 150].diff().abs() > 0).any())
    assert np.mean(uncovered) < 0.01
    assert turned > 15


def test_resizing_keeps_types_and_moves_validity_with_depth():
    sample = coordinates(48, 64)
    sample["valid"][0, :, :32] = 0
    small = resize_sample(sample, (24, 32))
    assert small["image"].dtype == torch.uint8
    assert small["depth"].dtype == torch.float32
    assert small["valid"][0].float().mean() == 0.5
    assert set(small["depth"].unique().tolist()) <= set(sample["depth"].unique().tolist())
    assert small["id"] == sample["id"]


@pytest.mark.parametrize("resize", [resize_sample, lambda sample, size: resize_only(size)(sample)])
@pytest.mark.parametrize("size", [(288, 384), (96, 128)])
def test_depth_is_not_shifted_against_the_image(resize, size):
    y, x = np.mgrid[:480, :640] + 0.5  # where each pixel's centre lies
    for place, axis in ((y, 0), (x, 1)):
        small = resize(make_sample(np.zeros((480, 640, 3), np.uint8), place, "frame"), size)
        ratio = place.shape[axis] / size[axis]
        wanted = (np.arange(size[axis]) + 0.5) * ratio
        found = small["depth"][0].numpy().mean(1 - axis)
        assert abs((found - wanted).mean()) / ratio < 0.02
        assert small["valid"].all()
