# SPDX-License-Identifier: Apache-2.0
"""``mlr ablate``: a plan of many training runs, made once each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console

from mlr.experiments.plan import load_plan
from mlr.experiments.runner import Experiment, duration


def ablate(
    plan: Path,
    out: Path = Path("runs/ablate"),
    root: str | None = None,
    evaluation_root: str | None = None,
    dry_run: bool = False,
    retry: bool = False,
) -> int:
    """Make the training runs of a plan and write its results file.

    Runs with a record in the results file or in the folder are skipped, a run that was cut is continued, and a run that
    fails is listed without stopping the others. Several processes may work on one plan with the same --out, on one
    machine or on several that share the folder. docs/evidence.md shows what comes out.

    Args:
        plan: the YAML file; recipes/ holds those of the paper's tables.
        out: folder of the runs; plans that share it share equal runs.
        root: folder or file of the training data, in place of the plan's.
        evaluation_root: folder or file of the evaluation data, in place of the plan's.
        dry_run: list the runs and estimate the time, and stop.
        retry: try runs again that failed before.

    Returns:
        The exit code: 0, or 1 if a run failed.
    """
    console = Console(soft_wrap=True, highlight=False)
    loaded = load_plan(plan, root, evaluation_root)
    experiment = Experiment(loaded, out, console)
    runs, missing = loaded.runs(), experiment.missing()
    console.print(f"{loaded.title}: {len(runs)} runs, {len(runs) - len(missing)} are done", markup=False)
    if dry_run:
        counts = Counter((run.rows, run.config.losses, run.config.balancer) for run in missing)
        for (rows, losses, balancer), count in counts.items():
            console.print(f"  {count} x {', '.join(rows)}: {losses}, {balancer}", markup=False)
        seconds = experiment.seconds()
        total = "unknown before a first run" if seconds is None else f"about {duration(seconds * len(missing))}"
        each = "" if seconds is None else f" ({duration(seconds)} a run)"
        console.print(f"time left with one process: {total}{each}", markup=False)
        return 0
    failed = experiment.work(retry)
    for name in failed:
        console.print(f"failed: {name}; see {out / (name + '.failed')}; --retry tries it again", markup=False)
    return 1 if failed else 0
