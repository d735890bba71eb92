# SPDX-License-Identifier: Apache-2.0
"""bench/command_speed.py: commands are timed where they give what the network gives."""

from __future__ import annotations

import json

import command_speed
import pytest


def test_a_small_run_and_its_file(tmp_path, capsys):
    out = tmp_path / "commands.json"
    code = command_speed.main(["--few", "1", "--many", "3", "--rounds", "1", "--out", str(out)])
    data = json.loads(out.read_text())
    assert [row["name"] for row in data["rows"]] == list(command_speed.COMMANDS)
    busy = [row for row in data["rows"] if row["status"] != "ok"]  # such short runs tell little beside other tests
    assert all("the machine was busy" in row["reason"] for row in busy)
    assert code == bool(busy)
    assert all(row["network_ms"] > 0 for row in data["rows"])
    assert "evaluate" in capsys.readouterr().out
    assert "evaluate" in command_speed.table(data["rows"]).markdown()


def test_other_depth_is_not_timed(monkeypatch):
    run = command_speed.run_network
    monkeypatch.setattr(command_speed, "run_network", lambda *x: [1.01 * d for d in run(*x)])
    rows = command_speed.measure("tf_efficientnet_lite0", 1, 2, 1)
    assert {row["status"] for row in rows} == {"refused"}
    assert "differs from what infer gives" in command_speed.table(rows).markdown()


def test_more_frames_than_in_the_short_runs_are_needed():
    with pytest.raises(SystemExit):
        command_speed.main(["--few", "3", "--many", "3"])


def test_a_command_that_fails_is_not_timed(monkeypatch):
    monkeypatch.setattr(command_speed, "COMMANDS", {"fails": (8, lambda *_: 1)})
    with pytest.raises(RuntimeError, match="ended with 1"):
        command_speed.measure("tf_efficientnet_lite0", 1, 2, 1)
