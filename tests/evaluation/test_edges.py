# SPDX-License-Identifier: Apache-2.0
"""Edge precision, recall and F1 against scipy and known maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from mlr.evaluation.edges import edge_metrics, sobel_magnitude


def step(column: int, height: int = 9, width: int = 16) -> Tensor:
    """1 m left of a column and 3 m from it on."""
    depth = torch.ones(1, 1, height, width)
    depth[..., column:] = 3
    return depth


@pytest.mark.parametrize("size", [(3, 3), (5, 17), (31, 8)])
def test_magnitude_is_that_of_scipys_sobel_filters(size: tuple[int, int]) -> None:
    depth = torch.rand(1, 1, *size, dtype=torch.float64) * 5
    array = depth[0, 0].numpy()
    expected = np.hypot(ndimage.sobel(array, axis=0), ndimage.sobel(array, axis=1))[1:-1, 1:-1]
    np.testing.assert_allclose(sobel_magnitude(depth)[0, 0].numpy(), expected, atol=1e-12)


def test_equal_maps_agree_fully() -> None:
    scores = edge_metrics(step(8), step(8), threshold=1.0)
    assert [float(scores[name]) for name in ("precision", "recall", "f1")] == [1, 1, 1]


def test_an_edge_that_is_one_pixel_off_shares_half_of_its_two_columns() -> None:
    scores = edge_metrics(step(9), step(8), threshold=1.0)  # a step is an edge in the two columns beside it
    assert [float(scores[name]) for name in ("precision", "recall", "f1")] == [0.5, 0.5, 0.5]


def test_an_edge_too_many_costs_precision_alone() -> None:
    both = step(4)
    both[..., 10:] = 6
    scores = edge_metrics(both, step(4), threshold=1.0)
    assert float(scores["recall"]) == 1
    assert float(scores["precision"]) == 0.5
    assert float(scores["f1"]) == pytest.approx(2 / 3)


def test_what_has_no_denominator_has_no_score() -> None:
    flat = torch.full((1, 1, 9, 16), 2.0)
    missed, none = edge_metrics(flat, step(8)), edge_metrics(flat, flat)
    assert missed["precision"].isnan()
    assert (float(missed["recall"]), float(missed["f1"])) == (0, 0)
    assert all(none[name].isnan() for name in none)


@pytest.mark.parametrize("poison", [0.0, -1.0, float("nan"), float("inf")])
def test_unknown_depth_reaches_no_window(poison: float) -> None:
    target, pred = step(8), step(9)
    target[..., 3:6, 7:9] = poison
    mask = torch.ones_like(target, dtype=torch.bool)
    mask[..., 3:6, 7:9] = False
    got = edge_metrics(pred, target, threshold=1.0)
    expected = edge_metrics(pred, step(8), mask, threshold=1.0)
    assert {k: v.tolist() for k, v in got.items()} == {k: v.tolist() for k, v in expected.items()}
    rows = edge_metrics(pred, step(8), threshold=1.0)
    assert float(got["f1"]) == float(rows["f1"])  # whole windows are gone, in both maps alike


def test_images_do_not_mix() -> None:
    pred, target = torch.cat([step(8), step(9)]), torch.cat([step(8), step(8)])
    assert edge_metrics(pred, target, threshold=1.0)["f1"].tolist() == [1, 0.5]


def test_a_map_too_small_for_a_window_is_refused_or_has_no_score() -> None:
    small = torch.ones(1, 1, 3, 3)
    assert edge_metrics(small, small)["f1"].isnan().all()


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 1), (2, 1)])
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_prediction_that_is_not_finite_is_no_edge(place, broken):
    target = torch.ones(1, 1, 3, 3)
    target[..., 2] = 3
    pred = target.clone()
    pred[0, 0, place[0], place[1]] = broken
    scores = edge_metrics(pred, target)
    assert scores["recall"].tolist() == [0]
    assert scores["precision"].isnan().all()
