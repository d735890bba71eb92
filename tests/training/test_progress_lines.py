# SPDX-License-Identifier: Apache-2.0
"""A training whose output is no terminal tells its progress by lines."""

from __future__ import annotations

import re

from mlr.cli import train_command
from mlr.training.callbacks import ProgressLines
from mlr.training.settings import TrainingSettings

TINY = TrainingSettings(
    backbone="test_resnet", decoder_channels=32, pretrained="false", size="32x48", train_length=6, val_length=2,
    workers=0, batch_size=2, epochs=2, device="cpu", losses="depth",
)  # fmt: skip


def test_batches_are_counted_over_the_whole_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ProgressLines, "FIRST", 0.0)
    assert train_command([*TINY.flags(), f"--out={tmp_path / 'run'}"]) == 0
    told = re.findall(r"training, batch: (\d+) of (\d+), about \d+ s left", capsys.readouterr().out)
    assert [(int(done), int(total)) for done, total in told] == [(k, 6) for k in range(1, 7)]


def test_a_continued_run_counts_on(tmp_path, capsys, monkeypatch):
    assert train_command([*TINY.flags(), f"--out={tmp_path / 'run'}"]) == 0
    assert "training, batch" not in capsys.readouterr().out
    monkeypatch.setattr(ProgressLines, "FIRST", 0.0)
    assert train_command(["--resume", str(tmp_path / "run"), "--epochs", "3"]) == 0
    assert re.findall(r"batch: (\d+) of 9", capsys.readouterr().out) == ["7", "8", "9"]
