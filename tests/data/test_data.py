# SPDX-License-Identifier: Apache-2.0
"""Sources, transforms and batches: files in their real layouts, geometry that keeps image and depth together."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat
from torchvision.transforms import v2

from mlr.cli import train_command
from mlr.data import DataError, DepthData, Folder, Rooms, make_sample
from mlr.data.datasets.nyu import NYU
from mlr.data.depth_files import check_depth, read_depth
from mlr.data.fill import fill_nearest, fill_sample
from mlr.data.synthetic.rooms import DEPTH_RANGE, Scene, camera_rays, render, trace
from mlr.data.synthetic.shapes import Box, Cylinder, Sphere
from mlr.data.transforms import POLICIES, finish

FRAME = Path(__file__).resolve().parents[2] / "examples" / "xtion_bookshelf"
LITTLE = ["--backbone=test_resnet", "--decoder-channels=32", "--pretrained=false", "--size=48x64", "--workers=0"]
LITTLE += ["--batch-size=2", "--epochs=1", "--device=cpu"]


# --- built-in scenes


def test_a_scene_is_a_function_of_seed_and_index_alone():
    first, second = render(3, 5, 48, 64), render(3, 5, 48, 64)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[1], render(3, 6, 48, 64)[1])
    assert not np.array_equal(first[1], render(4, 5, 48, 64)[1])


def test_scenes_have_the_range_and_variety_of_rooms():
    depths = [render(0, i, 48, 64)[1] for i in range(12)]
    assert all(DEPTH_RANGE[0] < d.min() and d.max() < DEPTH_RANGE[1] for d in depths)
    assert np.std([np.median(d) for d in depths]) > 0.3
    assert np.mean([d.max() / d.min() for d in depths]) > 2


@pytest.mark.parametrize(
    "shape",
    [
        Box(np.array([0.2, -0.1, 4], np.float32), np.array([0.5, 0.7, 0.4], np.float32), 0.6),
        Sphere(np.array([-0.2, 0.3, 3], np.float32), 0.6),
        Cylinder(np.array([0.1, 0.2, 3.5], np.float32), 0.4, 0.8),
    ],
)
def test_depth_is_exact_by_dense_marching_along_each_ray(shape):
    """Where the ray enters a solid, found by stepping through space in 1 mm, is what the formula says."""
    height, width = 15, 20
    scene = Scene([(shape, None)], np.zeros(3, np.float32), np.eye(3, dtype=np.float32), *[np.zeros(3)] * 3)
    rays = camera_rays(height, width)
    depth, _ = trace(scene, rays, height, width)
    t = np.arange(0.5, 6, 1e-3)
    points = rays.astype(np.float64)[:, :, None] * t[:, None] - shape.centre
    if isinstance(shape, Box):
        c, s = np.cos(shape.yaw), np.sin(shape.yaw)
        x, z = c * points[..., 0] - s * points[..., 2], s * points[..., 0] + c * points[..., 2]
        solid = (abs(x) < shape.half[0]) & (abs(points[..., 1]) < shape.half[1]) & (abs(z) < shape.half[2])
    elif isinstance(shape, Sphere):
        solid = (points**2).sum(-1) < shape.radius**2
    else:
        solid = (np.hypot(points[..., 0], points[..., 2]) < shape.width) & (abs(points[..., 1]) < shape.half_height)
    marched = np.where(solid.any(-1), t[solid.argmax(-1)], np.inf)
    both = np.isfinite(marched) & np.isfinite(depth)
    assert both.sum() > 10
    assert (np.isfinite(marched) != np.isfinite(depth)).mean() < 0.02  # grazing rays
    np.testing.assert_allclose(depth[both], marched[both], atol=2e-3)


def test_a_surface_lies_flat_in_the_scene():
    """Depth of a wall straight ahead is constant: metres along the optical axis, not along the ray."""
    room = Box(np.zeros(3, np.float32), np.array([9, 9, 3], np.float32), inward=True)
    scene = Scene([(room, None)], np.zeros(3, np.float32), np.eye(3, dtype=np.float32), *[np.zeros(3)] * 3)
    depth, _ = trace(scene, camera_rays(24, 32), 24, 32)
    np.testing.assert_allclose(depth, 3, rtol=1e-6)


# --- files


def write_nyu(folder: Path, frames: int = 6, **changes) -> None:
    """A small labelled set in the real layout: HDF5 with MATLAB's axes reversed; a MATLAB 5 split counted from 1."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (frames, 3, 640, 480), dtype=np.uint8)
    depths = random.uniform(1, 5, (frames, 640, 480)).astype(np.float32)
    raw = np.where(random.random(depths.shape) < 0.1, 0, depths).astype(np.float32)
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w") as file:
        for name, value in ({"images": images, "depths": depths, "rawDepths": raw} | changes).items():
            file.create_dataset(name, data=value, compression="lzf", chunks=(1, *value.shape[1:]))
    order = np.arange(1, frames + 1, dtype=np.uint16)[:, None]
    savemat(folder / "splits.mat", {"trainNdxs": order[2:], "testNdxs": order[:2]})


