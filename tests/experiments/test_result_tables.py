# SPDX-License-Identifier: Apache-2.0
"""Tables and the page from records: the right numbers in the right places, and nothing left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlr.evaluation.metrics import METRICS
from mlr.evaluation.scoring import STRUCTURE
from mlr.experiments import page, tables
from mlr.experiments.plan import Plan
from mlr.experiments.records import add_results

ROOT = Path(__file__).parents[2]


def records(plan: Plan, scores: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Records in which every metric of a row's seed is that number."""
    made = {}
    for name, values in scores.items():
        for seed, value in enumerate(values):
            run = plan.run(plan.row(name), seed)
            numbers = dict.fromkeys((*METRICS, *STRUCTURE), value)
            made[run.digest] = {**run.described, "scores": numbers, "versions": {"torch": "2.10"}}
    return made


def test_rows_have_the_papers_layout(plan: Plan) -> None:
    plan = replace(plan, columns=("delta1", "rmse"))
    results = tables.gather(plan, records(plan, {"baseline": [0.5, 0.7], "all": [0.6]}))
    head, rule, *lines = tables.paper_table(plan, results, plan.rows).splitlines()
    assert head == "|  | # losses | I | R | λ | seeds | δ1 % | RMSE | paper, NYUv2: δ1 % | paper, NYUv2: RMSE |"
    assert rule.count("---") == 10
    assert lines == [
        "| {D/0} | 1 | - | - | 0 | 2 of 2 | 60.0 ± 14.1 | 0.600 ± 0.141 | 84.8 | 0.474 |",
        "| L | 78 | - | - | 0 | 1 of 2 | 60.0 | 0.600 | – | – |",
        "| L, rebalanced | 78 | ✓ | ✓ | 3 → -3 | 0 of 1 | – | – | – | – |",
    ]


def test_differences_are_paired_and_marked(plan: Plan) -> None:
    results = tables.gather(plan, records(plan, {"baseline": [0.5, 0.7], "all": [0.52, 0.7201]}))
    text = tables.difference_table(results, plan.rows, "baseline", ["delta1", "rmse"])
    assert "| L | 2 | **+2.0 [+1.9, +2.1]** | **+0.020 [+0.019, +0.021]** |" in text
    assert "L, rebalanced" not in text  # it has not run
    noisy = tables.gather(plan, records(plan, {"baseline": [0.5, 0.7], "all": [0.6, 0.61]}))
    assert "**" not in tables.difference_table(noisy, plan.rows, "baseline", ["delta1"])


def test_a_metric_that_some_run_lacks_is_left_out(plan: Plan) -> None:
    made = records(plan, {"all": [0.5, 0.6]})
    next(iter(made.values()))["scores"]["edge100_precision"] = None
    found = tables.gather(plan, made)["all"]
    assert "edge100_precision" not in found.scores
    assert found.scores["rmse"] == {0: 0.5, 1: 0.6}


def test_every_metric_has_a_heading() -> None:
    assert set(tables.HEADINGS) == {*METRICS, *STRUCTURE}


@pytest.fixture
def shipped(tmp_path: Path) -> tuple[Plan, Plan]:
    """The plans of the page with a results file of their own."""
    file = tmp_path / "rooms.json"
    first, second = (replace(plan, results=file) for plan in page.shipped(ROOT / "recipes"))
    return first, second


def test_the_page_follows_the_results(shipped: tuple[Plan, Plan]) -> None:
    table5, _ = shipped
    empty = page.page(*shipped)
    assert "0 of 87 runs" in empty
    assert empty.count("not run") >= len(page.QUESTIONS)
    rows = {"baseline": [0.70, 0.72, 0.74], "all-fixed": [0.75, 0.77, 0.7901], "all-rebalanced": [0.69, 0.71, 0.7301]}
    add_results(table5.results, records(table5, rows))
    text = page.page(*shipped)
    assert "9 of 87 runs" in text
    claim = next(line for line in text.splitlines() if line.startswith("| All 78 losses with equal weights"))
    assert "**+5.0 [+5.0, +5.0]**" in claim
    assert claim.endswith("| yes |")
    worse = next(line for line in text.splitlines() if line.startswith("| Rebalancing against D/0 alone"))
    assert worse.endswith("| no |")  # a row that got worse stands there
    assert "by mean δ1 (%) over seeds 0, 1, 2, which all of them have: equal weights 77.0; {D/0} alone 72.0" in text
    assert [label for label, _ in page.forest_rows(*shipped)] == ["equal weights", "rebalancing, λ = 3 → -3"]


def test_all_rows_stand_on_the_page_whatever_has_run(shipped: tuple[Plan, Plan]) -> None:
    text = page.page(*shipped)
    for plan in shipped:
        for row in plan.rows:
            assert f"| {row.label} |" in text, row.label


def test_questions_name_rows_that_the_plan_has(shipped: tuple[Plan, Plan]) -> None:
    names = {row.name for row in shipped[0].rows}
    assert {name for q in page.QUESTIONS for name in (q.row, q.reference)} <= names


def test_the_committed_page_agrees_with_the_committed_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert page.main(["--check"]) == 0, capsys.readouterr().out
    for name in ("rows.svg", "fig2-losses.svg", "fig3-contributions.svg", "fig4-depth.png"):
        assert (ROOT / "docs" / "images" / f"evidence-{name}").is_file(), "run `make evidence-report` and `mlr figures`"
