# SPDX-License-Identifier: Apache-2.0
"""The plain formulations, with a mask and without, are the paper's losses."""

from __future__ import annotations

from dataclasses import replace

import formulations
import harness
import implementations
import masked_formulation
import masks
import pytest
import sweeps
import torch
from benchmarking import BRIEF, TINY
from depth_maps import depth_pair

import mlr
from mlr.losses import reference


@pytest.mark.parametrize("name", ["authors", "eager", "doubling"])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 1), (17, 31), (33, 47), (70, 90)])
def test_formulations_agree_with_the_definition_in_float64(name: str, size: tuple[int, int]) -> None:
    pred, target = depth_pair(2, *size, dtype=torch.float64)
    terms = mlr.LossSpace("all").indices
    values = getattr(formulations, name)(pred, target, terms)
    expected = reference.multi_loss_terms(pred, target, terms)
    # the authors add 1e-8 to the product of the norms
    torch.testing.assert_close(values, expected, rtol=1e-9, atol=3e-8 if name == "authors" else 1e-12)


@pytest.mark.parametrize("selection", ["D/0", "N/1", "rr/0+cc/2", "mean", "*/3-5"])
def test_formulations_compute_the_losses_that_are_asked_for(selection: str) -> None:
    pred, target = depth_pair(1, 40, 56, dtype=torch.float64)
    terms = mlr.LossSpace(selection).indices
    for formulation in (formulations.authors, formulations.eager, formulations.doubling):
        values = formulation(pred, target, terms)
        torch.testing.assert_close(values, reference.multi_loss_terms(pred, target, terms), rtol=1e-9, atol=3e-8)


@pytest.mark.parametrize("name", ["ones", "kinect", "lidar"])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (70, 90)])
@pytest.mark.parametrize("downsample", ["bicubic", "area"])
def test_the_masked_formulation_agrees_with_the_definition_in_float64(
    name: str, size: tuple[int, int], downsample: str
) -> None:
    pred, target = depth_pair(2, *size, dtype=torch.float64)
    mask = masks.make_mask(name, 2, *size, torch.Generator().manual_seed(1))
    assert mask is not None
    terms = mlr.LossSpace("all").indices
    expected = reference.multi_loss_terms(pred, target, terms, downsample, mask)
    for box in (formulations.box_by_pooling, formulations.box_by_doubling):
        values = masked_formulation.masked(pred, target, mask, terms, downsample, box)
        torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-12)


def test_masks_have_the_holes_that_they_are_named_for() -> None:
    generator = torch.Generator().manual_seed(0)
    kinect = masks.make_mask("kinect", 4, 288, 384, generator)
    lidar = masks.make_mask("lidar", 4, 288, 384, generator)
    assert kinect is not None
    assert lidar is not None
    assert 0.11 < (~kinect).float().mean() < 0.15
    assert not kinect[..., 0, :].any()
    assert 0.045 < lidar.float().mean() < 0.055
    assert not lidar[..., : int(0.4 * 288), :].any()
    assert masks.make_mask("none", 4, 288, 384, generator) is None
    with pytest.raises(ValueError, match="there are none, ones, kinect, lidar"):
        masks.make_mask("radar", 1, 8, 8, generator)


@pytest.mark.parametrize(("mask", "downsample"), sweeps.MASKED)
def test_masked_cases_are_right_and_timed(mask: str, downsample: str) -> None:
    case = replace(TINY, height=40, width=56, mask=mask, downsample=downsample)
    chosen = implementations.select(only=("l1", "authors", "eager", "doubling", "cpp", "module"))
    result = harness.measure_case(case, chosen, BRIEF)["results"]
    assert all(r["status"] in ("ok", "unavailable") for r in result.values()), result
    assert result["eager"]["status"] == result["doubling"]["status"] == "ok"
