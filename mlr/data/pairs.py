# SPDX-License-Identifier: Apache-2.0
"""Pairs of points for training: those of a data set, moved with the image, or drawn from its depth.

A row of ``pairs`` [P, 3] is (A, B, l): flat indices of two pixels in the depth's grid, and l = 1 if A is farther, -1 if
B is, 0 if they are equally far. A is -1 in rows that hold no pair.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors

from mlr.data.sample import Sample
from mlr.relative.ordinal import OrdinalPairs, label_pairs

#: What stands in a row without a pair.
NO_PAIR = (-1, -1, 0)


class WithPairs(torch.nn.Module):
    """A transform, then pairs of points, and depth that is relative.

    Depth d in metres becomes ``-1 / d``, which grows with depth and is what relative depth is measured in (Ranftl et
    al. 2022): a network learns it up to scale and shift.

    Args:
        transform: what is done to a sample before.
        pairs: how many to draw where the data set has none of its own.
        tolerance: pairs whose depths differ by at most this share of the nearer one are equal. Of relative depth, which
            has no ratios: that differ by at most so much.
        seed: of the draw; None draws from PyTorch's state.
    """

    def __init__(self, transform: Any, pairs: int, tolerance: float = 0.03, seed: int | None = None) -> None:
        super().__init__()
        self.transform, self.pairs, self.tolerance, self.seed = transform, pairs, tolerance, seed

    def forward(self, sample: Sample) -> Sample:
        """Transform a sample and add "pairs"."""
        sample = self.transform(sample)
        depth = sample["depth"].as_subclass(Tensor)
        if "points" in sample:
            size = depth.shape[-2], depth.shape[-1]
            return {**sample, "pairs": _moved(sample["points"].as_subclass(Tensor), sample["relation"], size)}
        known = (depth > 0) & (sample["valid"].as_subclass(Tensor) > 0)
        metric = sample.get("metric", True)
        order = torch.where(known, depth, 1)
        order, margin = (order.log(), math.log1p(self.tolerance)) if metric else (order, self.tolerance)
        seed = int(torch.randint(2**31, ())) if self.seed is None else self.seed
        drawn = label_pairs(order[0], known[0], self.pairs, margin, seed)
        relative = torch.where(depth > 0, -1 / depth, 0) if metric else depth
        wrapped = tv_tensors.wrap(relative, like=sample["depth"])
        return {**sample, "depth": wrapped, "pairs": _filled(drawn, self.pairs)}


def _moved(points: Tensor, relation: Tensor, size: tuple[int, int]) -> Tensor:
    """Rows of pairs whose points [P, 2, 2], (column, row), still lie in the image; the others hold no pair."""
    columns, rows = points.round().long().unbind(-1)
    inside = ((columns >= 0) & (columns < size[1]) & (rows >= 0) & (rows < size[0])).all(1)
    flat = rows * size[1] + columns
    return torch.where(inside[:, None], torch.cat([flat, relation[:, None]], 1), torch.tensor(NO_PAIR))


def _filled(pairs: OrdinalPairs, count: int) -> Tensor:
    """Rows of drawn pairs; without two known pixels there are none."""
    if not len(pairs.relation):
        return torch.tensor(NO_PAIR).repeat(count, 1)
    stride = torch.tensor([pairs.size[1], 1])
    flat = [(points * stride).sum(1) for points in (pairs.first, pairs.second)]
    return torch.stack([*flat, pairs.relation], 1)
