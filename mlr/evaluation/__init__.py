# SPDX-License-Identifier: Apache-2.0
"""Scores of depth maps: the metrics of the paper's Table 2, evaluation protocols by name, relative depth."""

from mlr.evaluation.metrics import METRICS, DepthMetrics, depth_metrics
from mlr.evaluation.protocols import PROTOCOLS, Protocol, get_protocol
from mlr.evaluation.relative import OrdinalScores, pair_correlations, whdr, wkdr, wkdr_threshold
from mlr.evaluation.scoring import Scores, predict
from mlr.relative.ordinal import OrdinalPairs, read_diw, sample_pairs

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "DepthMetrics",
    "OrdinalPairs",
    "OrdinalScores",
    "Protocol",
    "Scores",
    "depth_metrics",
    "get_protocol",
    "pair_correlations",
    "predict",
    "read_diw",
    "sample_pairs",
    "whdr",
    "wkdr",
    "wkdr_threshold",
]
