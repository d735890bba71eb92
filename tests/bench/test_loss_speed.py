# SPDX-License-Identifier: Apache-2.0
"""The command of the benchmark: its arguments, its sweeps, its result file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import loss_speed
import machine
import pytest
import store
import sweeps
import tables
import torch
from benchmarking import ARGUMENTS, BROKEN, changed
from implementations import IMPLEMENTATIONS, Case


def test_the_command_writes_a_result_file(measured: Path) -> None:
    data = store.read(measured)
    assert {case["sweep"] for case in data["cases"]} == {"main", "losses", "threads", "terms", "dtype", "mask"}
    assert [case["count"] for case in tables.pick(data, "losses")] == [1, 4, 13, 39, 39, 78]
    assert data["meta"]["command"].startswith("bench/loss_speed.py --device cpu")
    assert data["meta"]["torch"] == torch.__version__


def test_sweeps_reach_all_cores_and_maps_that_no_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "last_level_cache", lambda: 64 * 2**20)
    base = Case(threads=6)
    assert [c.threads for c in sweeps.sweep_cases("threads", base, quick=False)][:4] == [1, 2, 4, 6]
    sizes = list(sweeps.sweep_cases("size", base, quick=False))
    assert sizes[-1].bytes >= 128 * 2**20
    assert sizes[-2].bytes < 64 * 2**20
    (cold,) = sweeps.sweep_cases("cold", base, quick=False)
    assert (cold.sets - 1) * cold.bytes >= 128 * 2**20


def test_a_refused_backend_makes_the_command_fail(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(machine, "copy_bandwidth", lambda device: 10.0)
    wrong = replace(changed("reference", BROKEN["gradient 2 % off"]), name="cpp", slow=False)
    monkeypatch.setitem(IMPLEMENTATIONS, "cpp", wrong)
    assert loss_speed.main([*ARGUMENTS, "--only", "l1,cpp", "--sweep", "none"]) == 1
    assert "cpp is REFUSED: the gradient is off" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--only", "nobody"], "unknown implementation nobody; there are copy, l1"),
        (["--sweep", "colour"], "unknown sweep colour; there are size"),
        (["--size", "big"], "a size is HEIGHTxWIDTH such as 288x384, got 'big'"),
        (["--losses", "d/0"], "unknown loss 'd/0'"),
        (["--batch", "0"], "must be at least 1"),
        (["--out", "nowhere/x.json"], "there is no folder nowhere"),
        (["--out", "."], "is a folder"),
        (["--step", "resnet5"], "did you mean"),
        (["--step-rounds", "0"], "at least 1"),
        (["--seconds", "-1"], "must be positive"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_measured(wrong: list[str], message: str, capsys: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        loss_speed.arguments(wrong)
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_asking_for_a_gpu_that_is_not_there_is_an_error(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        loss_speed.arguments(["--device", "cuda"])
    assert "PyTorch sees no GPU here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d.pop("cases"), "'cases' must be there"),
        (lambda d: d["meta"].pop("commit"), "commit missing"),
        (lambda d: d["cases"][0].pop("height"), "case 0: height missing"),
        (lambda d: d["cases"][0]["results"]["l1"].pop("p80_ms"), "l1: p80_ms missing"),
        (lambda d: d["cases"][0]["results"]["l1"].update(status="refused", reason="wrong"), "no time"),
        (lambda d: d.update(schema=99), "layout 99"),
    ],
)
def test_a_damaged_result_file_is_refused(measured: Path, damage: Any, message: str) -> None:
    data = json.loads(measured.read_text())
    damage(data)
    with pytest.raises(ValueError, match=message):
        store.check(data)