def test_nyu_is_read_in_its_real_layout(tmp_path):
    write_nyu(tmp_path)
    train, val = NYU(tmp_path, "train"), NYU(tmp_path, "val")
    assert (len(train), len(val)) == (4, 2)
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat") as file:
        sample = train[0]
        assert sample["id"] == "nyu/00003"
        assert sample["image"].shape == (3, 480, 640)
        np.testing.assert_array_equal(sample["image"].numpy(), file["images"][2].transpose(0, 2, 1))
        np.testing.assert_array_equal(sample["depth"][0].numpy(), file["depths"][2].T)
    again = pickle.loads(pickle.dumps(train))  # what a worker gets
    assert torch.equal(again[1]["depth"], train[1]["depth"])
    raw = NYU(tmp_path, depth="rawDepths")[0]
    with pytest.raises(DataError, match="--holes nearest"):
        fill_sample(raw, "error")
    filled = fill_sample(raw, "nearest")
    assert (filled["depth"] > 0).all()
    assert 0.05 < 1 - filled["valid"].float().mean() < 0.15


def test_a_network_trains_on_nyu_from_the_command_line(tmp_path):
    write_nyu(tmp_path)
    arguments = ["--data=nyu", f"--root={tmp_path}", f"--out={tmp_path / 'run'}", *LITTLE]
    assert train_command(arguments) == 0
    assert (tmp_path / "run" / "samples.png").is_file()


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (lambda p: (p / "splits.mat").unlink(), "splits.mat"),
        (lambda p: (p / "nyu_depth_v2_labeled.mat").write_bytes(b"MATLAB 5.0"), "not a MATLAB 7.3"),
        (lambda p: (p / "splits.mat").write_bytes(b"x" * 200), "not the split"),
        (lambda p: write_nyu(p, depths=np.ones((6, 480, 640), np.float32)), "do not fit"),
        (lambda p: write_nyu(p, images=np.zeros((6, 640, 480), np.uint8)), "expected 4 axes"),
        (lambda p: write_nyu(p, depths=np.full((6, 640, 480), 2500, np.float32)), "not metres"),
    ],
)
def test_a_broken_nyu_is_named_before_training(tmp_path, capsys, breakage, message):
    write_nyu(tmp_path)
    breakage(tmp_path)
    assert train_command(["--data=nyu", f"--root={tmp_path}", f"--out={tmp_path / 'run'}", *LITTLE]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_real_frame_has_holes_that_are_handled_by_name(tmp_path, capsys):
    arguments = ["--data=folder", f"--root={FRAME}", f"--out={tmp_path / 'run'}", *LITTLE]
    assert train_command([*arguments, "--holes=error"]) == 1
    error = capsys.readouterr().err
    assert "rgb.png" in error
    assert "--holes nearest" in error
    sample = fill_sample(Folder(FRAME)[0], "nearest")
    assert 0.85 < sample["valid"].float().mean() < 0.93
    known = sample["depth"][sample["valid"].bool()]
    assert 1.6 < known.min() < known.max() < 2.6
    assert train_command([*arguments, "--holes=nearest"]) == 0


def write_pair(folder: Path, stem: str, depth: np.ndarray, size: tuple[int, int] = (40, 50)) -> None:
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(folder / "rgb" / f"{stem}.jpg")
    Image.fromarray(depth).save(folder / "depth" / f"{stem}.png")


def test_folders_by_convention_by_list_and_with_a_split(tmp_path):
    for i in range(12):
        write_pair(tmp_path / "all", f"{i:02d}", np.full((40, 50), 1000 + i, np.uint16))
    train, val = (Folder(tmp_path / "all", split, "mm") for split in ("train", "val"))
    assert (len(train), len(val)) == (10, 2)
    assert not {p for p, _ in train.pairs} & {p for p, _ in val.pairs}
    assert val[1]["depth"].unique().tolist() == pytest.approx([1.010])
    for split in ("train", "test"):
        write_pair(tmp_path / "own" / split, "a", np.full((40, 50), 2560, np.uint16))
    assert len(Folder(tmp_path / "own", "val")) == 1
    assert Folder(tmp_path / "own", "val", "kitti")[0]["depth"].unique().tolist() == [10.0]
    (tmp_path / "all" / "train.csv").write_bytes(b"rgb/00.jpg,depth/00.png\r\nrgb/01.jpg,depth/01.png\r\n")
    assert len(Folder(tmp_path / "all", "train", "mm")) == 2
    with pytest.raises(DataError, match="named val or test"):
        Folder(tmp_path / "all", "val", "mm")


def test_float_depth_needs_no_unit(tmp_path):
    write_pair(tmp_path, "a", np.full((40, 50), 1, np.uint16))
    (tmp_path / "depth" / "a.png").unlink()
    np.save(tmp_path / "depth" / "a.npy", np.full((40, 50), 2.5))
    assert Folder(tmp_path)[0]["depth"].unique().tolist() == [2.5]


@pytest.mark.parametrize(
    ("depth", "unit", "message"),
    [
        (np.full((40, 50), 2500, np.uint16), None, "no unit was declared: give --depth-unit, one of .*mm"),
        (np.full((40, 50), 2500, np.uint16), "m", "mm would make that 2.50 m"),
        (np.full((40, 50), 3, np.uint16), "nyu-10m", "the unit is wrong"),
        (np.full((40, 60), 2500, np.uint16), "mm", "40 x 60"),
        (np.full((40, 50, 3), 25, np.uint8), "mm", "no depth map"),
        (np.full((40, 50), 2500, np.uint16), "cubits", "unknown depth unit"),
    ],
)
def test_depth_that_cannot_be_right_is_refused(tmp_path, depth, unit, message):
    write_pair(tmp_path, "a", depth)
    with pytest.raises(ValueError, match=message):
        Folder(tmp_path, unit=unit)[0]


def test_floats_that_are_no_metres_must_be_divided_since_a_unit_is_for_integers(tmp_path):
    np.save(tmp_path / "depth.npy", np.full((4, 5), 2500.0))
    with pytest.raises(DataError, match=r"not metres: .* for files of integers; files of floats .* divide them"):
        read_depth(tmp_path / "depth.npy", "mm")


def test_an_image_with_two_depth_files_is_refused_by_name(tmp_path):
    write_pair(tmp_path / "folders", "a", np.full((40, 50), 2500, np.uint16))
    np.save(tmp_path / "folders/depth/a.npy", np.full((40, 50), 2.5))
    (tmp_path / "beside").mkdir()
    for name in ("rgb", "depth", "depth_mm"):
        (tmp_path / f"beside/x_{name}.png").write_bytes(b"")
    for layout, names in (("folders", r"a\.jpg has 2 depth files, a\.npy and a\.png"),
                          ("beside", r"x_rgb\.png has 2 depth files, x_depth\.png and x_depth_mm\.png")):  # fmt: skip
        with pytest.raises(DataError, match=names):
            Folder(tmp_path / layout)


def test_files_that_belong_to_no_pair_are_named(tmp_path):
    write_pair(tmp_path, "a", np.full((40, 50), 2500, np.uint16))
    assert Folder(tmp_path).note() == ""
    (tmp_path / "depth/b.png").write_bytes(b"")
    (tmp_path / "rgb/more").mkdir()
    (tmp_path / "rgb/more/c.JPG").write_bytes(b"")
    assert Folder(tmp_path).note() == (
        "2 files left out: depth/b.png has no image; rgb/more/c.JPG lies in a sub-folder of rgb"
    )
    (tmp_path / "beside/more").mkdir(parents=True)
    for name in ("rgb.PNG", "depth.NPY", "more/1_depth.png"):
        (tmp_path / "beside" / name).write_bytes(b"")
    dataset = Folder(tmp_path / "beside")
    assert [depth.name for _, depth in dataset.pairs] == ["depth.NPY"]
    assert dataset.missing == ["more/1_depth.png has no image"]


def test_lists_may_name_files_elsewhere_and_must_be_text(tmp_path):
    write_pair(tmp_path / "far", "a", np.full((40, 50), 2500, np.uint16))
    write_pair(tmp_path / "near", "b", np.full((40, 50), 2500, np.uint16))
    rows = f"{tmp_path}/far/rgb/a.jpg,{tmp_path}/far/depth/a.png\n/rgb/b.jpg,/depth/b.png\n"
    (tmp_path / "near/train.csv").write_text(rows)
    assert [rgb.name for rgb, _ in Folder(tmp_path / "near").pairs] == ["a.jpg", "b.jpg"]
    (tmp_path / "near/train.csv").write_bytes("rgb/b.jpg,depth/b.png,é".encode("latin-1"))
    with pytest.raises(DataError, match=r"cannot read the list .*train\.csv: .*must be UTF-8"):
        Folder(tmp_path / "near")


def test_folders_without_pairs_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        Folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no pairs"):
        Folder(tmp_path)
    write_pair(tmp_path, "a", np.full((40, 50), 2500, np.uint16))
    (tmp_path / "depth" / "a.png").rename(tmp_path / "depth" / "b.png")
    with pytest.raises(DataError, match="no depth file of the same name"):
        Folder(tmp_path)
    (tmp_path / "pairs.csv").write_text("rgb/a.jpg,depth/a.png\n")
    with pytest.raises(DataError, match="line 1: there is no file"):
        Folder(tmp_path)


def test_a_truncated_image_is_named(tmp_path):
    write_pair(tmp_path, "a", np.full((40, 50), 2500, np.uint16))
    file = tmp_path / "rgb" / "a.jpg"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match=r"cannot read the image .*a\.jpg"):
        Folder(tmp_path, unit="mm")[0]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_unknown_depth_reads_as_zero(seed):
    random = np.random.default_rng(seed)
    depth = random.uniform(0.5, 9, (6, 7))
    bad = random.random((6, 7)) < 0.3
    depth[bad] = random.choice([np.nan, np.inf, -np.inf, -1, 0], bad.sum())
    path = Path("depth.npy")
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / path, depth)
        read = read_depth(Path(folder) / path, None)
    np.testing.assert_array_equal(read > 0, ~bad)


