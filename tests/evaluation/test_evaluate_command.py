# SPDX-License-Identifier: Apache-2.0
"""mlr evaluate: what is stored, networks, the protocols of each data set, what is refused."""

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
from evaluating import means, on, refusal, run, write_npy, write_shots
from scipy.io import savemat

import mlr
from mlr.cli import main
from mlr.data import DataError, open_dataset
from mlr.data.datasets.kitti import kb_region
from mlr.data.sample import make_sample
from mlr.evaluation import METRICS, PROTOCOLS, Scores, get_protocol
from mlr.evaluation.frames import open_frames
from mlr.evaluation.predictor import Network

IDS = ["val/rgb/006.png", "val/rgb/007.png", "val/rgb/008.png"]


@pytest.fixture
def shots(tmp_path) -> Path:
    return write_shots(tmp_path / "shots")


# --- what is stored ---------------------------------------------------------------------------------------------------


def test_the_folder_holds_what_was_scored_and_every_frame(shots, tmp_path, capsys):
    out = tmp_path / "new" / "scores"
    printed = run(capsys, write_npy(tmp_path / "pred", 1.2), *on(shots), "--out", out)
    assert sorted(p.name for p in out.iterdir()) == ["full.csv", "scores.json"]
    record = json.loads((out / "scores.json").read_text())
    assert record == printed
    assert record["evaluated"] == {"predictions": str(tmp_path / "pred")}
    assert record["data"] == {
        "name": "folder", "root": str(shots), "options": "unit=mm", "depth_unit": None, "holes": "mask", "split": "val",
        "frames": 3, "sizes": {"48x64": 3}, "missing": [], "broken": [],
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
    assert "abs_rel" in output.out  # the scores are on the screen all the same
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
    assert "left out paper, nyu-toolbox: defined on nyu, nyu-zip, nyu-h5; name it if folder holds such frames" in lines


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
        depth = model.infer(sample["image"], size, **options)
        scores.add([sample["id"]], depth, sample["depth"].as_subclass(torch.Tensor))
    return scores.means()


def test_a_checkpoint_runs_at_the_size_it_was_trained_at_or_another(checkpoint, capsys):
    record = run(capsys, checkpoint, *ROOMS)
    assert means(record) == pytest.approx(expected(checkpoint, (64, 96)), rel=1e-4)
    assert record["protocols"]["full"]["prediction"] == {
        "part": None, "precision": "float32", "device": "cpu",
        "input": {"resize": "trained", "size": [64, 96], "rows": None, "image_height": None, "flip_average": False},
    }  # fmt: skip
    assert record["evaluated"]["backbone"] == "test_resnet"
    assert len(record["evaluated"]["sha256"]) == 64
    other = run(capsys, checkpoint, *ROOMS, "--size", "32x64")
    assert means(other) == pytest.approx(expected(checkpoint, (32, 64)), rel=1e-4)
    assert other["protocols"]["full"]["prediction"]["input"]["size"] == [32, 64]


def test_the_mirrored_image_takes_part_where_it_is_asked_for(checkpoint, capsys):
    flipped = run(capsys, checkpoint, *ROOMS, "--flip")
    assert means(flipped) == pytest.approx(expected(checkpoint, (64, 96), flip=True), rel=1e-4)
    assert flipped["protocols"]["full"]["prediction"]["input"]["flip_average"] is True
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
    same = {network.key(get_protocol(name)) for name in ("full", "kitti-eigen", "kitti-garg", "make3d-c1")}
    assert len(same) == 1
    assert len(same | {network.key(get_protocol(name)) for name in ("paper", "nyu-toolbox", "bts", "make3d-md2")}) == 5


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
    assert list(record["protocols"]) == ["full", "paper", "nyu-toolbox", "bts"]
    assert set(record["left_out"]) == {"relative", "kitti-garg", "kitti-eigen", "make3d-c1", "make3d-c2", "make3d-md2"}
    assert record["refused"] == {}
    for name in record["protocols"]:
        assert means(record, name)["log10"] == pytest.approx(math.log10(1.2), abs=1e-5)


def test_each_protocol_scores_its_own_pixels(tmp_path, capsys):
    write_nyu(tmp_path / "nyu")
    out, pixels = tmp_path / "scores", {}
    run(capsys, write_nyu_predictions(tmp_path / "pred"), *on(tmp_path / "nyu", "nyu"), "--out", out)
    for name in ("full", "paper", "nyu-toolbox", "bts"):
        with (out / f"{name}.csv").open(newline="") as file:
            pixels[name] = [int(row["pixels"]) for row in csv.DictReader(file)]
    assert pixels == {
        "full": [480 * 640] * 2, "paper": [440 * 592] * 2, "nyu-toolbox": [427 * 561] * 2,
        "bts": [(426 - 10) * 560] * 2,  # without the hole of raw depth
    }  # fmt: skip


def test_a_protocol_that_refuses_fails_alone_or_the_command_where_it_was_named(tmp_path, capsys):
    write_nyu(tmp_path / "nyu", raw=False)
    folder = write_nyu_predictions(tmp_path / "pred")
    record = run(capsys, folder, *on(tmp_path / "nyu", "nyu"))
    assert list(record["protocols"]) == ["full", "paper", "nyu-toolbox"]
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
    for name in ("paper", "nyu-toolbox"):
        assert "leave out the option depth=rawDepths" in record["refused"][name]
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
    cropped = run(capsys, folder, *on(tmp_path / "kitti", "kitti"), "--data-options", "kb_crop=true")
    assert means(cropped, "full")["rmse"] == pytest.approx(0, abs=1 / 256)
    assert means(cropped, "kitti-garg") == means(record, "kitti-garg")


def test_a_network_of_kittis_crop_sees_the_crop_and_is_scored_on_whole_frames(checkpoint, tmp_path, capsys):
    files.write_kitti(tmp_path)
    model, scores = mlr.DepthModel.from_checkpoint(checkpoint), Scores("kitti-garg")
    frame = open_dataset("kitti", tmp_path, "val")[0]
    depth = model.infer(frame["image"][:, 23:, 13 : 13 + 1216], (64, 96))
    scores.add(["frame"], depth[None], frame["depth"].as_subclass(torch.Tensor), region=kb_region((375, 1242), "frame"))
    flags = [*on(tmp_path, "kitti"), "--data-options", "kb_crop=true"]
    record = run(capsys, checkpoint, *flags)
    assert means(record, "kitti-garg") == pytest.approx(scores.means(), rel=1e-4)
    assert record["protocols"]["kitti-garg"]["prediction"]["part"] == [352, 1216]
    assert record["data"]["sizes"] == {"352x1216": 1, "375x1242": 1}
    whole = run(capsys, checkpoint, *on(tmp_path, "kitti"), "--protocol", "kitti-garg")
    assert whole["protocols"]["kitti-garg"]["prediction"]["part"] is None
    assert means(whole, "kitti-garg")["rmse"] != means(record, "kitti-garg")["rmse"]


class Perfect(mlr.DepthModel):
    """Sees the depth in the red of its image."""

    def __init__(self):
        super().__init__("test_resnet", 32, pretrained=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 100 * image[:, :1]


def test_depth_of_whole_frames_is_not_pasted_though_the_input_has_the_size_of_the_crop():
    metres = np.broadcast_to(np.linspace(5, 70, 375, dtype=np.float32)[:, None], (375, 1242))
    image = np.repeat(np.rint(metres * 2.55).astype(np.uint8)[..., None], 3, 2)
    protocol, region = get_protocol("kitti-garg"), kb_region((375, 1242), "frame")
    whole = make_sample(image, metres, "frame")
    part = make_sample(region.cut(image), region.cut(metres), "frame", region=region)
    for sample, size in ((whole, (352, 1216)), (part, (352, 1216)), (part, (64, 96))):
        network, scores = Network(Perfect(), size), Scores(protocol)
        depth, covered = network.predict(0, sample, protocol)
        scores.add(["frame"], depth, whole["depth"].as_subclass(torch.Tensor), region=covered)
        assert scores.means()["rmse"] < 0.5
        assert tuple(depth.shape[-2:]) == tuple(sample["image"].shape[-2:])
        assert covered == sample.get("region")


@pytest.mark.parametrize(
    ("trained", "shown", "said"),
    [
        ({"data": "kitti", "data_options": "kb_crop=yes"}, "", "give --data-options kb_crop=true"),
        ({"data": "kitti", "data_options": ""}, "kb_crop=1", "give --data-options kb_crop=false"),
        ({"data": "kitti", "data_options": "kb_crop=yes"}, "kb_crop=true", ""),
        ({"data": "nyu", "data_options": ""}, "kb_crop=true", ""),
        ({}, "kb_crop=true", ""),
    ],
)
def test_a_network_of_another_part_of_kittis_images_is_pointed_out(network, tmp_path, capsys, trained, shown, said):
    files.write_kitti(tmp_path)
    mlr.save_checkpoint(tmp_path / "best.pt", network, config={"size": "64x96", **trained})
    flags = [*on(tmp_path, "kitti"), "--data-options", shown, "--protocol", "kitti-garg"]
    assert main(["evaluate", *map(str, [tmp_path / "best.pt", *flags])]) == 0
    error = capsys.readouterr().err
    assert said in error
    assert ("the network was trained with kb_crop" in error) == bool(said)


def test_cropped_frames_of_unknown_origin_are_refused_by_kittis_protocols(tmp_path, capsys):
    files.write_folder(tmp_path / "frames" / "val", range(1), size=(352, 1216))
    (tmp_path / "pred").mkdir()
    np.save(tmp_path / "pred" / "000.npy", files.frame(0, (352, 1216))[1])
    flags = [*on(tmp_path / "frames"), "--protocol", "kitti-garg"]
    assert "defined on whole frames" in refusal(capsys, tmp_path / "pred", *flags)


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
    for picture in (tmp_path / "Test134").iterdir():
        picture.write_bytes(b"no picture")
    assert "all 2 frames are broken; the first: " in refusal(capsys, folder, *on(tmp_path, "make3d"))


def test_make3ds_protocols_score_the_distance_along_the_ray_alone(tmp_path):
    files.write_make3d(tmp_path)
    protocols = [get_protocol(name) for name in ("full", "make3d-c1", "make3d-c2", "make3d-md2")]
    for given in ({}, {"channel": "3"}, {"channel": "03"}, {"channel": 3}):
        frames = open_frames(protocols, "make3d", tmp_path, given)
        assert frames.refused == {}
        assert set(frames.truths.values()) == {frames.shown}  # opened once
    frames = open_frames(protocols, "make3d", tmp_path, {"channel": "2"})
    assert list(frames.truths) == ["full"]
    for name in ("make3d-c1", "make3d-c2", "make3d-md2"):
        assert "leave out the option channel=2" in frames.refused[name]
    with pytest.raises(DataError, match=r"^there is no folder"):
        open_frames(protocols[1:], "make3d", tmp_path / "nowhere", {})


def test_a_broken_frame_of_any_other_set_is_an_error(shots, tmp_path, capsys):
    (shots / "val" / "rgb" / "007.png").write_bytes(b"no picture")
    assert "007.png" in refusal(capsys, write_npy(tmp_path / "pred"), *on(shots), "--out", tmp_path / "scores")
    assert not (tmp_path / "scores").exists()


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol", "bst"], "unknown protocol 'bst': did you mean bts?"),
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


def test_what_is_neither_network_nor_predictions_is_explained(shots, checkpoint, tmp_path, capsys):
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
        (["--protocol", "paper", "--size", "64x96"], "--size 64x96"),
    ):
        assert message in refusal(capsys, checkpoint, *ROOMS, *flags)


def test_every_protocol_is_documented():
    text = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    assert [name for name in PROTOCOLS if f"`{name}`" not in text] == []
