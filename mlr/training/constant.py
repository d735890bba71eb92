# SPDX-License-Identifier: Apache-2.0
"""The depth that one would guess without looking."""

from __future__ import annotations

import torch
from rich.console import Console
from torch import Tensor

from mlr.data import DepthData
from mlr.data.depth_files import DataError
from mlr.data.mixture import MixedData
from mlr.evaluation import METRICS, DepthMetrics
from mlr.utils.progress import Progress


def median_depth(data: DepthData | MixedData, images: int = 64) -> Tensor:
    """Median of the medians of some training images, metres.

    Args:
        data: the data, set up.
        images: how many images.

    Raises:
        DataError: no training image has a known depth.
    """
    medians: list[Tensor] = []
    for batch in data.train_dataloader():
        pairs = zip(batch["depth"], batch["valid"], strict=True)
        medians += [depth[valid].median() for depth, valid in pairs if valid.any()]
        if len(medians) >= images:
            break
    if not medians:
        raise DataError(f"no training image has a known depth; mlr check-data {data.where} looks at all of them")
    return torch.stack(medians).median()


def constant_prediction(data: DepthData | MixedData, console: Console) -> dict[str, float]:
    """Scores of a prediction that is the median training depth everywhere: what any network has to beat.

    Args:
        data: the data, set up.
        console: shows the progress.

    Raises:
        DataError: no training image has a known depth.
    """
    constant, metric = median_depth(data), DepthMetrics()
    batches = data.val_dataloader()
    for batch in Progress(console, "scoring a constant depth", len(batches)).over(batches):
        metric.update(torch.full_like(batch["depth"], float(constant)), batch["depth"], batch["valid"])
    scores = metric.compute()
    return {name: float(scores[name]) for name in METRICS}