# --- fills and transforms


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_nearest_fill_keeps_what_is_known_and_invents_nothing(seed):
    random = np.random.default_rng(seed)
    depth = np.where(random.random((9, 11)) < 0.6, 0, random.uniform(1, 9, (9, 11))).astype(np.float32)
    depth[4, 4] = 5
    filled = fill_nearest(depth, np.zeros((9, 11, 3), np.uint8), "frame")
    assert (filled[depth > 0] == depth[depth > 0]).all()
    assert set(filled.ravel()) <= set(depth[depth > 0])


def coordinate_sample(height: int = 60, width: int = 80):
    """Image and depth that both say where a pixel came from, so that geometry that moved them apart shows."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 255 / width, y * 255 / height, 0 * x], -1).astype(np.uint8)
    return make_sample(image, 1 + x / width + 0 * y, "frame")


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_policies_keep_range_shape_and_type(policy):
    for seed in range(8):
        torch.manual_seed(seed)
        out = finish(POLICIES[policy]((48, 64))(coordinate_sample()))
        assert out["image"].shape == (3, 48, 64)
        assert out["image"].dtype == out["depth"].dtype == torch.float32
        assert out["image"].isfinite().all()
        if policy != "hu2019":  # which does not cut off at black and white
            assert 0 <= out["image"].min() <= out["image"].max() <= 1
        assert out["depth"].shape == out["valid"].shape == (1, 48, 64)
        assert (out["depth"] > 0).all()
        assert out["valid"].dtype == torch.bool


def test_geometry_moves_image_and_depth_together():
    geometry = [t for t in POLICIES["paper"]((60, 80)).transforms if not isinstance(t, v2.ColorJitter)][:-1]
    uncovered = 0
    for seed in range(10):
        torch.manual_seed(seed)
        out = finish(v2.Compose(geometry)(coordinate_sample()))
        where = out["valid"][0]
        uncovered += int((~where).sum())
        difference = (out["image"][0] - (out["depth"][0] - 1))[where].abs()
        assert difference.max() < 2 / 80  # one pixel of interpolation
    assert 0 < uncovered < 0.05 * 10 * 60 * 80


# --- batches


def batches(workers: int, epoch: int = 0, seed: int = 0):
    data = DepthData(size=(32, 48), batch_size=3, workers=workers, seed=seed, train_length=7, val_length=2)
    data.setup("fit")
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_batches_are_the_same_for_any_number_of_workers_and_differ_by_epoch_and_seed():
    alone, two = batches(0), batches(2)
    assert [b["id"] for b in alone] == [b["id"] for b in two]
    for a, b in zip(alone, two, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["depth"], b["depth"])
    assert [len(b["id"]) for b in alone] == [3, 3, 1]
    other = batches(0, epoch=1)
    assert [b["id"] for b in other] != [b["id"] for b in alone]
    assert {name for b in other for name in b["id"]} == {name for b in alone for name in b["id"]}


def test_training_and_validation_scenes_are_apart():
    data = DepthData(size=(32, 48), train_length=5, val_length=5, workers=0)
    data.setup("fit")
    train, val = ({dataset[i]["id"] for i in range(5)} for dataset in data.datasets.values())
    assert len(train) == len(val) == 5
    assert not train & val


@pytest.mark.parametrize(
    ("settings", "flag"), [({"root": "/pictures"}, "--root /pictures"), ({"depth_unit": "mm"}, "--depth-unit")]
)
def test_settings_that_built_in_scenes_would_ignore_are_refused(settings, flag):
    with pytest.raises(ValueError, match=flag):
        DepthData(data="rooms", **settings).setup("fit")


def test_scenes_end():
    with pytest.raises(IndexError):
        Rooms(2)[2]


@pytest.mark.parametrize("unknown", [np.nan, 0.0, -1.0])
@pytest.mark.parametrize(("depth", "deepest"), [(80.3, 80.3), (0.01, 100.0)])
def test_depth_at_the_limits_is_believed_whatever_stands_for_unknown(depth, deepest, unknown):
    maps = np.full((4, 5), depth, np.float32)
    maps[0, :3] = unknown
    checked = check_depth(maps, "frame", np.float32(deepest))
    np.testing.assert_array_equal(checked, np.where(maps > 0, maps, 0))


def test_validity_of_any_type_keeps_its_size():
    for kind in (bool, np.uint8, np.int64, np.float32):
        sample = make_sample(np.zeros((5, 8, 3), np.uint8), np.ones((5, 8)), "a", np.ones((5, 8), kind))
        assert sample["valid"].shape == (1, 5, 8)
        assert sample["valid"].dtype == torch.uint8
    flipped = make_sample(np.zeros((3, 1, 4), np.uint8).transpose(1, 2, 0)[::-1], np.ones((1, 4)), "b")
    assert flipped["image"].shape == (3, 1, 4)
