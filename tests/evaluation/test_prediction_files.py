# SPDX-License-Identifier: Apache-2.0
"""mlr evaluate on prediction files: scores worked out by hand, which file belongs to which frame, what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import data_files as files
import numpy as np
import pytest
import torch
from evaluating import depth, means, on, refusal, run, write_npy, write_png, write_shots
from PIL import Image

from mlr.cli import main
from mlr.data import DataError
from mlr.evaluation import Scores
from mlr.evaluation.matching import match_names, match_order
from mlr.evaluation.prediction_files import read_prediction

IDS = ["val/rgb/006.png", "val/rgb/007.png", "val/rgb/008.png"]


@pytest.fixture
def shots(tmp_path) -> Path:
    return write_shots(tmp_path / "shots")


def test_scores_of_files_are_those_worked_out_by_hand(shots, tmp_path, capsys):
    record = run(capsys, write_npy(tmp_path / "pred", 1.2), *on(shots))
    expected = {
        "delta1": 1.0, "delta2": 1.0, "delta3": 1.0, "abs_rel": 0.2, "log10": math.log10(1.2),
        "rmse_log": math.log(1.2), "silog": 0.0,
        "rmse": np.mean([np.sqrt(np.mean(np.square(0.2 * depth(n)))) for n in (6, 7, 8)]),
        "sq_rel": np.mean([np.mean(0.04 * depth(n)) for n in (6, 7, 8)]),
    }  # fmt: skip
    assert means(record) == pytest.approx(expected, abs=2e-6)
    scores = record["protocols"]["full"]
    assert scores["images"] == 3
    assert scores["metrics"]["rmse"]["low"] < expected["rmse"] < scores["metrics"]["rmse"]["high"]


def test_integers_are_read_in_the_unit_that_the_flag_or_the_file_names(shots, tmp_path, capsys):
    for number in (6, 7, 8):
        write_png(tmp_path / "kitti" / f"{number:03d}.png", depth(number), 256)
        write_png(tmp_path / "told" / f"{number:03d}.png", depth(number), 1000, "mm")
    assert means(run(capsys, tmp_path / "told", *on(shots)))["rmse"] == 0
    assert means(run(capsys, tmp_path / "kitti", *on(shots), "--depth-unit", "kitti"))["rmse"] < 1 / 256
    assert "no unit was declared" in refusal(capsys, tmp_path / "kitti", *on(shots))
    refused = refusal(capsys, tmp_path / "told", *on(shots), "--depth-unit", "256")
    assert "declares the unit 'mm' itself, and the unit that was given is '256'" in refused
    assert "leave out --depth-unit" in refused


def test_the_unit_of_predictions_serves_data_that_declares_none_and_no_other(tmp_path, capsys):
    """Depth files named ..._mm keep their unit whatever that of the predictions is."""
    for number in range(2):
        image, metres = files.frame(number)
        files.write(tmp_path / "mm" / "val" / f"{number}_rgb.png", files.encoded(image))
        write_png(tmp_path / "mm" / "val" / f"{number}_depth_mm.png", metres)
        files.write(tmp_path / "plain" / "val" / "rgb" / f"{number}.png", files.encoded(image))
        write_png(tmp_path / "plain" / "val" / "depth" / f"{number}.png", metres, 256)
        write_png(tmp_path / "pred" / f"{number}.png", metres, 256)
        write_png(tmp_path / "pred_rgb" / f"{number}_rgb.png", metres, 256)
    for data, predictions in (("plain", "pred"), ("mm", "pred_rgb")):
        flags = ["--data", "folder", "--root", tmp_path / data, "--depth-unit", "kitti"]
        assert means(run(capsys, tmp_path / predictions, *flags))["abs_rel"] < 0.002


@pytest.mark.parametrize("names", [("val_rgb_006", "val_rgb_007", "val_rgb_008"), ("rgb/006", "rgb/007", "rgb/008")])
def test_files_may_be_named_like_the_whole_id_or_its_end(names, shots, tmp_path, capsys):
    assert means(run(capsys, write_npy(tmp_path / "pred", 1.0, names), *on(shots)))["rmse"] == 0


def test_files_are_taken_in_the_order_of_their_numbers(shots, tmp_path, capsys):
    folder = write_npy(tmp_path / "pred", 1.0, ("pred9", "pred10", "pred100"))
    assert means(run(capsys, folder, *on(shots), "--match", "order"))["rmse"] == 0
    assert "3 of 3 frames have no prediction" in refusal(capsys, folder, *on(shots))
    (folder / "pred9.npy").rename(folder / "pred010.npy")
    assert "has the same number" in refusal(capsys, folder, *on(shots), "--match", "order")
    (folder / "pred010.npy").unlink()
    assert "2 predictions and the data set 3 frames" in refusal(capsys, folder, *on(shots), "--match", "order")


def test_frames_and_files_that_do_not_fit_are_named_and_counted_before_anything_is_scored(tmp_path):
    names = ["a/0.png", "b/0.png", "b/1.png", "10.21op2-p"]
    paths = [tmp_path / name for name in ("a_0.npy", "b/0.png", "1.png", "10.21op2-p.npy")]
    assert match_names(tmp_path, paths[::-1], names).paths == paths
    with pytest.raises(ValueError, match=r"1 of 4 frames have no prediction \(b/1.png\)"):
        match_names(tmp_path, [p for p in paths if p.name != "1.png"], names)
    with pytest.raises(ValueError, match=r"1 file belongs to no frame \(.*extra.npy\)"):
        match_names(tmp_path, [*paths, tmp_path / "extra.npy"], names)
    with pytest.raises(ValueError, match=r"1 frame has several \(b/1.png\)"):
        match_names(tmp_path, [*paths, tmp_path / "b" / "1.npy"], names)
    with pytest.raises(ValueError, match=r"1 file could belong to several frames \(.*0.npy\)"):
        match_names(tmp_path, [*paths, tmp_path / "0.npy"], names)


def test_order_is_that_of_numbers_in_folders_too(tmp_path):
    paths = [tmp_path / name for name in ("s1/f2.png", "s1/f10.png", "s2/f1.png", "s10/f1.png")]
    assert match_order(tmp_path, sorted(paths), list("abcd")).paths == paths


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (depth(7).T, "64 x 48 pixels, which is not the shape of the 48 x 64 pixels that it should cover; height"),
        (depth(7)[:, :40], "48 x 40 pixels"),
        (np.where(np.eye(48, 64), np.nan, depth(7)), "48 NaN of 3072 values"),
        (np.where(np.eye(48, 64), np.inf, depth(7)), "48 infinite of 3072 values"),
        (np.where(np.eye(48, 64), -1, depth(7)), "48 negative of 3072 values"),
        (np.zeros((0, 64), np.float32), "empty"),
        (np.repeat(depth(7)[..., None], 3, 2), r"expected [H, W], got [48, 64, 3]"),
        (depth(7) > 1, "holds bool values"),
        ((100 * depth(7)).astype(np.uint8), "holds uint8 values"),
        (1000 * depth(7), "they are not metres"),
    ],
)
def test_a_file_that_is_no_prediction_is_named(wrong, message, shots, tmp_path, capsys):
    folder = write_npy(tmp_path / "pred")
    np.save(folder / "007.npy", wrong)
    error = refusal(capsys, folder, *on(shots), "--out", tmp_path / "scores")
    assert message in error
    assert "007.npy" in error
    assert not (tmp_path / "scores").exists()
    assert not list(tmp_path.glob(".*"))


def test_pictures_and_cut_off_files_are_no_predictions(tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "colour.png")
    with pytest.raises(ValueError, match=r"colour.png is no depth map: expected \[H, W\], got \[4, 4, 3\]"):
        read_prediction(tmp_path / "colour.png")
    write_png(tmp_path / "whole.png", depth(6), unit="mm")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"cannot read .*cut.png"):
        read_prediction(tmp_path / "cut.png")
    write_png(tmp_path / "unit.png", depth(6), unit="inches")
    with pytest.raises(ValueError, match=r"unit.png: unknown depth unit 'inches'"):
        read_prediction(tmp_path / "unit.png")


def test_a_smaller_prediction_is_resized_by_the_protocol(shots, tmp_path, capsys):
    folder = tmp_path / "pred"
    folder.mkdir()
    scores = Scores("full")
    for number in (6, 7, 8):
        small = depth(number)[::2, ::2]
        np.save(folder / f"{number:03d}.npy", small)
        scores.add([str(number)], torch.from_numpy(small)[None], torch.from_numpy(depth(number))[None])
    assert means(run(capsys, folder, *on(shots))) == pytest.approx(scores.means())


def test_frames_without_a_valid_pixel_are_left_out_and_counted(shots, tmp_path, capsys):
    Image.fromarray(np.zeros(files.SIZE, np.uint16)).save(shots / "val" / "depth" / "007.png")
    folder = write_npy(tmp_path / "pred", 1.2)
    record = run(capsys, folder, *on(shots), "--out", tmp_path / "scores")
    assert record["protocols"]["full"]["excluded"] == [IDS[1]]
    assert record["protocols"]["full"]["images"] == 2
    assert means(record)["abs_rel"] == pytest.approx(0.2, abs=1e-6)
    assert main(["evaluate", str(folder), *map(str, on(shots))]) == 0
    assert "1 frame without a pixel to score left out" in capsys.readouterr().out
    for name in ("006", "008"):
        Image.fromarray(np.zeros(files.SIZE, np.uint16)).save(shots / "val" / "depth" / f"{name}.png")
    assert "none of the 3 frames has a pixel to score" in refusal(capsys, folder, *on(shots))


def test_whatever_pillow_raises_names_the_prediction(tmp_path, monkeypatch):
    write_png(tmp_path / "1.png", depth(6))
    np.save(tmp_path / "2.npy", depth(6))
    (tmp_path / "3.npy").write_bytes(b"")

    def broken(*_, **__):
        raise EOFError("no more")

    monkeypatch.setattr(Image, "open", broken)
    with pytest.raises(DataError, match=r"1\.png: no more"):
        read_prediction(tmp_path / "1.png")
    read_prediction(tmp_path / "2.npy")
    with pytest.raises(DataError, match=r"cannot read the depth file .*3\.npy"):
        read_prediction(tmp_path / "3.npy")
