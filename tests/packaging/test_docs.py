# SPDX-License-Identifier: Apache-2.0
"""The code of the README runs, and the commands of the README and the docs are commands of this version."""

from __future__ import annotations

import ast
import re
import shlex
import sys
import types
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mlr.cli.commands import COMMANDS, training_parser
from mlr.cli.parser import Parser, function_parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


def test_the_loop_of_the_readme_trains() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.Softplus())
    start = [p.clone() for p in network.parameters()]
    depth = torch.rand(4, 1, 40, 56) + 1
    depth[:, :, :9] = 0  # not measured
    names: dict[str, Any] = {
        "loader": [(torch.rand(4, 3, 40, 56), depth)] * 8,
        "network": network,
        "optimizer": torch.optim.SGD(network.parameters(), 0.01),
        "steps_per_epoch": 8,
    }
    (code,) = blocks(ROOT / "README.md", "python")
    exec(compile(code, "README.md", "exec"), names)
    assert all((p != q).any() for p, q in zip(network.parameters(), start, strict=True))
    assert names["out"].terms.shape == (4, 78)
    weights = names["balancer"].weights
    assert torch.isfinite(weights).all()
    assert (weights > 0).all()
    assert len(set(weights.tolist())) > 1


IMPORTS = [
    pytest.param(node, id=f"{path.name}: {ast.unparse(node)}")
    for path in PAGES
    for block in blocks(path, "python")
    for node in ast.walk(ast.parse(block))
    if isinstance(node, (ast.Import, ast.ImportFrom))
]


@pytest.mark.parametrize("node", IMPORTS)
def test_imports_of_the_docs_are_there(node: ast.Import | ast.ImportFrom) -> None:
    for alias in node.names:
        if isinstance(node, ast.Import):
            import_module(alias.name)
        else:
            assert node.module
            module: types.ModuleType = import_module(node.module)
            assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


def commands() -> list[str]:
    """Lines of the docs that call a command, without placeholders; test_tutorial.py runs those of the tutorial."""
    pages = [path for path in PAGES if path.name != "tutorial.md"]
    lines = (line for path in pages for block in blocks(path, "") for line in block.splitlines())
    return [
        line for line in lines if re.match(r"(mlr|python train\.py) ", line) and not re.search(r"\b[A-Z]{4,}\b", line)
    ]


def parser(words: list[str]) -> tuple[Parser, list[str]]:
    """The parser of a command line and the words that it takes."""
    if words[0] == "python" or words[1] == "train":
        return training_parser(), words[2:]
    command = COMMANDS[words[1]]
    module, _, name = command.function.partition(":")
    return function_parser(getattr(import_module(module), name), words[1], command.positional), words[2:]


@pytest.mark.parametrize("line", commands())
def test_commands_of_the_docs_are_understood(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(line.replace("...", ""), comments=True)
    takes, arguments = parser(words)
    if "--help" in arguments:
        with pytest.raises(SystemExit):
            takes.parse_args(arguments)
        return
    try:
        takes.parse_args(arguments)
    except SystemExit:
        pytest.fail(capsys.readouterr().err)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []


@pytest.mark.skipif(sys.platform != "linux", reason="the Makefile is for Linux")
def test_targets_that_the_docs_name_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for path in PAGES:
        named = set(re.findall(r"(?:^|`)make ([a-z][a-z-]+)", path.read_text(), re.MULTILINE))
        assert named <= targets, path.name
