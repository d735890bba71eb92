# SPDX-License-Identifier: Apache-2.0
"""Scores of protocol ``relative``: how far predictions keep the order of depth, frame by frame."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlr.data.sample import Region
from mlr.evaluation.protocols import Protocol, get_protocol
from mlr.evaluation.relative import OrdinalScores, pair_agreement, spearman, values_at, wkdr, wkdr_threshold
from mlr.evaluation.scoring import FrameScores, bootstrap, cell
from mlr.relative.ordinal import OrdinalPairs, label_pairs

#: Scores of the order of depth by name; the last two are better when higher.
ORDER_METRICS = ("whdr", "wkdr", "wkdr_equal", "wkdr_unequal", "kendall", "spearman")
#: Pairs that are drawn in a frame with a depth map.
PAIRS = 5000
#: Pairs whose depths differ by at most this share of the nearer one are equal; Xian et al. (2020) take 0.03 too.
TOLERANCE = 0.03
#: Half-widths of the band of equal pairs that are tried for WKDR, in mean absolute deviations of a prediction.
BANDS = tuple(step / 100 for step in range(1, 151))


class OrderScores(FrameScores):
    """Scores of the order of depth, collected frame by frame.

    ``whdr``, ``kendall`` and ``spearman`` leave equal pairs out. The WKDR counts them: a prediction calls a pair equal
    if it differs by at most t there. t is the same for all frames. It minimises the larger one of the rates of equal
    and of unequal pairs over these very frames; Chen et al. (2016) choose theirs so on a validation set. Predictions
    have no common unit, so t counts mean absolute deviations of each prediction from its median. Without a pair
    labelled as equal, as in DIW, there is no WKDR.

    Args:
        protocol: name or :class:`Protocol`.

    Attributes:
        ids: name of every frame, in the order they were added.

    Example:
        >>> truth = torch.rand(2, 1, 40, 40) + 1
        >>> scores = OrderScores("relative")
        >>> scores.add(["a", "b"], truth**3, truth)
        >>> scores.means()["kendall"]
        1.0
    """

    def __init__(self, protocol: str | Protocol = "relative") -> None:
        self.protocol = get_protocol(protocol)
        self.ids: list[str] = []
        self._rows: list[dict[str, float]] = []
        self._samples: list[tuple[Tensor, OrdinalPairs]] = []

    def add(
        self,
        ids: list[str],
        pred: Tensor,
        target: Tensor,
        mask: Tensor | None = None,
        region: Region | None = None,
        pairs: OrdinalPairs | None = None,
        metric: bool = True,
    ) -> None:
        """Score a batch.

        Args:
            ids: name of every frame.
            pred: anything that grows with depth, [B, h, w] or [B, 1, h, w].
            target: true depth, [B, H, W] or [B, 1, H, W]; 0 = unknown.
            mask: True where the pixel may be drawn.
            region: what the predictions cover of the targets' frame; None = all of it.
            pairs: labelled pairs of the one frame of the batch; None draws them in the target.
            metric: whether ``target`` is in metres. Otherwise it is known up to scale and shift, and pairs are equal
                where they differ by at most 0.03 of its unit.

        Raises:
            ValueError: the numbers of ids, predictions, targets and labelled pairs differ.
        """
        if len(ids) != len(pred) or (pairs is not None and len(ids) != 1):
            raise ValueError(f"{len(ids)} ids for {len(pred)} predictions; labelled pairs are those of one frame")
        pred, target, valid = (x[:, 0].cpu() for x in self.protocol.prepare(pred, target, mask, region))
        for name, depth, truth, known in zip(ids, pred, target, valid, strict=True):
            order = torch.where(known, truth, 1).double()
            order, margin = (order.log(), math.log1p(TOLERANCE)) if metric else (order, TOLERANCE)
            chosen = label_pairs(order, known, PAIRS, margin) if pairs is None else pairs
            agreement = pair_agreement(depth, chosen)
            self.ids.append(name)
            self._rows.append(
                {
                    "whdr": agreement["disagreement"],
                    "kendall": agreement["kendall"],
                    "spearman": spearman(depth, order, chosen) if pairs is None else math.nan,
                }
            )
            self._samples.append(_at_the_pairs(depth, chosen))

    @property
    def pixels(self) -> Tensor:
        """Pairs of every frame, [n]."""
        return torch.tensor([len(pairs.relation) for _, pairs in self._samples], dtype=torch.int64)

    @property
    def threshold(self) -> float:
        """The t of WKDR; NaN without equal pairs, or without others."""
        labels = torch.cat([pairs.relation for _, pairs in self._samples]) if self._samples else torch.zeros(0)
        if not ((labels == 0).any() and (labels != 0).any()):
            return math.nan
        return wkdr_threshold([sample for sample in self._samples if len(sample[1].relation)], BANDS)[0]

    @property
    def table(self) -> Tensor:
        """Scores of every frame, [n, 6] in the order of :data:`ORDER_METRICS`; NaN where there is none."""
        threshold, rows = self.threshold, []
        for row, (depth, pairs) in zip(self._rows, self._samples, strict=True):
            known = len(pairs.relation) > 0 and not math.isnan(threshold)
            rates = wkdr(depth, pairs, threshold) if known else OrdinalScores(*3 * [math.nan])
            found = {**row, "wkdr": rates.all, "wkdr_equal": rates.equal, "wkdr_unequal": rates.unequal}
            rows.append([found[name] for name in ORDER_METRICS])
        return torch.tensor(rows, dtype=torch.float64).reshape(-1, len(ORDER_METRICS))

    def means(self) -> dict[str, float]:
        """Metric -> mean over the frames that have such a score; NaN without any."""
        return dict(zip(ORDER_METRICS, self.table.nanmean(0).tolist(), strict=True))

    def record(self, level: float = 0.95) -> dict[str, Any]:
        """Protocol, frames, means and bootstrap intervals; plain values for JSON."""
        table = self.table
        ends = bootstrap(lambda drawn: table[drawn].nanmean(0), len(table), level, 1000, 0)
        order = {
            name: {"mean": mean, "low": low, "high": high}
            for name, mean, (low, high) in zip(ORDER_METRICS, table.nanmean(0).tolist(), ends, strict=True)
        }
        return {
            "protocol": self.protocol.record(),
            "images": len(self.ids) - len(self.excluded),
            "excluded": self.excluded,
            "level": level,
            "pairs": int(self.pixels.sum()),
            "wkdr_threshold": self.threshold,
            "order": order,
        }

    def save_csv(self, path: str | Path) -> None:
        """Write one row per frame: id, pairs, metrics (empty where the frame has no such score)."""
        with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "pairs", *ORDER_METRICS])
            for name, pairs, row in zip(self.ids, self.pixels.tolist(), self.table.tolist(), strict=True):
                writer.writerow([cell(name), pairs, *("" if math.isnan(x) else repr(x) for x in row)])


def _at_the_pairs(depth: Tensor, pairs: OrdinalPairs) -> tuple[Tensor, OrdinalPairs]:
    """A prediction at the points of its pairs alone, [2, n], in its mean absolute deviations, and the pairs there."""
    depth = depth.double()
    scale = (depth - depth.median()).abs().mean().clamp(min=torch.finfo(torch.float64).tiny)
    count = len(pairs.relation)
    rows, columns = torch.zeros(count, dtype=torch.int64), torch.arange(count)
    compact = OrdinalPairs(
        pairs.image, (2, count), torch.stack([rows, columns], 1), torch.stack([rows + 1, columns], 1), pairs.relation
    )
    values = [values_at(depth, points, pairs.size) for points in (pairs.first, pairs.second)]
    return torch.stack(values) / scale, compact
