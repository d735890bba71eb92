# SPDX-License-Identifier: Apache-2.0
"""Every command of the tutorial runs as it stands on the page, on small files and with a small network."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from data_files import write_folder

from mlr.cli import main
from mlr.demo.runtime import LICENCE

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tutorial.md").read_text()

#: Settings of seconds, after those of the page.
SMALL = (
    "--backbone=test_resnet --pretrained=false --decoder-channels=32 --size=32x48 --epochs=1 --batch-size=4 "
    "--workers=0 --device=cpu"
)


def blocks(language: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [body for name, body in fences if name == language]


def test_the_commands_of_the_tutorial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module, reason="needs the extra export")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mlr.demo.command.runtime_files", lambda package: [LICENCE])  # no network
    write_folder(Path("shots"), range(20))
    (settings,) = blocks("yaml")
    assert "`shots.yaml`" in PAGE
    Path("shots.yaml").write_text(settings)

    commands = [line for block in blocks("") for line in block.splitlines()]
    assert len(commands) == 8
    for line in commands:
        program, *arguments = shlex.split(line, comments=True)
        assert program == "mlr"
        if "--config" in arguments:
            arguments += SMALL.split()
        elif "--resume" in arguments:
            arguments += ["--epochs=2"]
        assert main(arguments) == 0, f"{line}\n{capsys.readouterr().err}"

    assert {"best.pt", "report.md", "samples.png"} <= {path.name for path in Path("runs/shots").iterdir()}
    assert len(list(Path("depth/png").iterdir())) == len(list(Path("depth/color").iterdir())) == 20
    assert {"index.html", "model.onnx", "model.json"} <= {path.name for path in Path("page").iterdir()}
    assert Path("shots.onnx").is_file()

    (code,) = blocks("python")
    names: dict[str, Any] = {}
    exec(compile(code, "tutorial.md", "exec"), names)
    assert names["depth_of"]("shots/rgb/000.png").shape == (1, 48, 64)
