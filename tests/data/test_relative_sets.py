# SPDX-License-Identifier: Apache-2.0
"""DIW and ReDWeb, on files written in their layouts; trained on and scored."""

from __future__ import annotations

import json

import data_files as files
import numpy as np
import pytest
import torch

from mlr.cli import main, train_command
from mlr.data import DataError, open_dataset

TINY = [
    "--backbone=test_resnet", "--decoder-channels=32", "--pretrained=false", "--size=32x64", "--batch-size=2",
    "--epochs=2", "--workers=0", "--device=cpu", "--task=relative",
]  # fmt: skip


def test_diw_by_its_lists(tmp_path):
    files.write_diw(tmp_path)
    train, val = (open_dataset("diw", tmp_path, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (3, 2)
    assert train.name(0) == "./DIW_train_val/0.thumb"
    sample = train[0]
    # y_A = 11, x_A = 21 of an image of 64 x 48, from 1
    assert sample["points"].tolist() == [[[20, 10], [40, 30]]]
    assert sample["relation"].tolist() == [1]
    assert not sample["valid"].any()
    assert val[1]["relation"].tolist() == [-1]
    both = open_dataset("diw", tmp_path, "all")
    assert both[4]["points"].tolist() == val[1]["points"].tolist()


def test_points_follow_an_image_of_another_size_than_the_list_says(tmp_path):
    files.write_diw(tmp_path, listed=(96, 128))
    points = open_dataset("diw", tmp_path)[0]["points"]
    torch.testing.assert_close(
        points.as_subclass(torch.Tensor), (torch.tensor([[[20.0, 10], [40, 30]]]) + 0.5) / 2 - 0.5
    )


def test_other_orders_and_lists(tmp_path):
    files.write_diw(tmp_path)
    assert open_dataset("diw", tmp_path, order="xy", first_pixel="0")[0]["points"].tolist() == [[[11, 21], [31, 41]]]
    with pytest.raises(DataError, match="order must be yx or xy"):
        open_dataset("diw", tmp_path, order="zz")
    (tmp_path / "DIW_test" / "inside").mkdir()
    with pytest.raises(DataError, match="there is no list of frames"):
        open_dataset("diw", tmp_path / "DIW_test" / "inside")
    (tmp_path / "bad.csv").write_text("../secret.jpg\n1,1,2,2,>,64,48\n")
    with pytest.raises(DataError, match="leads out of"):
        open_dataset("diw", tmp_path, list_file="bad.csv")[0]
    (tmp_path / "bad.csv").write_text("a.jpg\n1,1,99,2,>,64,48\n")
    with pytest.raises(DataError, match=r"line 2.*outside the image"):
        open_dataset("diw", tmp_path, list_file="bad.csv")


def test_redweb_in_pairs_of_folders(tmp_path):
    files.write_redweb(tmp_path, 11)
    train, val = (open_dataset("redweb", tmp_path, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (10, 1)
    assert val.name(0) == "9"
    depth = train[0]["depth"][0].numpy()
    stored = files.redweb_values(0)
    np.testing.assert_array_equal(depth, np.where(stored == 255, 0, (stored.astype(np.float32) + 1) / 256))
    np.testing.assert_array_equal(train[0]["valid"][0].numpy(), stored != 255)
    (tmp_path / "RDs/3.png").unlink()
    assert open_dataset("redweb", tmp_path).missing == ["Imgs/3.jpg"]
    files.write(tmp_path / "RDs/4.png", files.encoded(files.integers(files.frame(4)[1], 1000)))
    with pytest.raises(DataError, match="8 bits of grey"):
        open_dataset("redweb", tmp_path)[3]


@pytest.mark.parametrize(("name", "writer"), [("diw", files.write_diw), ("redweb", files.write_redweb)])
def test_networks_train_on_both_and_are_scored(tmp_path, capsys, name, writer):
    writer(tmp_path / "set")
    data, run = ["--data", name, "--root", str(tmp_path / "set")], str(tmp_path / "run")
    assert train_command([*data, *TINY, "--losses", "*/0-1", "--augment", "none", "--out", run]) == 0
    capsys.readouterr()
    assert main(["evaluate", run, "--json"]) == 0  # all protocols of this data, which is one
    (scores,) = json.loads(capsys.readouterr().out)["protocols"].values()
    assert scores["images"] == len(open_dataset(name, tmp_path / "set", "val"))
    assert (scores["order"]["wkdr"]["mean"] is None) == (name == "diw")
    kendall, whdr = (scores["order"][metric]["mean"] for metric in ("kendall", "whdr"))
    assert 1 - 2 * whdr - 1e-9 <= kendall <= 1 - whdr + 1e-9  # pairs predicted as equal lie between


def test_data_without_metres_is_refused_where_metres_are_needed(tmp_path, capsys):
    files.write_redweb(tmp_path)
    files.write_diw(tmp_path)
    for command in (
        ["train", "--data", "redweb", "--root", str(tmp_path)],
        ["train", "--data", "diw", "--root", str(tmp_path), "--task", "fusion"],
        ["prepare", f"diw:{tmp_path}", "--out", str(tmp_path / "x.h5")],
        ["check-data", f"redweb:{tmp_path}"],
    ):
        assert main(command) == 1
        assert "has no depth in metres" in " ".join(capsys.readouterr().err.split())
    assert main(["train", "--data", "diw", "--root", str(tmp_path), "--task", "relative", "--holes", "nearest"]) == 1
    assert "diw has none" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "pred").mkdir()
    flags = ["--data", "redweb", "--root", str(tmp_path), "--protocol", "full"]
    assert main(["evaluate", str(tmp_path / "pred"), *flags]) == 1
    assert "scores metres" in capsys.readouterr().err
