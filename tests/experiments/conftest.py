# SPDX-License-Identifier: Apache-2.0
"""A plan of runs that take a second each."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mlr.experiments.plan import Plan, load_plan

TINY = {
    "title": "tiny",
    "results": "results.json",
    "pack": True,
    "seeds": 2,
    "reference": "baseline",
    "settings": {
        "data": "rooms", "data_options": "seed=0", "train_length": 8, "val_length": 2, "size": "32x64",
        "augment": "none", "backbone": "test_resnet", "pretrained": "false", "decoder_channels": 32, "batch_size": 4,
        "epochs": 3, "learning_rate": 1e-3, "workers": 0, "threads": 1, "device": "cpu",
    },
    "evaluation": {"data": "rooms", "options": "seed=0,length=5"},
    "figures": {"losses": ["all"], "contributions": ["rebalanced"], "depth": ["baseline", "all"]},
    "parts": [
        {
            "title": "(a) losses",
            "rows": [
                {"name": "baseline", "label": "{D/0}", "settings": {"losses": "D/0", "balancer": "fixed"},
                 "paper": {"delta1": 84.8, "rmse": 0.474}},
                {"name": "all", "label": "L", "settings": {"losses": "all", "balancer": "fixed"}},
                {"name": "rebalanced", "label": "L, rebalanced", "settings": {"losses": "all"}, "seeds": [0]},
            ],
        }
    ],
}  # fmt: skip


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """The plan, in a folder of its own."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return load_plan(path)
