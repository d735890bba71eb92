# SPDX-License-Identifier: Apache-2.0
"""Folders of one's own pairs: what lies there is taken or named; units, orientations and depth are right or refused."""

from __future__ import annotations

import io
from pathlib import Path

import data_files as files
import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mlr.data import DataError, DepthData, Folder, open_dataset
from mlr.data.datasets.folder import UPRIGHT
from mlr.data.depth_files import check_depth, decode_depth, orientation
from mlr.data.tools.prepare import prepare


def beside(folder: Path, number: int, suffix: str = "_depth.npy") -> None:
    image, depth = files.frame(number)
    files.write(folder / f"{number}_rgb.png", files.encoded(image))
    np.save(folder / f"{number}{suffix}", depth)


def ids(dataset) -> list[str]:
    return [dataset.name(index) for index in range(len(dataset))]


# --- what is there


def test_linked_scenes_are_read_and_hidden_files_and_broken_links_are_named(tmp_path):
    for number in range(2):
        beside(tmp_path / "set/s1", number)
        beside(tmp_path / "far/s2", number)
    (tmp_path / "set/s2").symlink_to("../far/s2")
    (tmp_path / "set/s1/7_rgb.png").symlink_to("/nowhere.png")
    files.write(tmp_path / "set/s1/._0_rgb.png", b"AppleDouble")
    files.write(tmp_path / "set/s1/.DS_Store", b"")
    files.write(tmp_path / "set/s1/holiday.jpg", b"")
    dataset = open_dataset("folder", tmp_path / "set", "all")
    assert ids(dataset) == ["s1/0_rgb.png", "s1/1_rgb.png", "s2/0_rgb.png", "s2/1_rgb.png"]
    assert dataset.missing == [
        "s1/7_rgb.png is a broken link", "s1/._0_rgb.png is hidden", "s1/holiday.jpg ends neither in rgb nor in depth"
    ]  # fmt: skip


def test_sub_folders_of_rgb_pair_with_equal_ones_of_depth(tmp_path):
    for scene in ("kitchen", "office"):
        files.write(tmp_path / f"rgb/{scene}/a.png", files.encoded(files.frame(1)[0]))
    (tmp_path / "depth/kitchen").mkdir(parents=True)
    np.save(tmp_path / "depth/kitchen/a.npy", files.frame(1)[1])
    dataset = Folder(tmp_path)
    assert ids(dataset) == ["rgb/kitchen/a.png"]
    assert dataset.missing == ["rgb/office/a.png lies in a sub-folder of rgb"]


@pytest.mark.parametrize("name", ["a.exr", "a.pfm", "a.npz", "a.npy.gz"])
def test_depth_of_a_format_that_is_not_read_is_named_with_those_that_are(tmp_path, name):
    files.write(tmp_path / "rgb/a.png", files.encoded(files.frame(0)[0]))
    files.write(tmp_path / "depth" / name, b"depth")
    with pytest.raises(DataError, match=r"depth is read from \.png, \.npy, \.tif, \.tiff files"):
        Folder(tmp_path)
    if name.count(".") == 1:
        with pytest.raises(DataError, match=rf"depth/{name} is there, but its format is not read"):
            Folder(tmp_path)


def test_depth_of_an_unread_format_beside_a_picture_is_named(tmp_path):
    files.write(tmp_path / "0_rgb.png", files.encoded(files.frame(0)[0]))
    files.write(tmp_path / "0_depth.exr", b"")
    with pytest.raises(DataError, match=r"0_depth\.exr is there, but its format is not read"):
        Folder(tmp_path)


@pytest.mark.parametrize("layout", ["beside", "folders"])
def test_two_pictures_of_one_depth_file_are_named(tmp_path, layout):
    names = (
        ("rgb/0.jpg", "rgb/0.png", "depth/0.npy") if layout == "folders" else ("0_rgb.jpg", "0_rgb.png", "0_depth.npy")
    )
    for name in names:
        files.write(tmp_path / name, b"")
    with pytest.raises(DataError, match=r"has 2 pictures, .*\.jpg and .*\.png: keep one"):
        Folder(tmp_path)


def test_what_a_split_of_ones_own_shadows_is_named(tmp_path):
    for split in ("train", "val", "test"):
        files.write_folder(tmp_path / split, range(2))
    files.write_folder(tmp_path, range(1))
    for name in ("train.csv", "pairs.csv"):
        files.write(tmp_path / name, "rgb/000.png,depth/000.png\n")
    train, val = (Folder(tmp_path, split).missing for split in ("train", "val"))
    common = [
        f"{name} is not read, since {tmp_path} has a split of its own" for name in ("pairs.csv", "rgb/", "depth/")
    ]
    assert train == ["train.csv is not read, since train is", *common]
    assert val == ["test is not read, since val is", *common]


