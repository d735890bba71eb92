# SPDX-License-Identifier: Apache-2.0
"""Training for the order of depth: the ranking loss on pairs, beside losses of aligned maps where truth is dense."""

from __future__ import annotations

from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torchmetrics import Metric

from mlr.data import DepthData
from mlr.data.mixture import MixedData
from mlr.losses.criterion import MultiLossOutput
from mlr.relative.alignment import normalised
from mlr.relative.ranking import differences, ranking_loss
from mlr.training.module import DepthTraining
from mlr.training.scores import ORDER_SCORES

#: Name of the ranking loss among the losses that are balanced; it is the last one.
RANK = "rank"


class PairMetrics(Metric):
    """Mean over the images of how many ordered pairs of an image a prediction gets right.

    ``kendall`` is the share of pairs in the right order minus that of pairs in the wrong one, ``disagreement`` the
    share that is not in the right order (WHDR with equal weights). Equal pairs are left out, and images without others.
    """

    full_state_update = False
    kendall: Tensor
    disagreement: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("kendall", "disagreement", "images"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, depth: Tensor, pairs: Tensor) -> None:
        """Add a batch: depth [B, 1, H, W] and its pairs [B, P, 3]."""
        difference, label, there = differences(depth.float(), pairs)
        ordered = there & (label != 0)
        count, agreement = ordered.sum(1), difference.sign() * label
        scored = count > 0
        for name, values in (("kendall", agreement), ("disagreement", (agreement != 1).float())):
            means = torch.where(ordered, values, 0).sum(1) / count.clamp(min=1)
            setattr(self, name, getattr(self, name) + means[scored].sum())
        self.images = self.images + scored.sum()

    def compute(self) -> dict[str, Tensor]:
        """Both rates; NaN without an ordered pair."""
        return {"kendall": self.kendall / self.images, "disagreement": self.disagreement / self.images}


class RelativeTraining(DepthTraining):
    """A network that predicts relative depth: any numbers that grow with depth.

    The last loss of the balancer is :func:`mlr.relative.ranking.ranking_loss` on the pairs of a batch. The others are
    losses of the criterion between :func:`mlr.relative.alignment.normalised` maps of the prediction and of the relative
    truth ``-1 / depth``. Data that has only pairs takes the ranking loss alone, with ``criterion=None``.

    Validation scores :class:`PairMetrics` on the pairs of a batch.
    """

    scores = ORDER_SCORES

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.metrics = PairMetrics()  # type: ignore[assignment]

    def losses(self, batch: dict[str, Any]) -> MultiLossOutput:
        """Losses of a batch; the counts of the ranking loss are numbers of pairs."""
        weights, pred = self.balancer.weights, self.model(batch["image"])
        rank, pairs = ranking_loss(pred, batch["pairs"])
        total = (weights[-1] * rank).mean().to(rank.dtype)
        terms, counts = rank.detach()[:, None], pairs[:, None]
        if self.criterion is not None:
            valid = batch["valid"]
            mask = valid if self.masked else torch.ones_like(valid)
            maps = (normalised(depth, mask) for depth in (pred, batch["depth"]))
            out = self.criterion(*maps, weights[:-1], mask)
            assert out.counts is not None  # there is a mask
            total, terms, counts = (
                out.total + total, torch.cat([out.terms, terms.to(out.terms)], 1), torch.cat([out.counts, counts], 1)
            )  # fmt: skip
        return MultiLossOutput(total, terms, counts)

    def constant_scores(self, data: DepthData | MixedData, console: Console) -> dict[str, float]:
        """A constant orders no pair."""
        return {"kendall": 0.0, "disagreement": 1.0}

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        """Scores at the working size."""
        self.metrics.update(self.network(batch["image"]), batch["pairs"])
