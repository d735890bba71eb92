# SPDX-License-Identifier: Apache-2.0
"""What tests of mlr evaluate share: predictions in files, and the command's answers."""

from __future__ import annotations

import json
from pathlib import Path

import data_files as files
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mlr.cli import main


def write_shots(root: Path) -> Path:
    """Three frames to validate on, whose depth is an exact number of millimetres."""
    files.write_folder(root / "train", range(1))
    files.write_folder(root / "val", range(6, 9))
    return root


def depth(number: int, factor: float = 1.0) -> np.ndarray:
    return factor * files.integers(files.frame(number)[1], 1000) / np.float32(1000)


def write_npy(folder: Path, factor: float = 1.25, names: tuple[str, ...] = ("006", "007", "008")) -> Path:
    for number, name in enumerate(names, 6):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{name}.npy", depth(number, factor))
    return folder


def write_png(path: Path, metres: np.ndarray, steps: float = 1000, unit: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = PngInfo()
    if unit:
        text.add_text("depth_unit", unit)
    Image.fromarray(files.integers(metres, steps)).save(path, pnginfo=text)


def run(capsys, *arguments, code: int = 0) -> dict:
    """What a command prints as JSON."""
    assert main(["evaluate", *map(str, arguments), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def means(record: dict, protocol: str = "full") -> dict[str, float]:
    return {name: value["mean"] for name, value in record["protocols"][protocol]["metrics"].items()}


def refusal(capsys, *arguments) -> str:
    """The line in which a command explains its error."""
    assert main(["evaluate", *map(str, arguments)]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    return output.err


def on(root: Path, data: str = "folder", *more) -> list:
    unit = ["--data-options", "unit=mm"] if data == "folder" else []
    return ["--data", data, "--root", root, *unit, *more]
