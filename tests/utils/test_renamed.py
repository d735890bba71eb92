# SPDX-License-Identifier: Apache-2.0
"""Names of older files and command lines are still read."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from mlr.cli import main, train_command
from mlr.data import DepthData
from mlr.data.depth_files import units_per_metre
from mlr.evaluation import METRICS, PROTOCOLS, Scores, get_protocol
from mlr.training.settings import TrainingSettings
from mlr.utils import renamed

OLD_METRICS = {new: old for old, new in renamed.METRICS.items()}


def test_new_names_are_names():
    assert set(renamed.METRICS.values()) <= set(METRICS)
    assert set(renamed.PROTOCOLS.values()) <= set(PROTOCOLS)


def test_old_protocols_units_and_augmentations():
    assert get_protocol("eccv2020") is get_protocol("paper")
    assert Scores("eccv2020").protocol.name == "paper"
    assert units_per_metre("eccv2020") == units_per_metre("nyu-10m") == 6553.5
    assert TrainingSettings(augment="eccv2020", depth_unit="eccv2020") == TrainingSettings(depth_unit="nyu-10m")
    assert DepthData("rooms", None, (64, 96), 2, augment="eccv2020").augment == "paper"


def rename(file: Path) -> None:
    """Give a run's file the names of an older version."""
    text = file.read_text()
    for new, old in OLD_METRICS.items():
        text = text.replace(f'"{new}"', f'"{old}"').replace(f"val/{new}", f"val/{old}")
    file.write_text(text)


@pytest.fixture
def older_run(tmp_path):
    """A run of one epoch, as an older version left it."""
    run = tmp_path / "run"
    flags = (
        "--backbone test_resnet --decoder-channels 32 --pretrained false --size 64x96 --train-length 4 --val-length 2"
    )
    assert (
        train_command([*flags.split(), "--batch-size", "2", "--epochs", "1", "--workers", "0", "--out", str(run)]) == 0
    )
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["augment"] == "paper"
    (run / "config.yaml").write_text(yaml.safe_dump(settings | {"augment": "eccv2020"}))
    rename(run / "metrics.csv")
    rename(run / "run.json")
    assert "val/ard" in (run / "metrics.csv").read_text()
    assert "rmse_si" in (run / "run.json").read_text()
    return run


def test_an_older_run_is_reported_and_continued(older_run, capsys):
    assert main(["report", str(older_run)]) == 0
    (line,) = [line for line in (older_run / "report.md").read_text().splitlines() if line.startswith("| abs_rel")]
    assert "| - |" not in line
    assert train_command(["--resume", str(older_run), "--augment", "eccv2020", "--epochs", "2"]) == 0
    with (older_run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert not {f"val/{old}" for old in renamed.METRICS} & rows[0].keys()
    assert all(row["val/abs_rel"] for row in rows if row["val/delta1"])
    record = json.loads((older_run / "run.json").read_text())
    assert set(record["before"]) == set(record["after"]) == set(METRICS)
