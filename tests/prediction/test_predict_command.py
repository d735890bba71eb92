# SPDX-License-Identifier: Apache-2.0
"""mlr predict: real files in, depth files out, and what is refused or left out."""

import errno
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mlr.prediction.outputs
from mlr.cli import main
from mlr.data import read_image
from mlr.data.depth_files import DataError
from mlr.evaluation.prediction_files import read_prediction
from mlr.models.checkpoints import load_checkpoint, save_checkpoint
from mlr.models.depth_model import DepthModel, open_model
from mlr.models.inference import network_input
from mlr.prediction.inference import predict_pictures
from mlr.prediction.inputs import Picture
from mlr.prediction.point_cloud import VERTEX
from mlr.prediction.video import ColourVideo, frame_rate, read_video

SIZE = (48, 64)


@pytest.fixture
def constant(tmp_path):
    """Makes checkpoints that predict one depth everywhere."""

    def make(depth: float) -> Path:
        model = DepthModel("test_resnet", 32, pretrained=False)
        torch.nn.init.zeros_(model.conv3.weight)
        torch.nn.init.constant_(model.conv3.bias, depth)
        return save_checkpoint(tmp_path / "constant.pt", model, config={"size": "32x32"})

    return make


def picture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def shoot(folder: Path, *names: str, size: tuple[int, int] = SIZE) -> Path:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(seed, size)).save(folder / name)
    return folder


def film(path: Path, frames: int = 3, size: tuple[int, int] = SIZE, bright_corner: bool = False) -> Path:
    av = pytest.importorskip("av", reason="needs PyAV: the extra video")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            image = np.full((*size, 3), 40 + 80 * number, np.uint8)
            if bright_corner:
                image[:16, :16] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return path


def run(*arguments: object) -> int:
    return main(["predict", *map(str, arguments)])


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


# --- files ------------------------------------------------------------------------------------------------------------


def test_folder_keeps_its_subfolders_and_the_depth_is_the_network_s(checkpoint, network, tmp_path, capsys):
    shots = shoot(tmp_path / "shots", "1.png", "a/2.png", "a/b/3.bmp")
    (shots / "notes.txt").write_text("no image")
    assert run(checkpoint, shots, "--out", tmp_path / "out", "--format", "npy") == 0
    assert files(tmp_path / "out") == ["1.npy", "a/2.npy", "a/b/3.npy"]
    depth = np.load(tmp_path / "out/a/2.npy")
    assert depth.dtype == np.float32
    image = network_input(torch.from_numpy(picture(1)).permute(2, 0, 1), (64, 96))[None] / 255
    with torch.no_grad():
        expected = torch.nn.functional.interpolate(network(image), size=SIZE, mode="bilinear")[0, 0]
    assert expected.std() > 0.01
    np.testing.assert_allclose(depth, expected.clamp(min=0), rtol=1e-4, atol=1e-5)
    printed = capsys.readouterr().err
    assert "test_resnet of" in printed
    assert "at 64 x 96 on cpu" in printed
    assert "1 file is neither image nor video" in printed
    assert "predictions: 3 in" in printed


def test_png_holds_millimetres_and_says_so(constant, tmp_path):
    shoot(tmp_path, "1.jpg")
    assert run(constant(2.3456), tmp_path / "1.jpg", "--out", tmp_path / "out") == 0
    with Image.open(tmp_path / "out/1.png") as image:
        assert image.info["depth_unit"] == "mm"
        steps = np.array(image)
    assert steps.dtype == np.uint16
    assert steps.shape == SIZE
    assert np.unique(steps).tolist() == [2346]
    np.testing.assert_allclose(read_prediction(tmp_path / "out/1.png"), 2.346, rtol=1e-6)  # as mlr evaluate reads it


def test_depth_out_of_range_is_written_at_its_limit_and_counted(constant, tmp_path, capsys):
    shoot(tmp_path, "1.png", "2.png")
    images = tmp_path / "1.png", tmp_path / "2.png"
    assert run(constant(80.0), *images, "--out", tmp_path / "deep", "--format", "png,npy") == 0
    assert "2 pictures have depth beyond 65.535 m" in capsys.readouterr().err
    assert np.array(Image.open(tmp_path / "deep/png/1.png")).min() == 65535
    np.testing.assert_allclose(np.load(tmp_path / "deep/npy/1.npy"), 80, rtol=1e-6)
    assert run(constant(-1.0), images[0], "--out", tmp_path / "negative", "--format", "npy") == 0
    assert "1 picture has depth below 0, written as 0" in capsys.readouterr().err
    assert not np.load(tmp_path / "negative/1.npy").any()


