# SPDX-License-Identifier: Apache-2.0
"""The mean angle of normals against known planes and the loss N."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlr.evaluation.edges import edge_metrics
from mlr.evaluation.normals import normal_angle, slopes

SLOPE = st.floats(-3, 3, allow_subnormal=False)


def plane(slope_x: float, slope_y: float, height: int = 6, width: int = 9) -> torch.Tensor:
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64), indexing="ij"
    )
    return (50 + slope_x * columns + slope_y * rows)[None, None]


@given(SLOPE, SLOPE, SLOPE, SLOPE)
def test_angle_of_planes_is_that_of_their_normals(a: float, b: float, c: float, d: float) -> None:
    first, second = torch.tensor([-a, -b, 1.0]).double(), torch.tensor([-c, -d, 1.0]).double()
    cosine = float(torch.nn.functional.cosine_similarity(first, second, dim=0).clamp(-1, 1))
    got = float(normal_angle(plane(a, b), plane(c, d)))
    assert got == pytest.approx(math.degrees(math.acos(cosine)), abs=1e-4)


def test_small_angles_keep_their_digits() -> None:
    got = float(normal_angle(plane(1e-9, 0), plane(0, 0)))
    assert got == pytest.approx(math.degrees(1e-9), rel=1e-4)


def test_slopes_are_those_of_the_loss() -> None:
    r, c = slopes(plane(0.5, -0.25))
    assert r.shape == c.shape == (1, 1, 5, 8)
    assert torch.equal(r, torch.full_like(r, 0.5))
    assert torch.equal(c, torch.full_like(c, -0.25))


@pytest.mark.parametrize("poison", [0.0, -1.0, float("nan"), float("inf")])
def test_unknown_depth_reaches_no_angle(poison: float) -> None:
    pred, target = torch.rand(2, 1, 7, 8) + 1, torch.rand(2, 1, 7, 8) + 1
    mask = torch.rand(2, 1, 7, 8) > 0.3
    expected = normal_angle(pred, target, mask)
    spoiled = pred.where(mask, torch.tensor(float("nan"))), target.where(mask, torch.tensor(poison))
    assert torch.equal(normal_angle(*spoiled, mask), expected)
    assert torch.equal(normal_angle(*spoiled), expected)


@pytest.mark.parametrize("shape", [(2, 7, 8), (2, 2, 7, 8), (1, 1, 7, 8)])
def test_maps_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    maps = torch.ones(2, 1, 7, 8)
    for score in (normal_angle, edge_metrics):
        with pytest.raises(ValueError, match="shapes differ"):
            score(torch.ones(shape), maps)
        with pytest.raises(ValueError, match="shapes differ"):
            score(maps, maps, torch.ones(shape, dtype=torch.bool))


def test_an_image_without_a_position_has_no_angle() -> None:
    maps = torch.ones(2, 1, 4, 4)
    mask = torch.ones_like(maps, dtype=torch.bool)
    mask[1] = False
    got = normal_angle(maps, maps, mask)
    assert float(got[0]) == 0
    assert got[1].isnan()
