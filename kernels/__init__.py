# SPDX-License-Identifier: Apache-2.0
"""The Triton engine: the operator ``mlr::multi_loss`` on GPUs."""

from mlr.kernels.launch import multi_loss, precompile
from mlr.kernels.slots import KINDS

__all__ = ["KINDS", "multi_loss", "precompile"]
