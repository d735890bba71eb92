# SPDX-License-Identifier: Apache-2.0
"""What every test shares: quiet threads, poisoned empty tensors, random depth maps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import torch
from ptx.fixtures import sm_80, sm_90  # noqa: F401 - fixtures for every test of a compiled kernel

if TYPE_CHECKING:
    from mlr.experiments.plan import Plan
    from mlr.models.depth_model import DepthModel  # timm takes seconds: only the tests that use a network wait for it

# two test processes share two cores; kernels that must be tested with more threads say so themselves
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# `torch.empty` gives NaN, so that an engine that forgets to write a part of its output fails without a special test
torch.utils.deterministic.fill_uninitialized_memory = True
torch.use_deterministic_algorithms(True, warn_only=True)
# no test asserts a time: a busy machine makes an example slow, not wrong
hypothesis.settings.register_profile("mlr", deadline=None)
hypothesis.settings.load_profile("mlr")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "gpu" in item.keywords and not torch.cuda.is_available():
        pytest.skip("needs a GPU")


@pytest.fixture(scope="module")
def network() -> DepthModel:
    """An untrained network whose depth depends on the image all the same."""
    from mlr.models.depth_model import DepthModel

    torch.manual_seed(0)
    model = DepthModel("test_resnet", 32, pretrained=False).eval()
    torch.nn.init.normal_(model.conv3.weight, std=10)
    return model


@pytest.fixture
def checkpoint(network: DepthModel, tmp_path: Path) -> Path:
    """The network in a file, as one that was trained at 64 x 96 pixels."""
    from mlr.models.checkpoints import save_checkpoint

    return save_checkpoint(tmp_path / "best.pt", network, config={"size": "64x96"})


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A plan of experiments that take a second each, in a folder of its own."""
    import yaml
    from tiny_plan import TINY

    from mlr.experiments.plan import load_plan

    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return load_plan(path)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result file of the benchmark's command, of maps too small to mean anything."""
    import loss_speed
    import machine
    from benchmarking import ARGUMENTS

    path = tmp_path_factory.mktemp("bench") / "tiny.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "copy_bandwidth", lambda device: 10.0)  # 2 buffers of 256 MB
        assert loss_speed.main([*ARGUMENTS, "--sweep", "losses,threads,terms,dtype,mask", "--out", str(path)]) == 0
    return path
