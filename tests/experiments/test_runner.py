# SPDX-License-Identifier: Apache-2.0
"""Plans as they run: once, paired, resumed, shared, with failures listed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mlr.cli import main
from mlr.evaluation.metrics import METRICS
from mlr.evaluation.scoring import STRUCTURE
from mlr.experiments import runner
from mlr.experiments.plan import Plan
from mlr.experiments.records import add_results, claimed, read_results
from mlr.experiments.runner import Experiment

QUIET = Console(quiet=True)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that are made; each takes no time and scores its seed."""
    names: list[str] = []

    def make(self: Experiment, run: Any) -> dict[str, Any]:
        names.append(run.name)
        self.folder(run).mkdir(parents=True)
        return {**run.described, "scores": {"delta1": float(run.config.seed)}}

    monkeypatch.setattr(Experiment, "_make", make)
    return names


def test_every_run_is_made_once_and_recorded(plan: Plan, tmp_path: Path, made: list[str]) -> None:
    experiment = Experiment(plan, tmp_path / "out", QUIET)
    assert experiment.work() == []
    assert made == [run.name for run in plan.runs()]
    assert set(read_results(plan.results)) == {run.digest for run in plan.runs()}
    assert Experiment(plan, tmp_path / "out", QUIET).work() == []
    assert len(made) == 5


def test_a_fresh_checkout_makes_the_missing_runs_alone(plan: Plan, tmp_path: Path, made: list[str]) -> None:
    Experiment(plan, tmp_path / "out", QUIET).work()
    whole, runs = plan.results.read_text(), plan.runs()
    content = json.loads(whole)
    del content["runs"][runs[3].digest]
    plan.results.write_text(json.dumps(content))
    made.clear()
    Experiment(plan, tmp_path / "elsewhere", QUIET).work()
    assert made == [runs[3].name]
    assert plan.results.read_text() == whole


