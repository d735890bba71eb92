# SPDX-License-Identifier: Apache-2.0
"""The paper's other training sets, SUN RGB-D and Matterport3D, on files written in their layouts."""

from __future__ import annotations

import json
import warnings

import data_files as files
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from mlr.cli import main, train_command
from mlr.data import DataError, DepthData, open_dataset
from mlr.data.tools.check import examine
from mlr.data.tools.prepare import prepare


def test_sun_rgbd_by_its_official_split(tmp_path):
    files.write_sunrgbd(tmp_path)
    train, val = (open_dataset("sunrgbd", tmp_path, split) for split in ("train", "val"))
    assert [train.name(i) for i in range(2)] == list(files.SUN_FRAMES[:2])
    assert train.missing == ["kv2/gone has not one file in each of image and depth_bfx"]
    files.assert_frame(train[1], 1, step=1e-3, jpeg=True)
    files.assert_frame(val[0], 2, step=1e-3, jpeg=True)
    assert (val[0]["valid"][0, :4] == 0).all()
    raw = open_dataset("sunrgbd", tmp_path / "SUNRGBD", "val", raw="true")[0]
    np.testing.assert_allclose(raw["depth"][0], 2 * val[0]["depth"][0], atol=1.1e-3)


@given(st.integers(0, 65535))
def test_rotating_the_bits_back_gives_every_integer(value):
    stored = np.uint16(((value << 3) | (value >> 13)) & 0xFFFF)
    assert int((stored >> 3) | (stored << np.uint16(13))) == value


@pytest.mark.parametrize("path", ["/data/elsewhere/x", "/n/fs/sun3d/data/SUNRGBD/../../secret"])
def test_splits_that_lead_elsewhere_are_refused(tmp_path, path):
    files.write_sunrgbd(tmp_path)
    cells = np.array([path], dtype=object)[None]
    savemat(tmp_path / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat", {"alltrain": cells, "alltest": cells})
    with pytest.raises(DataError, match="expected paths that hold /SUNRGBD/"):
        open_dataset("sunrgbd", tmp_path)


@pytest.mark.parametrize(
    "layout", ["v1/scans/{scene}/{scene}/{kind}", "{scene}/{kind}", "{kind}/{scene}/{kind}", "scans/{scene}/{kind}"]
)
def test_matterport3d_by_scenes_however_it_was_unpacked(tmp_path, layout):
    files.write_matterport3d(tmp_path, layout)
    train, val = (open_dataset("matterport3d", tmp_path, split) for split in ("train", "val"))
    assert [name.split("/")[0] for name in (train.name(0), val.name(1))] == [files.SCENES[0], files.SCENES[2]]
    assert train.missing == ["there are no images of scene nowhere"]
    for number, sample in enumerate((train[0], train[1])):
        files.assert_frame(sample, number, step=1 / 4000, jpeg=True)
    files.assert_frame(val[1], 5, step=1 / 4000, jpeg=True)
    official = open_dataset("matterport3d", tmp_path, "val", list_file="tasks/benchmark/scenes_val.txt")
    files.assert_frame(official[0], 2, step=1 / 4000, jpeg=True)


def test_an_image_of_matterport3d_without_depth_is_named(tmp_path):
    files.write_matterport3d(tmp_path, "{scene}/{kind}")
    next((tmp_path / files.SCENES[0] / "undistorted_depth_images").iterdir()).unlink()
    dataset = open_dataset("matterport3d", tmp_path)
    assert len(dataset) == 1
    assert "_d" in dataset.missing[0]


@pytest.mark.parametrize(
    ("name", "writer", "missing"),
    [("sunrgbd", files.write_sunrgbd, "list of frames"), ("matterport3d", files.write_matterport3d, "list of frames")],
)
def test_both_are_checked_packed_and_trained_on(tmp_path, name, writer, missing):
    with pytest.raises(DataError, match=missing):
        open_dataset(name, tmp_path)
    writer(tmp_path / "set")
    report = examine(f"{name}:{tmp_path / 'set'}", ["train", "val"], {})
    assert report.errors == []
    assert report.missing == pytest.approx(4 / 48)
    out = tmp_path / "x.h5"
    prepare([f"{name}:{tmp_path / 'set'}"], out, workers=0, quiet=True)
    assert len(open_dataset("packed", out, "all")) == len(open_dataset(name, tmp_path / "set", "all"))
    data = DepthData(name, tmp_path / "set", (32, 64), 2, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.setup("fit")
    for batch in (*data.train_dataloader(), *data.val_dataloader()):
        assert torch.equal(batch["valid"], batch["depth"] > 0)
        assert batch["valid"].float().mean() > 0.8


@pytest.mark.parametrize(
    ("name", "writer"), [("sunrgbd", files.write_sunrgbd), ("matterport3d", files.write_matterport3d)]
)
def test_a_network_trains_a_few_steps_on_both_and_is_scored(tmp_path, capsys, name, writer):
    writer(tmp_path / "set")
    run, data = str(tmp_path / "run"), ["--data", name, "--root", str(tmp_path / "set")]
    tiny = ["--backbone", "test_resnet", "--decoder-channels", "32", "--pretrained", "false", "--size", "32x64"]
    few = ["--batch-size", "2", "--epochs", "2", "--workers", "0", "--losses", "*/0-2", "--device", "cpu"]
    assert train_command([*data, *tiny, *few, "--out", run]) == 0
    capsys.readouterr()
    for trained_on in ([], data):  # the run remembers its data
        assert main(["evaluate", run, "--json", *trained_on]) == 0
        scores = json.loads(capsys.readouterr().out)
        assert scores["data"]["name"] == name
        assert scores["data"]["broken"] == []
        full = scores["protocols"]["full"]
        assert full["images"] == len(open_dataset(name, tmp_path / "set", "val"))
        assert all(0 < full["metrics"][metric]["mean"] < 50 for metric in ("rmse", "abs_rel", "silog"))
