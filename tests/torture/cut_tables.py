# SPDX-License-Identifier: Apache-2.0
"""Tables of a run that are cut off or damaged anywhere."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from torture.runs import load, reference
from torture.trials import Campaign, Counts, Trial, check, command

KIND = "rebalancing"
TABLES = ("metrics.csv", "balancing.csv")


def prepare(shared: Path) -> None:
    """A finished run."""
    load()
    reference(KIND, shared / "run")


def damage(given: Trial, content: bytes) -> bytes:
    """Cut off at a byte, or overwritten from one on."""
    place = int(given.random.integers(len(content) + 1))
    if given.number % 3:
        return content[:place]
    length = int(given.random.integers(1, 60))
    return content[:place] + given.random.bytes(length) + content[place + length :]


def trial(given: Trial) -> Counts:
    """Damage a table; draw the report, or continue the run for another epoch."""
    run = Path(shutil.copytree(given.shared / "run", given.folder / "run"))
    name = TABLES[given.number // 3 % 2]
    (run / name).write_bytes(damage(given, (run / name).read_bytes()))
    if given.number % 5:
        code, said = command("report", run)
        check(code == 0 and "Traceback" not in said, f"exit code {code}:", said)
        return {"reports": 1}
    code, said = command("train", "--resume", run, "--epochs=3")
    check(code == 0, f"exit code {code}:", said)
    with (run / "metrics.csv").open(newline="") as table:
        epochs = [row["epoch"] for row in csv.DictReader(table)]
    check(epochs[-1:] == ["3"] and len(set(epochs)) == len(epochs), f"epochs {epochs}")
    return {"continued runs": 1}


CAMPAIGN = Campaign(
    "tables",
    "metrics.csv or balancing.csv is cut off at any byte, or overwritten there. `mlr report` draws what is left, and "
    "the run continues.",
    trial,
    share=1,
    prepare=prepare,
)
