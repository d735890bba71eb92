# SPDX-License-Identifier: Apache-2.0
"""Installation with and without the C++ engine, and the choice of the instruction set."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
built = pytest.mark.skipif(importlib.util.find_spec("mlr._C") is None, reason="the C++ engine is not built")


def python(code: str, path: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **env} | ({"PYTHONPATH": str(path)} if path else {})
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=variables, cwd=path or ROOT, timeout=300
    )


@built
@pytest.mark.parametrize("variable", ["MLR_INSTRUCTION_SET", "MLR_CPU_CAPABILITY"])
def test_environment_forces_an_instruction_set(variable):
    done = python("import mlr; print(mlr.backend_report())", **{variable: "default"})
    assert "CPU tensors: cpp (default)" in done.stdout, done.stderr


@built
@pytest.mark.parametrize("name", ["sse9", "AVX2"])
def test_unknown_instruction_set_is_an_error(name):
    done = python("from mlr import _C; _C.instruction_set()", MLR_INSTRUCTION_SET=name)
    assert done.returncode != 0
    assert "not one of default, avx2, avx512" in done.stderr
    assert "here it can be: default" in done.stderr


@built
def test_missing_instruction_set_is_an_error():
    from mlr import _C

    missing = {"default", "avx2", "avx512"} - set(_C.instruction_sets())
    if not missing:
        pytest.skip("this CPU has them all")
    with pytest.raises(RuntimeError, match="which this CPU lacks"):
        _C.set_instruction_set(missing.pop())


@built
def test_build_information():
    from mlr import _C

    info = _C.build_info()
    assert info["compiler"].split()[0] in ("gcc", "clang")
    assert info["torch"]


def build(where: Path, **env: str) -> str:
    """Build the package into a folder as pip does; what the build said."""
    command = [
        sys.executable,
        "setup.py",
        "build",
        "--build-base",
        str(where / "base"),
        "--build-lib",
        str(where / "lib"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


CHECK = """
import sys, warnings, pathlib, torch
# an editable installation of this very package would supply the module that is missing here
sys.meta_path = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import mlr
assert pathlib.Path(mlr.__file__).is_relative_to({where!r}), mlr.__file__
print(mlr.backend_report())
print([str(w.message) for w in caught if "C++ engine" in str(w.message)])
pred, target = torch.rand(2, 1, 9, 11), torch.rand(2, 1, 9, 11)
print(mlr.MultiLoss(mlr.LossSpace("all"))(pred, target).total.item())
"""


@pytest.mark.parametrize(
    "env", [{"CXX": "no-such-compiler"}, {"MLR_BUILD_CPP": "0"}], ids=["no compiler", "not wanted"]
)
def test_installation_without_the_engine_says_so_and_works(tmp_path, env):
    said = build(tmp_path, **env)
    (line,) = [line for line in said.splitlines() if "mlr: installing WITHOUT the C++ engine" in line]
    assert next(iter(env.values())) in line or next(iter(env)) in line
    where = tmp_path / "lib"
    assert not list(where.glob("mlr/_C*"))
    done = python(CHECK.format(where=str(where)), path=where)
    assert done.returncode == 0, done.stderr
    report, *_, warning, total = done.stdout.splitlines()
    assert report.startswith("CPU tensors: reference, because the C++ engine is missing")
    assert "it was not built" in warning
    assert float(total) > 0


def test_an_engine_that_is_asked_for_and_cannot_be_built_is_an_error():
    variables = {**os.environ, "CXX": "no-such-compiler", "MLR_BUILD_CPP": "1"}
    command = [sys.executable, "setup.py", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=ROOT, timeout=300)
    assert done.returncode != 0
    assert "no C++ compiler (no-such-compiler)" in done.stderr


@pytest.mark.long
def test_installation_with_the_engine(tmp_path):
    build(tmp_path, MLR_BUILD_CPP="1")
    where = tmp_path / "lib"
    assert list(where.glob("mlr/_C*"))
    done = python(CHECK.format(where=str(where)), path=where)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("CPU tensors: cpp (")
