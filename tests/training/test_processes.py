# SPDX-License-Identifier: Apache-2.0
"""A run of several processes: one that dies ends the others soon, with a line that says which and how to go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "MLR_RUN_FOLDER")} | {
    "OMP_NUM_THREADS": "1"
}

#: Rank 0 with a further rank that only sleeps, which never ends in a collective: the main thread sleeps too.
SLEEPERS = """
import subprocess, sys, time
from types import SimpleNamespace
from mlr.training import processes
from mlr.training.launch import Launch
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
processes._start = lambda *_: [subprocess.Popen(sleep)]
with processes.processes(Launch("mlr", 0, 1, 1), 2, SimpleNamespace(left=lambda: "the words of the run"), []):
    print("ready", flush=True)
    time.sleep(600)
"""

#: Rank 1, which sleeps, below a rank 0 that only starts it.
PARENT = """
import os, subprocess, sys, time
code = '''
import sys, time
from types import SimpleNamespace
from mlr.training import processes
from mlr.training.launch import Launch
with processes.processes(Launch("mlr", 1, 2, 2), 2, SimpleNamespace(left=lambda: "the words of the run"), []):
    print("ready", flush=True)
    time.sleep(600)
'''
subprocess.Popen([sys.executable, "-c", code])
time.sleep(600)
"""


def start(*command: str) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=ENVIRONMENT, **pipes)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(true, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("number", "to", "code", "words"),
    [
        (
            signal.SIGKILL,
            "child",
            1,
            "error: rank 1 died by signal 9 (SIGKILL), as a process does when memory runs out",
        ),
        (signal.SIGTERM, "child", 143, "rank 1 was stopped by SIGTERM, so the others end"),
        (signal.SIGTERM, "parent", 143, "stopped; "),
        (signal.SIGINT, "parent", 130, "stopped; "),
    ],
)
def test_rank_0_names_the_one_that_ended_and_ends_the_others(number, to, code, words):
    run = start("-c", SLEEPERS)
    assert run.stdout.readline() == "ready\n"
    (child,) = children(run.pid)
    os.kill(child if to == "child" else run.pid, number)
    _, error = run.communicate(timeout=60)
    assert run.returncode == code
    assert words in error
    assert "; the words of the run\n" in error
    assert "Traceback" not in error
    wait_until(lambda: gone(child))


def test_a_rank_ends_when_rank_0_dies():
    parent = start("-c", PARENT)
    assert parent.stdout.readline() == "ready\n"
    (child,) = children(parent.pid)
    parent.kill()
    _, error = parent.communicate(timeout=60)  # ends once the child has closed the pipe
    assert "rank 0 died, so rank 1 ends; the words of the run\n" in error
    assert "Traceback" not in error
    wait_until(lambda: gone(child))


@pytest.mark.long
@pytest.mark.parametrize("trial", range(2))
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("rank", [0, 1])
def test_two_ranks_in_training_end_within_a_minute(rank, number, trial, tmp_path):
    run = start(
        "train.py", "--backbone=test_resnet", "--decoder-channels=32", "--pretrained=false", "--size=32x48",
        "--train-length=400", "--val-length=2", "--workers=0", "--batch-size=2", "--epochs=50", "--device=cpu",
        "--devices=2", f"--out={tmp_path / 'run'}",
    )  # fmt: skip
    wait_until((tmp_path / "run" / "balancing.csv").exists, 240)
    time.sleep(1 + trial / 3)
    (child,) = children(run.pid)
    os.kill(child if rank else run.pid, number)
    _, error = run.communicate(timeout=60)
    wait_until(lambda: gone(child), 1)
    assert "Traceback" not in error
    if number == signal.SIGTERM:
        assert run.returncode == 143
        assert ("rank 1 was stopped by SIGTERM" if rank else "stopped; ") in error
    else:
        assert run.returncode == (1 if rank else -9)
        assert f"rank {rank} died" in error
    assert str(tmp_path / "run") in error
