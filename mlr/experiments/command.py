# SPDX-License-Identifier: Apache-2.0
"""``mlr ablate``: a plan of many training runs, made once each. ``mlr figures``: the paper's figures from them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console

from mlr.experiments.frames import open_evaluation
from mlr.experiments.plan import load_plan
from mlr.experiments.runner import RECORD, Experiment
from mlr.experiments.tables import plan_tables
from mlr.utils.files import atomic_write
from mlr.utils.progress import duration

#: File names of the figures.
FIGURES = {"losses": "evidence-fig2-losses", "contributions": "evidence-fig3-contributions",
           "depth": "evidence-fig4-depth"}  # fmt: skip


def ablate(
    plan: Path,
    out: Path = Path("runs/ablate"),
    root: str | None = None,
    evaluation_root: str | None = None,
    dry_run: bool = False,
    retry: bool = False,
) -> int:
    """Make the training runs of a plan, and write its results file and its tables.

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
    table = out / f"{plan.stem}.md"
    with atomic_write(table) as partial:
        partial.write_text(plan_tables(loaded, experiment.collect()))
    console.print(f"records are in {loaded.results}, tables in {table}", markup=False)
    for name in failed:
        console.print(f"failed: {name}; see {out / (name + '.failed')}; --retry tries it again", markup=False)
    return 1 if failed else 0


def figures(
    plan: Path,
    runs: Path = Path("runs/ablate"),
    out: Path = Path("docs/images"),
    seed: int = 0,
    frames: str = "0,1,2,3",
    evaluation_root: str | None = None,
) -> int:
    """Draw the paper's Figures 2, 3 and 4 from the runs of a plan, as PNG and SVG.

    The plan's entry "figures" names the rows. A figure whose runs are not in the folder is left out and named.

    Args:
        plan: the YAML file.
        runs: folder of the runs, --out of mlr ablate.
        out: folder of the figures.
        seed: of the runs that are drawn.
        frames: indices of the evaluation frames of Fig. 4, separated by commas.
        evaluation_root: folder or file of the evaluation data, in place of the plan's.

    Returns:
        The exit code: 0, or 1 if a figure was left out.
    """
    from mlr.experiments import figures as draw  # matplotlib takes a second

    console = Console(soft_wrap=True, highlight=False)
    loaded = load_plan(plan, evaluation_root=evaluation_root)
    if not loaded.figures:
        raise ValueError(f"{plan} has no entry figures, which names the rows to draw")
    if not all(index.strip().isdigit() for index in frames.split(",")):
        raise ValueError(f"--frames must be indices separated by commas, got {frames!r}")
    experiment, left_out = Experiment(loaded, runs, console), False
    for name, rows in loaded.figures.items():
        made = [(loaded.row(row).label, loaded.run(loaded.row(row), seed)) for row in rows]
        if missing := [label for label, run in made if not (experiment.folder(run) / RECORD).is_file()]:
            console.print(f"{FIGURES[name]} is left out: {runs} lacks a finished run of {', '.join(missing)}")
            left_out = True
            continue
        folders = [(label, experiment.folder(run)) for label, run in made]
        if name == "losses":
            figure = draw.loss_space(folders[0][1])
        elif name == "contributions":
            figure = draw.contribution_grid(folders)
        else:
            run = made[0][1]
            source = open_evaluation(run, runs, loaded.pack, console)
            figure = draw.depth_maps(folders, source, map(int, frames.split(",")), run.config.height_width)
        for file in draw.save(figure, out / FIGURES[name]):
            console.print(f"wrote {file}")
    return 1 if left_out else 0
