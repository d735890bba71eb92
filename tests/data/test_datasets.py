# SPDX-License-Identifier: Apache-2.0
"""Readers, on files in the layouts they are published in, their names and options, and batches of them."""

from __future__ import annotations

import builtins
import pickle
import warnings
from pathlib import Path

import data_files as files
import numpy as np
import pytest
import torch
from PIL import Image

from mlr.data import DataError, DepthData, check_dataset, make_sample, open_dataset
from mlr.data.datasets.registry import DATASETS, check_options, parse_options
from mlr.data.fill import fill_sample


def works_in_a_worker(dataset) -> None:
    """It may be used, then pickled (spawned workers) or forked, and reads the same."""
    here = [dataset[i] for i in range(len(dataset))]
    again = pickle.loads(pickle.dumps(dataset))
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=1)
    for one, other, third in zip(here, (again[i] for i in range(len(again))), loader, strict=True):
        for sample in (other, third):
            assert sample["id"] == one["id"]
            assert torch.equal(sample["image"], one["image"])
            assert torch.equal(sample["depth"], one["depth"])
    with pytest.raises(IndexError):
        dataset[len(dataset)]


# --- every data set in its real layout


def test_frames_in_hdf5_files(tmp_path):
    files.write_nyu_h5(tmp_path)
    train, val = (open_dataset("nyu-h5", tmp_path, split) for split in ("train", "val"))
    assert [train.name(i) for i in range(len(train))] == ["train/kitchen_1/00001", "train/office_2/00006"]
    files.assert_frame(train[1], 1)
    files.assert_frame(val[0], 2)
    works_in_a_worker(train)


