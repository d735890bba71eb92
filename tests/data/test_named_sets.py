# SPDX-License-Identifier: Apache-2.0
"""Data sets by name, path and particulars: one spelling in every command."""

import json

import pytest
from data_files import write_folder
from evaluating import refusal

from mlr.cli import main
from mlr.data.chosen import ChosenData
from mlr.data.depth_files import DataError
from mlr.data.named_sets import NamedSet, as_settings, is_mixture, parse_sets
from mlr.losses import LossSpace
from mlr.training.settings import TrainingSettings

LISTED = json.dumps(
    [
        {"data": "rooms", "weight": "2"},
        {
            "data": "kitti:/k",
            "losses": ["depth", "mean"],
            "data-options": {"kb_crop": "true"},
            "weight": 1,
            "crop": "352x469",
        },
    ]
)


def test_several_sets_on_a_command_line():
    sets = parse_sets("nyu:/data/nyu+kitti:/data/a+b:c+rooms+kitti:/more")
    assert [(s.name, s.data, s.root) for s in sets] == [
        ("nyu", "nyu", "/data/nyu"),
        ("kitti", "kitti", "/data/a+b:c"),
        ("rooms", "rooms", None),
        ("kitti-2", "kitti", "/more"),
    ]
    assert [is_mixture(text) for text in ("rooms", "nyu:/a+b", "rooms+nyu:/a", "[...]")] == [False, False, True, True]


def test_a_list_of_sets():
    rooms, kitti = parse_sets(LISTED)
    assert rooms == NamedSet("rooms", name="rooms", weight=2.0)
    assert (kitti.root, kitti.losses, kitti.data_options, kitti.crop_size()) == (
        "/k", "depth+mean", "kb_crop=true", (352, 469),
    )  # fmt: skip
    space = LossSpace("all")
    factors = dict(zip(space.names, kitti.loss_factors(space), strict=True))
    assert factors["D/0"] == factors["M/3"] == 1
    assert factors["r/0"] == 0
    assert as_settings("rooms") == "rooms"
    assert parse_sets(json.dumps(as_settings(LISTED))) == (rooms, kitti)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "the list of data sets is empty"),
        ("[{", r"is no list of data sets"),
        ('[{"root": "/x"}]', "lacks data"),
        ('[{"data": "kitti:/a", "root": "/b"}]', "path twice"),
        ('[{"data": "rooms", "wieght": 1}]', r"no setting 'wieght'.*weight"),
        ('[{"data": "rooms", "weight": "much"}]', "weight must be a number, got 'much'"),
        ('[{"data": "rooms", "crop": [1, 2]}]', "crop must be a single value"),
        ('[{"data": "rooms", "name": "a"}, {"data": "rooms", "name": "a"}]', "two sets are called 'a'"),
        ("[3]", "NAME:PATH or settings by name"),
        ("rooms+nyu", "set nyu: its path is missing: write nyu:PATH"),
        ('["rooms:/x", "rooms"]', "rooms is built in"),
        ('[{"data": "nuy:/a"}]', r"unknown data set 'nuy'.*nyu"),
        ('[{"data": "rooms", "weight": 0}]', "weight must be a positive number"),
        ('[{"data": "rooms", "loss_weight": "inf"}]', "loss_weight must be a positive number"),
        ('[{"data": "rooms", "weight": 1}, "rooms"]', "weight for every set or for none; rooms-2 has none"),
        ('[{"data": "rooms", "crop": "wide"}]', "must be HxW"),
        ('[{"data": "rooms", "losses": "dpeth"}]', "set rooms: .*dpeth"),
        ('[{"data": "rooms", "holes": "dig"}]', "holes must be one of"),
        ('[{"data": "rooms", "data_options": "k=1"}]', "no option 'k'"),
        ('[{"data": "rooms", "name": "a/b"}]', "letters, digits"),
        ('[{"data": "rooms", "losses": "depth"}]', "no data set has"),
    ],
)
def test_sets_that_cannot_work_are_refused_before_anything_is_opened(text, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(data=text).validate()


def test_losses_outside_those_of_the_training():
    with pytest.raises(ValueError, match=r"set rooms-2: losses mean are not all among --losses depth"):
        TrainingSettings(data='["rooms", {"data": "rooms", "losses": "mean"}]', losses="depth").validate()


def test_settings_of_one_set_beside_several():
    for name in ("root", "data_options", "depth_unit"):
        with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} is for a training on one data set"):
            TrainingSettings(data="rooms+nyu:/a", **{name: "x"}).validate()


