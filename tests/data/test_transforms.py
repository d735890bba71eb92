# SPDX-License-Identifier: Apache-2.0
"""Augmentation: the policy of Hu et al. step by step against its description, resizing, rotation."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import v2

from mlr.data import make_sample
from mlr.data.transforms import (
    Lighting,
    RandomRotation,
    Resize,
    UnclampedJitter,
    finish,
    hu2019,
    resize_only,
    resize_sample,
)


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


# --- rotation


def floats(sample):
    return {**sample, "image": v2.functional.to_dtype(sample["image"], torch.float32, scale=True)}


def turned(sample, angle):
    """The sample under a rotation by a given angle."""
    rotation = RandomRotation(abs(angle))
    with mock.patch.object(torch.Tensor, "uniform_", lambda tensor, low, high: tensor.fill_(angle)):
        return rotation(sample)


@settings(max_examples=25)
@given(st.floats(-30, 30), st.integers(33, 61), st.integers(33, 61))
def test_rotation_is_torchvisions_away_from_the_border(angle, height, width):
    generator = torch.Generator().manual_seed(height)
    image = torch.rand(3, height, width, generator=generator)
    depth, valid = torch.rand(2, 1, height, width, generator=generator) + torch.tensor([1.0, 0.0])[:, None, None, None]
    valid = (valid > 0.3).to(torch.uint8)
    sample = {"image": tv_tensors.Image(image), "depth": tv_tensors.Mask(depth), "valid": tv_tensors.Mask(valid)}
    out = turned(sample, angle)
    assert {name: type(out[name]) for name in sample} == {name: type(sample[name]) for name in sample}
    there = v2.functional.rotate(torch.ones_like(depth), angle) > 0
    inside = F.max_pool2d((~there).float(), 3, 1, 1) == 0
    inside[..., [0, -1], :] = inside[..., :, [0, -1]] = False
    wanted = v2.functional.rotate(image, angle, interpolation=v2.InterpolationMode.BILINEAR)
    assert ((out["image"] - wanted).abs() * inside).max() < 1e-4
    for name in ("depth", "valid"):
        other = (out[name] != v2.functional.rotate(sample[name], angle)) & inside
        assert other.float().mean() < 0.01  # a pixel whose source lies half-way between two


@settings(max_examples=25)
@given(st.floats(-45, 45), st.integers(33, 61), st.integers(33, 61))
def test_no_black_from_beyond_the_picture_gets_into_it(angle, height, width):
    image = np.full((height, width, 3), 200, np.uint8)
    out = turned(floats(make_sample(image, np.full((height, width), 2.5), "frame")), angle)
    assert (out["image"] - 200 / 255).abs().max() < 1e-5
    assert (out["depth"] == 2.5).all()
    assert abs(angle) < 3 or out["valid"].float().mean() < 1


def test_pixels_from_beyond_the_picture_take_the_nearest_of_its_border_and_are_not_valid():
    height, width, angle = 60, 80, 20.0
    out = turned(floats(coordinates(height, width)), angle)
    y, x = np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    across, down = x * cos - y * sin, x * sin + y * cos
    there = (abs(across) <= width / 2) & (abs(down) <= height / 2)
    np.testing.assert_array_equal(out["valid"][0].numpy(), there)
    column = np.clip(across + (width - 1) / 2, 0, width - 1)
    np.testing.assert_allclose(out["depth"][0].numpy(), 1 + column / width, atol=0.51 / width)
    np.testing.assert_allclose(out["image"][0].numpy(), column / width, atol=1 / 255)


def test_a_hole_keeps_its_image_and_stays_a_hole():
    sample = floats(coordinates(40, 50))
    whole = turned(sample, 4.0)
    sample["depth"][0, 10:30, 20:30] = sample["valid"][0, 10:30, 20:30] = 0
    out = turned(sample, 4.0)
    assert torch.equal(out["image"], whole["image"])
    hole = out["depth"] == 0
    assert 150 < hole.sum() < 250
    assert not out["valid"][hole].any()
    assert torch.equal(out["depth"][~hole], whole["depth"][~hole])


def test_no_rotation_changes_nothing():
    sample = floats(coordinates(40, 50))
    out = turned(sample, 0.0)
    assert (out["image"] - sample["image"]).abs().max() < 1e-5
    assert torch.equal(out["depth"], sample["depth"])
    assert out["valid"].all()
