# SPDX-License-Identifier: Apache-2.0
"""The ranking loss and aligned maps, by hand and against float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlr.losses import MultiLoss
from mlr.relative.alignment import normalised
from mlr.relative.ranking import ranking_loss
from mlr.training.relative import PairMetrics

DEPTH = torch.tensor([[[[1.0, 2.0, 4.0]]], [[[5.0, 5.0, 0.0]]]])
#: A farther and predicted so, B farther and predicted the other way, equal; and one pair beside two empty rows.
PAIRS = torch.tensor([[[2, 0, 1], [1, 0, -1], [2, 1, 0]], [[0, 1, 1], [-1, -1, 0], [-1, -1, 0]]])


def test_ranking_loss_hand_worked():
    loss, counts = ranking_loss(DEPTH, PAIRS)
    first = (math.log1p(math.exp(-3)) + math.log1p(math.exp(1)) + 2**2) / 3
    torch.testing.assert_close(loss, torch.tensor([first, math.log(2)]))
    assert counts.tolist() == [3, 1]
    assert ranking_loss(DEPTH, torch.full((2, 4, 3), -1))[0].tolist() == [0, 0]


def test_gradients_and_large_differences():
    generator = torch.Generator().manual_seed(0)
    depth = torch.randn(2, 1, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    pairs = torch.stack(
        [*torch.randint(12, (2, 2, 9), generator=generator).unbind(1), torch.arange(9).expand(2, 9) % 3 - 1], -1
    )
    assert torch.autograd.gradcheck(lambda x: ranking_loss(x, pairs)[0], depth)
    far = (1e4 * DEPTH).half().requires_grad_()
    ranking_loss(far, PAIRS[:, :2])[0].sum().backward()
    assert far.grad is not None
    assert far.grad.isfinite().all()


def test_shapes_that_do_not_fit_are_refused():
    for depth, pairs in ((DEPTH[0], PAIRS), (DEPTH, PAIRS[:1]), (DEPTH, PAIRS[..., :2])):
        with pytest.raises(ValueError, match=r"pairs \[B, P, 3\]"):
            ranking_loss(depth, pairs)


def test_pair_metrics_count_ties_as_wrong_and_equal_pairs_not_at_all():
    metrics = PairMetrics()
    metrics.update(DEPTH[:1], PAIRS[:1])
    metrics.update(DEPTH[1:], PAIRS[1:])
    assert metrics.compute() == {"kendall": 0.0, "disagreement": 0.75}
    empty = PairMetrics()
    empty.update(DEPTH, PAIRS[:, 2:])
    assert math.isnan(empty.compute()["kendall"])


@given(st.integers(1, 6), st.integers(1, 6), st.floats(0.1, 50), st.floats(-9, 9), st.integers(0, 99))
def test_a_scale_and_a_shift_change_nothing_and_neither_does_what_is_masked(height, width, scale, shift, seed):
    generator = torch.Generator().manual_seed(seed)
    depth = torch.rand(2, 1, height, width, generator=generator, dtype=torch.float64)
    mask = torch.rand(depth.shape, generator=generator) < 0.7
    wanted = normalised(depth, mask)
    torch.testing.assert_close(normalised(scale * depth + shift, mask), wanted, atol=1e-4, rtol=1e-4)
    poisoned = torch.where(mask, depth, torch.nan)
    torch.testing.assert_close(normalised(poisoned, mask), wanted)
    assert (wanted[~mask] == 0).all()
    for z, known in zip(wanted, mask, strict=True):
        if known.any() and z.abs().max() > 0:
            assert z[known].abs().mean() == pytest.approx(1)
            assert (z[known] == 0).any()  # the median


def test_gradients_of_aligned_maps():
    depth = torch.rand(2, 1, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    mask = torch.ones_like(depth, dtype=torch.bool)
    mask[0, :, 1] = False
    mask[1] = False
    assert torch.autograd.gradcheck(lambda x: normalised(x, mask), depth)


def test_ranking_and_aligned_losses_draw_a_free_map_into_the_true_order():
    generator = torch.Generator().manual_seed(0)
    truth = -1 / (1 + 4 * torch.rand(1, 1, 32, 32, generator=generator))
    mask, criterion = torch.ones_like(truth, dtype=torch.bool), MultiLoss("D/0")
    a, b = torch.randint(1024, (2, 2000), generator=generator)
    label = (truth.flatten()[a] - truth.flatten()[b]).sign().long()
    pairs = torch.stack([a, b, label], 1)[None]
    for losses in ("rank", "D/0"):
        z = (0.01 * torch.randn(1, 1, 32, 32, generator=generator)).requires_grad_()
        optimizer = torch.optim.Adam([z], 0.05)
        for _ in range(60):
            optimizer.zero_grad()
            if losses == "rank":
                ranking_loss(z, pairs)[0].sum().backward()
            else:
                criterion(normalised(z, mask), normalised(truth, mask), mask=mask).total.backward()
            optimizer.step()
        metrics = PairMetrics()
        metrics.update(z, pairs)
        assert metrics.compute()["kendall"] > 0.8
