# SPDX-License-Identifier: Apache-2.0
"""``mlr report``: pages and figures from the files that runs left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from mlr.data.mixture import training_data
from mlr.models.depth_model import DepthModel
from mlr.report import figures, markdown
from mlr.report.page import check_place, write_comparison_page, write_run_page
from mlr.report.samples import Samples, take_samples
from mlr.training.run import Run
from mlr.training.settings import TrainingSettings
from mlr.utils.console import plain
from mlr.utils.files import atomic_write

FIGURES = ("curves", "contributions", "samples")
COMPARISON = Path("report.html")


def report(runs: list[Path], out: Path | None = None) -> int:
    """Make a page about a run, report.html, that opens in any browser without a network; or compare several runs.

    Of one run the figures are drawn again too, and the scores are printed and written to report.md. The run may still
    go on or have been stopped. Its data is needed for new samples alone; without it those of the training's end stay.
    Several runs get a page with their curves, their scores and the settings that differ.

    Args:
        runs: folders of runs.
        out: the page's file; by default report.html in the folder of the run, or here for several.

    Returns:
        The exit code, 0.

    Raises:
        FileNotFoundError: one is no run folder, or no epoch was finished.
        FileExistsError: the file is there and is no such page.
        ValueError: the settings of a run are of another version.
        OSError: the page or a figure cannot be written.
    """
    console = Console(stderr=True)
    opened = [_open(path) for path in dict.fromkeys(runs)]
    if len(opened) > 1:
        page = out or COMPARISON
        check_place(page)
        plain(console, f"the page is {write_comparison_page(opened, page)}")
        return 0
    ((run, config),) = opened
    page = out or run.path / "report.html"
    check_place(page)
    try:
        samples = _samples(run, config)
    except (ValueError, OSError) as error:
        samples = None
        plain(console, f"samples.png is not drawn again: {error}", "yellow")
    draw(run, config, samples)
    text = markdown.page(run, config)
    pictures = [f"![{name}]({name}.png)" for name in FIGURES if (run.path / f"{name}.png").is_file()]
    with atomic_write(run.path / "report.md") as partial:
        partial.write_text("\n\n".join([text, "## Figures", *pictures]) + "\n")
    Console().print(Markdown(text))
    plain(console, f"the page is {run.path / 'report.md'}")
    plain(console, f"to look at in a browser: {write_run_page(run, config, page)}")
    return 0


def draw(run: Run, config: TrainingSettings, samples: Samples | None) -> None:
    """Write the figures of a run, and its samples where they are given."""
    figures.curves(run.path)
    figures.contributions(run.path)
    if samples is not None:
        samples.save(run.path)
        figures.samples(run.path, samples, "relative" if config.task == "relative" else "metres")


def _open(path: Path) -> tuple[Run, TrainingSettings]:
    """A run and its settings.

    Raises:
        FileNotFoundError: it is no run, or none with a finished epoch.
    """
    run = Run.open(path)
    config = run.training_settings()
    if not (path / "last.pt").is_file():
        raise FileNotFoundError(f"{path} has no last.pt: the run has not finished an epoch, there is nothing to report")
    return run, config


def _samples(run: Run, config: TrainingSettings) -> Samples:
    """Predictions of the last model on the first images to validate on."""
    data = training_data(replace(config, workers=0))
    data.setup("validate")
    return take_samples(DepthModel.from_checkpoint(run.path / "last.pt"), data.val_dataloader(), sets=config.set_names)
