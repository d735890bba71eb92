# SPDX-License-Identifier: Apache-2.0
"""Tables of a run: rows that are cut off anywhere, replacements that are killed, disks that are full."""

from __future__ import annotations

import errno
import os
import warnings
from pathlib import Path

import pytest

from mlr.training import tables
from mlr.training.tables import BALANCING, Table, read_balancing, read_metrics, read_table


def balancing_rows(periods: int = 3, terms: tuple[str, ...] = ("D/0", "Nr/5")) -> list[dict[str, str]]:
    numbers = {"mean": "0.25", "weight": "1.5", "contribution": "0.5", "clipped": "0", "held": "1"}
    return [
        {"period": str(p), "step": str(2 * p + 2), "epoch": "1", "lambda": "3.0" if p else "", "term": term, **numbers}
        for p in range(periods)
        for term in terms
    ]


@pytest.fixture
def balancing(tmp_path) -> Path:
    table = Table(tmp_path / "balancing.csv", BALANCING)
    table.start(balancing_rows(2))
    table.append(balancing_rows(3)[4:])
    return table.file


def read_quietly(read, file: Path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return read(file), [str(w.message) for w in caught]


def test_rows_come_back_as_they_were(balancing):
    assert read_quietly(read_balancing, balancing) == (balancing_rows(3), [])


def test_a_table_cut_off_at_any_byte_keeps_its_complete_periods(balancing):
    whole, rows = balancing.read_bytes(), balancing_rows(3)
    header = whole.index(b"\n") + 1
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")][1:]
    for length in range(len(whole) + 1):
        balancing.write_bytes(whole[:length])
        kept, said = read_quietly(read_balancing, balancing)
        complete = sum(end <= length for end in ends) // 2 * 2
        # what a single row is part of is known from the second period on
        if length < ends[1]:
            complete = int(length >= ends[0])
        assert kept == rows[:complete], length
        at_end_of_period = length in (0, header, ends[0], *ends[1::2])
        assert (len(said) == 0) == at_end_of_period, (length, said)
        assert all(str(balancing) in text for text in said)


def test_metrics_cut_off_at_any_byte_keep_their_complete_rows(tmp_path):
    rows = [{"epoch": str(e), "step": str(4 * e), "train/loss_epoch": "1.25" if e else ""} for e in range(3)]
    table = Table(tmp_path / "metrics.csv", list(rows[0]))
    table.start(rows)
    whole = table.file.read_bytes()
    for length in range(len(whole) + 1):
        table.file.write_bytes(whole[:length])
        kept, _ = read_quietly(read_metrics, table.file)
        assert kept == rows[: max(whole[:length].count(b"\n") - 1, 0)]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"", 0),
        (b"\x00\xff\xfe\n\n", 0),
        (b"some,other\ncolumns,here\n", 0),
        (b"epoch,step\n1,x\n2,3\n4\n5,6,7\n", 1),
        (b"\n\n\n", 0),
    ],
)
def test_a_table_of_something_else_gives_its_readable_rows(content, rows, tmp_path):
    (tmp_path / "t.csv").write_bytes(content)
    kept, said = read_quietly(lambda file: read_table(file, {"epoch": int, "step": int}), tmp_path / "t.csv")
    assert len(kept) == rows
    assert len(said) == (content != b"")


def test_a_run_that_is_killed_while_it_starts_its_table_loses_no_row(balancing, monkeypatch):
    before = balancing.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    for moment in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, moment, killed)
            with pytest.raises(KeyboardInterrupt):
                Table(balancing, BALANCING).start(balancing_rows(1))
        assert balancing.read_bytes() == before


def test_a_full_disk_is_named_with_the_file_and_earlier_rows_are_kept(balancing, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tables.os, "fsync", full)
    with pytest.raises(OSError, match=f"cannot write {balancing}: No space left on device"):
        Table(balancing, BALANCING).append(balancing_rows(4)[6:])
    assert read_quietly(read_balancing, balancing)[0][:6] == balancing_rows(3)


def test_tables_of_earlier_versions_are_read_as_todays(tmp_path):
    lines = ["epoch,step,train/loss_epoch,train/loss_step,val/ard,val/delta1", "0,0,,,0.5,0.1"]
    lines += ["0,3,,,0.4,0.2", "0,3,2.5,,,", "1,7,,,0.3,0.3", "1,7,1.5,,,", "2,9,,1.25,,"]
    (tmp_path / "metrics.csv").write_text("\r\n".join(lines) + "\r\n")
    rows, _ = read_quietly(read_metrics, tmp_path / "metrics.csv")
    assert [(r["epoch"], r["step"], r["train/loss_epoch"], r["val/abs_rel"]) for r in rows] == [
        ("0", "0", "", "0.5"),
        ("1", "4", "2.5", "0.4"),
        ("2", "8", "1.5", "0.3"),
    ]
    old = [row | {"epoch": "0"} for row in balancing_rows(2)]
    Table(tmp_path / "balancing.csv", BALANCING).start(old)
    assert {r["epoch"] for r in read_balancing(tmp_path / "balancing.csv")} == {"1"}
