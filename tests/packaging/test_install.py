# SPDX-License-Identifier: Apache-2.0
"""The sdist and the wheel install and run in environments that have torch and triton alone, without the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler"),
]

CHECK = """
import warnings, importlib.util
from pathlib import Path
import torch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import mlr, mlr.kernels
assert Path(mlr.__file__).is_relative_to({venv!r}), mlr.__file__
assert importlib.util.find_spec("numpy") is None
assert (Path(mlr.__file__).parent / "py.typed").is_file()
assert {path.suffix for path in (Path(mlr.__file__).parent / "report/assets").iterdir()} == {".html", ".css", ".js"}
pred, target = torch.rand(2, 1, 33, 47, requires_grad=True), torch.rand(2, 1, 33, 47)
mlr.MultiLoss(mlr.LossSpace("all"))(pred, target).total.backward()
assert pred.grad.abs().sum() > 0
print(mlr.backend_report().splitlines()[0])
print(*(str(w.message) for w in caught if "C++ engine" in str(w.message)))
"""


def needed(requirement: str, found: dict[str, Requirement]) -> dict[str, Requirement]:
    """Installed distributions that a requirement brings, by name."""
    wanted = Requirement(requirement)
    try:
        requirements = distribution(wanted.name).requires or []
    except PackageNotFoundError:
        return found
    found[wanted.name] = wanted
    for text in requirements:
        other = Requirement(text)
        applies = other.marker is None or any(other.marker.evaluate({"extra": e}) for e in (*wanted.extras, ""))
        if applies and other.name not in found:
            needed(text, found)
    return found


def environment(folder: Path) -> Path:
    """A new environment that has torch, triton and what these need, as links; its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    command = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.check_output(command, text=True).strip())
    for name in needed("triton", needed("torch", {})):
        files = distribution(name)
        for top in {file.parts[0] for file in files.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(files.locate_file(top))).resolve())
    return python


def pip(*arguments: str | Path, python: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    target = ("--python", python) if python else ()
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *target, *arguments]
    variables = {k: v for k, v in os.environ.items() if not k.startswith("MLR_")} | env
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=900)


def check(python: Path, tmp_path: Path) -> list[str]:
    """Backend of CPU tensors and the warning at import, where one was shown."""
    code = CHECK.format(venv=str(python.parents[1]))
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=tmp_path, env=variables, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, made in an isolated environment as ``python -m build`` makes it."""
    out = tmp_path_factory.mktemp("sdist")
    if pip("download", "--no-deps", "--dest", out, "setuptools>=77").returncode:
        pytest.skip("offline: the isolated build needs setuptools from the index")
    command = [sys.executable, "-m", "build", "--sdist", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = out.glob("mlr_depth-*.tar.gz")
    return file


def test_the_wheel_of_the_sdist_runs(sdist: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv")
    # pip would take a wheel that it once built from an sdist of the same path
    built = pip("wheel", "--no-deps", "--no-cache-dir", "--wheel-dir", tmp_path, sdist, python=python)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    installed = pip("install", wheel, python=python)
    assert installed.returncode == 0, installed.stderr
    assert re.match(r"CPU tensors: cpp \(", check(python, tmp_path)[0])
    report = subprocess.run([python.parent / "mlr", "evaluate", "x"], capture_output=True, text=True, cwd=tmp_path)
    assert report.returncode == 1
    assert 'pip install "mlr-depth[train]"' in report.stderr


def test_without_a_compiler_the_import_says_so_and_its_advice_works(sdist: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    installed = pip("install", source, python=python, CXX="no-such-compiler")
    assert installed.returncode == 0, installed.stderr
    report, warning = check(python, tmp_path)[:2]
    assert report.startswith("CPU tensors: reference, because the C++ engine is missing")
    assert "there was no C++ compiler (no-such-compiler) at installation" in warning
    assert pip("install", "--force-reinstall", "--no-deps", source, python=python).returncode == 0
    assert re.match(r"CPU tensors: cpp \(", check(python, tmp_path)[0])
