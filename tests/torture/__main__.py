# SPDX-License-Identifier: Apache-2.0
"""``make torture``: all campaigns one after the other, and their figures.

``PYTHONPATH=tests python -m torture --campaign engine --trial 42 --seed 0`` repeats a trial.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from datetime import date
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torture import balancers, cut_tables, damaged_files, disk, engine, kills, ranks_killed
from torture.trials import Campaign, Outcome, run, run_trial, workplace

from mlr._version import __version__

CAMPAIGNS: dict[str, Campaign] = {
    module.CAMPAIGN.name: module.CAMPAIGN
    for module in (kills, ranks_killed, disk, cut_tables, damaged_files, engine, balancers)
}


def last_line(failure: str) -> str:
    """What went wrong, without the traceback."""
    return " ".join(failure.strip().splitlines()[-1].split())[:500]


def repeat(name: str, seed: int, number: int) -> str:
    """The command that repeats a trial."""
    return f"PYTHONPATH=tests python -m torture --campaign {name} --seed {seed} --trial {number}"


def entry(campaign: Campaign, outcome: Outcome, seed: int) -> dict[str, Any]:
    """The figures of a campaign."""
    return {
        "summary": campaign.summary,
        "trials": outcome.trials,
        "seconds": round(outcome.seconds),
        "counts": {name: int(count) for name, count in outcome.counts.items()},
        "most_memory_mib": outcome.memory,
        "skipped": outcome.skipped,
        "failures": [
            {"what": last_line(failure), "repeat": repeat(campaign.name, seed, number)}
            for number, failure in outcome.failures
        ],
    }


def main() -> int:
    """Run campaigns, or repeat a trial.

    Returns:
        The exit code: 0, or 1 if a trial failed.
    """
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=18, help="for all campaigns together (default: 18)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--campaign", choices=CAMPAIGNS, help="this one alone")
    parser.add_argument("--trial", type=int, help="repeat a trial of the campaign")
    parser.add_argument("--out", type=Path, help="file for the figures; those of other campaigns in it are kept")
    options = parser.parse_args()
    chosen = [CAMPAIGNS[options.campaign]] if options.campaign else list(CAMPAIGNS.values())
    if options.trial is not None:
        if options.campaign is None:
            parser.error("--trial needs --campaign")
        with workplace() as shared:
            chosen[0].prepare(shared)
            counts, failure, memory = run_trial(chosen[0], options.seed, options.trial, shared)
        print(failure or f"no failure; {counts}, {memory} MiB")
        return 1 if failure else 0
    failed = 0
    shares = sum(campaign.share for campaign in chosen)
    for campaign in chosen:
        outcome = run(campaign, 60 * options.minutes * campaign.share / shares, options.seed)
        counts = ", ".join(f"{count:,} {name}" for name, count in outcome.counts.items())
        done = f"{outcome.trials:,} trials in {outcome.seconds:.0f} s ({counts}), {len(outcome.failures)} failures"
        if outcome.skipped:
            done = f"skipped: {outcome.skipped}"
        print(f"{campaign.name}: {done}", flush=True)
        for number, failure in outcome.failures:
            print(f"  {last_line(failure)}\n    {repeat(campaign.name, options.seed, number)}", flush=True)
        failed += len(outcome.failures)
        if options.out:
            write(options.out, campaign, outcome, options.seed)
    return 1 if failed else 0


def write(file: Path, campaign: Campaign, outcome: Outcome, seed: int) -> None:
    """Add the figures of a campaign to the file."""
    record = json.loads(file.read_text()) if file.is_file() else {"campaigns": {}}
    record |= {
        "date": f"{date.today()}",
        "seed": seed,
        "versions": {"mlr": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        "cores": os.cpu_count(),
    }
    record["campaigns"][campaign.name] = entry(campaign, outcome, seed)
    file.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
