# SPDX-License-Identifier: Apache-2.0
"""The trainer's threads: their number, and teams that are held only while the machine is busy."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from mlr.training import threads


@pytest.fixture(autouse=True)
def untouched(monkeypatch):
    for name in (*threads.COUNTS, *threads.POLICIES):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("asked", "processes", "cpus", "own", "expected"),
    [
        (3, 1, 2, 2, 3),  # what was asked for
        (0, 1, 2, 4, 2),  # a quota
        (0, 1, 8, 4, 4),  # PyTorch leaves hyperthreads out
        (0, 2, 4, 4, 2),  # two processes share
        (0, 8, 4, 4, 1),
    ],
)
def test_the_number_of_threads(asked, processes, cpus, own, expected, monkeypatch):
    monkeypatch.setattr(threads, "available_cpus", lambda: cpus)
    torch.set_num_threads(own)
    threads.choose_threads(asked, processes)
    assert torch.get_num_threads() == expected


def test_a_variable_of_the_user_stands(monkeypatch):
    monkeypatch.setattr(threads, "available_cpus", lambda: 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    torch.set_num_threads(2)
    threads.choose_threads(0)
    assert torch.get_num_threads() == 2


def teams() -> int:
    return sum(thread.name == "sleeping-team" for thread in threading.enumerate())


def until(true) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.skipif(not threads._has_gnu_openmp(), reason="PyTorch runs without GNU OpenMP")
def test_teams_are_held_while_threads_wait_for_a_cpu(monkeypatch):
    clock = {"waited": 0, "ran": 0}
    load = {"waited": 0, "ran": 100}

    def counters() -> tuple[int, int]:
        for name in clock:
            clock[name] += load[name]
        return clock["waited"], clock["ran"]

    monkeypatch.setattr(threads, "waited_and_ran", counters)
    monkeypatch.setattr(threads, "INTERVAL", 0.01)
    torch.set_num_threads(2)
    x = torch.rand(1 << 20)
    alone = x.exp()
    with threads.yielding_when_busy():
        time.sleep(0.1)
        assert teams() == 0
        load["waited"] = 50
        until(lambda: teams() > 0)
        assert torch.equal(x.exp(), alone)
        load["waited"] = 5  # between the bounds nothing changes
        time.sleep(0.1)
        assert teams() > 0
        load["waited"] = 0
        until(lambda: teams() == 0)
        load["waited"] = 50
        until(lambda: teams() > 0)
    assert teams() == 0


@pytest.mark.parametrize("variable", [*threads.POLICIES, None])
def test_nothing_is_watched_where_the_user_decides_or_one_thread_runs(variable, monkeypatch):
    torch.set_num_threads(2 if variable else 1)
    if variable:
        monkeypatch.setenv(variable, "1")
    with threads.yielding_when_busy():
        assert not any(thread.name == "busy-watch" for thread in threading.enumerate())


@pytest.mark.skipif(not threads._has_gnu_openmp(), reason="PyTorch runs without GNU OpenMP")
def test_the_kernel_s_counters_only_rise():
    before = threads.waited_and_ran()
    sum(range(10**6))
    after = threads.waited_and_ran()
    assert after[0] >= before[0]
    assert after[1] > before[1] or before == (0, 0)
