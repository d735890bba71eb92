# SPDX-License-Identifier: Apache-2.0
"""Files of data sets that are cut off, foreign, missing or swapped: each is named, with what is wrong."""

from __future__ import annotations

from pathlib import Path

import data_files as files
import h5py
import numpy as np
import pytest
from data_files import cut
from PIL import Image
from scipy.io import savemat

from mlr.data import DataError, open_dataset
from mlr.data.datamodule import Transformed
from mlr.data.hdf5_files import reading

# --- what is wrong is named


def spoil_h5(root: Path, **content) -> None:
    with h5py.File(root / "train/kitchen_1/00001.h5", "w") as file:
        for name, value in content.items():
            file[name] = value


IMAGE, DEPTH = files.frame(0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"rgb": IMAGE, "depth": DEPTH}, "channels first"),
        ({"rgb": IMAGE.transpose(2, 0, 1)}, "expected rgb and depth"),
        ({"rgb": IMAGE.transpose(2, 0, 1), "depth": DEPTH.T}, "48 x 64 pixels and the depth 64 x 48"),
        ({"rgb": IMAGE.transpose(2, 0, 1).astype(np.float32), "depth": DEPTH}, "uint8, got"),
        ({"rgb": IMAGE.transpose(2, 0, 1), "depth": (DEPTH * 1000).astype(np.uint16)}, "floating-point metres"),
        ({"rgb": IMAGE.transpose(2, 0, 1), "depth": DEPTH * 1000}, "not metres"),
        ({"rgb": IMAGE.transpose(2, 0, 1), "depth": DEPTH[:0]}, "is empty"),
    ],
)
def test_hdf5_frames_of_another_layout_are_refused(tmp_path, content, message):
    files.write_nyu_h5(tmp_path)
    spoil_h5(tmp_path, **content)
    with pytest.raises(DataError, match=message):
        open_dataset("nyu-h5", tmp_path)[0]


def test_bad_depth_reads_as_unknown(tmp_path):
    files.write_nyu_h5(tmp_path)
    depth = DEPTH.copy()
    depth[0, :4] = [-1, np.inf, -np.inf, np.nan]
    spoil_h5(tmp_path, rgb=IMAGE.transpose(2, 0, 1), depth=depth)
    sample = open_dataset("nyu-h5", tmp_path)[0]
    assert sample["valid"][0, 0].tolist() == [0] * 4 + [1] * 60
    assert (sample["depth"][0, 0, :4] == 0).all()


