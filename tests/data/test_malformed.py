# SPDX-License-Identifier: Apache-2.0
"""Damaged, foreign and malicious data sets end in a sentence: no traceback, no wait, no other file in a frame."""

from __future__ import annotations

import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
from torture.hdf5_faults import SECRET
from torture.malformed import CASES, WHOLE, Case, damaged

from mlr.data import DataError, open_dataset
from mlr.utils.files import list_files


class Waited(BaseException):
    """No error of a file: nothing may catch it."""


@pytest.fixture(autouse=True)
def hurry():
    """A reader that opens a pipe would wait for ever."""

    def late(*_):
        raise Waited

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def read_everything(dataset: str, root: Path, split: str) -> str:
    """Open and read all frames; returns what was said of files left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = open_dataset(dataset, root, split)
        for index in range(len(opened)):
            sample = opened[index]
            assert sample["depth"].isfinite().all()
            assert not np.all(sample["image"].numpy() == SECRET)
            assert not np.allclose(sample["depth"].numpy(), 1.71)
    return opened.note()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.dataset}: {case.fault}")
def test_every_fault_is_explained(tmp_path, case: Case):
    if case.dataset == "nyu-parquet":
        pytest.importorskip("pyarrow")
    root = case.write(tmp_path)
    try:
        said = read_everything(case.dataset, root, "train")  # the rest is used: what is left out must be named
    except DataError as error:
        said = str(error)
    assert len(said) > 20
    assert "Traceback" not in said


@pytest.mark.parametrize("dataset", sorted(WHOLE))
def test_damage_at_random_is_explained_or_does_no_harm(tmp_path, dataset):
    if dataset == "nyu-parquet":
        pytest.importorskip("pyarrow")
    for what, root, split in damaged(dataset, tmp_path / "set", 20):
        try:
            read_everything(dataset, root, split)
        except DataError:
            continue
        except Exception as error:
            raise AssertionError(what) from error


def test_a_listing_names_what_it_leaves_out_and_visits_a_folder_once(tmp_path):
    for name in ("a/2.png", "a/10.png", "b/1.PNG", "a/notes.txt", "a/._1.png", ".cache/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "b/up").symlink_to("..")
    (tmp_path / "b/a").symlink_to("../a")
    (tmp_path / "far").mkdir()
    (tmp_path / "far/x").mkdir()
    (tmp_path / "far/x/9.png").write_bytes(b"")
    (tmp_path / "a/linked").symlink_to(tmp_path / "far/x")
    (tmp_path / "a/gone.png").symlink_to("/nowhere")
    listing = list_files(tmp_path / "a", (".png",))
    assert [path.relative_to(tmp_path / "a").as_posix() for path in listing.files] == [
        "2.png",
        "10.png",
        "linked/9.png",
    ]
    assert [path.name for path in listing.others] == ["notes.txt"]
    assert listing.left_out == ["._1.png is hidden", "gone.png is a broken link"]
    whole = list_files(tmp_path, (".png",))
    names = [path.relative_to(tmp_path).as_posix() for path in whole.files]
    assert names == ["a/2.png", "a/10.png", "b/1.PNG", "far/x/9.png"]
    assert set(whole.left_out) == {
        ".cache/3.png is hidden", "a/._1.png is hidden", "a/gone.png is a broken link",
        "a/linked links to a folder that is read already", "b/a links to a folder that is read already",
        "b/up links to a folder that is read already",
    }  # fmt: skip
