# SPDX-License-Identifier: Apache-2.0
"""Protocol relative: scores of the order of depth, of maps and of labelled pairs, and the command."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import torch
from evaluating import depth, on, refusal, run, write_npy, write_shots
from scipy.stats import kendalltau, spearmanr

from mlr.evaluation.order import ORDER_METRICS, OrderScores
from mlr.relative.ordinal import OrdinalPairs


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    return write_shots(tmp_path_factory.mktemp("shots"))


def maps(seed: int = 0, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = 1 + 4 * torch.rand(batch, 1, 24, 32, generator=generator)
    return target + 0.8 * torch.rand(target.shape, generator=generator), target


def test_scores_agree_with_scipy_over_all_pixels():
    pred, target = maps()
    scores = OrderScores()
    scores.add(["a", "b", "c"], pred, target)
    means = scores.means()
    expected = [
        (kendalltau(p.flatten(), t.flatten()).statistic, spearmanr(p.flatten(), t.flatten()).statistic)
        for p, t in zip(pred, target, strict=True)
    ]
    tau, rho = np.mean(expected, axis=0)
    assert means["kendall"] == pytest.approx(
        tau, abs=0.04
    )  # near ties, which are left out, lower the tau of all pixels
    assert means["spearman"] == pytest.approx(rho, abs=0.02)
    assert means["whdr"] == pytest.approx((1 - means["kendall"]) / 2)
    assert scores.record()["pairs"] == 15_000


def test_any_increasing_change_of_the_prediction_keeps_all_but_the_wkdr_and_a_scale_keeps_that_too():
    pred, target = maps()

    def means(x: torch.Tensor) -> dict[str, float]:
        scores = OrderScores()
        scores.add(["a", "b", "c"], x, target)
        return scores.means()

    first, scaled, bent = means(pred), means(1000 * pred - 7000), means(-1 / pred)
    assert scaled == pytest.approx(first, abs=2e-3)
    order = ("whdr", "kendall", "spearman")
    assert [bent[name] for name in order] == pytest.approx([first[name] for name in order])
    worst = means(-pred)
    assert worst["kendall"] == pytest.approx(-first["kendall"])
    flat = means(torch.ones_like(pred))
    assert (flat["whdr"], flat["kendall"], flat["wkdr_equal"]) == (1, 0, 0)
    assert math.isnan(flat["spearman"])


def test_the_threshold_of_wkdr_balances_equal_and_unequal_pairs():
    pred, target = maps()
    scores = OrderScores()
    scores.add(["a", "b", "c"], pred, target)
    means = scores.means()
    assert 0 < scores.threshold < 1
    assert abs(means["wkdr_equal"] - means["wkdr_unequal"]) < 0.05
    assert (
        min(means["wkdr_equal"], means["wkdr_unequal"])
        <= means["wkdr"]
        <= max(means["wkdr_equal"], means["wkdr_unequal"])
    )
    perfect = OrderScores()
    perfect.add(["a", "b", "c"], target.log(), target)
    assert perfect.means()["wkdr"] < 0.01


def test_labelled_pairs_of_a_frame_count_instead_of_drawn_ones():
    points = torch.tensor([[0, 0], [1, 1]]), torch.tensor([[0, 1], [1, 0]])
    pairs = OrdinalPairs("x", (2, 2), *points, torch.tensor([-1, 1]))
    pred = torch.tensor([[[1.0, 2.0], [3.0, 0.0]]])
    scores = OrderScores()
    scores.add(["x"], pred, torch.zeros(1, 2, 2), pairs=pairs)
    assert scores.means()["whdr"] == 0.5
    assert all(math.isnan(scores.means()[name]) for name in ("wkdr", "wkdr_equal", "wkdr_unequal", "spearman"))
    with pytest.raises(ValueError, match="labelled pairs are those of one frame"):
        scores.add(["x", "y"], pred.expand(2, 2, 2), torch.zeros(2, 2, 2), pairs=pairs)


def test_holes_are_not_drawn_and_a_frame_without_depth_is_excluded():
    pred, target = maps(batch=2)
    target[0, :, :20], pred[0, :, :20] = 0, torch.nan
    pred = torch.where(pred.isnan(), -1e6, pred)
    target[1] = torch.nan
    scores = OrderScores()
    scores.add(["half", "none"], pred, target)
    assert scores.excluded == ["none"]
    assert scores.means()["kendall"] > 0.5
    assert scores.record()["images"] == 1


def test_the_command_scores_maps_of_any_unit(shots, tmp_path, capsys):
    folder = write_npy(tmp_path / "pred")
    for number in range(6, 9):
        np.save(folder / f"{number:03d}.npy", -1 / depth(number) * 1e6)
    assert "negative" in refusal(capsys, folder, *on(shots))
    record = run(capsys, folder, *on(shots), "--protocol", "relative", "--out", tmp_path / "out")
    order = record["protocols"]["relative"]["order"]
    assert order["kendall"] == {"mean": 1, "low": 1, "high": 1}
    assert set(order) == set(ORDER_METRICS)
    with (tmp_path / "out/relative.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["whdr"]) for row in rows] == [0, 0, 0]


def test_metric_predictions_are_scored_by_both_kinds_of_protocols(shots, tmp_path, capsys):
    folder = write_npy(tmp_path / "pred")
    record = run(capsys, folder, *on(shots), "--protocol", "relative,full")
    assert record["protocols"]["full"]["metrics"]["abs_rel"]["mean"] == pytest.approx(0.25, abs=1e-3)
    assert record["protocols"]["relative"]["order"]["whdr"]["mean"] == 0
    assert "relative" in run(capsys, folder, *on(shots))["left_out"]
    np.save(folder / "007.npy", np.full((48, 64), np.nan, np.float32))
    assert "finite numbers" in refusal(capsys, folder, *on(shots), "--protocol", "relative")
