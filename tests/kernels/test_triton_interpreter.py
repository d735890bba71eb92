# SPDX-License-Identifier: Apache-2.0
"""A second opinion on the kernels: Triton's interpreter, which shares no code with the compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys, torch, mlr
from depth_maps import depth_pair, relative_l2, term_errors
from mlr.losses import reference
height, width, downsample, masked = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "masked"
pred, target = depth_pair(1, height, width)
torch.manual_seed(0)
mask = torch.rand(1, 1, height, width) < 0.9 if masked else None
terms = mlr.LossSpace("all").indices
weights = torch.rand(1, 78)
with mlr.backend("triton"):
    values, grad, counts = torch.ops.mlr.multi_loss(pred, target, weights, list(terms), downsample, mask)
truth, true_grad, true_counts = reference.multi_loss(
    pred.double(), target.double(), weights.double(), terms, downsample, mask
)
assert torch.equal(counts, true_counts)
assert term_errors(values, truth, terms).max() <= 1e-5
assert relative_l2(grad, true_grad) < 2e-6
print("equal")
"""


@pytest.mark.parametrize(
    ("height", "width", "downsample", "masked"),
    [("33", "47", "bicubic", "plain"), ("40", "56", "area", "plain"), ("24", "40", "bicubic", "masked")],
)
def test_the_interpreter_agrees_with_the_definition(height, width, downsample, masked):
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-W", "ignore", "-c", CODE, height, width, downsample, masked]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "equal", done.stderr[-2000:]
