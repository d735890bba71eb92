# SPDX-License-Identifier: Apache-2.0
"""Paths with rich's markup and Markdown's signs in them go through a run, its report and its errors."""

from __future__ import annotations

import pytest

from mlr.cli import main, train_command
from mlr.training.settings import TrainingSettings

TINY = TrainingSettings(
    backbone="test_resnet", decoder_channels=32, pretrained="false", size="32x48", train_length=2, val_length=1,
    workers=0, batch_size=1, epochs=1, device="cpu", losses="depth",
)  # fmt: skip


@pytest.mark.parametrize("name", ["x[/b]", "[bold]x*y*_z_ `|#"])
def test_a_run_whose_folder_has_markup_in_its_name(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    run = tmp_path / name
    assert train_command([*TINY.flags(), f"--out={run}"]) == 0
    assert f"run       {run}\n" in capsys.readouterr().out
    assert main(["report", str(run)]) == 0
    out, err = capsys.readouterr()
    assert run.name in out
    assert f"the page is {run}/report.md" in err
    assert train_command(["--resume", str(run)]) == 1
    assert f"--resume {run}: this run has finished" in capsys.readouterr().err
    assert main(["evaluate", str(run / "none[/b]"), "--data", "rooms"]) == 1
    assert "none[/b]" in capsys.readouterr().err
