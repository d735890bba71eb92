# SPDX-License-Identifier: Apache-2.0
"""mlr evaluate: scores of prediction files worked out by hand, scores of networks, what is stored, what is refused."""

from __future__ import annotations

import csv
import errno
import json
import math
from pathlib import Path

import data_files as files
import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy.io import savemat

import mlr
from mlr.cli import main
from mlr.data import open_dataset
from mlr.evaluation import METRICS, PROTOCOLS, get_protocol, predict
from mlr.evaluation.prediction_files import match_names, match_order, read_prediction
from mlr.evaluation.predictor import Network
from mlr.evaluation.scoring import Scores

IDS = ["val/rgb/006.png", "val/rgb/007.png", "val/rgb/008.png"]


@pytest.fixture
def shots(tmp_path) -> Path:
    """Three frames to validate on, whose depth is an exact number of millimetres."""
    root = tmp_path / "shots"
    files.write_folder(root / "train", range(1))
    files.write_folder(root / "val", range(6, 9))
    return root


def depth(number: int, factor: float = 1.0) -> np.ndarray:
    return factor * files.integers(files.frame(number)[1], 1000) / np.float32(1000)


def write_npy(folder: Path, factor: float = 1.25, names: tuple[str, ...] = ("006", "007", "008")) -> Path:
    for number, name in enumerate(names, 6):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{name}.npy", depth(number, factor))
    return folder