def test_records_of_another_version_are_never_used(
    plan: Plan, tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Experiment(plan, tmp_path / "out", QUIET).work()
    monkeypatch.setattr("mlr.experiments.plan.RESULTS_VERSION", 2)
    assert Experiment(plan, tmp_path / "out", QUIET).collect() == {}
    assert len(Experiment(plan, tmp_path / "out", QUIET).missing()) == 5


def test_a_failed_run_is_listed_and_the_others_go_on(
    plan: Plan, tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, good = plan.runs()[1].name, Experiment._make

    def make(self: Experiment, run: Any) -> dict[str, Any]:
        if run.name == broken:
            raise RuntimeError("out of memory")
        return good(self, run)

    monkeypatch.setattr(Experiment, "_make", make)
    experiment = Experiment(plan, tmp_path / "out", QUIET)
    assert experiment.work() == [broken]
    assert len(made) == 4
    assert "out of memory" in (tmp_path / "out" / f"{broken}.failed").read_text()
    assert experiment.work() == [broken]  # it is not tried again by itself
    monkeypatch.setattr(Experiment, "_make", good)
    assert experiment.work(retry=True) == []
    assert made[-1] == broken


def test_a_run_that_another_process_holds_is_left_to_it(plan: Plan, tmp_path: Path, made: list[str]) -> None:
    out, held = tmp_path / "out", plan.runs()[0]
    out.mkdir()
    script = "import sys; from pathlib import Path; from mlr.experiments.records import claimed\n"
    script += "with claimed(Path(sys.argv[1])) as mine: print(mine, flush=True); sys.stdin.read()"
    command = [sys.executable, "-W", "ignore", "-c", script, str(out / f"{held.name}.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        with claimed(out / f"{held.name}.lock") as mine:
            assert not mine
        Experiment(plan, out, QUIET).work()
        assert held.name not in made
        assert len(made) == 4
        os.kill(other.pid, signal.SIGKILL)  # the lock of a process that dies is free
    Experiment(plan, out, QUIET).work()
    assert made[-1] == held.name


def test_results_of_several_processes_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    script = "import sys; from pathlib import Path; from mlr.experiments.records import add_results\n"
    script += "for i in range(20): add_results(Path(sys.argv[1]), {f'{sys.argv[2]}-{i}': {'i': i}})"
    processes = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", script, str(file), name]) for name in ("a", "b")
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(read_results(file)) == 40


def test_a_foreign_results_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text("[1]")
    with pytest.raises(ValueError, match="is no results file"):
        read_results(file)
    file.write_text('{"format": 99, "runs": {}}')
    with pytest.raises(ValueError, match="reads up to 1"):
        read_results(file)


def test_dry_run_lists_and_estimates(plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert main(["ablate", str(plan.path), "--out", out, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "5 runs, 0 are done" in text
    assert "2 x baseline: D/0, fixed" in text
    assert "unknown before a first run" in text
    assert not (tmp_path / "out").exists()
    add_results(plan.results, {plan.runs()[0].digest: {"scores": {}}})
    first = Experiment(plan, tmp_path / "out", QUIET).folder(plan.runs()[0])
    first.mkdir(parents=True)
    (first / "seconds.json").write_text("30")
    assert main(["ablate", str(plan.path), "--out", out, "--dry-run"]) == 0
    assert "about 2 min (30 s a run)" in capsys.readouterr().out


def test_runs_are_ordinary_paired_and_scored(plan: Plan, tmp_path: Path) -> None:
    plan = replace(plan, parts=((plan.parts[0][0], plan.parts[0][1][:2]),))
    experiment = Experiment(plan, tmp_path / "out", QUIET)
    assert experiment.work() == []
    records = experiment.collect()
    assert len(records) == 4
    before: dict[int, set[float]] = {}
    for run in plan.runs():
        record, folder = records[run.digest], experiment.folder(run)
        assert set(record["scores"]) == {*METRICS, *STRUCTURE}
        assert (record["steps"], record["settings"].get("seed", 0)) == (6, run.config.seed)
        assert {"run.json", "config.yaml", "metrics.csv", "balancing.csv", "last.pt"} <= {
            p.name for p in folder.iterdir()
        }
        before.setdefault(run.config.seed, set()).add(record["before"])
    assert all(len(values) == 1 for values in before.values())  # the same initial network in every row
    assert before[0] != before[1]
    text = (tmp_path / "out").glob("frames-*.h5")
    assert len(list(text)) == 2


def test_scores_are_those_of_mlr_evaluate(plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = replace(plan, parts=((plan.parts[0][0], plan.parts[0][1][:1]),))
    experiment = Experiment(plan, tmp_path / "out", QUIET)
    experiment.work()
    run = plan.runs()[0]
    options = f"{plan.evaluation.options},height=32,width=64"
    arguments = [str(experiment.folder(run) / "last.pt"), "--data", "rooms", "--data-options", options]
    assert main(["evaluate", *arguments, "--protocol", "full", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)["protocols"]["full"]
    shown = record["metrics"] | record["structure"]
    scores = experiment.collect()[run.digest]["scores"]
    for name in (*METRICS, *STRUCTURE):
        expected = shown[name]["mean"]
        assert scores[name] == (None if expected is None else pytest.approx(expected, rel=1e-5)), name


@pytest.mark.long
def test_killed_at_random_moments_it_ends_with_the_same_results(plan: Plan, tmp_path: Path) -> None:
    def command(out: str) -> list[str]:
        script = "import sys; from mlr.cli import main; sys.exit(main(sys.argv[1:]))"
        return [sys.executable, "-W", "ignore", "-c", script, "ablate", str(plan.path), "--out", str(tmp_path / out)]

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    assert subprocess.run(command("whole"), env=environment, check=False).returncode == 0
    whole = plan.results.read_text()
    plan.results.unlink()
    seed = random.randrange(10**6)
    moments = random.Random(seed)
    for _ in range(4):
        present = listing(tmp_path / "cut")
        process = subprocess.Popen(command("cut"), env=environment)
        # the start takes seconds of imports; the moment is random from the first new file on
        while process.poll() is None and listing(tmp_path / "cut") == present:
            time.sleep(0.02)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=moments.uniform(0, 4))
        process.kill()
        process.wait()
    assert subprocess.run(command("cut"), env=environment, check=False).returncode == 0
    assert plan.results.read_text() == whole, f"moments of seed {seed}"
    assert not list((tmp_path / "cut").glob("*.failed"))


def listing(folder: Path) -> list[str]:
    """All files under a folder but locks, which every start makes."""
    return sorted(str(path) for path in folder.rglob("*") if not path.name.endswith(".lock"))


def test_the_command_writes_tables_and_names_failures(
    plan: Plan, tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["ablate", str(plan.path), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert "| {D/0} | 1 | - | - | 0 |" in (tmp_path / "out" / "tiny.md").read_text()
    plan.results.unlink()

    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(Experiment, "_make", fail)
    assert main([*arguments[:-1], str(tmp_path / "other")]) == 1
    output = capsys.readouterr().out
    assert all(f"failed: {run.name}" in output for run in plan.runs())


def test_duration_reads_well() -> None:
    assert [runner.duration(s) for s in (5, 600, 9000)] == ["5 s", "10 min", "2.5 h"]
