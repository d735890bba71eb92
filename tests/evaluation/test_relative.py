# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

from mlr.evaluation import OrdinalPairs, pair_correlations, read_diw, sample_pairs, whdr, wkdr, wkdr_threshold

DEPTH = torch.tensor([[1.0, 2.0, 3.0], [3.0, 3.05, 9.0]])


def pairs(*rows):
    """(row_A, column_A, row_B, column_B, relation)"""
    table = torch.tensor(rows)
    return OrdinalPairs("x.jpg", (2, 3), table[:, :2], table[:, 2:4], table[:, 4])


FOUR = pairs((0, 1, 0, 0, 1), (0, 0, 1, 2, 1), (1, 0, 1, 1, 0), (0, 2, 1, 0, 1))


def test_whdr_hand_worked():
    # right, wrong, equal (left out), tie (wrong)
    assert whdr(DEPTH, FOUR) == pytest.approx(2 / 3)
    assert whdr(DEPTH, FOUR, torch.tensor([6.0, 1.0, 100.0, 1.0])) == pytest.approx(2 / 8)
    assert math.isnan(whdr(DEPTH, pairs((0, 0, 0, 1, 0))))


def test_points_are_scaled_to_the_size_of_the_map():
    big = torch.nn.functional.interpolate(DEPTH[None, None], scale_factor=4, mode="nearest")[0, 0]
    assert whdr(big, FOUR) == whdr(DEPTH, FOUR)


def test_wkdr_hand_worked():
    scores = wkdr(DEPTH, FOUR, threshold=0.1)
    assert scores.all == pytest.approx(2 / 4)
    assert scores.equal == 0
    assert scores.unequal == pytest.approx(2 / 3)
    assert wkdr(DEPTH, FOUR, threshold=0.01).equal == 1
    assert math.isnan(wkdr(DEPTH, pairs((0, 1, 0, 0, 1)), 0.1).equal)


def test_threshold_balances_equal_and_unequal_pairs():
    depth = torch.tensor([[0.0, 0.3, 1.0]])
    labelled = OrdinalPairs(
        "", (1, 3), torch.tensor([[0, 1], [0, 2]]), torch.tensor([[0, 0], [0, 1]]), torch.tensor([0, 1])
    )
    threshold, scores = wkdr_threshold([(depth, labelled)])
    assert 0.3 <= threshold < 0.7
    assert scores == (0, 0, 0)
    with pytest.raises(ValueError, match="no samples"):
        wkdr_threshold([])


def test_diw_list(tmp_path):
    file = tmp_path / "DIW.csv"
    file.write_text("./a.thumb\n3,2,1,5,>,5,4\n./b.thumb\n1,1,4,5,<,5,4\r\n")
    first, second = read_diw(file)
    assert first.image == "./a.thumb"
    assert first.size == (4, 5)
    assert first.first.tolist() == [[2, 1]]
    assert first.second.tolist() == [[0, 4]]
    assert (first.relation.item(), second.relation.item()) == (1, -1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg\n9,2,1,5,>,5,4\n", r"line 2.*outside the image of 5 x 4"),
        ("a.jpg\n3,2,1,5,?,5,4\n", r"line 2: expected y_A"),
        ("a.jpg\n3,2,1\n", r"line 2: expected y_A"),
        ("a.jpg\n", r"ends after the path of a.jpg"),
        ("3,2,1,5,>,5,4\n", r"line 1: expected the path"),
    ],
)
def test_bad_diw_lines_are_named(tmp_path, text, message):
    file = tmp_path / "DIW.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        list(read_diw(file))


@given(st.integers(2, 30), st.integers(0, 1000))
def test_sampled_pairs_are_valid_and_different(size, seed):
    mask = torch.rand(size, size, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[0, :2] = True
    first, second = sample_pairs(mask, 50, seed)
    assert mask.flatten()[first].all()
    assert mask.flatten()[second].all()
    assert (first != second).all()
    assert torch.equal(first, sample_pairs(mask, 50, seed)[0])


def test_correlations_agree_with_scipy():
    generator = torch.Generator().manual_seed(0)
    target = 1 + torch.rand(12, 12, generator=generator)
    pred = target + 0.3 * torch.rand(12, 12, generator=generator)
    result = pair_correlations(pred, target, pairs=60_000)
    assert result["kendall"] == pytest.approx(kendalltau(pred.flatten(), target.flatten()).statistic, abs=0.02)
    assert result["spearman"] == pytest.approx(spearmanr(pred.flatten(), target.flatten()).statistic, abs=0.02)
    assert result["disagreement"] == pytest.approx((1 - result["kendall"]) / 2, abs=1e-12)


def test_correlations_see_order_alone():
    target = 1 + torch.rand(20, 20, generator=torch.Generator().manual_seed(1))
    assert pair_correlations(target**3, target) == {
        "kendall": 1.0,
        "disagreement": 0.0,
        "spearman": pytest.approx(1.0),
    }
    assert pair_correlations(-target, target)["kendall"] == -1
    flat = pair_correlations(torch.ones_like(target), target)
    assert (flat["kendall"], flat["disagreement"]) == (0, 1)
    assert math.isnan(flat["spearman"])


def test_tolerance_leaves_near_ties_out_and_nothing_left_is_nan():
    target = torch.tensor([[1.0, 1.01, 2.0]])
    pred = torch.tensor([[1.01, 1.0, 2.0]])
    assert pair_correlations(pred, target)["disagreement"] > 0
    assert pair_correlations(pred, target, tolerance=0.03)["disagreement"] == 0
    assert all(math.isnan(x) for x in pair_correlations(pred, torch.zeros(1, 3)).values())
    assert all(math.isnan(x) for x in pair_correlations(pred, torch.ones(1, 3)).values())
