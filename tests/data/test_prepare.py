# SPDX-License-Identifier: Apache-2.0
"""Packing data sets into one file: what is in it, what a kill or a full disk leaves, what is refused."""

from __future__ import annotations

import errno
import json
import pickle
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import data_files as files
import h5py
import numpy as np
import pytest
import torch

from mlr.cli import main
from mlr.data import DataError, DepthData, open_dataset
from mlr.data.colorize import colorize
from mlr.data.datasets.packed import COMPRESSIONS, Frame, Packed, join, write_frames
from mlr.data.tools import prepare as prepare_module
from mlr.data.tools.prepare import prepare


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(prepare_module, "FRAMES_PER_PART", 2)


def pack(dataset: str, out: Path, **settings) -> Path:
    assert prepare([dataset], out, **{"workers": 0, "quiet": True, **settings}) == 0
    return out


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".") or path.name.endswith(".parts"))


@pytest.mark.parametrize("compression", ["lzf", "gzip", "none"])
def test_frames_come_back_as_they_were_and_filled_along_the_image(tmp_path, compression):
    files.write_nyu_sync(tmp_path / "nyu")
    out = pack(f"nyu-sync:{tmp_path / 'nyu'}", tmp_path / "nyu.h5", compression=compression)
    for split in ("train", "val"):
        dataset, packed = open_dataset("nyu-sync", tmp_path / "nyu", split), open_dataset("packed", out, split)
        assert len(packed) == len(dataset)
        for i in range(len(dataset)):
            one, other = dataset[i], packed[i]
            assert one["id"] == other["id"]
            assert torch.equal(one["image"], other["image"])
            assert torch.equal(one["valid"], other["valid"])
            image, depth = one["image"].permute(1, 2, 0).numpy(), one["depth"][0].numpy()
            np.testing.assert_array_equal(other["depth"][0], colorize(image, depth))
            _, measured = packed.read(i)
            np.testing.assert_array_equal(measured, depth)
    assert leftovers(tmp_path) == []


def test_parts_with_other_filters_are_joined(tmp_path):
    random = np.random.default_rng(0)
    frames = [
        Frame(f"{i}", "folder", "train", random.integers(0, 255, (8, 9, 3), np.uint8), *np.ones((2, 8, 9), np.float32))
        for i in range(3)
    ]
    parts = [tmp_path / f"{name}.h5" for name in COMPRESSIONS]
    for part, frame, compression in zip(parts, frames, COMPRESSIONS, strict=True):
        write_frames(part, [frame], compression, {})
    for order in (parts, parts[::-1]):
        out = tmp_path / f"joined-{order[0].stem}.h5"
        assert join(order, out, {}) == 3
        packed = Packed(out)
        found = {packed.name(i): packed.read(i)[0] for i in range(3)}  # checks the checksums
        for frame in frames:
            np.testing.assert_array_equal(found[frame.id], frame.image)


def test_the_file_states_what_it_is(tmp_path):
    files.write_nyu_sync(tmp_path / "nyu")
    out = pack(f"nyu-sync:{tmp_path / 'nyu'}", tmp_path / "nyu.h5")
    with h5py.File(out) as file:
        assert (file.attrs["format"], file.attrs["unit"], file.attrs["holes"]) == ("mlr-packed", "m", "colorize")
        assert file["48x64/image"].chunks == (1, 48, 64, 3)  # one frame a chunk
        assert file["index/source"].asstr()[:].tolist() == ["nyu-sync"] * 4
        assert file["index/split"].asstr()[:].tolist() == ["train"] * 3 + ["val"]
        assert "rgb_00099.jpg" in json.loads(file.attrs["missing"])[0]


def test_several_processes_write_the_same_frames_in_the_same_order(tmp_path):
    files.write_nyu_zip(tmp_path / "train795.zip", "train", range(7))
    dataset = f"nyu-zip:{tmp_path}"
    one = Packed(pack(dataset, tmp_path / "one.h5", splits="train"))
    two = Packed(pack(dataset, tmp_path / "two.h5", splits="train", workers=2))
    assert one.ids.tolist() == two.ids.tolist()
    assert one.checksums.tolist() == two.checksums.tolist()