@pytest.mark.parametrize(
    ("name", "writer", "spoil", "message"),
    [
        ("nyu-h5", files.write_nyu_h5, lambda p: cut(p / "train/kitchen_1/00001.h5"), "cut off"),
        ("nyu-h5", files.write_nyu_h5, lambda p: (p / "train").rename(p / "x"), "no folder .*train"),
        ("nyu-zip", lambda p: None, lambda p: None, "train795.zip or .*train_reduced05.zip"),
        ("nyu-zip", lambda p: files.write(p / "train795.zip", b"no zip"), lambda p: None, "not a zip archive"),
        ("nyu-sync", files.write_nyu_sync, lambda p: cut(p / "sync/kitchen_0028a/rgb_00000.jpg"), "rgb_00000.jpg"),
        ("nyu-sync", files.write_nyu_sync, lambda p: cut(p / "sync/kitchen_0028a/sync_depth_00000.png", 0.3), "sync_d"),
        ("nyu-sync", files.write_nyu_sync, lambda p: (p / "sync").rename(p / "x"), "none of its 4 pairs"),
        ("nyu-sync", files.write_nyu_sync, lambda p: (p / "nyudepthv2_train_files_with_gt.txt").unlink(), "list_file="),
        ("kitti", files.write_kitti, lambda p: (p / "eigen_train_files_with_gt.txt").write_text("a b c d\n"), "line 1"),
        ("make3d", lambda p: files.write_make3d(p, "Train400Img", "Train400Depth"),
         lambda p: cut(min((p / "Train400Depth").iterdir())), "not a MATLAB 5 file"),
        ("make3d", lambda p: files.write_make3d(p, "Train400Img", "Train400Depth"),
         lambda p: savemat(min((p / "Train400Depth").iterdir()), {"Position3DGrid": np.ones((55, 305))}),
         r"must be \[rows, columns, 4\]"),
        ("make3d", files.write_make3d, lambda p: None, "no folder .*Train400Img"),
    ],
)  # fmt: skip
def test_missing_and_damaged_files_are_named(tmp_path, name, writer, spoil, message):
    writer(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        open_dataset(name, tmp_path)[0]


@pytest.mark.parametrize(
    ("name", "split", "writer", "file"),
    [
        ("nyu-h5", "val", files.write_nyu_h5, "val/official/00001.h5"),
        ("nyu-zip", "train", lambda p: files.write_nyu_zip(p / "train795.zip", "train", range(2)), "train795.zip"),
        ("nyu-sync", "val", files.write_nyu_sync, "official_splits/test/bathroom/sync_depth_00045.png"),
        ("nyu-sync", "val", files.write_nyu_sync, "nyudepthv2_test_files_with_gt.txt"),
        ("make3d", "val", files.write_make3d, f"Gridlaserdata/depth_sph_corr-{files.MAKE3D_NAMES[0]}.mat"),
        ("nyu-parquet", "train", lambda p: files.write_nyu_parquet(p, "train", range(3)),
         "data/train-00000-of-00001.parquet"),
    ],
)  # fmt: skip
def test_damage_anywhere_is_an_error_that_is_explained_or_does_no_harm(tmp_path, name, split, writer, file):
    if name == "nyu-parquet":
        pytest.importorskip("pyarrow")
    writer(tmp_path)
    whole, random, refused = (tmp_path / file).read_bytes(), np.random.default_rng(0), 0
    for attempt in range(24):
        content = bytearray(whole)
        if attempt % 2:
            del content[random.integers(len(content)) :]
        else:
            start = random.integers(len(content) - 20)
            content[start : start + 20] = random.bytes(20)
        (tmp_path / file).write_bytes(content)
        try:
            for sample in (dataset := open_dataset(name, tmp_path, split))[0], dataset[len(dataset) - 1]:
                assert sample["depth"].isfinite().all()
        except DataError:
            refused += 1
    assert refused >= 12  # every file that was cut off


def test_a_damaged_archive_member_is_named(tmp_path):
    files.write_nyu_zip(tmp_path / "train795.zip", "train", range(2))
    content = bytearray((tmp_path / "train795.zip").read_bytes())
    start = content.index(b"\x89PNG") + 200
    content[start : start + 20] = bytes(20)
    (tmp_path / "train795.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"train795.zip: cannot read train795/rgb/0.png"):
        open_dataset("nyu-zip", tmp_path)[0]


def test_depth_of_eight_bits_is_refused_where_sixteen_are_meant(tmp_path):
    files.write_nyu_sync(tmp_path)
    depth = tmp_path / "sync/kitchen_0028a/sync_depth_00000.png"
    Image.fromarray(np.full(files.SIZE, 200, np.uint8)).save(depth)
    with pytest.raises(DataError, match="16 bits"):
        open_dataset("nyu-sync", tmp_path)[0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda table: table.drop_columns(["depth"]), "expected image and depth"),
        (lambda table: table.set_column(0, "image", [[b"png"] * 5]), "no nested list"),
    ],
)
def test_parquet_of_another_layout_is_refused(tmp_path, spoil, message):
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    files.write_nyu_parquet(tmp_path, "train", range(5))
    path = tmp_path / "data/train-00000-of-00001.parquet"
    parquet.write_table(spoil(parquet.read_table(path)), path)
    with pytest.raises(DataError, match=message):
        open_dataset("nyu-parquet", tmp_path)[0]