def test_colour_is_the_map_pixel_by_pixel_with_a_bar(constant, tmp_path):
    shoot(tmp_path, "1.png", size=(200, 100))
    assert run(constant(4.0), tmp_path / "1.png", "--out", tmp_path, "--format=color,npy", "--max-depth=8") == 0
    image = np.array(Image.open(tmp_path / "color/1.png"))
    assert image.shape[0] == 200
    assert 130 <= image.shape[1] <= 160
    middle = [124, 255, 121]  # of matplotlib's jet: 4 m of 8 m
    assert (np.abs(image[:, :100].astype(int) - middle) <= 2).all()
    bar = image[:, 100:].astype(int).reshape(-1, 3)
    for end in ([0, 0, 127], [127, 0, 0]):  # near, far
        assert np.abs(bar - end).max(axis=1).min() <= 20


def test_colour_of_a_flat_map_has_a_bar_too(constant, tmp_path):
    shoot(tmp_path, "1.png")
    for depth, name in ((2.0, "flat"), (-1.0, "none")):
        assert run(constant(depth), tmp_path / "1.png", "--out", tmp_path / name, "--format", "color") == 0
    assert not np.array(Image.open(tmp_path / "none/1.png"))[:, : SIZE[1]].any()  # no depth is black


def read_ply(path: Path) -> np.ndarray:
    header, _, body = path.read_bytes().partition(b"end_header\n")
    lines = header.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    assert [line.split()[1:] for line in lines if line.startswith("property")] == [
        ["float", "x"], ["float", "y"], ["float", "z"], ["uchar", "red"], ["uchar", "green"], ["uchar", "blue"],
    ]  # fmt: skip
    points = np.frombuffer(body, VERTEX)
    assert f"element vertex {len(points)}" in lines
    return points


def test_points_of_a_wall(constant, tmp_path):
    shoot(tmp_path, "1.png")
    arguments = "--format", "ply", "--intrinsics", "50,40,31,23"
    assert run(constant(2.0), tmp_path / "1.png", "--out", tmp_path / "out", *arguments) == 0
    points = read_ply(tmp_path / "out/1.ply")
    assert len(points) == 48 * 64
    np.testing.assert_allclose(points["z"], 2)
    first, last = points[0], points[-1]
    np.testing.assert_allclose([first["x"], first["y"]], [2 * -31 / 50, 2 * -23 / 40], rtol=1e-6)
    np.testing.assert_allclose([last["x"], last["y"]], [2 * (63 - 31) / 50, 2 * (47 - 23) / 40], rtol=1e-6)
    colours = np.stack([points[name] for name in ("red", "green", "blue")], -1)
    np.testing.assert_array_equal(colours.reshape(48, 64, 3), picture(0))
    assert run(constant(-2.0), tmp_path / "1.png", "--out", tmp_path / "none", *arguments) == 0
    assert len(read_ply(tmp_path / "none/1.ply")) == 0


def test_points_need_images_of_the_camera_s_size(constant, tmp_path, capsys):
    shots = shoot(tmp_path / "shots", "1.png", "2.png")
    shoot(shots, "3.png", size=(40, 64))
    arguments = "--format", "ply", "--intrinsics"
    assert run(constant(2.0), shots, "--out", tmp_path / "a", *arguments, "50,40,31,23") == 1
    assert files(tmp_path / "a") == ["1.ply", "2.ply"]
    assert "3 has 40 x 64 pixels, pictures before it 48 x 64" in capsys.readouterr().err
    assert run(constant(2.0), shots / "1.png", "--out", tmp_path / "b", *arguments, "500,500,320,240") == 1
    assert "principal point 320, 240 lies outside" in capsys.readouterr().err


def test_flip_averages_with_the_mirrored_image(network):
    shown = [Picture("a", picture(0)), Picture("b", picture(0)[:, ::-1].copy())]
    (_, one), (_, mirrored) = predict_pictures(network, shown)
    (_, both), _ = predict_pictures(network, shown, flip=True)
    np.testing.assert_allclose(both, (one + mirrored[:, ::-1]) / 2, rtol=1e-4, atol=1e-5)
    assert np.abs(both - one).max() > 1e-3


