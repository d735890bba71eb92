# SPDX-License-Identifier: Apache-2.0
"""Training on several data sets: which losses their images have, and scores by set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from mlr.data import DepthData
from mlr.data.mixture import MixedData
from mlr.data.named_sets import NamedSet
from mlr.evaluation import METRICS, DepthMetrics
from mlr.losses.criterion import MultiLossOutput
from mlr.training.constant import median_depth
from mlr.training.module import MIN_DEPTH, DepthTraining
from mlr.training.scores import score_names


class SetScores(nn.Module):
    """Scores of every data set, and their mean.

    Args:
        names: of the sets.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.metrics = nn.ModuleList(DepthMetrics() for _ in self.names)

    def update(self, pred: Tensor, batch: dict[str, Any]) -> None:
        """Add predictions of a batch to the scores of its sets."""
        for number in batch["set"].unique().tolist():
            rows = batch["set"] == number
            self.metrics[number].update(pred[rows], batch["depth"][rows], batch["valid"][rows])

    def compute(self) -> dict[str, Tensor]:
        """``set/metric`` of every set, and the means over the sets, each of which counts once; starts over."""
        by_set = {}
        for name, metric in zip(self.names, self.metrics, strict=True):
            by_set[name] = metric.compute()  # type: ignore[operator]
            metric.reset()  # type: ignore[operator]
        means = {m: torch.stack([scores[m] for scores in by_set.values()]).nanmean() for m in METRICS}
        return means | {f"{name}/{m}": scores[m] for name, scores in by_set.items() for m in METRICS}


class MixedTraining(DepthTraining):
    """A depth network on several data sets.

    An image has the losses of its set, under weights that are common to all sets: its weight of loss i is
    ``w_i f_si`` with the balancer's weight ``w_i`` and the factor ``f_si`` of its set s, 0 for losses that the set does
    not have. The balancer's mean of a loss is over the images whose set has it.

    Args:
        sets: the data sets; a batch says of which each image is.
        arguments: of :class:`~mlr.training.module.DepthTraining`.
    """

    factors: Tensor

    def __init__(self, sets: Sequence[NamedSet], *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        names = [entry.name for entry in sets]
        self.scores, self.set_scores = score_names("metric", names), SetScores(names)
        factors = [entry.loss_factors(self.criterion.space) for entry in sets]
        # settings give them, so a continued run does not read them from its state
        self.register_buffer("factors", torch.tensor(factors, dtype=torch.float64), persistent=False)

    def losses(self, batch: dict[str, Any]) -> MultiLossOutput:
        """Losses of a batch; those that an image's set does not have are 0 and absent."""
        factors = self.factors[batch["set"]]
        weights = self.balancer.weights * factors.to(self.balancer.weights)
        mask = batch["mask"] if self.masked else None
        out = self.criterion(self.model(batch["image"]), batch["depth"], weights, mask)
        counts = torch.ones_like(out.terms, dtype=torch.int64) if out.counts is None else out.counts
        own = factors > 0
        return out._replace(terms=torch.where(own, out.terms, 0), counts=torch.where(own, counts, 0))

    def _warn_of_absent_losses(self, counts: Tensor) -> None:
        """Losses are absent on purpose here; sparse sets are named before training."""

    def constant_scores(self, data: DepthData | MixedData, console: Console) -> dict[str, float]:
        """Scores of the median training depth of all sets."""
        constant, scores = float(median_depth(data)), SetScores(list(data.parts))
        for batch in data.val_dataloader():
            scores.update(torch.full_like(batch["depth"], constant), batch)
        found = scores.compute()
        return {name: float(found[name]) for name in self.scores.names}

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        """Scores at the working size, set by set."""
        self.set_scores.update(self.network(batch["image"]).float().clamp(min=MIN_DEPTH), batch)

    def on_validation_epoch_end(self) -> None:
        """Means over the images of each set, over all ranks, and over the sets."""
        found = self.set_scores.compute()
        self.log_dict({f"val/{name}": found[name].float() for name in self.scores.names}, sync_dist=True)
