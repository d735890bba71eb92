# SPDX-License-Identifier: Apache-2.0
"""What the tests of the benchmark share: a tiny case, broken implementations, a quick command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import torch
from implementations import IMPLEMENTATIONS, Call, Case, Implementation

ROOT = Path(__file__).resolve().parents[1]
TINY = Case(batch=2, height=24, width=32)

BRIEF = harness.Limits(seconds=0.02, implementation_seconds=0.05)

BROKEN = {
    "gradient 2 % off": lambda values, grad: (values, grad * 1.02),
    "gradient of one image missing": lambda values, grad: (values, torch.cat([grad[:1], 0 * grad[1:]])),
    "one loss off": lambda values, grad: (values * (1 + 1e-3 * torch.eye(2, 78)), grad),
    "no gradient": lambda values, grad: (values, None),
    "gradient of another shape": lambda values, grad: (values, grad[..., :-1]),
    "NaN in the gradient": lambda values, grad: (values, grad.index_fill(-1, torch.tensor([3]), float("nan"))),
    "NaN in a loss": lambda values, grad: (values.index_fill(1, torch.tensor([7]), float("nan")), grad),
    "a loss too few": lambda values, grad: (values[:, 1:], grad),
}

ARGUMENTS = [
    "--device", "cpu", "--only", "copy,l1,doubling,cpp,module,triton", "--size", "24x32", "--batch", "2",
    "--threads", "1", "--seconds", "0.03", "--cap", "0.05", "--no-memory",
]  # fmt: skip


def changed(name: str, change: Any) -> Implementation:
    """An implementation whose results are broken."""
    honest = IMPLEMENTATIONS[name]

    def build(case: Case) -> Call:
        call = honest.build(case)
        return lambda inputs: change(*call(inputs))

    return replace(honest, name=f"{name}, broken", build=build)
