# SPDX-License-Identifier: Apache-2.0
"""What every test shares: quiet threads, poisoned empty tensors, random depth maps."""

from __future__ import annotations

import os

import pytest
import torch
from ptx.fixtures import sm_80, sm_90  # noqa: F401 - fixtures for every test of a compiled kernel

# two test processes share two cores; kernels that must be tested with more threads say so themselves
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# `torch.empty` gives NaN, so that an engine that forgets to write a part of its output fails without a special test
torch.utils.deterministic.fill_uninitialized_memory = True
torch.use_deterministic_algorithms(True, warn_only=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "gpu" in item.keywords and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
