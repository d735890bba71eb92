# SPDX-License-Identifier: Apache-2.0
"""Several data sets in one training: which losses their images have, and scores by set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlr.evaluation import METRICS, DepthMetrics


class TrainedSets(nn.Module):
    """The data sets of a training on several.

    An image has the losses of its set, under weights that are common to all sets: its weight of loss i is
    ``w_i f_si`` with the balancer's weight ``w_i`` and the factor ``f_si`` of its set s, 0 for losses that the set does
    not have. The balancer's mean of a loss is over the images whose set has it.

    Args:
        names: of the sets.
        factors: [sets][n], factor of each loss for the images of a set.
    """

    factors: Tensor

    def __init__(self, names: Sequence[str], factors: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.names = tuple(names)
        # settings give them, so a continued run does not read them from its state
        self.register_buffer("factors", torch.tensor(factors, dtype=torch.float64), persistent=False)
        self.metrics = nn.ModuleList(DepthMetrics() for _ in self.names)

    def weights(self, weights: Tensor, number: Tensor) -> Tensor:
        """Weights [B, n] of images, of the common weights [n] and the numbers [B] of the images' sets."""
        return weights * self.factors[number].to(weights)

    def present(self, terms: Tensor, counts: Tensor | None, number: Tensor) -> Tensor:
        """Counts [B, n] of valid positions that are 0 for losses that an image's set does not have."""
        own = self.factors[number] > 0
        return torch.where(own, torch.ones_like(terms, dtype=torch.int64) if counts is None else counts, 0)

    def score(self, pred: Tensor, target: Tensor, valid: Tensor, number: Tensor) -> None:
        """Add a batch to the scores of its sets."""
        for own in number.unique().tolist():
            rows = number == own
            self.metrics[own].update(pred[rows], target[rows], valid[rows])  # type: ignore[operator]

    def scores(self) -> dict[str, Tensor]:
        """``set/metric`` of every set, and every metric's mean over the sets, each of which counts once."""
        by_set = {}
        for name, metric in zip(self.names, self.metrics, strict=True):
            by_set[name] = metric.compute()  # type: ignore[operator]
            metric.reset()  # type: ignore[operator]
        means = {m: torch.stack([scores[m] for scores in by_set.values()]).nanmean() for m in METRICS}
        return means | {f"{name}/{m}": scores[m] for name, scores in by_set.items() for m in METRICS}


def score_names(names: Sequence[str]) -> list[str]:
    """Names of the scores of a training on data sets of these names; of none if it is on one."""
    return [*METRICS, *(f"{name}/{metric}" for name in names for metric in METRICS)]
