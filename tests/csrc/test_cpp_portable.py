# SPDX-License-Identifier: Apache-2.0
"""The C++ engine's lines for other processors than this one: NEON, emulated, and plain compiler vectors."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from depth_maps import SIZES, depth_pair
from torch import Tensor
from torch.utils.cpp_extension import include_paths

from mlr.losses import reference
from mlr.losses.space import LossSpace

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Werror", "-Wno-maybe-uninitialized"]
ELEMENTS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # as in csrc/layout.h
ALL = list(LossSpace("all").indices)


def first_of(*names: str) -> str:
    """The first of these programs that is installed."""
    for name in names:
        if shutil.which(name):
            return name
    pytest.skip(f"{' and '.join(names)} are not installed (Debian: g++-aarch64-linux-gnu and qemu-user-static)")


@pytest.fixture(scope="module", params=["aarch64", "portable"])
def program(request, tmp_path_factory):
    """The engine's default level built for a processor, and how to run it."""
    if request.param == "aarch64":
        compiler, runner = [first_of("aarch64-linux-gnu-g++")], [first_of("qemu-aarch64", "qemu-aarch64-static")]
    else:  # what is left where there is neither SSE2 nor NEON
        compiler, runner = [first_of("g++"), "-U__SSE2__"], []
    folder = tmp_path_factory.mktemp(request.param)
    include = [f"-I{ROOT / 'csrc'}", *(f"-isystem{path}" for path in include_paths())]
    sources = [ROOT / "csrc" / f"{name}.cpp" for name in ("driver", "kernels_default")]
    command = [*compiler, *FLAGS, *include, *sources, Path(__file__).parent / "standalone" / "main.cpp"]
    subprocess.run([*map(str, command), "-static", "-o", str(folder / "engine")], check=True)
    return [*runner, str(folder / "engine")]


def run(program: list[str], pred: Tensor, target: Tensor, weights: Tensor, downsample: str) -> tuple[Tensor, Tensor]:
    def raw(*tensors: Tensor) -> bytes:
        return b"".join(x.contiguous().view(torch.uint8).numpy().tobytes() for x in tensors)

    batch, _, height, width = pred.shape
    head = torch.tensor([batch, height, width, downsample == "area", ELEMENTS[pred.dtype], len(ALL)])
    given = raw(head, torch.tensor(ALL), weights, pred, target)
    out = bytearray(subprocess.run(program, input=given, stdout=subprocess.PIPE, check=True, timeout=300).stdout)
    size = weights.numel() * weights.element_size()
    return torch.frombuffer(out[:size], dtype=torch.float32).view_as(weights), torch.frombuffer(
        out[size:], dtype=pred.dtype
    ).view_as(pred)


@pytest.mark.parametrize("dtype", ELEMENTS, ids=str)
@pytest.mark.parametrize("downsample", reference.DOWNSAMPLE)
@pytest.mark.parametrize("size", [*SIZES, (288, 384)], ids=str)
def test_all_losses_and_their_gradient(program, size, downsample, dtype):
    height, width = size
    pred, target = (x.to(dtype) for x in depth_pair(2, height, width, seed=sum(size)))
    weights = torch.randn(2, len(ALL), generator=torch.Generator().manual_seed(0))
    weights *= height * width if dtype == torch.float16 else 1  # 1 / HW would be subnormal
    values, grad = run(program, pred, target, weights, downsample)
    exact, exact_grad, _ = reference.multi_loss(pred.double(), target.double(), weights.double(), ALL, downsample)
    scale = float((pred.double() - target.double()).abs().amax())
    torch.testing.assert_close(values.double(), exact, rtol=1e-5, atol=1e-6 * scale)
    rounding = 0 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
    assert (grad - exact_grad).norm() <= (1e-4 + rounding) * exact_grad.norm()
