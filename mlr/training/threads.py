# SPDX-License-Identifier: Apache-2.0
"""The trainer's threads on the CPU: how many there are, and how they wait for one another.

GNU OpenMP, which PyTorch uses on Linux, lets a thread that waits for its team spin for about a millisecond before it
sleeps. On an idle machine this is right: waking a thread takes longer than most waits. On a busy machine threads spin
for others that have no CPU, and use up the time that these would need: a step takes ten times as long or more. The
runtime knows this case and hardly spins where it has more threads than there are CPUs. :func:`yielding_when_busy` makes
use of it. It looks at how long the threads of this process wait for a CPU, and while that is long it holds a second,
sleeping team of threads. Results do not depend on it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from mlr.utils.cpus import available_cpus

#: Variables by which a user decides on the number of threads or on how they wait.
COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
POLICIES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "GOMP_CPU_AFFINITY", "OMP_PROC_BIND")

#: Seconds between two looks.
INTERVAL = 0.5
#: Shares of the time that threads wait for a CPU, above which the machine counts as busy, and below which as idle.
BUSY, IDLE = 0.1, 0.03
#: Elements of a tensor for each thread that make an operation use them all.
GRAIN = 1 << 16


def choose_threads(asked: int, processes: int = 1) -> None:
    """Set PyTorch's number of threads.

    Args:
        asked: the number; 0 takes this process's share of the CPUs it may use, and never more than PyTorch's own choice
            (or what a variable of :data:`COUNTS` says).
        processes: processes of this run on this machine.
    """
    if asked:
        torch.set_num_threads(asked)
    elif not any(name in os.environ for name in COUNTS):
        share = max(1, available_cpus() // processes)
        if share < torch.get_num_threads():
            torch.set_num_threads(share)


@contextmanager
def yielding_when_busy() -> Iterator[None]:
    """Let threads that wait for their team sleep while the machine is busy, and spin while it is idle.

    Nothing happens with one thread, where a variable of :data:`POLICIES` is set, or without GNU OpenMP.
    """
    if torch.get_num_threads() == 1 or any(name in os.environ for name in POLICIES) or not _has_gnu_openmp():
        yield
        return
    watch = _Watch()
    watch.start()
    try:
        yield
    finally:
        watch.stop()


def waited_and_ran() -> tuple[int, int]:
    """Nanoseconds that the threads of this process have waited for a CPU, and have had one; zeros where unknown."""
    waited = ran = 0
    for task in Path("/proc/self/task").glob("*/schedstat"):
        try:
            on_cpu, in_queue, _ = task.read_text().split()
        except (OSError, ValueError):  # a thread that has just ended
            continue
        waited, ran = waited + int(in_queue), ran + int(on_cpu)
    return waited, ran


def _has_gnu_openmp() -> bool:
    try:
        return "libgomp" in Path("/proc/self/maps").read_text()
    except OSError:
        return False


class _Watch:
    """A thread that holds sleeping teams while the machine is busy."""

    def __init__(self) -> None:
        self.teams: list[_SleepingTeam] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="busy-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self.turn(busy=False)

    def turn(self, busy: bool) -> None:
        """Hold as many teams as it takes to have more threads than CPUs, or none."""
        while not busy and self.teams:
            self.teams.pop().end()
        threads = torch.get_num_threads()
        while busy and threads + len(self.teams) * (threads - 1) <= len(os.sched_getaffinity(0)):
            self.teams.append(_SleepingTeam())

    def _watch(self) -> None:
        before = waited_and_ran()
        while not self._stop.wait(INTERVAL):
            now = waited_and_ran()
            waited, ran = (later - earlier for later, earlier in zip(now, before, strict=True))
            before = now
            share = waited / max(waited + ran, 1)
            if share > BUSY or share < IDLE:
                self.turn(share > BUSY)


class _SleepingTeam:
    """A team of OpenMP threads that belongs to a thread of its own, which sleeps."""

    def __init__(self) -> None:
        self._ready, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, name="sleeping-team", daemon=True)
        self._thread.start()
        self._ready.wait()

    def end(self) -> None:
        """Let the team go."""
        self._over.set()
        self._thread.join()

    def _hold(self) -> None:
        torch.zeros(GRAIN * torch.get_num_threads()).add_(1)  # makes the team
        self._ready.set()
        self._over.wait()
