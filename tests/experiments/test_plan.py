# SPDX-License-Identifier: Apache-2.0
"""Plans: what they hold, what they refuse, and which runs follow from them."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlr.experiments.plan import RESULTS_VERSION, PlannedRun, load_plan
from mlr.losses.space import TABLE5
from mlr.training.settings import TrainingSettings

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))

PLAN: dict[str, Any] = {
    "title": "a plan",
    "results": "results.json",
    "reference": "one",
    "seeds": 2,
    "settings": {"backbone": "test_resnet", "pretrained": "false", "decoder_channels": 32},
    "parts": [
        {
            "title": "(a)",
            "rows": [
                {"name": "one", "settings": {"losses": "D/0", "balancer": "fixed"}},
                {"name": "all", "settings": {"losses": "all"}, "turn": 2},
            ],
        },
        {
            "title": "(b)",
            "rows": [{"name": "again", "settings": {"losses": "D/0", "balancer": "fixed"}, "seeds": [0, 5]}],
        },
    ],
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(PLAN | changes))
    return path


def changed_row(**changes: Any) -> list[dict[str, Any]]:
    parts = copy.deepcopy(PLAN["parts"])
    parts[0]["rows"][1] |= changes
    return parts


def test_rows_of_equal_settings_share_their_runs(tmp_path: Path) -> None:
    plan = load_plan(written(tmp_path))
    runs = plan.runs()
    assert [(run.rows, run.config.seed) for run in runs] == [
        (("one", "again"), 0), (("one",), 1), (("again",), 5), (("all",), 0), (("all",), 1),
    ]  # fmt: skip
    assert len({run.digest for run in runs}) == len({run.name for run in runs}) == 5


def test_the_digest_holds_what_scores_depend_on_and_nothing_else(tmp_path: Path) -> None:
    run = load_plan(written(tmp_path)).runs()[0]

    def digest(**settings: Any) -> str:
        return PlannedRun(replace(run.config, **settings), run.evaluation).digest

    assert digest(workers=3, threads=1, device="cpu", root=Path("elsewhere")) == run.digest
    assert len({run.digest, digest(seed=9), digest(losses="all"), digest(learning_rate=0.5)}) == 4
    assert PlannedRun(run.config, replace(run.evaluation, options="length=3")).digest != run.digest
    assert PlannedRun(run.config, replace(run.evaluation, root="elsewhere")).digest == run.digest


def test_whole_numbers_are_the_same_setting_as_fractions(tmp_path: Path) -> None:
    first = load_plan(written(tmp_path, settings=PLAN["settings"] | {"lambda_start": 3}))
    second = load_plan(written(tmp_path, settings=PLAN["settings"] | {"lambda_start": 3.0}))
    assert [run.digest for run in first.runs()] == [run.digest for run in second.runs()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": changed_row(seeds=[7])}, "row 'all' shares no seed with the reference 'one'"),
        ({"reference": "two"}, "there is no row 'two'; rows: one, all, again"),
        ({"parts": changed_row(name="one")}, "'one' appears twice"),
        ({"parts": changed_row(settings={"losses": "Q/0"})}, "row 'all': unknown loss 'Q/0'"),
        ({"parts": changed_row(settings={"loses": "all"})}, "there is no entry 'loses'"),
        ({"parts": changed_row(settings={"balancer": "cow"})}, "row 'all': unknown balancer 'cow'"),
        ({"parts": changed_row(seeds=[1, 1])}, "list of different seeds"),
        ({"seeds": 10**12}, "at most 1,000 seeds"),
        ({"settings": {"learning_rate": "1e-3"}}, "write 1.0e-3"),
        ({"columns": ["delta9"]}, "there is no metric 'delta9'"),
        ({"parts": []}, "parts must be a list that is not empty"),
        ({"figures": {"losses": ["nobody"]}}, "figures: there is no row 'nobody'"),
        ({"pack": True, "settings": {"data": "nyu", "root": "x"}}, "pack is for data: rooms"),
    ],
)
def test_a_wrong_plan_is_refused_with_its_place(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_plan(written(tmp_path, **changes))


def test_a_file_that_is_no_plan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("title: [")
    with pytest.raises(ValueError, match="is not YAML"):
        load_plan(tmp_path / "plan.yaml")
    (tmp_path / "plan.yaml").write_text("a: &a [1, 2]\nb: [*a, *a, *a]\n")
    with pytest.raises(ValueError, match="no aliases"):
        load_plan(tmp_path / "plan.yaml")
    (tmp_path / "plan.yaml").write_text("a: " + "[" * 10_000)
    with pytest.raises(ValueError, match="nothing lies deeper"):
        load_plan(tmp_path / "plan.yaml")
    (tmp_path / "plan.yaml").write_text("a: " + "1" * 300_000)
    with pytest.raises(ValueError, match="plans take"):
        load_plan(tmp_path / "plan.yaml")
    with pytest.raises(FileNotFoundError, match="there is no plan"):
        load_plan(tmp_path / "other.yaml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_plans_are_right(path: Path) -> None:
    plan = load_plan(path, root="data", evaluation_root="data")
    assert plan.results.parent == ROOT / "docs" / "results"
    assert plan.runs()


@pytest.mark.parametrize("name", ["paper-table5", "paper-table5-rooms"])
def test_table_5_is_whole(name: str) -> None:
    plan = load_plan(ROOT / "recipes" / f"{name}.yaml", root="data", evaluation_root="data")
    parts = {title[:3]: rows for title, rows in plan.parts}
    assert {key: len(rows) for key, rows in parts.items()} == {"(a)": 10, "(b)": 7, "(c)": 7, "(d)": 4, "(e)": 1}
    sets = [plan.run(row, 0).config.space.indices for row in parts["(a)"]]
    assert sets == [TrainingSettings(losses=selection).space.indices for selection in TABLE5.values()]
    assert all(row.paper.keys() == {"delta1", "rmse", "rmse_log", "abs_rel"} for row in plan.rows)


def test_changed_defaults_raise_the_results_version() -> None:
    """Digests leave defaults out: whoever changes one raises RESULTS_VERSION and writes it here."""
    defaults = TrainingSettings()
    learned = ("augment", "decoder_channels", "batch_size", "learning_rate", "downsample", "periods_per_epoch",
               "lambda_start", "lambda_slope", "lambda_floor", "weight_decay", "precision")  # fmt: skip
    values = [getattr(defaults, name) for name in learned]
    expected = ["paper", 1024, 8, 1e-4, "bicubic", 4, 3.0, -1.5, -3.0, 0.0, "32"]
    assert (RESULTS_VERSION, values) == (1, expected)