def test_batches_change_nothing(network):
    shown = [Picture(str(i), picture(i, size)) for i, size in enumerate([SIZE, SIZE, (40, 50), SIZE, (20, 70)])]
    for size in (None, (64, 96)):
        alone = list(predict_pictures(network, shown, size, batch_size=1))
        together = list(predict_pictures(network, shown, size, batch_size=2))
        assert [p.name for p, _ in together] == ["0", "1", "2", "3", "4"]
        for (given, a), (_, b) in zip(alone, together, strict=True):
            assert a.shape == given.image.shape[:2]
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# --- images -----------------------------------------------------------------------------------------------------------


def test_exif_orientation_turns_the_image(constant, tmp_path):
    upright = np.zeros((48, 64, 3), np.uint8)
    upright[:8, :8] = 255  # upper left corner
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: stored turned a quarter to the left
    Image.fromarray(np.rot90(upright)).save(tmp_path / "1.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "1.png"), upright)
    assert run(constant(2.0), tmp_path / "1.png", "--out", tmp_path / "out") == 0
    assert Image.open(tmp_path / "out/1.png").size == (64, 48)


def test_broken_images_are_named_counted_and_left_out(constant, tmp_path, capsys):
    shots = shoot(tmp_path / "shots", "1.png", "2.png", "3.png")
    whole = (shots / "2.png").read_bytes()
    (shots / "2.png").write_bytes(whole[: len(whole) // 2])
    (shots / "4.jpg").write_text("<html>404</html>")
    assert run(constant(2.0), shots, "--out", tmp_path / "out", "--quiet") == 1
    assert files(tmp_path / "out") == ["1.png", "3.png"]
    printed = capsys.readouterr().err
    assert "cannot read the image" in printed
    assert all(name in printed for name in ("2.png", "4.jpg", "2 files or frames are broken"))
    assert "predictions:" not in printed


def test_depth_that_is_no_number_is_left_out(constant, tmp_path, capsys):
    shoot(tmp_path, "1.png")
    assert run(constant(float("nan")), tmp_path / "1.png", "--out", tmp_path / "out") == 1
    assert "1: the network predicts NaN or infinite depth" in capsys.readouterr().err
    assert files(tmp_path / "out") == []


# --- videos -----------------------------------------------------------------------------------------------------------


def test_video_frames_are_numbered_in_a_folder(constant, tmp_path, capsys):
    clip = film(tmp_path / "clip.mp4")
    levels = [frame.mean() for frame in read_video(clip)]
    np.testing.assert_allclose(levels, [40, 120, 200], atol=6)
    assert run(constant(2.0), clip, "--out", tmp_path / "out", "--batch-size", 2) == 0
    assert files(tmp_path / "out") == ["clip/000000.png", "clip/000001.png", "clip/000002.png"]
    assert run(constant(2.0), clip, "--out", tmp_path / "out") == 1
    assert "1 output is there already" in capsys.readouterr().err


def test_broken_video_is_left_out(constant, tmp_path, capsys):
    clip = film(tmp_path / "clip.mp4")
    clip.write_bytes(clip.read_bytes()[:200])
    shoot(tmp_path, "1.png")
    assert run(constant(2.0), clip, tmp_path / "1.png", "--out", tmp_path / "out") == 1
    assert files(tmp_path / "out") == ["1.png"]
    assert "clip.mp4 after 0 frames" in capsys.readouterr().err


def test_a_video_becomes_a_coloured_video(constant, tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    film(clips / "a.mp4", 3, (48, 66))
    film(clips / "b.avi", 2, (49, 65))  # the picture with its bar has odd sides
    shoot(clips, "still.png")
    assert run(constant(2.0), clips, "--out", tmp_path / "out", "--format", "video,npy", "--max-depth", "4") == 0
    assert files(tmp_path / "out/video") == ["a.mp4", "b.mp4"]
    assert len(files(tmp_path / "out/npy")) == 3 + 2 + 1
    for name, frames, (height, width) in (("a.mp4", 3, (48, 66)), ("b.mp4", 2, (49, 65))):
        shown = list(read_video(tmp_path / "out/video" / name))
        assert len(shown) == frames
        assert shown[0].shape[0] == height + height % 2
        assert shown[0].shape[1] > width
        for frame in shown:  # the middle of the scale is green, but for the loss of the compression
            np.testing.assert_allclose(frame[4:40, 4:60].mean((0, 1)), (125, 255, 122), atol=15)
        assert frame_rate(tmp_path / "out/video" / name) == 10
    assert run(constant(2.0), clips / "a.mp4", "--out", tmp_path / "out", "--format", "video,npy") == 1


def test_the_scale_of_a_video_is_that_of_its_first_frame(tmp_path):
    pytest.importorskip("av", reason="needs PyAV: the extra video")
    with ColourVideo(tmp_path / "x.mp4", Fraction(30000, 1001)) as video:
        for depth in (4.0, 1.0, 9.0, 0.0):
            video.add(np.full(SIZE, depth, np.float32))
        with pytest.raises(DataError, match="the frames before it"):
            video.add(np.ones((32, 32), np.float32))
    colours = [frame[4:40, 4:56].mean((0, 1)) for frame in read_video(tmp_path / "x.mp4")]
    for colour, expected in zip(colours, ((128, 0, 0), (0, 128, 255), (128, 0, 0), (0, 0, 0)), strict=True):
        np.testing.assert_allclose(colour, expected, atol=20)
    assert frame_rate(tmp_path / "x.mp4") == Fraction(30000, 1001)


def test_an_error_leaves_no_part_of_a_video(constant, tmp_path, monkeypatch):
    film(tmp_path / "clip.mp4")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mlr.prediction.outputs, "write_npy", fail)
    assert run(constant(2.0), tmp_path / "clip.mp4", "--out", tmp_path / "out", "--format", "video,npy") == 1
    assert files(tmp_path / "out/video") == []


def test_the_format_video_is_for_videos(constant, tmp_path, capsys):
    shots = shoot(tmp_path / "shots", "1.png")
    assert run(constant(2.0), shots, "--out", tmp_path / "out", "--format", "video,png") == 1
    assert "--format video is for videos, and no input is one" in capsys.readouterr().err
    film(shots / "clip.mp4")
    assert run(constant(2.0), shots, "--out", tmp_path / "out", "--format", "video") == 1
    assert f"{shots / '1.png'} is a picture: add a format, --format video,color" in capsys.readouterr().err


def test_a_surface_of_a_picture(constant, tmp_path, capsys):
    shoot(tmp_path, "1.png")
    arguments = "--format", "glb", "--intrinsics", "50,40,31,23"
    assert run(constant(2.0), tmp_path / "1.png", "--out", tmp_path / "out", *arguments) == 0
    assert (tmp_path / "out/1.glb").read_bytes()[:4] == b"glTF"
    assert run(constant(-2.0), tmp_path / "1.png", "--out", tmp_path / "none", *arguments) == 1
    assert "left out: 1: the depth holds no surface" in capsys.readouterr().err
    assert files(tmp_path / "none") == []


def test_videos_without_pyav_name_the_extra(constant, tmp_path, monkeypatch, capsys):
    (tmp_path / "clip.mp4").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "av", None)
    assert run(constant(2.0), tmp_path / "clip.mp4", "--out", tmp_path / "out") == 1
    assert 'videos need av: pip install "mlr-depth[video]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("1.png", "1.jpg"), ("a/1.png", "b/1.png"), ("a/1.png", "b/1.png", "a/2.png")])
def test_inputs_that_share_an_output_are_refused(constant, tmp_path, names, capsys):
    shoot(tmp_path, *names)
    assert run(constant(2.0), *(tmp_path / name for name in names), "--out", tmp_path / "out") == 1
    printed = capsys.readouterr().err
    assert "1 output would come from several inputs, such as 1 from" in printed
    assert all(str(tmp_path / name) in printed for name in names[:2])
    assert not (tmp_path / "out").exists()


def test_video_and_folder_of_one_name_are_refused(constant, tmp_path, capsys):
    shots = shoot(tmp_path / "shots", "clip/1.png")
    film(shots / "clip.mp4", 1)
    assert run(constant(2.0), shots, "--out", tmp_path / "out") == 1
    assert "such as clip from" in capsys.readouterr().err


def test_outputs_are_never_overwritten(constant, tmp_path, capsys):
    shots = shoot(tmp_path / "shots", "1.png", "2.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/2.png").write_text("mine")
    assert run(constant(2.0), shots, "--out", tmp_path / "out") == 1
    assert "1 output is there already" in capsys.readouterr().err
    assert files(tmp_path / "out") == ["2.png"]
    assert run(constant(2.0), shots, "--out", shots) == 1  # nor the images themselves
    assert (tmp_path / "out/2.png").read_text() == "mine"
    assert run(constant(2.0), shots, "--out", tmp_path / "out", "--format", "npy") == 0


def test_full_disk_stops_with_one_line_and_no_half_file(constant, tmp_path, monkeypatch, capsys):
    shoot(tmp_path, "1.png")

    def full(file, depth):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mlr.prediction.outputs, "write_png", full)
    assert run(constant(2.0), tmp_path / "1.png", "--out", tmp_path / "out") == 1
    assert "out/1.png: No space left on device" in capsys.readouterr().err.replace("\n", "")
    assert list((tmp_path / "out").iterdir()) == []


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "png,glb"], "--format glb needs the camera: give --intrinsics"),
        (["--format", "ply"], "--format ply needs the camera: give --intrinsics"),
        (["--intrinsics", "1,1,1,1"], "--intrinsics are for --format ply and glb only"),
        (["--format", "ply", "--intrinsics", "500,500"], "--intrinsics must be fx,fy,cx,cy in pixels"),
        (["--format", "ply", "--intrinsics", "0,500,1,1"], "focal lengths must be positive"),
        (["--format", "jpg"], "--format must be some of png,npy,color,ply,glb,video, got 'jpg'"),
        (["--max-depth", "5"], "--max-depth is for --format color and video only"),
        (["--format", "color", "--max-depth", "-1"], "--max-depth must be a positive number of metres"),
        (["--size", "16x64"], "--size must be at least 32x32, got 16x64"),
        (["--size", "64"], "--size must be HxW"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["nowhere.png"], "there is no file, folder or pattern nowhere.png"),
        (["*.nothing"], "*.nothing holds no image and no video"),
    ],
)
def test_wrong_settings(checkpoint, tmp_path, arguments, message, capsys):
    shoot(tmp_path, "1.png")
    assert run(checkpoint, tmp_path / "1.png", *arguments, "--out", tmp_path / "out") == 1
    assert message in capsys.readouterr().err.replace("\n", "")
    assert not (tmp_path / "out").exists()


