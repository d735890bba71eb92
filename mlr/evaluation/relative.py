# SPDX-License-Identifier: Apache-2.0
"""Relative depth: disagreement rates on ordinal pairs (WHDR, WKDR) and rank correlations on sampled pixels.

Depth grows away from the camera everywhere here; a network that predicts disparity must be negated first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mlr.relative.ordinal import OrdinalPairs, label_pairs

#: Half-widths of the "equal" band that are tried, in the unit of the depth map.
WKDR_THRESHOLDS = tuple(step / 100 for step in range(11, 151))


class OrdinalScores(NamedTuple):
    """Disagreement rates of one image or a mean over images; NaN where there is no such pair."""

    all: float
    equal: float
    unequal: float


def whdr(depth: Tensor, pairs: OrdinalPairs, weights: Tensor | None = None) -> float:
    """Weighted human disagreement rate: share of pairs whose order the depth map gets wrong.

    Pairs labelled as equal are left out; a pair predicted as equal counts as wrong.

    Args:
        depth: [H, W], larger = farther; points are scaled where its size differs from the pairs'.
        pairs: labelled pairs.
        weights: confidence of each pair, [n]; None = all alike.

    Returns:
        Rate in [0, 1], NaN without ordered pairs.

    Example:
        >>> pairs = OrdinalPairs("", (1, 2), torch.tensor([[0, 1]]), torch.tensor([[0, 0]]), torch.tensor([1]))
        >>> whdr(torch.tensor([[1.0, 2.0]]), pairs)
        0.0
    """
    ordered = pairs.relation != 0
    difference = values_at(depth, pairs.first, pairs.size) - values_at(depth, pairs.second, pairs.size)
    wrong = (difference.sign() != pairs.relation.to(difference))[ordered]
    share = torch.ones_like(wrong, dtype=torch.float64) if weights is None else weights[ordered].double()
    return float((wrong * share).sum() / share.sum())


def wkdr(depth: Tensor, pairs: OrdinalPairs, threshold: float) -> OrdinalScores:
    """Weighted kinect disagreement rate: A is farther if ``z_A - z_B > t``, B if ``z_A - z_B < -t``, else equal.

    Args:
        depth: [H, W], larger = farther.
        pairs: labelled pairs, with 0 for equal.
        threshold: t, in the unit of ``depth``; see :func:`wkdr_threshold`.

    Returns:
        Rates over all pairs, over the equal ones and over the others.
    """
    difference = values_at(depth, pairs.first, pairs.size) - values_at(depth, pairs.second, pairs.size)
    predicted = (difference > threshold).long() - (difference < -threshold).long()
    wrong = (predicted != pairs.relation.to(predicted)).double()
    equal = (pairs.relation == 0).to(wrong.device)
    return OrdinalScores(*(float(wrong[chosen].mean()) for chosen in (torch.ones_like(equal), equal, ~equal)))


def wkdr_threshold(
    samples: Sequence[tuple[Tensor, OrdinalPairs]], thresholds: Iterable[float] = WKDR_THRESHOLDS
) -> tuple[float, OrdinalScores]:
    """The threshold that minimises max(WKDR of equal, WKDR of unequal pairs) on a validation set.

    Args:
        samples: depth map and pairs of every image.
        thresholds: candidates; by default 0.11 to 1.50 in steps of 0.01.

    Returns:
        The threshold and the mean rates over images at it (images without such pairs left out).

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("no samples: the threshold is chosen on a validation set")
    best: tuple[float, OrdinalScores] | None = None
    for threshold in thresholds:
        rates = torch.tensor([wkdr(depth, pairs, threshold) for depth, pairs in samples], dtype=torch.float64)
        mean = OrdinalScores(*rates.nanmean(0).tolist())
        if best is None or _worst(mean) < _worst(best[1]):
            best = threshold, mean
    assert best is not None
    return best


def pair_correlations(
    pred: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    pairs: int = 5000,
    tolerance: float = 0.0,
    seed: int = 0,
) -> dict[str, float]:
    """Rank agreement of two depth maps on sampled pairs of pixels; invariant to any increasing change of depth.

    ``kendall`` and ``disagreement`` are those of :func:`pair_agreement`, ``spearman`` is the correlation of the sampled
    pixels' ranks.

    Args:
        pred: predicted depth, [H, W].
        target: true depth in metres, [H, W]; 0, negative or not finite = unknown.
        mask: True where the pixel counts.
        pairs: pairs to draw.
        tolerance: pairs whose depths differ by no more than this share of the nearer one have no order: left out.
        seed: of the draw.

    Returns:
        The three rates; NaN where no ordered pair can be drawn.
    """
    if pred.shape != target.shape or pred.ndim != 2:
        raise ValueError(f"pred and target must be [H, W] alike, got {list(pred.shape)} and {list(target.shape)}")
    valid = (target > 0) & target.isfinite()
    order = torch.where(valid, target, 1).double().log()
    valid = valid if mask is None else valid & (mask != 0)
    drawn = label_pairs(order, valid, pairs, math.log1p(tolerance), seed)
    return {**pair_agreement(pred, drawn), "spearman": spearman(pred, order, drawn)}


def pair_agreement(depth: Tensor, pairs: OrdinalPairs) -> dict[str, float]:
    """How far a depth map keeps the order of labelled pairs; equal pairs are left out.

    ``kendall`` is the mean of ``sign(z_A - z_B) l``, l = 1 or -1 (concordant minus discordant share: tau-a on the
    pairs), ``disagreement`` the share of pairs in the wrong order (the l_ij of the paper's Table 2; pairs predicted as
    equal count as wrong).

    Args:
        depth: [H, W], larger = farther.
        pairs: labelled pairs.

    Returns:
        Both rates; NaN without an ordered pair.
    """
    ordered = pairs.relation != 0
    difference = values_at(depth, pairs.first, pairs.size) - values_at(depth, pairs.second, pairs.size)
    agreement = (difference.sign().cpu() * pairs.relation)[ordered].double()
    return {"kendall": float(agreement.mean()), "disagreement": float((agreement != 1).double().mean())}


def spearman(depth: Tensor, truth: Tensor, pairs: OrdinalPairs) -> float:
    """Spearman's correlation of a depth map with the truth over the pixels of the ordered pairs.

    Returns:
        The correlation; NaN where one of the maps is constant there, or without an ordered pair.
    """
    from scipy.stats import spearmanr

    ordered = pairs.relation != 0
    points = torch.cat([pairs.first[ordered], pairs.second[ordered]])
    ranked, true = (values_at(x.detach(), points, pairs.size).double().cpu() for x in (depth, truth))
    if not len(points) or (ranked == ranked[0]).all() or (true == true[0]).all():
        return math.nan
    return float(spearmanr(ranked, true).statistic)


def values_at(depth: Tensor, points: Tensor, size: tuple[int, int]) -> Tensor:
    """Values [n] of a map [H, W] at points [n, 2] of an image of that size, (row, column)."""
    if depth.ndim != 2:
        raise ValueError(f"depth must be [H, W], got {list(depth.shape)}")
    scale = torch.tensor([depth.shape[0] / size[0], depth.shape[1] / size[1]])
    rows, columns = (points * scale).long().unbind(1)  # the pixel of the map that holds the point
    return depth[rows.to(depth.device), columns.to(depth.device)]


def _worst(scores: OrdinalScores) -> float:
    return max(score for score in (scores.equal, scores.unequal, -math.inf) if not math.isnan(score))
