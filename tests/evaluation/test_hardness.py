# SPDX-License-Identifier: Apache-2.0
"""Folders of predictions and checkpoints from strangers: a sentence that names the file, no traceback, no hang."""

from __future__ import annotations

import csv
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluating import depth, means, on, refusal, run, write_npy, write_shots

import mlr
from mlr.cli import main
from mlr.evaluation import Scores


@pytest.fixture
def shots(tmp_path) -> Path:
    return write_shots(tmp_path / "shots")


def declared(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    """A .npy file that declares a size and holds nothing."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (depth(7).astype(complex), "holds complex128 values, which are no depth"),
        (np.array([[{}]], object), "cannot read the depth file"),
        (np.zeros((48, 64), [("a", "f4")]), "which are no depth"),
        (np.array([["a"]]), "which are no depth"),
        (np.zeros((48, 64), "M8[s]"), "which are no depth"),
        (np.float32(3), "expected [H, W], got []"),
        (np.ones((1, 1, 48, 64), np.float32), "expected [H, W]"),
        (np.ones((1, 100_000), np.float32), "is not the shape of the 48 x 64 pixels"),
        (np.full((48, 64), 1e300), "3072 infinite of 3072 values"),
        (np.full((48, 64), 9e4, np.float32), "so they are not metres"),
    ],
)
def test_arrays_that_are_no_depth_are_named(values, message, shots, tmp_path, capsys):
    folder = write_npy(tmp_path / "pred")
    np.save(folder / "007.npy", values)
    error = refusal(capsys, folder, *on(shots))
    assert message in error
    assert "007.npy" in error


@pytest.mark.filterwarnings("ignore:overflow encountered")  # numpy, over a declared size
@pytest.mark.parametrize(
    "content",
    [declared((10**6, 10**6)), declared((2**61, 4)), declared((-4, 4)), declared((48, 64), "|O"), b"PK\x03\x04",
     b"cos\nsystem\n(S'exit 3'\ntR."],
)  # fmt: skip
def test_files_that_lie_or_hold_programs_are_named(content, shots, tmp_path, capsys):
    folder = write_npy(tmp_path / "pred")
    (folder / "007.npy").write_bytes(content)
    error = refusal(capsys, folder, *on(shots))
    assert "007.npy" in error


def test_what_is_no_regular_file_is_not_opened_and_named(shots, tmp_path, capsys):
    folder = write_npy(tmp_path / "pred")
    (folder / "007.npy").unlink()
    os.mkfifo(folder / "007.npy")
    error = refusal(capsys, folder, *on(shots))
    assert "1 of 3 frames have no prediction" in error
    assert "007.npy is a named pipe" in error
    for target in ("/dev/zero", "007.npy"):
        (folder / "007.npy").unlink()
        os.symlink(target, folder / "007.npy")
        assert "1 file is not read: 007.npy" in refusal(capsys, folder, *on(shots))


def test_folders_that_link_to_themselves_are_read_once(shots, tmp_path, capsys):
    folder = write_npy(tmp_path / "pred", 1.0)
    os.symlink(folder, folder / "again")
    assert means(run(capsys, folder, *on(shots)))["rmse"] == 0


def test_markup_in_names_is_printed_as_it_is(shots, tmp_path, capsys):
    folder = write_npy(tmp_path / "pred[/b]", 1.0)
    out = tmp_path / "scores[/b][bold]"
    assert main(["evaluate", str(folder), *map(str, on(shots)), "--out", str(out)]) == 0
    assert f"scores are in {out}" in capsys.readouterr().err
    assert (out / "scores.json").is_file()
    np.save(folder / "[bold]x.npy", depth(7))
    assert "[bold]x.npy" in refusal(capsys, folder, *on(shots))


def test_a_file_too_many_never_shifts_the_others(shots, tmp_path, capsys):
    """Four files and four frames of all splits, but they are not the same four."""
    for names in (("006", "007", "008", "9" * 200), ("pred6", "pred7", "pred8", "pred999")):
        folder = write_npy(tmp_path / names[0], 1.0, names)
        assert "ambiguous" in refusal(capsys, folder, *on(shots), "--match", "order", "--split", "all")
        assert "ambiguous" in refusal(capsys, folder, *on(shots), "--match", "order")


def test_ids_that_spreadsheets_run_are_written_as_text(tmp_path):
    ids = ["=1+1", "+a", "-a", "@a", "\ta", "'a", "a=1", "a"]
    scores = Scores("full")
    scores.add(ids, torch.ones(8, 1, 4, 4), torch.ones(8, 1, 4, 4))
    scores.save_csv(tmp_path / "full.csv")
    with (tmp_path / "full.csv").open(newline="") as file:
        written = [row["id"] for row in csv.DictReader(file)]
    assert written == ["'=1+1", "'+a", "'-a", "'@a", "'\ta", "''a", "a=1", "a"]
    assert scores.ids == ids


@pytest.mark.parametrize("kind", [torch.int64, torch.bool])
def test_weights_of_another_kind_are_refused_not_cast(network, kind, tmp_path, capsys):
    path = mlr.save_checkpoint(tmp_path / "best.pt", network, config={"size": "64x96", "data": "rooms"})
    content = torch.load(path)
    content["model"]["conv3.weight"] = content["model"]["conv3.weight"].to(kind)
    torch.save(content, path)
    assert f"other type: conv3.weight {kind} instead of torch.float32" in refusal(capsys, path)


def test_no_separator_of_another_country_begins_a_cell(tmp_path):
    """Where a comma is the decimal point, spreadsheets split at semicolons."""
    ids = ["a;=1+1", "＝1+1", 'b";=1', "c,=1"]
    scores = Scores("full")
    scores.add(ids, torch.ones(4, 1, 4, 4), torch.ones(4, 1, 4, 4))
    scores.save_csv(tmp_path / "full.csv")
    lines = (tmp_path / "full.csv").read_text().splitlines()[1:]
    assert [line.split(",1.0,")[0].rsplit(",", 1)[0] for line in lines if line] == [
        '"a;=1+1"', '"\'＝1+1"', '"b"";=1"', '"c,=1"',
    ]  # fmt: skip
    with (tmp_path / "full.csv").open(newline="") as file:
        assert [float(row["delta1"]) for row in csv.DictReader(file)] == [1.0] * 4