def test_a_list_inside_a_split_is_read(tmp_path):
    files.write_folder(tmp_path / "train", range(3))
    files.write(tmp_path / "train/pairs.csv", "rgb/002.png,depth/002.png\n")
    assert ids(Folder(tmp_path)) == ["train/rgb/002.png"]


# --- order and splits


def test_frames_are_in_natural_order_in_every_split(tmp_path):
    for number in range(1, 24):
        files.write(tmp_path / f"rgb/{number}.png", b"")
        files.write(tmp_path / f"depth/{number}.png", b"")
    everything = ids(open_dataset("folder", tmp_path, "all"))
    assert everything == [f"rgb/{number}.png" for number in range(1, 24)]
    assert ids(open_dataset("folder", tmp_path, "val")) == everything[::10]
    assert sorted(ids(open_dataset("folder", tmp_path, "train")) + everything[::10]) == sorted(everything)


def write_own_split(root: Path) -> None:
    files.write_folder(root / "train", range(2))
    files.write_folder(root / "test", range(2, 3))


@pytest.mark.parametrize(
    ("name", "writer"),
    [
        ("nyu-h5", files.write_nyu_h5), ("nyu-sync", files.write_nyu_sync), ("kitti", files.write_kitti),
        ("folder", write_own_split),
    ],
)  # fmt: skip
def test_every_data_set_has_all_its_frames_under_one_split(tmp_path, name, writer):
    writer(tmp_path)
    unit = {"unit": "mm"} if name == "folder" else {}
    parts = [open_dataset(name, tmp_path, split, **unit) for split in ("train", "val")]
    whole = open_dataset(name, tmp_path, "all", max_depth="300", **unit)
    assert ids(whole) == [frame for part in parts for frame in ids(part)]
    assert whole.max_depth == 300
    place = 0
    for part in parts:
        for index in range(len(part)):
            assert torch.equal(whole[place]["depth"], part[index]["depth"])
            assert whole.turned(place) is False
            place += 1


def test_a_split_that_is_not_there_is_named(tmp_path):
    files.write_nyu_zip(tmp_path / "test654.zip", "test", range(2))
    whole = open_dataset("nyu-zip", tmp_path, "all")
    assert len(whole) == 2
    assert "split train: there is no file" in whole.note()


def test_built_in_scenes_have_all_splits():
    whole = open_dataset("rooms", split="all", length=3, height=48, width=64)
    assert len(set(ids(whole))) == 6


# --- units


def declared(depth: np.ndarray, unit: str) -> bytes:
    text, file = PngInfo(), io.BytesIO()
    text.add_text("depth_unit", unit)
    Image.fromarray(files.integers(depth, 1000)).save(file, "PNG", pnginfo=text)
    return file.getvalue()


def test_a_unit_that_a_file_declares_counts_and_another_is_refused(tmp_path):
    depth = files.frame(0)[1]
    files.write(tmp_path / "text.png", declared(depth, "mm"))
    files.write(tmp_path / "name_mm.png", files.encoded(files.integers(depth, 1000)))
    np.save(tmp_path / "floats_mm.npy", depth * 1000)
    for name in ("text.png", "name_mm.png", "floats_mm.npy"):
        for unit in (None, "mm", 1000):
            np.testing.assert_allclose(decode_depth(tmp_path / name, unit), depth, atol=6e-4)
        with pytest.raises(DataError, match=rf"{name} declares the unit 'mm' itself, .* given is 'kitti'"):
            decode_depth(tmp_path / name, "kitti")
    files.write(tmp_path / "both_mm.png", declared(depth, "kitti"))
    with pytest.raises(DataError, match="declares two units"):
        decode_depth(tmp_path / "both_mm.png", None)
    files.write(tmp_path / "odd.png", declared(depth, "cubits"))
    with pytest.raises(DataError, match=r"odd\.png: unknown depth unit 'cubits'"):
        decode_depth(tmp_path / "odd.png", None)


