# SPDX-License-Identifier: Apache-2.0
"""Which backends there are."""

from __future__ import annotations

import torch

from mlr.losses import backends


def test_amd_gpus_need_a_triton_that_compiles_for_them(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "7.0")
    monkeypatch.setattr("triton.__version__", "3.6.0+rocm")
    assert "Triton 3.6.0+rocm cannot compile the kernels for AMD's GPUs" in backends._why_without_triton()
    for version in ("3.10.0", "3.7rc1", "4.0+git123"):
        monkeypatch.setattr("triton.__version__", version)
        assert backends._why_without_triton() == ""
