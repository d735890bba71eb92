# SPDX-License-Identifier: Apache-2.0
"""Relative depth: ordinal pairs (DIW, WHDR, WKDR) and rank correlations on sampled pixels.

Depth grows away from the camera everywhere here; a network that predicts disparity must be negated first.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

#: Half-widths of the "equal" band that are tried, in the unit of the depth map.
WKDR_THRESHOLDS = tuple(step / 100 for step in range(11, 151))


class OrdinalPairs(NamedTuple):
    """Pairs of points of one image and which of them is farther.

    Attributes:
        image: path of the image as the list names it.
        size: (height, width) in pixels that the points refer to.
        first, second: points A and B, int64 [n, 2], (row, column) from 0.
        relation: int64 [n]: 1 = A is farther, -1 = B is farther, 0 = equally far.
    """

    image: str
    size: tuple[int, int]
    first: Tensor
    second: Tensor
    relation: Tensor


class OrdinalScores(NamedTuple):
    """Disagreement rates of one image or a mean over images; NaN where there is no such pair."""

    all: float
    equal: float
    unequal: float


def read_diw(
    path: str | Path, order: Literal["yx", "xy"] = "yx", first_pixel: Literal[0, 1] = 1
) -> Iterator[OrdinalPairs]:
    """Read a list of "Depth in the Wild": a line with the image's path, then a line with its pair.

    The pair's line is ``y_A,x_A,y_B,x_B,relation,width,height`` with ">" for A farther. Programs in circulation
    disagree on the order of the coordinates, so every point is checked to lie in its image.

    Args:
        path: csv file.
        order: "yx" row first (the data set's own loader) or "xy".
        first_pixel: number of the first row and column.

    Yields:
        One :class:`OrdinalPairs` per image, in the file's order.

    Raises:
        ValueError: a line cannot be read, or a point lies outside its image; the message names the line.
    """
    image, number = None, 0
    with open(path, newline="") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if not row:
                continue
            if image is None:
                if len(row) != 1:
                    raise ValueError(f"{path}, line {number}: expected the path of an image, got {','.join(row)!r}")
                image = row[0].strip()
                continue
            try:
                *coordinates, sign, width, height = (field.strip() for field in row)
                a1, a2, b1, b2 = (int(float(c)) - first_pixel for c in coordinates)
                relation = {">": 1, "<": -1, "=": 0}[sign]
                size = int(float(height)), int(float(width))
            except (ValueError, KeyError) as error:
                raise ValueError(
                    f"{path}, line {number}: expected y_A,x_A,y_B,x_B,relation,width,height, got {','.join(row)!r}"
                ) from error
            points = torch.tensor([[a1, a2], [b1, b2]])
            points = points if order == "yx" else points.flip(1)
            if (points < 0).any() or (points >= torch.tensor(size)).any():
                raise ValueError(
                    f"{path}, line {number}: a point lies outside the image of {size[1]} x {size[0]} pixels, read as "
                    f"order={order!r}, first_pixel={first_pixel}: try the other order"
                )
            yield OrdinalPairs(image, size, points[:1], points[1:], torch.tensor([relation]))
            image = None
    if image is not None:
        raise ValueError(f"{path}, line {number}: the list ends after the path of {image}, without its pair")


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
    difference = _at(depth, pairs.first, pairs.size) - _at(depth, pairs.second, pairs.size)
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
    difference = _at(depth, pairs.first, pairs.size) - _at(depth, pairs.second, pairs.size)
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


def sample_pairs(mask: Tensor, pairs: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw pairs of two different valid pixels.

    Args:
        mask: [H, W], True where a pixel may be drawn.
        pairs: how many, with replacement.
        seed: the draw is the same for a seed on every machine.

    Returns:
        Flat indices of the first and the second pixel, int64 [pairs] each (empty with fewer than two valid pixels).
    """
    valid = mask.flatten().nonzero()[:, 0].cpu()
    if len(valid) < 2:
        return valid[:0], valid[:0]
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(len(valid), (pairs,), generator=generator)
    # a step of 1 to n - 1 round the list never returns to its start
    step = torch.randint(1, len(valid), (pairs,), generator=generator)
    return valid[first], valid[(first + step) % len(valid)]


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

    ``kendall`` is the mean of ``sign(p_A - p_B) sign(g_A - g_B)`` (concordant minus discordant share: tau-a on the
    sample), ``disagreement`` the share of pairs in the wrong order (the l_ij rate of Table 2; ties in the prediction
    count as wrong), ``spearman`` the correlation of the sampled pixels' ranks.

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
    from scipy.stats import spearmanr

    valid = (target > 0) & target.isfinite()
    valid = valid if mask is None else valid & (mask != 0)
    a, b = sample_pairs(valid, pairs, seed)
    p, g = pred.detach().flatten().double().cpu(), target.detach().flatten().double().cpu()
    ordered = (g[a] - g[b]).abs() > tolerance * torch.minimum(g[a], g[b])
    a, b = a[ordered], b[ordered]
    if not len(a):
        return dict.fromkeys(("kendall", "disagreement", "spearman"), math.nan)
    agreement = (p[a] - p[b]).sign() * (g[a] - g[b]).sign()
    pixels = torch.cat([a, b])
    constant = bool((p[pixels] == p[pixels[0]]).all())
    return {
        "kendall": float(agreement.mean()),
        "disagreement": float((agreement != 1).double().mean()),
        "spearman": math.nan if constant else float(spearmanr(p[pixels], g[pixels]).statistic),
    }


def _at(depth: Tensor, points: Tensor, size: tuple[int, int]) -> Tensor:
    if depth.ndim != 2:
        raise ValueError(f"depth must be [H, W], got {list(depth.shape)}")
    scale = torch.tensor([depth.shape[0] / size[0], depth.shape[1] / size[1]])
    rows, columns = (points * scale).long().unbind(1)  # the pixel of the map that holds the point
    return depth[rows.to(depth.device), columns.to(depth.device)]


def _worst(scores: OrdinalScores) -> float:
    return max(score for score in (scores.equal, scores.unequal, -math.inf) if not math.isnan(score))