def test_folder_without_images_file_of_another_kind_and_out_that_is_a_file(checkpoint, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("")
    shoot(tmp_path, "1.png")
    for words, out, message in (
        ([tmp_path / "empty"], "out", "holds no image and no video: looked for files that end in .png"),
        ([tmp_path / "notes.txt"], "out", "notes.txt is neither an image (.png"),
        ([tmp_path / "1.png"], "notes.txt", "is a file; give a folder"),
    ):
        assert run(checkpoint, *words, "--out", tmp_path / out) == 1
        assert message in capsys.readouterr().err


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_a_run_s_folder_stands_for_its_best_checkpoint(network, checkpoint):
    opened = open_model(checkpoint.parent, "cpu")
    assert opened.path == checkpoint
    assert opened.checkpoint.size == (64, 96)
    assert not opened.model.training
    assert torch.equal(opened.model.conv3.weight, network.conv3.weight)


def test_size_of_a_checkpoint_that_names_none(network, tmp_path, capsys):
    path = save_checkpoint(tmp_path / "best.pt", network)
    assert load_checkpoint(path).size is None
    shoot(tmp_path, "1.png", size=(20, 40))  # smaller than a network takes
    assert run(path, tmp_path / "1.png", "--out", tmp_path / "out") == 0
    assert "at the images' own size" in capsys.readouterr().err
    assert Image.open(tmp_path / "out/1.png").size == (40, 20)
    assert load_checkpoint(save_checkpoint(path, network, config={"size": [64, 96]})).size == (64, 96)


def test_checkpoint_that_is_not_there(tmp_path, capsys):
    shoot(tmp_path, "1.png")
    assert run(tmp_path / "no.pt", tmp_path / "1.png", "--out", tmp_path / "out") == 1
    assert "there is no checkpoint" in capsys.readouterr().err
    assert run(tmp_path, tmp_path / "1.png", "--out", tmp_path / "out") == 1
    assert "has no best.pt" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_gpu_that_is_not_there(checkpoint, tmp_path, capsys):
    shoot(tmp_path, "1.png")
    assert run(checkpoint, tmp_path / "1.png", "--out", tmp_path / "out", "--device", "gpu") == 1
    assert "--device gpu: PyTorch sees no GPU here" in capsys.readouterr().err


def test_help_names_types_plainly(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "--out OUT folder for the depth files. (required)" in text
    assert "--device {auto,cpu,gpu}" in text
    assert "<class" not in text


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place where nobody can make a folder")
def test_out_that_cannot_be_made_is_named(checkpoint, tmp_path, capsys):
    shoot(tmp_path, "1.png")
    assert run(checkpoint, tmp_path / "1.png", "--out", "/proc/x") == 1
    error = capsys.readouterr().err.replace("\n", "")
    assert "cannot make the folder /proc/x: " in error
    assert "choose another --out" in error
