# SPDX-License-Identifier: Apache-2.0
"""Pairs in training: drawn from depth, or moved with the image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors

from mlr.data import DepthData
from mlr.data.pairs import WithPairs
from mlr.data.sample import make_sample
from mlr.data.transforms import POLICIES, finish, resize_only
from mlr.relative.ordinal import label_pairs


def marked(size: tuple[int, int], points: list[tuple[int, int]]) -> dict:
    """A grey frame whose two points are bright blocks, red and green."""
    image = torch.full((*size, 3), 60, dtype=torch.uint8)
    for channel, (row, column) in enumerate(points):
        image[row - 2 : row + 3, column - 2 : column + 3, channel] = 250
    sample = make_sample(image.numpy(), torch.zeros(size).numpy(), "x")
    xy = torch.tensor([[(column, row) for row, column in points]], dtype=torch.float32)
    sample["points"] = tv_tensors.KeyPoints(xy, canvas_size=size)
    sample["relation"] = torch.tensor([1])
    return sample


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(5))
def test_labelled_points_move_with_the_image(policy, seed):
    size = (96, 128)
    torch.manual_seed(seed)
    sample = WithPairs(POLICIES[policy](size), 50)(marked((120, 160), [(40, 100), (80, 60)]))
    batch = finish(sample)
    image = batch["image"].as_subclass(Tensor)
    ((first, second, label),) = batch["pairs"].tolist()
    assert label == 1
    for channel, flat in ((0, first), (1, second)):
        others = image[[c for c in range(3) if c != channel]].amax(0)
        bright = (image[channel] - others).flatten()
        centre = torch.stack(torch.unravel_index(bright.topk(9).indices, size)).float().mean(1)
        found = torch.tensor(divmod(flat, size[1])).float()
        assert (centre - found).abs().max() < 1.6


def test_points_that_leave_the_image_are_no_pair():
    sample = marked((64, 64), [(10, 10), (50, 50)])
    sample["points"] = tv_tensors.wrap(sample["points"] + torch.tensor([0.0, 30.0]), like=sample["points"])
    assert finish(WithPairs(resize_only((32, 32)), 5)(sample))["pairs"].tolist() == [[-1, -1, 0]]


def test_drawn_pairs_are_labelled_by_ratio_and_depth_becomes_relative():
    depth = torch.tensor([[1.0, 1.02, 0.0, 3.0]])
    sample = make_sample(torch.zeros(1, 4, 3, dtype=torch.uint8).numpy(), depth.numpy(), "x")
    out = WithPairs(torch.nn.Identity(), 200, 0.03, seed=0)(sample)
    relative = out["depth"].as_subclass(Tensor)
    torch.testing.assert_close(relative, torch.tensor([[[-1, -1 / 1.02, 0, -1 / 3]]]))
    labels = {(a, b): label for a, b, label in out["pairs"].tolist()}
    assert labels == {(0, 1): 0, (1, 0): 0, (0, 3): -1, (1, 3): -1, (3, 0): 1, (3, 1): 1}
    assert torch.equal(out["pairs"], WithPairs(torch.nn.Identity(), 200, 0.03, seed=0)(sample)["pairs"])
    alone = make_sample(torch.zeros(1, 1, 3, dtype=torch.uint8).numpy(), depth[:, :1].numpy(), "x")
    assert (WithPairs(torch.nn.Identity(), 3)(alone)["pairs"] == torch.tensor([-1, -1, 0])).all()


def test_relative_depth_keeps_its_values_and_has_differences_instead_of_ratios():
    sample = make_sample(torch.zeros(1, 3, 3, dtype=torch.uint8).numpy(), torch.tensor([[0.1, 0.12, 0.5]]).numpy(), "x")
    sample["metric"] = False
    out = WithPairs(torch.nn.Identity(), 100, 0.03, seed=1)(sample)
    assert torch.equal(out["depth"].as_subclass(Tensor), sample["depth"].as_subclass(Tensor))
    labels = {(a, b): label for a, b, label in out["pairs"].tolist()}
    assert (labels[0, 1], labels[2, 1], labels[0, 2]) == (0, 1, -1)


def test_batches_hold_the_same_pairs_for_any_number_of_workers_and_other_ones_an_epoch():
    def batches(workers: int, epoch: int, split: str = "train") -> Tensor:
        data = DepthData("rooms", size=(32, 64), batch_size=2, workers=workers, train_length=4, val_length=2, pairs=20)
        data.setup("fit")
        loader = data.train_dataloader() if split == "train" else data.val_dataloader()
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        return torch.cat([batch["pairs"] for batch in loader])

    first = batches(0, 0)
    assert first.shape == (4, 20, 3)
    assert torch.equal(first, batches(1, 0))
    assert not torch.equal(first, batches(0, 1))
    assert torch.equal(batches(0, 0, "val"), batches(0, 1, "val"))


def test_labels_of_float64_maps_by_margin():
    pairs = label_pairs(torch.tensor([[0.0, 0.5, 2.0]]), torch.ones(1, 3, dtype=torch.bool), 99, margin=0.5)
    difference = torch.tensor([0.0, 0.5, 2.0])[pairs.first[:, 1]] - torch.tensor([0.0, 0.5, 2.0])[pairs.second[:, 1]]
    assert torch.equal(pairs.relation, torch.where(difference.abs() > 0.5, difference.sign(), 0).long())
