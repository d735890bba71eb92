# SPDX-License-Identifier: Apache-2.0
"""Training runs that are killed, once or several times, and continued."""

from __future__ import annotations

import json
from pathlib import Path

from torture.runs import KINDS, check_equal, finish, killed, load, reference, start
from torture.trials import Campaign, Counts, Trial

NAMES = list(KINDS)


def prepare(shared: Path) -> None:
    """An uninterrupted run of every kind."""
    load()
    for index, kind in enumerate(NAMES):
        reference(kind, shared / str(index))


def trial(given: Trial) -> Counts:
    """Kill a run up to three times, at operations on files or at any moment, and continue it to its end."""
    index = given.number % len(NAMES)
    whole, out = given.shared / str(index), given.folder / "run"
    size = json.loads((whole / "operations.json").read_text())
    counts = {"kills": 0, "kills at an operation on files": 0}
    for _ in range(int(given.random.integers(1, 4))):
        at_file = given.random.random() < 0.6
        operation = int(given.random.integers(1, size["operations"] + 1)) if at_file else None
        if killed(start(NAMES[index], out), out, operation, given.random.uniform(0, 1.2 * size["seconds"])):
            counts["kills"] += 1
            counts["kills at an operation on files"] += at_file
    finish(NAMES[index], out)
    check_equal(whole, out)
    return counts


CAMPAIGN = Campaign(
    "kills",
    "A training run is killed by SIGKILL up to three times, at any moment or just before an operation on files, and "
    "continued. Weights, optimizer, balancer, tables and scores equal those of an uninterrupted run to the bit.",
    trial,
    share=4,
    prepare=prepare,
)
