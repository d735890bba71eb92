# SPDX-License-Identifier: Apache-2.0
"""mlr evaluate and mlr predict on a run: what is not said about the data is taken from it, and said."""

from __future__ import annotations

from pathlib import Path

import data_files as files
import numpy as np
import pytest
from evaluating import depth, means, refusal, run, write_png

import mlr
from mlr.cli import main
from mlr.data import DataError
from mlr.data.chosen import ChosenData


@pytest.fixture
def shots(tmp_path) -> Path:
    """Three frames to validate on and one to train on, in units of 1/256 m that no file declares."""
    for split, numbers in (("train", range(1)), ("val", range(6, 9))):
        for number in numbers:
            image, metres = files.frame(number)
            files.write(tmp_path / "shots" / split / "rgb" / f"{number:03d}.png", files.encoded(image))
            write_png(tmp_path / "shots" / split / "depth" / f"{number:03d}.png", metres, 256)
    return tmp_path / "shots"


def trained(network, path: Path, **config) -> Path:
    return mlr.save_checkpoint(path, network, config={"size": "64x96", **config})


@pytest.fixture
def best(network, shots, tmp_path) -> Path:
    return trained(
        network, tmp_path / "best.pt", data="folder", root=str(shots), data_options="", depth_unit="kitti", holes="mask"
    )


def test_a_run_is_evaluated_on_its_own_data(best, shots, capsys):
    record = run(capsys, best)
    assert record["data"]["name"] == "folder"
    assert record["data"]["root"] == str(shots)
    assert record["data"]["depth_unit"] == "kitti"
    said = run(capsys, best, "--data", "folder", "--root", shots, "--depth-unit", "256")
    assert means(record) == means(said)
    assert main(["evaluate", str(best)]) == 0
    assert f"as in the run: --data folder --root {shots} --depth-unit kitti" in capsys.readouterr().err


def test_flags_go_before_the_run_and_another_data_set_takes_nothing_from_it(best, shots, tmp_path, capsys):
    files.write_folder(tmp_path / "more" / "val", range(2))
    other = run(capsys, best, "--root", tmp_path / "more", "--depth-unit", "mm")
    assert other["data"]["root"] == str(tmp_path / "more")
    assert other["data"]["frames"] == 2
    rooms = run(capsys, best, "--data", "rooms", "--data-options", "length=2,height=48,width=64")
    assert rooms["data"]["name"] == "rooms"
    assert rooms["data"]["root"] is None
    assert "needs --root" in refusal(capsys, best, "--data", "kitti")


def test_a_unit_is_honoured_or_refused_as_in_training(network, best, shots, tmp_path, capsys):
    assert "no unit was declared" in refusal(
        capsys, trained(network, tmp_path / "n.pt", data="folder", root=str(shots))
    )
    for number in range(6, 9):
        path = shots / "val" / "depth" / f"{number:03d}.png"
        write_png(path, depth(number), 1000, "mm")
    assert "declares the unit 'mm' itself" in refusal(capsys, best)


def test_predictions_have_no_run_and_need_the_data_to_be_named(shots, tmp_path, capsys):
    (tmp_path / "pred").mkdir()
    np.save(tmp_path / "pred" / "006.npy", depth(6))
    assert "--data is missing" in refusal(capsys, tmp_path / "pred")


def test_a_network_of_unknown_data_needs_the_data_to_be_named(checkpoint, capsys):
    assert "does not say which data it was trained on" in refusal(capsys, checkpoint)


@pytest.mark.parametrize("config", [{"data": 3}, {"data": "folder", "root": ["a"]}, {"data": {"data": "folder"}}])
def test_a_damaged_record_is_a_sentence(network, config, tmp_path, capsys):
    error = refusal(capsys, trained(network, tmp_path / "best.pt", **config))
    assert "best.pt is damaged: its setting" in error


def test_holes_are_filled_for_protocols_of_filled_depth_where_that_is_asked_for(network, tmp_path, capsys):
    files.write_folder(tmp_path / "shots" / "val", range(2), size=(480, 640))
    for number in range(2):
        holed = files.frame(number, (480, 640))[1]
        holed[100:110] = 0
        write_png(tmp_path / "shots" / "val" / "depth" / f"{number:03d}.png", holed)
    best = trained(network, tmp_path / "best.pt", data="folder", root=str(tmp_path / "shots"), data_options="unit=mm")
    assert "fill them" in refusal(capsys, best, "--protocol", "paper")
    filled = run(capsys, best, "--protocol", "full,paper", "--holes", "nearest", "--split", "val")
    assert filled["data"]["holes"] == "nearest"
    assert filled["protocols"]["paper"]["images"] == 2
    assert means(filled) == means(run(capsys, best, "--protocol", "full"))  # others score what was measured
    assert "--holes error allows none" in refusal(capsys, best, "--protocol", "paper", "--holes", "error")


def test_what_mlr_predict_writes_of_a_run_scores_as_the_run_does(best, shots, tmp_path, capsys):
    assert main(["predict", str(best), "--out", str(tmp_path / "depth"), "--format", "npy"]) == 0
    said = capsys.readouterr().err
    assert f"as in the run: --data folder --root {shots} --depth-unit kitti" in said
    assert sorted(p.name for p in (tmp_path / "depth" / "val" / "rgb").iterdir()) == ["006.npy", "007.npy", "008.npy"]
    flags = ["--data", "folder", "--root", shots, "--depth-unit", "kitti"]
    # a network's depth may lie below 0, which files do not hold and the protocol clamps
    assert means(run(capsys, tmp_path / "depth", *flags)) == pytest.approx(means(run(capsys, best)), rel=1e-5)
    assert main(["predict", str(best), "--out", str(tmp_path / "all"), "--split", "all", "--quiet"]) == 0
    assert len(list((tmp_path / "all").rglob("*.png"))) == 4


def test_predict_takes_files_or_a_data_set(best, shots, tmp_path, capsys):
    image = shots / "val" / "rgb" / "006.png"
    assert main(["predict", str(best), str(image), "--data", "folder", "--out", str(tmp_path / "o")]) == 1
    assert "are for frames of a data set: name no files" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_an_id_that_leads_out_of_the_folder_is_refused():
    from mlr.data.datasets.base import DepthDataset
    from mlr.prediction.inputs import frame_inputs

    class Hostile(DepthDataset):
        def __init__(self, name: str):
            self.id = name

        def __len__(self):
            return 1

        def name(self, index):
            return self.id

        def read(self, index):
            raise AssertionError

    for name in ("../../evil.png", "/etc/evil", "a/../../b", ""):
        with pytest.raises(DataError, match="cannot name a file below --out"):
            frame_inputs(Hostile(name))
    assert frame_inputs(Hostile("a/b.png"))[0].name == "a/b"


def test_settings_of_the_run_fill_what_is_not_said():
    of_run = ChosenData("kitti", "/data", "kb_crop=true", None, "mask")
    taken = ChosenData(None, "/other").completed(of_run)
    assert taken == (
        ChosenData("kitti", "/other", "kb_crop=true", None, "mask"),
        "--data kitti --data-options kb_crop=true --holes mask",
    )
    assert ChosenData("nyu").completed(of_run) == (ChosenData("nyu"), "")
    assert ChosenData(data_options="").completed(of_run)[0].data_options == ""