def test_a_parquet_file_that_is_cut_off_is_named(tmp_path):
    pytest.importorskip("pyarrow")
    files.write_nyu_parquet(tmp_path, "train", range(5))
    cut(tmp_path / "data/train-00000-of-00001.parquet")
    with pytest.raises(DataError, match="cut off"):
        open_dataset("nyu-parquet", tmp_path)


# --- what foreign parsers raise


def test_depth_files_that_numpy_cannot_parse_are_named(tmp_path):
    files.write_folder(tmp_path, range(1))
    (tmp_path / "depth/000.png").unlink()
    whole = tmp_path / "whole.npy"
    np.save(whole, files.frame(0)[1])
    for content in (b"", whole.read_bytes().replace(b"(48, 64), }", b"(48, 64 , "), b"PK\x05\x06" + bytes(18)):
        (tmp_path / "depth/000.NPY").write_bytes(content)
        with pytest.raises(DataError, match=r"cannot read the depth file .*000\.NPY"):
            open_dataset("folder", tmp_path)[0]
    (tmp_path / "depth/000.NPY").write_bytes(whole.read_bytes())
    files.assert_frame(open_dataset("folder", tmp_path)[0], 0)


def test_integers_of_an_empty_depth_file_are_refused_like_others(tmp_path):
    files.write_folder(tmp_path, range(1))
    (tmp_path / "depth/000.png").unlink()
    np.save(tmp_path / "depth/000.npy", np.zeros((0, 4), np.uint16))
    with pytest.raises(DataError, match="no unit was declared"):
        open_dataset("folder", tmp_path)[0]


def test_compressed_archive_members_that_are_damaged_are_named(tmp_path):
    import zipfile

    path = tmp_path / "train795.zip"
    files.write_nyu_zip(path, "train", range(1))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for damaged in ("train795/rgb/0.png", "train795/train.csv"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
            start = archive.getinfo(damaged).header_offset + 30 + len(damaged)
        content = bytearray(path.read_bytes())
        content[start : start + 10] = b"\xff" * 10
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"train795.zip: cannot read {damaged}"):
            open_dataset("nyu-zip", tmp_path)[0]


def test_empty_matlab_files_are_named(tmp_path):
    files.write_make3d(tmp_path)
    for path in (tmp_path / "Gridlaserdata").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"depth_sph_corr-.*\.mat is not a MATLAB 5 file"):
        open_dataset("make3d", tmp_path, "val")[0]
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"], file["depths"] = np.zeros((1, 3, 4, 4), np.uint8), np.ones((1, 4, 4), np.float32)
    (tmp_path / "splits.mat").write_bytes(b"")
    with pytest.raises(DataError, match=r"splits\.mat is not the split of NYU"):
        open_dataset("nyu", tmp_path)


def test_whatever_h5py_raises_names_the_file():
    with pytest.raises(DataError, match=r"x\.h5 is cut off or damaged: unexpected"), reading("x.h5"):
        raise TypeError("unexpected")
    with pytest.raises(DataError, match=r"^its own words$"), reading("x.h5"):
        raise DataError("its own words")


# --- frames without depth


def test_a_frame_without_depth_counts_as_broken_where_broken_ones_are_known(tmp_path):
    files.write_nyu_sync(tmp_path)
    Image.fromarray(np.zeros(files.SIZE, np.uint16)).save(tmp_path / "sync/kitchen_0028a/sync_depth_00001.png")
    dataset = open_dataset("nyu-sync", tmp_path)
    with pytest.warns(UserWarning, match=r"stands in for a broken one.*rgb_00001\.jpg: no pixel has a depth"):
        sample = Transformed(dataset, None, 0, "nearest").filled(1)
    assert sample["id"].endswith("rgb_00002.jpg")
    with pytest.raises(DataError, match="--holes nearest"):  # an ordinary hole is no broken frame
        Transformed(dataset, None, 0, "error").filled(0)