def test_name_and_path_of_one_set():
    settings = TrainingSettings(data="folder:shots")
    assert (settings.data, str(settings.root), settings.sets) == ("folder", "shots", ())
    with pytest.raises(ValueError, match="says its path, and --root other too"):
        TrainingSettings(data="folder:shots", root="other").validate()


# --- other commands ---------------------------------------------------------------------------------------------------


def test_evaluate_takes_name_and_path(checkpoint, tmp_path, capsys):
    write_folder(tmp_path / "shots", range(10))
    options = ["--data-options", "unit=mm", "--protocol", "full", "--json"]
    outputs = []
    for data in (["--data", f"folder:{tmp_path / 'shots'}"], ["--data", "folder", "--root", str(tmp_path / "shots")]):
        assert main(["evaluate", str(checkpoint), *data, *options]) == 0
        outputs.append(json.loads(capsys.readouterr().out))
    assert outputs[0]["protocols"] == outputs[1]["protocols"]
    twice = ["--data", f"folder:{tmp_path / 'shots'}", "--root", str(tmp_path)]
    assert "leave one out" in refusal(capsys, checkpoint, *twice)


def test_prepare_and_check_take_name_and_root(tmp_path, capsys):
    for name in ("a", "b"):
        write_folder(tmp_path / name, range(10))
    a, b = (f"folder:{tmp_path / name}" for name in ("a", "b"))
    common = ["--data-options", "unit=mm", "--workers", "0", "--quiet"]
    assert main(["prepare", "folder", "--root", str(tmp_path / "a"), "--out", str(tmp_path / "a.h5"), *common]) == 0
    assert main(["prepare", f"{a}+{b}", "--out", str(tmp_path / "ab.h5"), *common]) == 0
    check = ["--data-options", "unit=mm", "--workers", "0"]
    assert main(["check-data", "folder", "--root", str(tmp_path / "b"), *check]) == 0
    capsys.readouterr()
    for arguments, message in (
        (["prepare", f"{a}+{b}", "--root", str(tmp_path), "--out", str(tmp_path / "c.h5")], "is for one data set"),
        (["prepare", a, "--root", str(tmp_path), "--out", str(tmp_path / "c.h5")], "leave one out"),
        (["check-data", f"{a}+{b}"], "looks at one data set"),
        (["check-data", "folder"], "NAME:PATH"),
    ):
        assert main(arguments) == 1
        assert message in capsys.readouterr().err


def test_one_of_the_sets_of_a_run(tmp_path):
    config = {"data": LISTED, "holes": "mask"}
    chosen, taken = ChosenData(data="kitti").completed_by(config, tmp_path)
    assert (chosen.root, chosen.options) == ("/k", {"kb_crop": "true"})
    assert "--root /k" in taken
    chosen, _ = ChosenData(data="kitti-2").completed_by({"data": "kitti:/a+kitti:/b"}, tmp_path)
    assert (chosen.data, chosen.root) == ("kitti", "/b")
    assert ChosenData(data="nyu:/n").completed_by(config, tmp_path)[0].root == "/n"
    with pytest.raises(DataError, match="several data sets, choose one of rooms, kitti"):
        ChosenData().completed_by(config, tmp_path)
    with pytest.raises(DataError, match="damaged"):
        ChosenData().completed_by({"data": "[{"}, tmp_path)