def test_frames_in_the_authors_archives(tmp_path):
    files.write_nyu_zip(tmp_path / "train795.zip", "train", range(3), "train795/rgb/9.png,train795/depth/9.png")
    files.write_nyu_zip(tmp_path / "test654.zip", "test", range(5, 7))
    train, val = (open_dataset("nyu-zip", tmp_path, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (3, 2)
    files.assert_frame(train[2], 2, step=10 / 65535)
    files.assert_frame(val[0], 5, step=10 / 65535)
    assert train.missing == ["train795.zip has no train795/rgb/9.png"]
    assert "1 listed pair left out" in train.note()
    works_in_a_worker(train)
    assert len(open_dataset("nyu-zip", tmp_path / "train795.zip", "val")) == 2  # looked for beside it


def test_an_archive_is_not_loaded_as_a_whole(tmp_path, monkeypatch):
    import zipfile

    files.write_nyu_zip(tmp_path / "train795.zip", "train", range(3))
    members = []
    read = zipfile.ZipFile.read
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda self, name: members.append(name) or read(self, name))
    dataset = open_dataset("nyu-zip", tmp_path)
    assert members == ["train795/train.csv"]
    dataset[1]
    assert members[1:] == ["train795/rgb/1.png", "train795/depth/1.png"]


def test_synchronised_frames_by_list(tmp_path):
    files.write_nyu_sync(tmp_path)
    train, val = (open_dataset("nyu-sync", tmp_path, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (3, 1)
    files.assert_frame(train[1], 1, step=1e-3, jpeg=True)
    assert (train[1]["depth"][0, :5] == 0).all()
    files.assert_frame(val[0], 7, step=1e-3, jpeg=True)
    assert train.missing == ["line 2: there is no kitchen_0028a/rgb_00099.jpg"]
    works_in_a_worker(train)
    elsewhere = tmp_path / "mine.txt"
    elsewhere.write_text("kitchen_0028a/rgb_00002.jpg kitchen_0028a/sync_depth_00002.png\n")
    (only,) = open_dataset("nyu-sync", tmp_path, "train", list_file="mine.txt")
    files.assert_frame(only, 2, step=1e-3, jpeg=True)


def test_kitti_by_lists_of_every_form(tmp_path):
    files.write_kitti(tmp_path)
    train, val = (open_dataset("kitti", tmp_path, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (1, 1)
    files.assert_frame(train[0], 69, step=1 / 256, size=files.KITTI_SIZE)
    assert 0.04 < train[0]["valid"].float().mean() < 0.06
    assert "has no ground truth" in val.note()
    left, right = open_dataset("kitti", tmp_path, "train", right="true")
    files.assert_frame(left, 69, step=1 / 256, size=files.KITTI_SIZE)
    files.assert_frame(right, 70, step=1 / 256, size=files.KITTI_SIZE)
    works_in_a_worker(train)
    (tmp_path / "md2.txt").write_text(f"{files.DATE}/{files.DRIVE} 69 r\n")
    (frame,) = open_dataset("kitti", tmp_path, "train", list_file="md2.txt")
    files.assert_frame(frame, 70, step=1 / 256, size=files.KITTI_SIZE)


def test_kitti_in_the_benchmarks_crop(tmp_path):
    files.write_kitti(tmp_path)
    whole = open_dataset("kitti", tmp_path)[0]
    crop = open_dataset("kitti", tmp_path, kb_crop=True)[0]
    assert crop["image"].shape == (3, 352, 1216)
    for name in ("image", "depth", "valid"):
        assert torch.equal(crop[name], whole[name][:, 375 - 352 :, 13 : 13 + 1216])


def test_make3d_with_the_channel_that_is_asked_for(tmp_path):
    files.write_make3d(tmp_path)
    dataset = open_dataset("make3d", tmp_path, "val")
    assert [dataset.name(i) for i in range(2)] == sorted(files.MAKE3D_NAMES)
    number = files.MAKE3D_NAMES.index(dataset.name(0))
    np.testing.assert_allclose(dataset[0]["depth"][0], files.make3d_grid(number)[..., 3], rtol=1e-6)
    assert dataset[0]["image"].shape == (3, 227, 170)
    projective = open_dataset("make3d", tmp_path, "val", channel="2")
    np.testing.assert_allclose(projective[0]["depth"][0], files.make3d_grid(number)[..., 2], rtol=1e-6)
    with pytest.raises(DataError, match="channel must be 3"):
        open_dataset("make3d", tmp_path, "val", channel=1)
    works_in_a_worker(dataset)


def test_make3d_refuses_a_truncated_image_unless_told_otherwise(tmp_path):
    files.write_make3d(tmp_path)
    path = tmp_path / "Test134" / f"img-{files.MAKE3D_NAMES[0]}.jpg"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    where = sorted(files.MAKE3D_NAMES).index(files.MAKE3D_NAMES[0])
    with pytest.raises(DataError, match="math1-p-046t000"):
        open_dataset("make3d", tmp_path, "val")[where]
    image, _ = files.arrays(open_dataset("make3d", tmp_path, "val", truncated=True)[where])
    assert np.abs(image[:100].astype(float) - files.frame(0, (227, 170))[0][:100]).mean() < 5
    with pytest.raises(DataError, match="math1-p-046t000"):  # the switch is not left on
        open_dataset("make3d", tmp_path, "val")[where]


def test_parquet_files(tmp_path):
    pytest.importorskip("pyarrow")
    files.write_nyu_parquet(tmp_path, "train", range(5))
    files.write_nyu_parquet(tmp_path, "val", range(7, 8))
    train = open_dataset("nyu-parquet", tmp_path)
    assert len(train) == 5
    for number in (4, 0, 3):
        files.assert_frame(train[number], number)
    assert len({train.name(i) for i in range(5)}) == 5
    files.assert_frame(open_dataset("nyu-parquet", tmp_path, "val")[0], 7)
    works_in_a_worker(train)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "train-0.parquet").write_bytes(b"PAR1")
    real = builtins.__import__

    def without(name, *rest, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"mlr-depth\[parquet\]"):
        open_dataset("nyu-parquet", tmp_path)


def test_make3d_takes_images_of_any_spelling(tmp_path):
    files.write_make3d(tmp_path)
    for path in [*(tmp_path / "Test134").iterdir()]:
        path.rename(path.with_name(path.name.removesuffix(".jpg") + ".JPG"))
    assert len(open_dataset("make3d", tmp_path, "val")) == 2


# --- names and options


def test_every_data_set_can_be_imported_and_says_what_it_is():
    for name, (_, summary) in DATASETS.items():
        assert summary
        check_options(name, {})


def test_names_and_options_are_checked():
    with pytest.raises(ValueError, match="did you mean kitti"):
        check_dataset("kiti")
    with pytest.raises(ValueError, match="has no option 'crop'; it takes list_file, right, kb_crop"):
        open_dataset("kitti", "/x", crop=True)
    with pytest.raises(ValueError, match="must be true or false, got 'maybe'"):
        open_dataset("kitti", "/x", kb_crop="maybe")
    with pytest.raises(ValueError, match="must be int, got 'three'"):
        open_dataset("make3d", "/x", channel="three")
    with pytest.raises(ValueError, match="train, val or all"):
        open_dataset("rooms", split="test")
    with pytest.raises(DataError, match="needs --root"):
        open_dataset("nyu")
    assert parse_options(" a=1, b=x=y ,") == {"a": "1", "b": "x=y"}
    with pytest.raises(ValueError, match="name=value"):
        parse_options("kb_crop")


def test_training_batches_come_from_any_data_set_with_its_options(tmp_path):
    files.write_kitti(tmp_path)
    data = DepthData("kitti", tmp_path, (32, 64), 1, 0, holes="nearest", options="kb_crop=true", augment="hu2019")
    with pytest.warns(UserWarning, match="has no ground truth"):
        data.setup("fit")
    (batch,) = data.train_dataloader()
    assert batch["image"].shape == (1, 3, 32, 64)
    assert (batch["depth"] > 0).all()
    assert 0 < batch["valid"].float().mean() < 0.2
    with pytest.raises(ValueError, match="--depth-unit is not for --data kitti"):
        DepthData("kitti", tmp_path, depth_unit="mm").setup("fit")


def test_a_coarse_laser_grid_trains_like_any_other_depth(tmp_path):
    files.write_make3d(tmp_path, "Train400Img", "Train400Depth")
    files.write_make3d(tmp_path)
    for augment in ("paper", "hu2019"):
        data = DepthData("make3d", tmp_path, (64, 48), 2, 0, augment=augment)
        data.setup("fit")
        for loader in (data.train_dataloader(), data.val_dataloader()):
            (batch,) = loader
            assert batch["image"].shape == (2, 3, 64, 48)
            assert batch["depth"].shape == batch["valid"].shape == (2, 1, 64, 48)


def test_a_laser_grid_with_holes_is_filled_along_the_image():
    image, (_, depth) = files.frame(0, (227, 170))[0], files.frame(1, (55, 305))
    depth[10:20, 40:80] = 0
    filled = fill_sample(make_sample(image, depth, "frame"), "colorize")["depth"][0].numpy()
    np.testing.assert_array_equal(filled[depth > 0], depth[depth > 0])
    assert (filled > 0).all()


def test_training_goes_on_after_a_broken_frame_of_a_published_set_and_names_it(tmp_path):
    files.write_nyu_sync(tmp_path)
    files.cut(tmp_path / "sync/kitchen_0028a/rgb_00001.jpg")
    data = DepthData("nyu-sync", tmp_path, (32, 64), 3, 0, holes="nearest", augment="none")
    with pytest.warns(UserWarning, match="1 listed pair left out"):
        data.setup("fit")
    with pytest.warns(UserWarning, match="stands in for a broken one.*rgb_00001"):
        (batch,) = data.train_dataloader()
    assert sorted(name[-6:] for name in batch["id"]) == ["00.jpg", "02.jpg", "02.jpg"]


def test_a_set_of_nothing_but_broken_frames_is_refused(tmp_path):
    files.write_nyu_sync(tmp_path)
    for path in (tmp_path / "sync/kitchen_0028a").glob("*.jpg"):
        files.cut(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match="in a row are broken"):
            DepthData("nyu-sync", tmp_path, (32, 64), holes="nearest").setup("fit")


# --- images


TURNED = Image.Exif()
TURNED[0x0112] = 6  # a quarter clockwise


def turn(path: Path, rotate: bool = False) -> None:
    """Store an image with an EXIF orientation; also with its pixels turned, so that it is the same upright."""
    with Image.open(path) as image:
        pixels = np.rot90(np.array(image)) if rotate else np.array(image)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, exif=TURNED)


def test_pictures_of_your_own_are_read_upright_and_in_sixteen_bits(tmp_path):
    files.write_folder(tmp_path, range(2))
    turn(tmp_path / "rgb/000.png", rotate=True)
    grey = files.frame(1)[0][..., 0]
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "rgb/001.png")
    one = open_dataset("folder", tmp_path, "val", unit="mm")[0]
    files.assert_frame(one, 0, step=1e-3)
    image, _ = files.arrays(open_dataset("folder", tmp_path, "train", unit="mm")[0])
    np.testing.assert_array_equal(image, np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize(
    ("name", "writer", "picture"),
    [
        ("nyu-sync", files.write_nyu_sync, "official_splits/test/bathroom/rgb_00045.jpg"),
        ("kitti", files.write_kitti, f"{files.DATE}/{files.DRIVE}/image_02/data/0000000005.png"),
        ("make3d", files.write_make3d, f"Test134/img-{min(files.MAKE3D_NAMES)}.jpg"),
    ],
)
def test_published_sets_are_read_as_they_are_stored(tmp_path, name, writer, picture):
    writer(tmp_path)
    shape = open_dataset(name, tmp_path, "val")[0]["image"].shape
    turn(tmp_path / picture)
    assert open_dataset(name, tmp_path, "val")[0]["image"].shape == shape


def test_archives_are_read_as_they_are_stored(tmp_path):
    import zipfile

    path = tmp_path / "frame.png"
    Image.fromarray(files.frame(0)[0]).save(path)
    turn(path)
    with zipfile.ZipFile(tmp_path / "train795.zip", "w") as archive:
        archive.write(path, "rgb.png")
        archive.writestr("depth.png", files.encoded(files.integers(files.frame(0)[1], 6553.5)))
        archive.writestr("train.csv", "rgb.png,depth.png")
    files.assert_frame(open_dataset("nyu-zip", tmp_path)[0], 0, step=10 / 65535)
