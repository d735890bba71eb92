# SPDX-License-Identifier: Apache-2.0
"""Figures from run folders: the right numbers behind them, and the files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mlr.cli import main
from mlr.experiments import figures
from mlr.experiments.plan import Plan
from mlr.experiments.runner import Experiment
from mlr.experiments.statistics import paired
from mlr.losses.space import LossSpace
from mlr.training.tables import BALANCING


def run_folder(path: Path, periods: int = 8, seed: int = 0) -> Path:
    """A folder with balancing.csv of four periods an epoch."""
    path.mkdir(parents=True)
    random, names = np.random.default_rng(seed), LossSpace("all").names
    with (path / "balancing.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(BALANCING)
        for period in range(periods):
            shares = random.dirichlet(np.ones(len(names)))
            for name, share in zip(names, shares, strict=True):
                row = [period, 10 * period, period // 4, 1.0, name, 0.1 + random.random(), 1, share, 0, 0]
                writer.writerow(row)
    return path


@given(st.integers(3, 30), st.integers(2, 12), st.integers(0, 1000))
def test_principal_components_keep_the_largest_variance(count: int, size: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(count, size)) * np.arange(1, size + 1)
    points, shares = figures.principal_components(vectors)
    values = np.sort(np.linalg.eigvalsh(np.cov(vectors.T, bias=True)))[::-1]
    np.testing.assert_allclose(points.var(0), values[:2], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(shares, values[:2] / values.sum(), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-9)


def test_vectors_are_the_means_by_period(tmp_path: Path) -> None:
    names, vectors = figures.loss_vectors(run_folder(tmp_path / "run"))
    assert tuple(names) == LossSpace("all").names
    assert vectors.shape == (78, 8)
    with pytest.raises(ValueError, match="recorded 0 losses"):
        figures.loss_vectors(tmp_path)


def test_contributions_are_those_at_the_ends_of_epochs(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    moments = figures.epoch_contributions(run)
    with (run / "balancing.csv").open(newline="") as file:
        table = {(int(r["period"]), r["term"]): float(r["contribution"]) for r in csv.DictReader(file)}
    assert [moment["M5/2"] for moment in moments] == [table[p, "M5/2"] for p in (0, 3, 7)]
    with pytest.raises(ValueError, match=r"has no balancing\.csv"):
        figures.epoch_contributions(tmp_path)


def test_equal_runs_make_equal_files(tmp_path: Path) -> None:
    runs = [("λ = 0", run_folder(tmp_path / "a")), ("λ = 1", run_folder(tmp_path / "b", seed=1))]
    rows = [("row", paired({0: 1.0, 1: 2.0}, {0: 0.5, 1: 0.4})), ("one seed", paired({0: 1.0}, {0: 0.5}))]
    for turn in ("first", "second"):
        figures.save(figures.loss_space(runs[0][1]), tmp_path / turn / "losses")
        figures.save(figures.contribution_grid(runs), tmp_path / turn / "contributions")
        figures.save(figures.forest(rows, "points", "title"), tmp_path / turn / "rows")
    for name in ("losses", "contributions", "rows"):
        for ending in (".png", ".svg"):
            first, second = (tmp_path / turn / f"{name}{ending}" for turn in ("first", "second"))
            assert first.read_bytes() == second.read_bytes()
    text = (tmp_path / "first" / "losses.svg").read_text()
    assert text.count("<svg") == 1


def test_the_command_draws_what_has_run_and_names_what_has_not(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, images = tmp_path / "out", tmp_path / "images"
    arguments = ["figures", str(plan.path), "--runs", str(out), "--out", str(images), "--frames", "0,3"]
    out.mkdir()
    assert main(arguments) == 1
    assert "is left out" in capsys.readouterr().out
    assert Experiment(plan, out, Console(quiet=True)).work() == []
    assert main(arguments) == 0
    stems = ("evidence-fig2-losses", "evidence-fig3-contributions", "evidence-fig4-depth")
    assert sorted(p.name for p in images.iterdir()) == sorted(f"{s}{e}" for s in stems for e in (".png", ".svg"))


def test_wrong_frames_are_refused(plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figures", str(plan.path), "--runs", str(tmp_path), "--frames", "first"]) == 1
    assert "--frames must be indices" in capsys.readouterr().err
