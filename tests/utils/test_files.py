# SPDX-License-Identifier: Apache-2.0
"""Files and folders appear complete or not at all."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest
import torch

from mlr.utils.files import atomic_replace, atomic_save, atomic_write, create, expand_pattern, is_free


def test_a_file_appears_when_all_of_it_is_written(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with atomic_write(path) as partial:
        partial.write_text("after")
        assert path.read_text() == "before"
        assert partial.suffix != path.suffix
    assert path.read_text() == "after"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_an_error_keeps_the_older_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")

    def fail():
        with atomic_write(path) as partial:
            partial.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_folders_too_and_from_another_place(tmp_path):
    (tmp_path / "parts").mkdir()
    with atomic_replace(tmp_path / "scores", tmp_path / "parts") as partial:
        partial.mkdir()
        (partial / "a").write_text("1")
        assert not (tmp_path / "scores").exists()
    assert (tmp_path / "scores" / "a").read_text() == "1"

    def fail():
        with atomic_replace(tmp_path / "more") as partial:
            (partial / "sub").mkdir(parents=True)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["parts", "scores"]


def test_what_cannot_be_written_is_named(tmp_path):
    with (
        pytest.raises(OSError, match=r"cannot write .*x\.txt: .*writable"),
        atomic_write(tmp_path / "no" / "x.txt") as p,
    ):
        p.write_text("x")
    with pytest.raises(OSError, match=r"cannot write .*x\.pt"):
        atomic_save({"x": torch.ones(1)}, tmp_path / "no" / "x.pt")


def test_content_is_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda place: (done.append(os.readlink(f"/proc/self/fd/{place}")), fsync(place)))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append(f"to {new}"), replace(old, new)))
    path = tmp_path / "a.txt"
    with atomic_write(path) as partial:
        partial.write_text("x")
    assert done == [str(partial), f"to {path}", str(tmp_path)]
    done.clear()
    with atomic_write(path, durable=False) as partial:
        partial.write_text("y")
    assert done == [f"to {path}"]


def test_one_of_two_that_create_a_file_succeeds(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    create(path, "mine")
    with pytest.raises(FileExistsError):
        create(path, "another's")
    assert path.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]

    def unsupported(*_):
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", unsupported)
    create(tmp_path / "b", "x")
    assert (tmp_path / "b").read_text() == "x"
    with pytest.raises(FileExistsError):
        create(tmp_path / "b", "y")
    assert (tmp_path / "b").read_text() == "x"


def test_what_a_killed_process_began_does_not_occupy_a_folder(tmp_path):
    assert is_free(tmp_path / "missing")
    assert is_free(tmp_path)
    (tmp_path / ".a.txt.7.part").write_text("half")
    assert is_free(tmp_path)
    assert not is_free(tmp_path / ".a.txt.7.part")
    (tmp_path / "a.txt").write_text("whole")
    assert not is_free(tmp_path)


@pytest.mark.parametrize(
    "pattern",
    ["*", "**", "**/*.png", "*/b/*.png", "a/**", "**/b/**/*.png", "a/b/1.png", "*/../a/*.png", ".*", "[ab]/*", "**/**"],
)
def test_a_pattern_means_what_glob_takes_it_for(pattern, tmp_path):
    for name in ("1.png", "a/2.png", "a/b/1.png", "a/b/c/3.png", "b/4.png", "b/.h/5.png", ".trash/6.png", "a/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    expected = {Path(match).resolve() for match in glob.glob(str(tmp_path / pattern), recursive=True)}
    assert {match.resolve() for match in expand_pattern(tmp_path, Path(pattern).parts)} == expected


def test_a_pattern_over_folders_that_link_to_themselves_ends(tmp_path):
    for name in ("a/b/1.png", "c/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for number in range(8):  # eight links a folder: names of 40 parts are 8^40
        (tmp_path / f"up{number}").symlink_to(".")
        (tmp_path / "a" / f"up{number}").symlink_to("..")
        (tmp_path / "a/b" / f"up{number}").symlink_to("../..")
    for pattern in ("**/*.png", "**/b/**/*.png", "**/**/**/*.png"):
        found = expand_pattern(tmp_path, Path(pattern).parts)
        assert tmp_path / "a/b/1.png" in found
        assert len(found) < 100
    assert expand_pattern(tmp_path, ("up0", "c", "*")) == [tmp_path / "up0/c/2.png"]
