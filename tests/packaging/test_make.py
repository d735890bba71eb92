# SPDX-License-Identifier: Apache-2.0
"""What the targets of the Makefile would run, and what they say."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(*arguments: str) -> str:
    done = subprocess.run(["make", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torch_chooses_the_index_of_a_build() -> None:
    plain, cpu = make("-nB", ".venv/.ready"), make("-nB", ".venv/.ready", "TORCH=cpu")
    assert "--index-url" not in plain
    (line,) = [line for line in cpu.splitlines() if "--index-url" in line]
    assert re.search(r'--index-url \S+/whl/cpu "torch>=[\d.]+" "torchvision>=[\d.]+"$', line)


def test_setup_says_what_it_fetches_and_how_to_call_mlr() -> None:
    said = make("-nB", ".venv/.ready")
    assert re.findall(r"\[(\d)/3\]", said) == ["1", "2", "3"]
    assert "GB" in said
    assert "source .venv/bin/activate" in make("-n", "setup")


def test_the_demo_writes_where_the_help_says() -> None:
    (line,) = [line for line in make("help").splitlines() if line.split()[:2] == ["make", "demo"]]
    assert "runs/demo-DATE" in line
    assert "--out runs/demo-$(date " in make("-nB", "demo")


def test_every_target_has_a_line_of_help() -> None:
    phony = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    listed = re.findall(r"^  make (\S+)", make("help"), re.MULTILINE)
    assert sorted(listed) == sorted(phony[1].replace("\\\n", " ").split())
