# SPDX-License-Identifier: Apache-2.0
"""Several data sets in one training: which frames an epoch has, and what a batch holds."""

from collections import Counter

import numpy as np
import pytest
import torch
from data_files import write_folder, write_kitti
from hypothesis import given
from hypothesis import strategies as st

from mlr.data.depth_files import DataError
from mlr.data.mixture import MixtureSampler, shares, training_data
from mlr.data.sample import make_sample
from mlr.data.transforms import Crop
from mlr.training.settings import TrainingSettings


def drawn(sampler: MixtureSampler, epoch: int) -> list[tuple[int, int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.data())
def test_shares_are_whole_and_in_proportion(lengths, data):
    weights = data.draw(st.lists(st.floats(0.01, 100), min_size=len(lengths), max_size=len(lengths)))
    total = sum(lengths)
    counts = shares(total, weights)
    assert sum(counts) == total
    assert min(counts) >= 1
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - total * weight / sum(weights)) < len(counts) + 1
    assert shares(total, lengths) == lengths


@given(st.lists(st.integers(1, 12), min_size=1, max_size=3), st.integers(0, 9), st.data())
def test_every_frame_comes_once_a_turn(lengths, seed, data):
    weights = data.draw(st.none() | st.lists(st.floats(0.1, 9), min_size=len(lengths), max_size=len(lengths)))
    sampler, start = MixtureSampler(lengths, weights, seed), 0
    keys = [key for epoch in range(4) for key in drawn(sampler, epoch)]
    assert len(keys) == len(set(keys)) == 4 * sum(lengths)  # a frame that comes again comes in another turn
    for length, count in zip(lengths, sampler.counts, strict=True):
        own = Counter(turn for turn, index in keys if start <= index < start + length)
        full, rest = divmod(4 * count, length)
        assert own == Counter(dict.fromkeys(range(full), length)) + Counter({full: rest} if rest else {})
        start += length


def test_an_epoch_follows_from_seed_and_number_alone():
    epochs = [drawn(MixtureSampler([7, 5], [1, 2], seed=3), epoch) for epoch in (0, 1, 2)]
    again = MixtureSampler([7, 5], [1, 2], seed=3)
    assert [drawn(again, epoch) for epoch in (2, 0, 1)] == [epochs[2], epochs[0], epochs[1]]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert drawn(MixtureSampler([7, 5], [1, 2], seed=4), 0) != epochs[0]


def test_without_weights_each_frame_comes_once_an_epoch():
    for epoch in range(3):
        assert sorted(drawn(MixtureSampler([7, 5], None, seed=0), epoch)) == [(epoch, i) for i in range(12)]


@pytest.fixture
def sparse(tmp_path):
    write_kitti(tmp_path / "kitti")
    return tmp_path / "kitti"


def mixed(data: str, **more) -> dict[str, torch.Tensor]:
    """The whole of an epoch in one batch."""
    settings = TrainingSettings(data=data, size="32x48", workers=0, batch_size=64, train_length=3, val_length=2, **more)
    module = training_data(settings)
    module.setup("fit")
    (batch,) = module.train_dataloader()
    (val,) = module.val_dataloader()
    return {**batch, "val": val["set"]}


def test_a_batch_says_of_which_set_an_image_is_and_what_its_losses_see(sparse, tmp_path):
    write_folder(tmp_path / "shots", range(10), size=(40, 56))
    data = f'["rooms", "kitti:{sparse}", {{"data": "folder:{tmp_path}/shots", "depth_unit": "mm", "holes": "nearest"}}]'
    batch = mixed(data)
    assert Counter(batch["set"].tolist()) == {0: 3, 1: 1, 2: 9}
    assert batch["val"].tolist() == [0, 0, 1, 2]
    lidar = batch["set"] == 1
    assert batch["mask"][~lidar].all()  # of dense and filled sets the losses see every pixel, as in a training on one
    assert 0 < batch["mask"][lidar].float().mean() < 0.1
    assert torch.equal(batch["mask"][lidar], batch["valid"][lidar])
    assert (batch["depth"][~batch["mask"]] == 0).all()


def test_a_set_looks_as_in_a_training_on_it_alone():
    batch = mixed('[{"data": "rooms"}]')
    settings = TrainingSettings(size="32x48", workers=0, batch_size=64, train_length=3, val_length=2)
    alone = training_data(settings)
    alone.setup("fit")
    (wanted,) = alone.train_dataloader()
    order = [batch["id"].index(name) for name in wanted["id"]]
    for name in ("image", "depth", "valid"):
        assert torch.equal(batch[name][order], wanted[name])


def test_crop_cuts_all_maps_at_one_place():
    image = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30)
    sample = make_sample(np.stack([image % 256] * 3, -1).astype(np.uint8), 1.0 + image, "a")
    middle = Crop((8, 10))(sample)
    assert middle["depth"].shape == (1, 8, 10)
    assert middle["depth"][0, 0, 0] == 1 + image[6, 10]
    places = set()
    for seed in range(20):
        torch.manual_seed(seed)
        cut = Crop((8, 10), anywhere=True)(sample)
        assert torch.equal((cut["depth"][0].long() - 1) % 256, cut["image"][0].long())
        places.add(float(cut["depth"][0, 0, 0]))
    assert len(places) > 10
    with pytest.raises(DataError, match="a has 20 x 30 pixels, fewer than the crop of 21 x 10"):
        Crop((21, 10))(sample)


def test_crops_and_missing_files_are_refused_before_training(sparse):
    for data, message in (
        (
            f'["rooms", {{"data": "kitti:{sparse}", "crop": "400x400"}}]',
            "set kitti: .*fewer than the crop of 400 x 400",
        ),
        ("rooms+kitti:/nowhere", "set kitti: there is no folder"),
    ):
        with pytest.raises(DataError, match=message):
            mixed(data)