def test_data_sets_and_sizes_may_be_mixed(tmp_path):
    files.write_folder(tmp_path / "a", range(11))
    files.write_folder(tmp_path / "b", range(11, 13), size=(40, 72))
    out = tmp_path / "all.h5"
    datasets = [f"folder:{tmp_path / name}" for name in ("a", "b")]
    assert prepare(datasets, out, data_options="unit=mm", workers=0, quiet=True) == 0
    train, val = (Packed(out, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (9 + 1, 2 + 1)
    sizes = {tuple(train[i]["image"].shape[1:]) for i in range(len(train))}
    assert sizes == {(48, 64), (40, 72)}
    for i in range(len(train)):
        image, _ = files.frame(int(Path(train.name(i)).stem), tuple(train[i]["image"].shape[1:]))
        np.testing.assert_array_equal(train[i]["image"].permute(1, 2, 0), image)


def test_each_data_set_takes_the_options_it_knows(tmp_path):
    files.write_folder(tmp_path / "shots", range(11))
    datasets, out = ["rooms", f"folder:{tmp_path / 'shots'}"], tmp_path / "x.h5"
    assert prepare(datasets, out, data_options="length=2,height=48,width=64,unit=mm", workers=0, quiet=True) == 0
    assert (len(Packed(out)), len(Packed(out, "val"))) == (2 + 9, 2 + 2)


def test_frames_may_be_resized_and_holes_kept(tmp_path):
    files.write_nyu_sync(tmp_path)
    packed = Packed(pack(f"nyu-sync:{tmp_path}", tmp_path / "x.h5", size="24x32", holes="keep"))
    sample = packed[0]
    assert sample["image"].shape == (3, 24, 32)
    assert sample["image"].dtype == torch.uint8
    assert torch.equal(sample["depth"] > 0, sample["valid"] > 0)
    assert (sample["depth"][0, :2] == 0).all()


def test_a_laser_grid_keeps_its_size(tmp_path):
    files.write_make3d(tmp_path)
    packed = Packed(pack(f"make3d:{tmp_path}", tmp_path / "x.h5", splits="val"), "val")
    assert packed[0]["image"].shape == (3, 227, 170)
    assert packed[0]["depth"].shape == (1, 55, 305)


def test_a_network_trains_on_a_packed_file(tmp_path):
    pack("rooms", tmp_path / "rooms.h5", data_options="length=4,height=48,width=64")
    data = DepthData("packed", tmp_path / "rooms.h5", (32, 48), batch_size=2, workers=2)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert [len(batch["id"]) for batch in batches] == [2, 2]
    pickle.loads(pickle.dumps(data.datasets["val"]))[0]


# --- broken frames


def test_broken_frames_are_named_counted_and_left_out(tmp_path, capsys):
    files.write_nyu_sync(tmp_path / "nyu")
    (tmp_path / "nyu/sync/kitchen_0028a/rgb_00001.jpg").write_bytes(b"\xff\xd8")
    files.write(
        tmp_path / "nyu/sync/kitchen_0028a/sync_depth_00002.png", files.encoded(np.zeros(files.SIZE, np.uint16))
    )
    out = tmp_path / "nyu.h5"
    assert main(["prepare", f"nyu-sync:{tmp_path / 'nyu'}", f"--out={out}", "--workers=0"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "rgb_00001.jpg" in said
    assert "no pixel has depth" in said
    assert "2 broken ones left out" in said
    assert len(Packed(out)) == 1
    with h5py.File(out) as file:
        assert len(json.loads(file.attrs["skipped"])) == 2
    strict = ["prepare", f"nyu-sync:{tmp_path / 'nyu'}", f"--out={tmp_path / 'x.h5'}", "--workers=0", "--strict"]
    assert main(strict) == 1
    assert not (tmp_path / "x.h5").exists()


def test_a_set_without_a_usable_frame_is_an_error(tmp_path):
    files.write_folder(tmp_path / "shots", range(3), unit=1)  # read as mm: all below 0.01 m
    with pytest.raises(DataError, match=r"none of the \d frames can be used; .*the unit is wrong"):
        pack(f"folder:{tmp_path / 'shots'}", tmp_path / "x.h5", data_options="unit=mm")
    assert [path.name for path in tmp_path.iterdir()] == ["shots"]
    pack(f"folder:{tmp_path / 'shots'}", tmp_path / "x.h5", data_options="unit=m")  # no parts are in its way


def test_parts_with_broken_frames_are_packed_again_for_the_files_may_be_mended(tmp_path, monkeypatch):
    files.write_nyu_sync(tmp_path)
    broken = tmp_path / "sync/kitchen_0028a/rgb_00001.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(b"\xff\xd8")

    def fail(*_):
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "join", fail)
        with pytest.raises(OSError, match="power cut"):
            pack(f"nyu-sync:{tmp_path}", tmp_path / "x.h5")
    broken.write_bytes(whole)
    packed, pack_part = [], prepare_module.pack
    monkeypatch.setattr(
        prepare_module, "pack", lambda part, strict: packed.append(part.number) or pack_part(part, strict)
    )
    out = pack(f"nyu-sync:{tmp_path}", tmp_path / "x.h5")
    assert packed == [0]  # frames 0 and 1
    assert len(Packed(out)) == 3
    with h5py.File(out) as file:
        assert json.loads(file.attrs["skipped"]) == []


# --- interruptions


SLOW = """
import sys, time
import mlr.data.tools.prepare as p
p.FRAMES_PER_PART = 2
write = p.write_frames
def slow(*rest):
    time.sleep(0.3)
    return write(*rest)
p.write_frames = slow
p.prepare([sys.argv[1]], p.Path(sys.argv[2]), splits="train", workers=0, quiet=True)
"""


def test_after_a_kill_the_same_command_continues(tmp_path, monkeypatch, capsys):
    files.write_nyu_zip(tmp_path / "train795.zip", "train", range(12))
    dataset, out, parts = f"nyu-zip:{tmp_path}", tmp_path / "nyu.h5", tmp_path / "nyu.h5.parts"
    process = subprocess.Popen([sys.executable, "-c", SLOW, dataset, str(out)])
    deadline = time.monotonic() + 60
    while not (parts / "000001.h5").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    done = sorted(path.name for path in parts.glob("0*.h5"))
    assert 2 <= len(done) < 6

    packed = []
    pack_part = prepare_module.pack
    monkeypatch.setattr(
        prepare_module, "pack", lambda part, strict: packed.append(part.number) or pack_part(part, strict)
    )
    pack(dataset, out, splits="train")
    assert packed == list(range(len(done), 6))  # nothing twice
    fresh = Packed(pack(dataset, tmp_path / "fresh.h5", splits="train"))
    assert Packed(out).checksums.tolist() == fresh.checksums.tolist()
    assert leftovers(tmp_path) == []


def test_parts_of_another_preparation_are_not_mixed_in(tmp_path, monkeypatch):
    files.write_nyu_zip(tmp_path / "train795.zip", "train", range(4))

    def fail(*_):
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "join", fail)
        with pytest.raises(OSError, match="power cut"):
            pack(f"nyu-zip:{tmp_path}", tmp_path / "x.h5", splits="train")
    with pytest.raises(DataError, match="parts of another preparation"):
        pack(f"nyu-zip:{tmp_path}", tmp_path / "x.h5", splits="train", holes="nearest")
    assert len(Packed(pack(f"nyu-zip:{tmp_path}", tmp_path / "x.h5", splits="train"))) == 4


@contextmanager
def disk_of(size: int):
    """Files cannot grow beyond so many bytes: the system refuses the write, as it does when the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_named_as_such(tmp_path, monkeypatch):
    def full(self, data):
        self.error = OSError(errno.ENOSPC, "No space left on device")
        return len(data)

    monkeypatch.setattr("mlr.data.hdf5_files.Disk.write", full)
    with pytest.raises(OSError, match=r"000000\.h5: the disk is full"):
        pack("rooms", tmp_path / "x.h5", data_options="length=1,height=48,width=64")


def test_a_full_disk_is_said_and_loses_nothing(tmp_path, monkeypatch, capsys):
    files.write_nyu_zip(tmp_path / "train795.zip", "train", range(4))
    command = ["prepare", f"nyu-zip:{tmp_path}", f"--out={tmp_path / 'x.h5'}", "--splits=train", "--workers=0"]
    with disk_of(20_000):  # no part fits
        assert main(command) == 1
    assert "cannot write" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "x.h5.parts").iterdir()] == ["plan.json"]
    with disk_of(60_000):  # the parts fit, the file does not
        assert main(command) == 1
    assert f"cannot write {tmp_path / 'x.h5'}:" in capsys.readouterr().err
    names = sorted(path.name for path in (tmp_path / "x.h5.parts").iterdir())
    assert names == ["000000.h5", "000001.h5", "plan.json"]

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module.shutil, "disk_usage", lambda _: prepare_module.shutil._ntuple_diskusage(9, 9, 0))
        assert main(command) == 1
    assert "0.0 MiB free" in capsys.readouterr().err
    assert not (tmp_path / "x.h5").exists()
    assert main(command) == 0
    assert len(Packed(tmp_path / "x.h5")) == 4


def test_an_earlier_file_is_not_overwritten(tmp_path):
    (tmp_path / "x.h5").write_text("mine")
    with pytest.raises(FileExistsError, match=r"x\.h5 exists"):
        pack("rooms", tmp_path / "x.h5", data_options="length=1")
    assert (tmp_path / "x.h5").read_text() == "mine"


@pytest.mark.parametrize(
    ("dataset", "settings", "message"),
    [
        ("nyu", {}, "NAME:PATH"),
        ("nuy:/x", {}, "did you mean nyu"),
        ("rooms:/x", {}, "needs no files: say what /x holds.*folder:/x for mlr prepare"),
        ("rooms", {"splits": "test"}, "--splits must be"),
        ("rooms", {"size": "big"}, "--size must be HxW"),
        ("rooms", {"holes": "error"}, "--holes must be"),
        ("rooms", {"compression": "zip"}, "--compression must be one of none, lzf, gzip"),
        ("rooms", {"data_options": "length=many"}, "must be int"),
        (
            "rooms",
            {"data_options": "lenght=3"},
            "none of the data sets has the option 'lenght'; they take height, hole_share, length",
        ),
        ("rooms", {"data_options": "length=1", "workers": -2}, "--workers must be"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(tmp_path, dataset, settings, message):
    with pytest.raises(ValueError, match=message):
        pack(dataset, tmp_path / "x.h5", **settings)
    assert list(tmp_path.iterdir()) == []


# --- packed files that are not what they should be


def test_damage_is_noticed_when_a_frame_is_read(tmp_path):
    out = pack("rooms", tmp_path / "x.h5", data_options="length=2,height=48,width=64", compression="none")
    with h5py.File(out, "r+") as file:
        file["48x64/depth"][1, 3, 4] += 0.25
    packed = Packed(out)
    packed[0]
    with pytest.raises(DataError, match="is damaged"):
        packed[1]


def test_foreign_and_newer_files_are_refused(tmp_path):
    out = pack("rooms", tmp_path / "x.h5", data_options="length=1,height=48,width=64", splits="train")
    with pytest.raises(DataError, match="no frames of the split 'val', but 1 train"):
        Packed(out, "val")
    with h5py.File(out, "r+") as file:
        file.attrs["version"] = 99
    with pytest.raises(DataError, match="version 99"):
        Packed(out)
    content = out.read_bytes()
    out.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="cut off"):
        Packed(out)
    with h5py.File(out, "w") as file:
        file["rgb"] = [1]
    with pytest.raises(DataError, match="no packed data set"):
        Packed(out)
    with pytest.raises(DataError, match="is a folder"):
        Packed(tmp_path)
    with pytest.raises(DataError, match="there is no file"):
        Packed(tmp_path / "nothing.h5")


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        pack("rooms", tmp_path / "nowhere" / "x.h5", data_options="length=1")
    (tmp_path / "x.h5.parts").write_text("")
    with pytest.raises(DataError, match="is in the way"):
        pack("rooms", tmp_path / "x.h5", data_options="length=1")
