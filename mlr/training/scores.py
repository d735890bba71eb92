# SPDX-License-Identifier: Apache-2.0
"""Which scores a task validates by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlr.evaluation import METRICS


@dataclass(frozen=True)
class ScoreNames:
    """The scores of a validation.

    Attributes:
        names: all of them, in order.
        best: the one that the best network is chosen by; higher is better.
        text: a line of a few, a format with the names as fields.
    """

    names: tuple[str, ...]
    best: str
    text: str

    def line(self, scores: Mapping[str, float]) -> str:
        """The few scores that a line shows."""
        return self.text.format(**{name: float(scores[name]) for name in self.names})


#: Of depth in metres.
DEPTH_SCORES = ScoreNames(METRICS, "delta1", "delta1 {delta1:.3f}  rmse {rmse:.3f} m  abs_rel {abs_rel:.3f}")
#: Of the order of depth.
ORDER_SCORES = ScoreNames(
    ("kendall", "disagreement"), "kendall", "kendall {kendall:.3f}  disagreement {disagreement:.3f}"
)


def score_names(task: str, sets: Sequence[str] = ()) -> ScoreNames:
    """The scores of a task of ``--task``, and those of every data set where there are several."""
    if task == "relative":
        return ORDER_SCORES
    names = (*METRICS, *(f"{name}/{metric}" for name in sets for metric in METRICS))
    own = (f"; {name}: delta1 {{{name}/delta1:.3f}}  rmse {{{name}/rmse:.3f}} m" for name in sets)
    return ScoreNames(names, DEPTH_SCORES.best, DEPTH_SCORES.text + "".join(own))
