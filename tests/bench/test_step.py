# SPDX-License-Identifier: Apache-2.0
"""Training steps, memory, instructions, and the comparison of two commits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import compare
import instructions
import machine
import memory
import pytest
import step
import tables
from benchmarking import BROKEN, ROOT, TINY, changed
from implementations import IMPLEMENTATIONS, Case


def test_training_steps_name_what_each_loss_adds() -> None:
    case = Case(batch=1, height=64, width=64)
    row = step.measure("resnet18", case, rounds=1, decoder_channels=32)
    variants = row["variants"]
    assert {"D/0", "coarse", "all", "all, plain PyTorch"} == set(variants)
    for name in ("D/0", "all, plain PyTorch"):
        assert 0 < variants[name]["loss"]["median_ms"] < variants[name]["step"]["median_ms"]
    assert variants["D/0"]["added_percent"] == 0
    assert "loss adds to the step" in tables.step_table(row).markdown()


def test_a_refused_loss_takes_no_training_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(changed("reference", BROKEN["gradient 2 % off"]), name="module")
    monkeypatch.setitem(IMPLEMENTATIONS, "module", wrong)
    row = step.measure("resnet18", Case(batch=1, height=64, width=64), rounds=1, decoder_channels=32)
    assert set(row["variants"]["all"]) == {"reason"}
    assert "refused" in tables.step_table(row).markdown()


def test_without_valgrind_instructions_are_not_counted_but_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert instructions.count() == {"reason": "valgrind is not installed"}


@pytest.mark.long
@pytest.mark.skipif(bool(instructions.why_not()), reason="needs valgrind and the C++ engine")
def test_instruction_counts_repeat() -> None:
    cases = (Case(batch=1, height=24, width=32, losses="D/0"), Case(batch=1, height=24, width=32))
    first, second = instructions.count(cases), instructions.count(cases)
    for a, b in zip(first["rows"], second["rows"], strict=True):
        assert a["instructions"] == pytest.approx(b["instructions"], rel=0.01)
    assert first["rows"][0]["instructions"] < first["rows"][1]["instructions"]


@pytest.mark.skipif(not memory.CLEAR.exists(), reason="needs Linux's /proc")
def test_peak_memory_counts_the_maps_a_plain_loss_keeps() -> None:
    row = memory.peak_memory("l1", Case(batch=4, height=512, width=512))
    one_map = 4 * 512 * 512 * 4 / 2**20
    assert one_map < row["memory_mb"] < 6 * one_map  # pred - target and its absolute value, at least one at a time


def test_comparison_calls_noise_noise() -> None:
    def side(low: float, middle: float, high: float) -> dict[str, Any]:
        return {"min_ms": low, "p20_ms": low, "median_ms": middle, "p80_ms": high}

    assert compare.verdict(side(10, 11, 12), side(7, 8, 9)) == "faster"
    assert compare.verdict(side(7, 8, 9), side(10, 11, 12)) == "slower"
    assert compare.verdict(side(7, 8, 11), side(7, 9, 12)) == "same within noise"


def test_comparison_with_an_unknown_commit_is_an_error(capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        compare.main(["--base", "no-such-commit"])
    assert stop.value.code == 2
    assert "no commit of this repository" in capsys.readouterr().err


@pytest.mark.skipif(machine.cpp_instruction_set() is None, reason="the C++ engine is not built here")
def test_two_sides_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = [compare.Side(name, ROOT) for name in ("a", "b")]
    results = compare.alternate(sides, TINY, "cpp", seconds=0.1)
    for side, result in zip(sides, results, strict=True):
        assert result["samples"] >= 5
        assert result["min_ms"] > 0
        side.close()
        assert side.process.returncode == 0
