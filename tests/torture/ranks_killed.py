# SPDX-License-Identifier: Apache-2.0
"""Runs of two processes of which one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from torture.runs import TINY
from torture.trials import Campaign, Counts, Trial, check

ROOT = Path(__file__).parents[2]
#: Seconds that the others have to end.
PATIENCE = 60


def running(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def start(*words: object) -> subprocess.Popen:
    """A training run of two ranks."""
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "MLR_RUN_FOLDER")}
    return subprocess.Popen(
        [sys.executable, "train.py", *map(str, words)], cwd=ROOT, env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def other(run: subprocess.Popen) -> int | None:
    """The process of rank 1."""
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    return int(children[0]) if children else None


def trial(given: Trial) -> Counts:
    """End a rank at a random moment of training, then continue the run."""
    out, random = given.folder / "run", given.random
    flags = [*TINY, "--train-length=400", "--losses=depth", "--epochs=50", "--devices=2", f"--out={out}"]
    run = start(*flags)
    while not (out / "balancing.csv").exists():
        if run.poll() is not None:
            raise AssertionError(f"the run ended early: {run.communicate()[1]}")
        time.sleep(0.1)
    time.sleep(random.uniform(0, 10))
    rank, number = int(random.integers(2)), random.choice([signal.SIGKILL, signal.SIGTERM])
    child = other(run)
    check(child is not None, "rank 1 is not there")
    end = time.monotonic()
    os.kill(child if rank else run.pid, number)
    try:
        _, said = run.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"the ranks run on after signal {number} to rank {rank}") from error
    while running(child):
        check(time.monotonic() - end < PATIENCE, f"rank 1 runs on after signal {number} to rank {rank}")
        time.sleep(0.1)
    what = f"signal {number} to rank {rank}: exit code {run.returncode}, {said}"
    if number == signal.SIGTERM:
        check(run.returncode == 128 + signal.SIGTERM, what)
        check(("rank 1 was stopped by SIGTERM" if rank else "stopped; ") in said, what)
    else:
        check(run.returncode == (1 if rank else -signal.SIGKILL), what)
        check(f"rank {rank} died" in said, what)
    check("Traceback" not in said and f"--resume {out}" in said, what)
    return {"SIGTERM" if number == signal.SIGTERM else "SIGKILL": 1}


CAMPAIGN = Campaign(
    "ranks",
    "One of two processes of a training run is ended by SIGKILL or SIGTERM. The other ends within a minute, says which "
    "died and how to go on.",
    trial,
    share=2,
    missing=lambda: "" if Path("/proc/self/task").exists() else "it needs Linux",
    seconds=300,
)
