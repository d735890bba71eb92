# SPDX-License-Identifier: Apache-2.0
"""Training of the ordinary and relative network: each of its heads by its own balanced losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlr.losses.criterion import MultiLossOutput
from mlr.models.ordinary_relative import HEADS, ORDINARY
from mlr.relative.ratios import log_pyramid, log_ratios, neighbours
from mlr.training.module import DepthTraining

#: Weight of a relative head against an ordinary one, as in the authors' program.
RELATIVE_WEIGHT = 10.0


class FusionTraining(DepthTraining):
    """Losses of twelve maps, :class:`mlr.models.ordinary_relative.OrdinaryRelativeModel`, against those of true depth.

    The maps are logarithms. A relative head's 24 ratios are 24 maps whose losses are averaged. The balancer is a
    :class:`mlr.balancing.heads.HeadBalancers`. Validation scores the fused depth.
    """

    def losses(self, batch: dict[str, Any]) -> MultiLossOutput:
        """Losses of a batch, head by head."""
        maps = self.model.maps(batch["image"])  # type: ignore[operator]
        depth, valid = batch["depth"], batch["valid"]
        known = (valid if self.masked else torch.ones_like(valid)) & (depth > 0)
        pyramid = log_pyramid(depth, known)
        weights = self.balancer.weights.chunk(len(HEADS))
        outputs = [
            self._head(name, maps[name], *pyramid[int(name[1:]) - 3], of_head)
            for name, of_head in zip(HEADS, weights, strict=True)
        ]
        total = torch.stack([out.total for out in outputs]).sum()
        counts = torch.cat([out.counts for out in outputs if out.counts is not None], 1)
        return MultiLossOutput(total, torch.cat([out.terms for out in outputs], 1), counts)

    def _head(self, name: str, pred: Tensor, z: Tensor, known: Tensor, weights: Tensor) -> MultiLossOutput:
        """Losses of a head, [B, n], and its part of the total."""
        if name in ORDINARY:
            return self.criterion(pred, z, weights, known)
        target, mask = log_ratios(z), known & (neighbours(known.to(z)) > 0)
        out = self.criterion(*(x.flatten(0, 1)[:, None] for x in (pred, target)), weights, mask.flatten(0, 1)[:, None])
        terms, counts = (x.unflatten(0, target.shape[:2]) for x in (out.terms, out.counts))
        present = (counts > 0).sum(1)
        return MultiLossOutput(RELATIVE_WEIGHT * out.total, terms.sum(1) / present.clamp(min=1), counts.sum(1))