def test_the_conflict_is_refused_by_training_and_by_prepare(tmp_path):
    for number in range(2):
        image, depth = files.frame(number)
        files.write(tmp_path / f"set/rgb/{number}.png", files.encoded(image))
        files.write(tmp_path / f"set/depth/{number}.png", declared(depth, "mm"))
    with pytest.raises(DataError, match="declares the unit 'mm' itself"):
        DepthData("folder", tmp_path / "set", (32, 64), workers=0, depth_unit="kitti").setup("fit")
    with pytest.raises(DataError, match="declares the unit 'mm' itself"):
        prepare([f"folder:{tmp_path / 'set'}"], tmp_path / "x.h5", data_options="unit=kitti", workers=0, quiet=True)


def test_grey_levels_of_a_palette_are_read_and_colours_refused(tmp_path):
    grey = np.tile(np.array([10, 20, 30, 200], np.uint8), (8, 4))
    Image.fromarray(grey).quantize(8).save(tmp_path / "grey.png")
    np.testing.assert_allclose(decode_depth(tmp_path / "grey.png", 100), grey / 100, rtol=1e-6)
    Image.fromarray(files.frame(0)[0]).quantize(8).save(tmp_path / "colours.png")
    with pytest.raises(DataError, match="picture in colours"):
        decode_depth(tmp_path / "colours.png", 100)


@pytest.mark.parametrize("unit", ["kitti", "nyu-10m", "eccv2020"])
def test_integers_beyond_the_bits_of_their_unit_are_refused(tmp_path, unit):
    np.save(tmp_path / "d.npy", np.full(files.SIZE, 70_000, np.int32))
    with pytest.raises(DataError, match="is defined on 16 bits"):
        decode_depth(tmp_path / "d.npy", unit)
    assert decode_depth(tmp_path / "d.npy", "mm").max() == 70


def test_depth_beyond_a_hundred_metres_is_usable_by_saying_so(tmp_path):
    for number in range(2):
        beside(tmp_path, number)
        np.save(tmp_path / f"{number}_depth.npy", files.frame(number)[1] * 200)
    with pytest.raises(DataError, match=r"say so with the option max_depth=\d+"):
        open_dataset("folder", tmp_path)[0]
    for value in ("500", 500.0):
        assert open_dataset("folder", tmp_path, max_depth=value)[0]["depth"].max() > 300
    for said in ({"options": "max_depth=500"}, {"max_depth": 500}):
        data = DepthData("folder", tmp_path, (32, 64), 1, 0, **said)
        data.setup("fit")
        assert next(iter(data.train_dataloader()))["depth"].max() > 300
    prepare([f"folder:{tmp_path}"], tmp_path / "x.h5", data_options="max_depth=500", workers=0, quiet=True)
    assert open_dataset("packed", tmp_path / "x.h5", "all")[0]["depth"].max() > 300
    for wrong in (0, -1, float("nan"), "inf"):
        with pytest.raises(ValueError, match="max_depth of data set 'folder' must be a positive number"):
            open_dataset("folder", tmp_path, max_depth=wrong)
    with pytest.raises(DataError, match=r"mm would make that 90\.00 m"):
        check_depth(np.full((3, 4), 90_000, np.float32), "frame")
    with pytest.raises(DataError) as error:
        check_depth(np.full((3, 4), 300_000, np.float32), "frame")
    assert "would make" not in str(error.value)


# --- orientation


def with_orientation(picture: np.ndarray, value: int) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = value
    Image.fromarray(picture).save(file, "PNG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("value", range(2, 9))
def test_depth_turns_with_its_picture_where_its_size_tells_that_it_must(tmp_path, value):
    image, depth = files.frame(0)
    files.write(tmp_path / "rgb/0.png", with_orientation(image, value))
    (tmp_path / "depth").mkdir()
    np.save(tmp_path / "depth/0.npy", depth)
    dataset = Folder(tmp_path)
    assert dataset.turned(0)
    if value < 5:  # as stored and upright have one size
        with pytest.raises(DataError, match=f"EXIF orientation {value}, and its size does not tell"):
            dataset[0]
        return
    np.testing.assert_array_equal(dataset[0]["image"].permute(1, 2, 0), UPRIGHT[value](image))
    np.testing.assert_array_equal(dataset[0]["depth"][0], UPRIGHT[value](depth))
    np.save(tmp_path / "depth/0.npy", UPRIGHT[value](depth))  # registered to the upright picture
    np.testing.assert_array_equal(dataset[0]["depth"][0], UPRIGHT[value](depth))


def test_depth_with_an_orientation_of_its_own_is_refused(tmp_path):
    files.write(tmp_path / "d.png", with_orientation(files.integers(files.frame(0)[1], 1000), 3))
    assert orientation(tmp_path / "d.png") == 3
    with pytest.raises(DataError, match="store it upright"):
        decode_depth(tmp_path / "d.png", "mm")