def write_png(path: Path, metres: np.ndarray, steps: float = 1000, unit: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = PngInfo()
    if unit:
        text.add_text("depth_unit", unit)
    Image.fromarray(files.integers(metres, steps)).save(path, pnginfo=text)


def run(capsys, *arguments, code: int = 0) -> dict:
    """What a command prints as JSON."""
    assert main(["evaluate", *map(str, arguments), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def means(record: dict, protocol: str = "full") -> dict[str, float]:
    return {name: value["mean"] for name, value in record["protocols"][protocol]["metrics"].items()}


def refusal(capsys, *arguments) -> str:
    """The line in which a command explains its error."""
    assert main(["evaluate", *map(str, arguments)]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    return output.err


def on(root: Path, data: str = "folder", *more) -> list:
    unit = ["--data-options", "unit=mm"] if data == "folder" else []
    return ["--data", data, "--root", root, *unit, *more]


# --- prediction files -------------------------------------------------------------------------------------------------


def test_scores_of_files_are_those_worked_out_by_hand(shots, tmp_path, capsys):
    record = run(capsys, write_npy(tmp_path / "pred", 1.2), *on(shots))
    expected = {
        "delta1": 1.0, "delta2": 1.0, "delta3": 1.0, "ard": 0.2, "log10": math.log10(1.2), "rmse_log": math.log(1.2),
        "rmse_si": 0.0, "rmse": np.mean([np.sqrt(np.mean(np.square(0.2 * depth(n)))) for n in (6, 7, 8)]),
        "srd": np.mean([np.mean(0.04 * depth(n)) for n in (6, 7, 8)]),
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
    assert "declares the unit 'mm', and --depth-unit is '256'" in refusal(
        capsys, tmp_path / "told", *on(shots), "--depth-unit", "256"
    )


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
        assert means(run(capsys, tmp_path / predictions, *flags))["ard"] < 0.002


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
    assert match_names(tmp_path, paths[::-1], names) == paths
    with pytest.raises(ValueError, match=r"1 of 4 frames have no prediction \(b/1.png\)"):
        match_names(tmp_path, [p for p in paths if p.name != "1.png"], names)
    with pytest.raises(ValueError, match=r"1 files belong to no frame \(.*extra.npy\)"):
        match_names(tmp_path, [*paths, tmp_path / "extra.npy"], names)
    with pytest.raises(ValueError, match=r"1 frames have several \(b/1.png\)"):
        match_names(tmp_path, [*paths, tmp_path / "b" / "1.npy"], names)
    with pytest.raises(ValueError, match=r"1 files could belong to several frames \(.*0.npy\)"):
        match_names(tmp_path, [*paths, tmp_path / "0.npy"], names)


def test_order_is_that_of_numbers_in_folders_too(tmp_path):
    paths = [tmp_path / name for name in ("s1/f2.png", "s1/f10.png", "s2/f1.png", "s10/f1.png")]
    assert match_order(tmp_path, sorted(paths), list("abcd")) == paths


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
    assert means(record)["ard"] == pytest.approx(0.2, abs=1e-6)
    assert main(["evaluate", str(folder), *map(str, on(shots))]) == 0
    assert "1 frames without a pixel to score left out" in capsys.readouterr().out
    for name in ("006", "008"):
        Image.fromarray(np.zeros(files.SIZE, np.uint16)).save(shots / "val" / "depth" / f"{name}.png")
    assert "none of the 3 frames has a pixel to score" in refusal(capsys, folder, *on(shots))


# --- what is stored ---------------------------------------------------------------------------------------------------


def test_the_folder_holds_what_was_scored_and_every_frame(shots, tmp_path, capsys):
    out = tmp_path / "new" / "scores"
    printed = run(capsys, write_npy(tmp_path / "pred", 1.2), *on(shots), "--out", out)
    assert sorted(p.name for p in out.iterdir()) == ["full.csv", "scores.json"]
    record = json.loads((out / "scores.json").read_text())
    assert record == printed
    assert record["source"] == {"predictions": str(tmp_path / "pred")}
    assert record["data"] == {
        "name": "folder", "root": str(shots), "options": "unit=mm", "split": "val", "frames": 3, "sizes": {"48x64": 3},
        "missing": [], "broken": [],
    }  # fmt: skip
    assert record["versions"]["mlr"] == mlr.__version__
    assert record["protocols"]["full"]["protocol"]["clamp_min"] == 1e-3
    assert set(record["left_out"]) == set(PROTOCOLS) - {"full"}
    with (out / "full.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == IDS
    for metric in METRICS:
        assert np.mean([float(row[metric]) for row in rows]) == pytest.approx(means(record)[metric])


def test_results_are_never_overwritten_nor_half_written(shots, tmp_path, capsys, monkeypatch):
    arguments = [write_npy(tmp_path / "pred"), *on(shots), "--out", tmp_path / "scores"]
    run(capsys, *arguments)
    before = (tmp_path / "scores" / "scores.json").read_bytes()
    assert "is there already" in refusal(capsys, *arguments)
    assert (tmp_path / "scores" / "scores.json").read_bytes() == before

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert main(["evaluate", *map(str, arguments[:-1]), str(tmp_path / "more")]) == 1
    output = capsys.readouterr()
    assert "ard" in output.out  # the scores are on the screen all the same
    assert "cannot write" in output.err
    assert "No space left on device" in output.err
    assert not (tmp_path / "more").exists()
    assert not list(tmp_path.glob(".*"))


def test_the_table_fits_a_terminal_and_shows_means_and_intervals(shots, tmp_path, capsys):
    assert main(["evaluate", str(write_npy(tmp_path / "pred", 1.2)), *map(str, on(shots))]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines]
    assert ["protocol", *METRICS] in rows
    (row,) = (row for row in rows if row[:1] == ["full"])
    assert row[5] == "0.2000"
    assert max(len(line) for line in lines if "left out" not in line) <= 80
    assert any("protocol 'eccv2020' is defined on nyu" in line for line in lines)


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A tiny network that was trained at 64 x 96 pixels."""
    torch.manual_seed(0)
    model = mlr.DepthModel("test_resnet", 32, pretrained=False)
    torch.nn.init.normal_(model.conv3.weight, std=200)  # as it is, an untrained network predicts one depth everywhere
    return mlr.save_checkpoint(tmp_path_factory.mktemp("net") / "best.pt", model, config={"size": "64x96"})


ROOMS = ["--data", "rooms", "--data-options", "length=2,height=96,width=128"]


def expected(checkpoint: Path, size: tuple[int, int], **options) -> dict[str, float]:
    model, scores = mlr.DepthModel.from_checkpoint(checkpoint), Scores("full")
    for sample in (open_dataset("rooms", None, "val", length=2, height=96, width=128)[i] for i in range(2)):
        image = sample["image"].as_subclass(torch.Tensor)[None] / 255
        image = torch.nn.functional.interpolate(image, size, mode="bicubic")
        scores.add([sample["id"]], predict(model, image, "full", **options), sample["depth"].as_subclass(torch.Tensor))
    return scores.means()


def test_a_checkpoint_runs_at_the_size_it_was_trained_at_or_another(checkpoint, capsys):
    record = run(capsys, checkpoint, *ROOMS)
    assert means(record) == pytest.approx(expected(checkpoint, (64, 96)), rel=1e-4)
    assert record["protocols"]["full"]["prediction"] == {
        "input_size": [64, 96], "flip_average": False, "precision": "float32", "device": "cpu",
    }  # fmt: skip
    assert record["source"]["backbone"] == "test_resnet"
    assert len(record["source"]["sha256"]) == 64
    other = run(capsys, checkpoint, *ROOMS, "--size", "32x64")
    assert means(other) == pytest.approx(expected(checkpoint, (32, 64)), rel=1e-4)
    assert other["protocols"]["full"]["prediction"]["input_size"] == [32, 64]


def test_the_mirrored_image_takes_part_where_it_is_asked_for(checkpoint, capsys):
    flipped = run(capsys, checkpoint, *ROOMS, "--flip")
    assert means(flipped) == pytest.approx(expected(checkpoint, (64, 96), flip_average=True), rel=1e-4)
    assert flipped["protocols"]["full"]["prediction"]["flip_average"] is True
    assert means(flipped)["rmse"] != pytest.approx(means(run(capsys, checkpoint, *ROOMS))["rmse"], rel=1e-4)


def test_half_precision_scores_alike_and_normalises_in_float32(checkpoint, capsys):
    half, whole = run(capsys, checkpoint, *ROOMS, "--half"), run(capsys, checkpoint, *ROOMS)
    assert half["protocols"]["full"]["prediction"]["precision"] == "half"
    assert means(half) == pytest.approx(means(whole), rel=0.02)
    assert means(half)["rmse"] != means(whole)["rmse"]
    model = Network(mlr.DepthModel.from_checkpoint(checkpoint), half=True).model
    assert model.pixel_mean.dtype == model.pixel_std.dtype == torch.float32
    assert model.conv3.weight.dtype == torch.float16


def test_a_run_folder_means_its_best_model(checkpoint, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("size: 64x96\n")
    assert "best.pt" in refusal(capsys, tmp_path, *ROOMS)
    (tmp_path / "best.pt").write_bytes(checkpoint.read_bytes())
    assert means(run(capsys, tmp_path, *ROOMS)) == means(run(capsys, checkpoint, *ROOMS))


def test_the_networks_work_is_shared_between_protocols(checkpoint):
    network = Network(mlr.DepthModel.from_checkpoint(checkpoint), (64, 96))
    same = {network.key(get_protocol(name)) for name in ("full", "nyu-toolbox", "kitti-garg", "make3d-c1")}
    assert len(same) == 1
    assert len(same | {network.key(get_protocol(name)) for name in ("eccv2020", "bts", "make3d-md2")}) == 4


# --- data sets and their protocols ------------------------------------------------------------------------------------


def nyu_depth(number: int) -> np.ndarray:
    return files.frame(number, (480, 640))[1] / 2


def write_nyu(root: Path, raw: bool = True) -> None:
    """Two frames for tests of the labelled set, as large as they are; raw depth has a hole of ten rows."""
    image = files.frame(1, (480, 640))[0]
    filled = np.stack([nyu_depth(0).T, nyu_depth(1).T])
    root.mkdir()
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = np.stack([image.transpose(2, 1, 0)] * 2)
        file["depths"] = filled
        if raw:
            holed = filled.copy()
            holed[..., 200:210] = 0
            file["rawDepths"] = holed
    savemat(root / "splits.mat", {"trainNdxs": [[1]], "testNdxs": [[1], [2]]})


def write_nyu_predictions(folder: Path) -> Path:
    folder.mkdir()
    for number in range(2):
        np.save(folder / f"0000{number + 1}.npy", 1.2 * nyu_depth(number))
    return folder


def test_all_takes_the_protocols_of_the_data_set_each_with_its_own_depth(tmp_path, capsys):
    write_nyu(tmp_path / "nyu")
    record = run(capsys, write_nyu_predictions(tmp_path / "pred"), *on(tmp_path / "nyu", "nyu"))
    assert list(record["protocols"]) == ["full", "eccv2020", "nyu-toolbox", "bts"]
    assert set(record["left_out"]) == {"kitti-garg", "kitti-eigen", "make3d-c1", "make3d-c2", "make3d-md2"}
    assert record["refused"] == {}
    for name in record["protocols"]:
        assert means(record, name)["log10"] == pytest.approx(math.log10(1.2), abs=1e-5)


def test_each_protocol_scores_its_own_pixels(tmp_path, capsys):
    write_nyu(tmp_path / "nyu")
    out, pixels = tmp_path / "scores", {}
    run(capsys, write_nyu_predictions(tmp_path / "pred"), *on(tmp_path / "nyu", "nyu"), "--out", out)
    for name in ("full", "eccv2020", "nyu-toolbox", "bts"):
        with (out / f"{name}.csv").open(newline="") as file:
            pixels[name] = [int(row["pixels"]) for row in csv.DictReader(file)]
    assert pixels == {
        "full": [480 * 640] * 2, "eccv2020": [440 * 592] * 2, "nyu-toolbox": [427 * 561] * 2,
        "bts": [(426 - 10) * 560] * 2,  # without the hole of raw depth
    }  # fmt: skip


def test_a_protocol_that_refuses_fails_alone_or_the_command_where_it_was_named(tmp_path, capsys):
    write_nyu(tmp_path / "nyu", raw=False)
    folder = write_nyu_predictions(tmp_path / "pred")
    record = run(capsys, folder, *on(tmp_path / "nyu", "nyu"))
    assert list(record["protocols"]) == ["full", "eccv2020", "nyu-toolbox"]
    assert "no 'rawDepths'" in record["refused"]["bts"]
    assert main(["evaluate", str(folder), *map(str, on(tmp_path / "nyu", "nyu"))]) == 0
    assert "refused bts: " in capsys.readouterr().out
    named = run(capsys, folder, *on(tmp_path / "nyu", "nyu"), "--protocol", "full,bts", code=1)
    assert list(named["protocols"]) == ["full"]
    assert "no 'rawDepths'" in refusal(capsys, folder, *on(tmp_path / "nyu", "nyu"), "--protocol", "bts")


def test_holes_refuse_the_protocols_of_filled_depth(tmp_path, capsys):
    write_nyu(tmp_path / "nyu")
    folder = write_nyu_predictions(tmp_path / "pred")
    record = run(capsys, folder, *on(tmp_path / "nyu", "nyu"), "--data-options", "depth=rawDepths")
    assert list(record["protocols"]) == ["full", "bts"]
    assert "5920 pixels of the targets have none" in record["refused"]["eccv2020"]
    filled = [*on(tmp_path / "nyu", "nyu"), "--data-options", "depth=depths", "--protocol", "bts"]
    assert "leave out the option depth=depths" in refusal(capsys, folder, *filled)


def test_kitti_is_scored_on_whole_frames_and_a_crop_is_pasted_back(tmp_path, capsys):
    files.write_kitti(tmp_path / "kitti")
    (frame,) = open_dataset("kitti", tmp_path / "kitti", "val")
    folder = tmp_path / "pred"
    folder.mkdir()
    metres = files.frame(5, files.KITTI_SIZE)[1]
    np.save(folder / "0000000005.npy", metres[23:, 13 : 13 + 1216])
    record = run(capsys, folder, *on(tmp_path / "kitti", "kitti"))
    assert list(record["protocols"]) == ["kitti-garg", "kitti-eigen"]
    assert means(record, "kitti-garg")["rmse"] == pytest.approx(0, abs=1 / 256)
    assert "352 x 1216 pixels, which is not the shape of the 375 x 1242" in record["refused"]["full"]
    assert record["data"]["missing"] == [f"line 2: {frame['id'][:-14]}0000000070.png has no ground truth"]
    cropped = [*on(tmp_path / "kitti", "kitti"), "--data-options", "kb_crop=true", "--protocol", "kitti-garg"]
    assert "leave out kb_crop" in refusal(capsys, folder, *cropped)


def test_broken_frames_of_a_set_that_has_some_are_named_and_left_out(tmp_path, capsys):
    files.write_make3d(tmp_path)
    picture = tmp_path / "Test134" / f"img-{files.MAKE3D_NAMES[0]}.jpg"
    picture.write_bytes(picture.read_bytes()[:2000])
    folder = tmp_path / "pred"
    folder.mkdir()
    for number, name in enumerate(files.MAKE3D_NAMES):
        np.save(folder / f"{name}.npy", files.make3d_grid(number)[..., 3])
    record = run(capsys, folder, *on(tmp_path, "make3d"))
    assert len(record["data"]["broken"]) == 1
    assert files.MAKE3D_NAMES[0] in record["data"]["broken"][0]
    assert record["data"]["sizes"] == {"227x170, depth 55x305": 1}
    assert list(record["protocols"]) == ["full", "make3d-c1", "make3d-c2"]
    assert means(record, "make3d-c2")["rmse"] == pytest.approx(0, abs=1e-5)
    assert "defined on images of 2272 rows" in record["refused"]["make3d-md2"]


def test_a_broken_frame_of_any_other_set_is_an_error(shots, tmp_path, capsys):
    (shots / "val" / "rgb" / "007.png").write_bytes(b"no picture")
    assert "007.png" in refusal(capsys, write_npy(tmp_path / "pred"), *on(shots), "--out", tmp_path / "scores")
    assert not (tmp_path / "scores").exists()


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol", "bst"], "unknown protocol 'bst': did you mean 'bts'?"),
        (["--data", "nyv"], "unknown data set 'nyv': did you mean nyu?"),
        (["--flip"], "--flip, --no-flip and --half are for networks"),
        (["--depth-unit", "feet"], "unknown depth unit 'feet'"),
        (["--data", "kitti", "--protocol", "bts"], "is defined on nyu, nyu-sync"),
        (["--data", "rooms"], "needs no files"),
        (["--data-options", "unit"], "name=value"),
        (["--root", "nowhere"], "no such folder"),
    ],
)
def test_a_wrong_setting_is_explained(arguments, message, shots, tmp_path, capsys):
    assert message in refusal(capsys, write_npy(tmp_path / "pred"), *on(shots), *arguments)


def test_a_source_that_is_neither_network_nor_predictions_is_explained(shots, checkpoint, tmp_path, capsys):
    assert "there is no" in refusal(capsys, tmp_path / "nowhere", *on(shots))
    (tmp_path / "empty").mkdir()
    assert "holds no predictions" in refusal(capsys, tmp_path / "empty", *on(shots))
    (tmp_path / "notes.pt").write_text("no checkpoint")
    assert "notes.pt" in refusal(capsys, tmp_path / "notes.pt", *on(shots))
    for flags, message in (
        (["--flip", "--no-flip"], "exclude each other"),
        (["--match", "order"], "--match is for folders of predictions"),
        (["--size", "16x16"], "at least 32x32"),
        (["--depth-unit", "mm"], "--depth-unit is not for --data rooms"),
        (["--protocol", "eccv2020", "--size", "64x96"], "--size 64x96"),
    ):
        assert message in refusal(capsys, checkpoint, *ROOMS, *flags)


def test_every_protocol_is_documented():
    text = (Path(__file__).parent.parent / "docs" / "evaluation.md").read_text()
    assert [name for name in PROTOCOLS if f"`{name}`" not in text] == []
