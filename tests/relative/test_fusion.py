# SPDX-License-Identifier: Apache-2.0
"""Ratios to neighbours, and the fusion of ordinary and relative maps, against float64 truth."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlr.relative.fusion import decompose, fuse, propagate, solve_ratios
from mlr.relative.ratios import LEVELS, OFFSETS, doubled, halved, log_pyramid, log_ratios, neighbours


def scene(height: int, width: int, seed: int = 0, batch: int = 1) -> torch.Tensor:
    """Depth with walls, steps and texture, [B, 1, H, W] float64 metres."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    depth = 2 + 3 * x + y + 2 * ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.05)
    return depth.double() * (1 + 0.1 * torch.rand(batch, 1, height, width, generator=generator).double())


def exact(depth: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Logarithms and log ratios of every level."""
    levels = [z for z, _ in log_pyramid(depth, torch.ones_like(depth, dtype=torch.bool))]
    return levels, [log_ratios(z) for z in levels]


def error(fused: torch.Tensor, depth: torch.Tensor) -> float:
    return float((fused.log() - depth.log()).square().mean().sqrt())


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 99))
def test_ratios_by_a_loop(height, width, seed):
    z = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(seed))
    found = log_ratios(z)
    for channel, (row, column) in enumerate(OFFSETS):
        for i in range(height):
            for j in range(width):
                y, x = min(max(i + row, 0), height - 1), min(max(j + column, 0), width - 1)
                assert found[0, channel, i, j] == z[0, 0, i, j] - z[0, 0, y, x]


def test_a_pyramid_is_made_of_known_pixels_alone():
    depth = torch.full((1, 1, 32, 64), math.e)
    depth[..., ::2] = math.nan
    valid = depth.isfinite()
    valid[..., :16, :32] = False
    levels = log_pyramid(depth, valid)
    assert [tuple(z.shape[-2:]) for z, _ in levels] == [(1 << k, 2 << k) for k in range(LEVELS)]
    for level, (z, known) in enumerate(levels):
        torch.testing.assert_close(z, known.float())
        assert known.float().mean() == (1 if level == 0 else 0.75 if level < 5 else 0.375)
    with pytest.raises(ValueError, match="multiples of 32"):
        log_pyramid(torch.ones(1, 1, 33, 32), torch.ones(1, 1, 33, 32, dtype=torch.bool))


@settings(max_examples=10)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 99))
def test_exact_ratios_give_depth_back_but_for_its_scale(height, width, seed):
    z = scene(height, width, seed, batch=2).log()
    solved = solve_ratios(log_ratios(z))
    torch.testing.assert_close(solved, z - z.mean((-2, -1), keepdim=True), atol=1e-9, rtol=0)


def test_noise_of_ratios_averages_out_and_an_image_does_not_depend_on_the_others():
    z = scene(9, 12, 1, batch=3).log()
    noise = 0.1 * torch.randn(log_ratios(z).shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    solved = solve_ratios(log_ratios(z) + noise)
    wrong = solved - (z - z.mean((-2, -1), keepdim=True))
    assert wrong.square().mean().sqrt() < 0.05
    alone = solve_ratios((log_ratios(z) + noise)[1:2])
    torch.testing.assert_close(alone, solved[1:2], atol=1e-12, rtol=0)


def test_a_start_near_the_truth_saves_rounds():
    z = scene(36, 48).log()
    truth = z - z.mean()
    cold, warm = (solve_ratios(log_ratios(z), start, 20) - truth for start in (None, doubled(halved(truth))))
    assert warm.abs().mean() < 0.1 * cold.abs().mean()


def test_propagation_leaves_the_truth_alone_and_brings_details_back():
    z = scene(24, 32).log()
    ratios = log_ratios(z)
    torch.testing.assert_close(propagate(ratios, z, 3), z, atol=1e-12, rtol=0)
    start = doubled(halved(z))
    before, once, often = (
        (x - z).abs().mean() for x in (start, propagate(ratios, start), propagate(ratios, start, 400))
    )
    assert once < 0.2 * before
    assert often < 0.1 * once
    moved = propagate(ratios, start + 5)
    torch.testing.assert_close(moved, propagate(ratios, start) + 5)


@given(st.integers(0, 4), st.integers(1, 3), st.integers(1, 3))
def test_mean_and_residuals_are_the_map(level, height, width):
    z = scene(height << level, width << level, level)
    mean, residuals = decompose(z, level)
    total = mean
    for number, residual in enumerate(residuals):
        total = (doubled(total) if number else total) + residual
    assert len(residuals) == level + 1
    torch.testing.assert_close(total, z)
    assert all(abs(float(residual.mean())) < 1e-12 for residual in residuals)


def test_exact_maps_are_fused_to_exact_depth():
    depth = scene(64, 96, batch=2)
    levels, ratios = exact(depth)
    ordinary = {0: levels[0], 5: levels[5]}
    detail = error(doubled(halved(levels[5])).exp(), depth)
    once, often = (error(fuse(ordinary, ratios, steps=steps), depth) for steps in (1, 400))
    assert once < 0.2 * detail
    assert often < 1e-4
    flat = torch.full_like(depth, 3)
    torch.testing.assert_close(fuse(*_of(flat)), flat)


def _of(depth: torch.Tensor) -> tuple[dict[int, torch.Tensor], list[torch.Tensor]]:
    levels, ratios = exact(depth)
    return {0: levels[0], 5: levels[5]}, ratios


@pytest.mark.parametrize("seed", range(3))
def test_the_fusion_of_noisy_maps_is_better_than_the_noisy_map(seed):
    depth = scene(64, 96, seed)
    ordinary, ratios = _of(depth)
    generator = torch.Generator().manual_seed(seed)

    def noisy(x: torch.Tensor, size: float) -> torch.Tensor:
        return x + size * torch.randn(x.shape, generator=generator, dtype=x.dtype)

    ordinary = {level: noisy(z, 0.2) for level, z in ordinary.items()}
    fused = fuse(ordinary, [noisy(r, 0.05) for r in ratios])
    # the finest residual is the mean of D8's, whose noise is halved, and of that of R8
    assert error(fused, depth) < 0.6 * error(ordinary[5].exp(), depth)


def test_metres_come_from_the_ordinary_maps_alone():
    ordinary, ratios = _of(scene(32, 32))
    doubled_depth = fuse({level: z + math.log(2) for level, z in ordinary.items()}, ratios)
    torch.testing.assert_close(doubled_depth, 2 * fuse(ordinary, ratios))
    with pytest.raises(ValueError, match="expected an ordinary map and ratios of 6 levels"):
        fuse({}, ratios)
    with pytest.raises(ValueError, match="6 levels"):
        fuse(ordinary, ratios[:5])


def test_neighbours_of_one_pixel_are_itself():
    assert (neighbours(torch.full((2, 1, 1, 1), 7.0)) == 7).all()
    assert (solve_ratios(torch.zeros(1, 24, 1, 1)) == 0).all()
