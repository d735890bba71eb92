# SPDX-License-Identifier: Apache-2.0
"""mlr report: the page and the figures of a finished run, and of runs that lack something."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from mlr.cli import main
from mlr.report import figures
from mlr.training.settings import TrainingSettings
from mlr.training.train import train

TINY = TrainingSettings(
    backbone="test_resnet", decoder_channels=32, pretrained="false", size="32x48", train_length=8, val_length=2,
    workers=0, batch_size=2, epochs=2, device="cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    return train(TrainingSettings(**{**TINY.as_dict(), "out": out}), console=Console(quiet=True)).path


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def rows(page: str) -> dict[str, list[str]]:
    """The page's table rows by their first cell."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
    return {first: rest for first, *rest in cells}


def test_the_page_says_what_was_run_and_what_came_out(run, capsys):
    assert main(["report", str(run)]) == 0
    assert "silog" in capsys.readouterr().out
    page = (run / "report.md").read_text()
    table, record = rows(page), json.loads((run / "run.json").read_text())
    assert page.startswith("# run\n")
    assert table["backbone"] == ["test_resnet"]
    assert table["epochs finished"] == ["2 of 2"]
    scores = [record["constant"]["rmse"], record["before"]["rmse"], record["after"]["rmse"]]
    assert [table["rmse"][i] for i in (0, 1, 3)] == [f"{value:.4f}" for value in scores]
    with (run / "balancing.csv").open(newline="") as file:
        losses = list(csv.DictReader(file))
    largest = max(losses[-78:], key=lambda r: float(r["contribution"]))
    first = next(r for r in losses if r["term"] == largest["term"])
    *shares, weight = table[largest["term"]]
    assert shares == [f"{100 * float(r['contribution']):.2f} %" for r in (first, largest)]
    assert float(weight) == pytest.approx(float(largest["weight"]), rel=1e-3)
    assert "Weights changed 8 times. The largest of 78 losses" in page


def test_the_figures_are_drawn_anew(run):
    for name in ("curves", "contributions", "samples"):
        (run / f"{name}.png").unlink()
    assert main(["report", str(run)]) == 0
    for name in ("curves", "contributions", "samples"):
        assert (run / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert f"![{name}]({name}.png)" in (run / "report.md").read_text()


def test_without_the_data_the_figure_of_samples_stays_as_it_is(run, capsys):
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("data: rooms", "data: nyu"))
    before = (run / "samples.png").read_bytes()
    assert main(["report", str(run)]) == 0
    error = capsys.readouterr().err
    assert "samples.png is not drawn again: --data nyu needs --root" in " ".join(error.split())
    assert (run / "samples.png").read_bytes() == before
    assert "![samples](samples.png)" in (run / "report.md").read_text()


def test_a_run_that_was_stopped_has_a_page_too(run):
    record = json.loads((run / "run.json").read_text())
    del record["after"]
    (run / "run.json").write_text(json.dumps(record))
    (run / "best.pt").unlink()
    lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join(lines[:3]))  # header, before training, first epoch
    assert main(["report", str(run)]) == 0
    table = rows((run / "report.md").read_text())
    assert table["epochs finished"] == ["1 of 2"]
    assert table["rmse"][2] == "-"


def test_the_curves_begin_before_training(run, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "_save", lambda figure, _: drawn.append(figure))
    figures.curves(run)
    accuracy = drawn[0].axes[1].lines[0]
    assert accuracy.get_xdata().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), "no run folder: it has no config.yaml"),
        (lambda run: (run / "last.pt").unlink(), "has not finished an epoch"),
        (lambda run: (run / "config.yaml").write_text("depth: 3\n"), "does not hold the settings of mlr"),
    ],
)
def test_what_is_no_run_is_explained(spoil, message, run, capsys):
    spoil(run)
    assert main(["report", str(run)]) == 1
    assert message in capsys.readouterr().err
    assert not (run / "report.md").exists()
