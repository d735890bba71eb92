# SPDX-License-Identifier: Apache-2.0
"""Campaigns of trials: each is made by its seed and number alone, and runs in a process of its own.

A trial that fails leaves a line that repeats it. It fails if it raises, dies, waits, or takes too much memory.
"""

from __future__ import annotations

import os
import pickle
import resource
import select
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

#: What a trial says of itself: how many things of a kind it did.
Counts = dict[str, int]


class Trial(NamedTuple):
    """What a trial is given.

    Attributes:
        number: its number in the campaign.
        random: its random numbers, which follow from seed and number.
        folder: an empty folder of its own.
        shared: the folder that was prepared for all trials, which none may change.
    """

    number: int
    random: np.random.Generator
    folder: Path
    shared: Path


class Campaign(NamedTuple):
    """Trials of one kind.

    Attributes:
        name: of the campaign.
        summary: what is done, and what must hold.
        trial: gives counts; an exception is a failure.
        share: of the time of all campaigns.
        prepare: is called once before the first trial, with the folder that all share.
        missing: why the campaign cannot run on this machine; "" if it can.
        seconds: how long a trial may take.
    """

    name: str
    summary: str
    trial: Callable[[Trial], Counts]
    share: float
    prepare: Callable[[Path], Any] = lambda folder: None
    missing: Callable[[], str] = lambda: ""
    seconds: float = 120.0


@dataclass
class Outcome:
    """What came of a campaign.

    Attributes:
        trials: how many trials ran.
        seconds: how long they took.
        counts: what they did.
        failures: number of a trial and the last line of what went wrong.
        skipped: why nothing was tried; "" if it was.
        memory: most memory that a trial took beyond what was loaded before, MiB.
    """

    trials: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)
    skipped: str = ""
    memory: int = 0


#: Seconds that a trial has to say where it waits, before it is killed.
GRACE = 5
#: A trial may not take more memory than this beyond what is loaded before, MiB.
MOST_MEMORY = 2048


class TookTooLongError(BaseException):
    """No error of the code under test: nothing may catch it."""


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def in_child(function: Callable[[], Any], seconds: float) -> tuple[Any, str, int]:
    """Call a function in a forked process.

    Returns:
        What it returned; what went wrong, or ""; and the memory that it took, MiB.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()  # what it starts ends with it
        os.close(read)

        def late(*_: object) -> None:
            raise TookTooLongError(f"it took more than {seconds:.0f} s")

        signal.signal(signal.SIGALRM, late)
        signal.alarm(max(int(seconds), 1))
        try:
            answer = (function(), "")
        except BaseException:
            answer = (None, traceback.format_exc())
        with suppress(BaseException), os.fdopen(write, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)
    os.close(write)
    end, content = time.monotonic() + seconds + GRACE, b""
    with os.fdopen(read, "rb", buffering=0) as pipe:
        while True:
            ready, _, _ = select.select([pipe], [], [], max(end - time.monotonic(), 0))
            if not ready:
                os.killpg(child, signal.SIGKILL)
                break
            block = pipe.read(1 << 16)
            content += block
            if not block:
                break
    _, status, usage = os.wait4(child, 0)
    memory = max(usage.ru_maxrss - before, 0) >> 10
    if not ready:
        return None, f"it took more than {seconds:.0f} s", memory
    if not content or status:
        return None, f"it died by signal {os.waitstatus_to_exitcode(status)}", memory
    answer, failure = pickle.loads(content)
    return answer, failure, memory


def run_trial(campaign: Campaign, seed: int, number: int, shared: Path) -> tuple[Counts, str, int]:
    """A trial by its number: counts, what went wrong, memory in MiB."""
    with workplace() as folder:
        trial = Trial(number, np.random.default_rng([seed, number]), folder, shared)
        counts, failure, memory = in_child(lambda: campaign.trial(trial), campaign.seconds)
    if not failure and memory > MOST_MEMORY:
        failure = f"it took {memory} MiB of memory"
    return counts or {}, failure, memory


def run(campaign: Campaign, seconds: float, seed: int) -> Outcome:
    """Trials from number 0 on until the time is up; at least one."""
    outcome = Outcome(skipped=campaign.missing())
    if outcome.skipped:
        return outcome
    start = time.monotonic()
    with workplace() as shared:
        campaign.prepare(shared)
        while outcome.trials == 0 or time.monotonic() - start < seconds:
            counts, failure, memory = run_trial(campaign, seed, outcome.trials, shared)
            outcome.counts.update(counts)
            outcome.memory = max(outcome.memory, memory)
            if failure:
                outcome.failures.append((outcome.trials, failure))
            outcome.trials += 1
    outcome.seconds = time.monotonic() - start
    return outcome


def command(*words: object) -> tuple[int, str]:
    """A command of ``mlr`` in this process: its exit code, and all that it printed.

    Raises:
        Exception: what a user would see as a traceback.
    """
    from mlr.cli import main

    said = StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    return code, said.getvalue()


def check(true: object, *said: object) -> None:
    """Fail with a text; assert is for pytest, whose plain form says nothing here."""
    if not true:
        raise AssertionError(" ".join(map(str, said)))
