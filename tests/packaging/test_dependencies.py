# SPDX-License-Identifier: Apache-2.0
"""The losses need torch and triton alone; everything that is imported is declared."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"mlr", "bench", "docs", "tools", "ptx", "mlr_build"}


def distribution(requirement: str) -> str:
    """Normalised name of what a requirement or a name of a distribution stands for."""
    match = re.match(r"[\w.-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def declared(*extras: str) -> set[str]:
    """Distributions that the package brings with some of its extras."""
    requirements = list(PROJECT["dependencies"])
    for extra in extras:
        requirements += PROJECT["optional-dependencies"][extra]
    return {distribution(requirement) for requirement in requirements}


def imported(*folders: str) -> set[str]:
    """Top-level modules that some folders import anywhere, other than Python's and this project's."""
    names: set[str] = set()
    own = set(OWN)
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        own |= {path.stem, path.parent.name}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - own - set(sys.stdlib_module_names)


@cache
def installed() -> dict[str, set[str]]:
    """Top-level modules that are installed, with the distributions that have them."""
    modules: dict[str, set[str]] = {}
    for found in distributions():  # packages_distributions() of Python 3.10 sees only those with a top_level.txt
        for top in {line.split("/")[0].split(",")[0] for line in (found.read_text("RECORD") or "").splitlines()}:
            modules.setdefault(top.partition(".")[0], set()).add(distribution(found.metadata["Name"]))
    return modules


def undeclared(modules: set[str], available: set[str]) -> list[str]:
    known = installed()
    return sorted(m for m in modules if not known.get(m, {distribution(m)}) & available)


def test_the_package_declares_what_it_imports() -> None:
    assert undeclared(imported("mlr", "kernels"), declared("train", "parquet", "video", "export")) == []


def test_tests_and_tools_declare_what_they_import() -> None:
    python_310 = {"tomli", "tomllib"}  # pytest brings the first where Python has no second
    extras = ("train", "parquet", "video", "export", "docs", "dev")
    assert (
        undeclared(imported("tests", "bench", "docs", "tools"), declared(*extras) | python_310 | {"setuptools"}) == []
    )


def test_losses_and_balancers_declare_torch_and_triton_alone() -> None:
    assert declared() == {"torch", "triton"}
    assert undeclared(imported("mlr/losses", "mlr/balancing", "kernels"), declared()) == []


WITHOUT_EXTRAS = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""

LOSSES = """
import torch, mlr, mlr.kernels
from mlr.balancing import BALANCERS, make_balancer
space = mlr.LossSpace("all")
pred, target = torch.rand(2, 1, 17, 23, requires_grad=True), torch.rand(2, 1, 17, 23) + 1
for name in BALANCERS:
    balancer = make_balancer(name, space.names, period=1)
    for _ in range(3):
        out = mlr.MultiLoss(space)(pred, target, weights=balancer.weights)
        out.total.backward()
        balancer.observe(out[1])
        balancer.step()
    assert torch.isfinite(pred.grad).all(), name
with mlr.backend("reference"):
    print(len(BALANCERS), mlr.MultiLoss(space)(pred, target, mask=mlr.known_depth(target)).total.item() > 0)
"""

COMMANDS = """
import mlr.cli, train
for argv in (["--help"], ["train"], ["evaluate", "run"], ["prepare", "folder"], ["report", "run"], ["predict", "a"]):
    assert mlr.cli.main(argv) == 1
assert train.train_command([]) == 1
import mlr
try:
    mlr.DepthModel
except ImportError as error:
    print(error)
"""


def run_without_extras(code: str) -> subprocess.CompletedProcess[str]:
    extras = declared("train", "parquet", "video", "export") - declared()
    missing = {module for module, names in installed().items() if names & extras}
    assert {"numpy", "PIL", "timm", "rich"} <= missing
    code = WITHOUT_EXTRAS.format(missing=missing) + code
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)


def test_losses_and_balancers_work_without_the_extras() -> None:
    pytest.importorskip("triton")
    done = run_without_extras(LOSSES)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "True"


def test_commands_without_the_extras_say_in_a_line_what_to_install() -> None:
    done = run_without_extras(COMMANDS)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 7
    advice = re.compile(r'error: this command needs \w+: pip install "mlr-depth\[train\]"')
    assert [line for line in lines if not advice.match(line)] == []
    assert re.match(r'mlr.DepthModel needs \w+: pip install "mlr-depth\[train\]"', done.stdout)
