# SPDX-License-Identifier: Apache-2.0
"""DepthModel.infer: images of any kind, depth at their own size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import mlr
from mlr.data.transforms import resize_only
from mlr.models.inference import network_input


def picture(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


@settings(max_examples=10)
@given(st.integers(1, 90), st.integers(1, 90), st.booleans(), st.sampled_from([None, (32, 48)]))
def test_depth_has_the_size_of_the_image_whatever_kind_it_is(network, height, width, flip, size):
    image = picture(height, height, width)
    depth = network.infer(image, size, flip)
    assert depth.shape == (1, height, width)
    assert depth.dtype == torch.float32
    assert torch.equal(network.infer(Image.fromarray(image), size, flip), depth)
    assert torch.equal(network.infer(tensor(image), size, flip), depth)
    assert torch.equal(network.infer(tensor(image)[None], size, flip), depth[None])
    floats = network.infer(tensor(image) / 255, size, flip)  # not rounded to bytes after the resize
    torch.testing.assert_close(floats, depth, rtol=0.05, atol=0.2)


def test_it_is_the_network_s_depth_brought_back(network):
    image = picture(1, 50, 70)
    small = network_input(tensor(image), (64, 96))
    with torch.no_grad():
        wanted = network(small[None] / 255)
    wanted = torch.nn.functional.interpolate(wanted, (50, 70), mode="bilinear")[0]
    torch.testing.assert_close(network.infer(image, (64, 96)), wanted)
    assert wanted.std() > 0.01


def test_the_input_is_that_of_validation(network):
    from mlr.data.sample import make_sample

    image = picture(2, 61, 83)
    validated = resize_only((32, 48))(make_sample(image, np.ones((61, 83)), "frame"))["image"].as_subclass(torch.Tensor)
    torch.testing.assert_close(network_input(tensor(image), (32, 48)) / 255, validated, rtol=1e-6, atol=0)


def test_a_list_of_images_of_many_sizes(network):
    images = [picture(0, 40, 50), tensor(picture(1, 64, 40)), Image.fromarray(picture(2, 33, 77))]
    for size in (None, (32, 64)):
        depths = network.infer(images, size)
        for image, depth in zip(images, depths, strict=True):
            torch.testing.assert_close(depth, network.infer(image, size), rtol=1e-4, atol=1e-4)
    assert network.infer([]) == []


def test_the_mirrored_image_has_the_mirrored_depth(network):
    image = tensor(picture(3, 48, 64))
    torch.testing.assert_close(network.infer(image.flip(-1), flip=True), network.infer(image, flip=True).flip(-1))


def test_a_checkpoint_works_at_the_size_it_was_trained_at(checkpoint):
    opened, image = mlr.open_model(checkpoint, "cpu"), picture(4, 50, 60)
    assert opened.model.trained_size == (64, 96)
    assert torch.equal(opened.infer(image), opened.model.infer(image, (64, 96)))
    assert not torch.equal(opened.infer(image), opened.infer(image, (96, 96)))


def test_modes_and_gradients_stay_as_they_were(network):
    network.train()
    network.encoder.eval()
    try:
        before = [module.training for module in network.modules()]
        depth = network.infer(picture(5, 40, 40))
        assert [module.training for module in network.modules()] == before
        assert torch.equal(depth, network.eval().infer(picture(5, 40, 40)))  # batch statistics are not used
    finally:
        network.eval()
    assert not depth.requires_grad
    network(tensor(picture(5, 40, 40))[None] / 255).sum().backward()
    network.zero_grad()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (255 * torch.rand(3, 40, 40), r"must lie in \[0, 1\], got .* divide bytes by 255"),
        (torch.full((3, 40, 40), float("nan")), r"must lie in \[0, 1\]"),
        (torch.ones(3, 40, 40, dtype=torch.int64), "bytes or floating point"),
        (torch.rand(40, 40), r"\[B, 3, H, W\] or \[3, H, W\]"),
        (torch.rand(1, 4, 40, 40), r"\[B, 3, H, W\]"),
        (torch.rand(3, 0, 40), "no pixel"),
        (np.zeros((40, 40), np.uint8), r"\[H, W, 3\]"),
        (np.zeros((3, 40, 41), np.uint8), r"\[H, W, 3\]"),
        ([torch.rand(2, 3, 40, 40)], "a list must hold single images"),
    ],
)
def test_what_is_no_image_is_refused(network, images, message):
    with pytest.raises(ValueError, match=message):
        network.infer(images)


def test_a_path_is_told_how_to_become_an_image(network):
    with pytest.raises(TypeError, match=r"got str; mlr\.data\.read_image"):
        network.infer("photo.jpg")
