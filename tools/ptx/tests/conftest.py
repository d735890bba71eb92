# SPDX-License-Identifier: Apache-2.0
"""What tests of the runner share: one thread, poisoned empty tensors, and its fixtures."""

from __future__ import annotations

import torch
from ptx.fixtures import sm_80, sm_90  # noqa: F401 - fixtures for every test

torch.set_num_threads(1)
torch.utils.deterministic.fill_uninitialized_memory = True
torch.use_deterministic_algorithms(True, warn_only=True)
