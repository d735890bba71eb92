# SPDX-License-Identifier: Apache-2.0
"""The names that users import, and what importing them costs."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import mlr

#: Names whose place is a promise: removing or moving one breaks users' programs.
PUBLIC = {
    "mlr": (
        "DepthMetrics", "DepthModel", "EqualContribution", "FixedWeights", "LossBalancer", "LossSpace", "MultiLoss",
        "MultiLossOutput", "Rebalancing", "__version__", "backend", "backend_report", "depth_metrics",
        "known_depth", "lambda_staircase", "load_checkpoint", "multi_loss", "multi_loss_terms", "open_model",
        "save_checkpoint",
    ),
    "mlr.balancing": (
        "BALANCERS", "CoVWeighting", "DynamicWeightAverage", "EqualContribution", "FixedWeights", "LossBalancer",
        "RandomLossWeighting", "ReLoBRaLo", "Rebalancing", "UncertaintyWeighting", "lambda_staircase", "make_balancer",
    ),
    "mlr.cli": ("main",),
    "mlr.data": ("DepthData", "DataError", "open_dataset", "read_depth", "read_image"),
    "mlr.evaluation": ("METRICS", "PROTOCOLS", "DepthMetrics", "Scores", "depth_metrics", "get_protocol", "whdr"),
    "mlr.kernels": ("KINDS", "multi_loss", "precompile"),
    "mlr.losses": ("LossSpace", "MultiLoss", "backend", "backend_report", "multi_loss", "multi_loss_terms"),
    "mlr.losses.reference": ("multi_loss", "multi_loss_terms"),
    "mlr.models": ("DepthModel", "load_checkpoint", "open_model", "save_checkpoint"),
}  # fmt: skip


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_stay(module):
    if module == "mlr.kernels":
        pytest.importorskip("triton")
    loaded = importlib.import_module(module)
    assert [name for name in PUBLIC[module] if not hasattr(loaded, name)] == []


@pytest.mark.parametrize("module", sorted({name for name in PUBLIC if name != "mlr.losses.reference"}))
def test_what_a_package_offers_is_there(module):
    if module == "mlr.kernels":
        pytest.importorskip("triton")
    loaded = importlib.import_module(module)
    assert set(PUBLIC[module]) <= set(loaded.__all__)
    assert [name for name in loaded.__all__ if not hasattr(loaded, name)] == []


def test_completion_shows_the_public_names_alone():
    assert set(dir(mlr)) == {*PUBLIC["mlr"], "balancing", "losses"}


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'mlr' has no attribute 'MultiLos'"):
        _ = mlr.MultiLos


def test_main_is_a_function():
    assert callable(importlib.import_module("mlr.cli").main)


def test_losses_and_balancers_import_nothing_but_torch():
    """What torch and the standard library import may be there; of other packages, no more than torch brings."""
    code = """
import sys
import torch
before = {name.partition(".")[0] for name in sys.modules}
import mlr, mlr.losses, mlr.losses.reference, mlr.balancing
after = {name.partition(".")[0] for name in sys.modules}
print(sorted(after - before - set(sys.stdlib_module_names)))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "['mlr']", done.stdout + done.stderr
