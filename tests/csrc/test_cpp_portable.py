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
from mlr.losses.space import KINDS, LossSpace

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Werror", "-Wno-maybe-uninitialized"]
ELEMENTS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # as in csrc/layout.h
ALL = list(LossSpace("all").indices)
#: Kinds whose gradient has no sign of a difference.
WITHOUT_TIES = ("D", "N", "Nr", "Nc")


def first_of(*names: str) -> str:
    """The first of these programs that is installed."""
    for name in names:
        if shutil.which(name):
            return name
    pytest.skip(f"{' and '.join(names)} are not installed (Debian: g++-aarch64-linux-gnu and qemu-user-static)")


@pytest.fixture(scope="module", params=["aarch64", "portable"])
def program(request, tmp_path_factory):
    """The engine's default kernels built for a processor, and how to run it."""
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


def run(
    program: list[str], pred: Tensor, target: Tensor, weights: Tensor, downsample: str, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    def raw(*tensors: Tensor) -> bytes:
        return b"".join(x.contiguous().view(torch.uint8).numpy().tobytes() for x in tensors)

    batch, _, height, width = pred.shape
    head = [batch, height, width, downsample == "area", ELEMENTS[pred.dtype], len(ALL), mask is not None]
    given = raw(torch.tensor(head), torch.tensor(ALL), weights, pred, target, *([] if mask is None else [mask]))
    out = bytearray(subprocess.run(program, input=given, stdout=subprocess.PIPE, check=True, timeout=300).stdout)
    ends = [weights.numel() * weights.element_size()]
    ends.append(ends[0] + pred.numel() * pred.element_size())
    return (
        torch.frombuffer(out[: ends[0]], dtype=torch.float32).view_as(weights),
        torch.frombuffer(out[ends[0] : ends[1]], dtype=pred.dtype).view_as(pred),
        torch.frombuffer(out[ends[1] :], dtype=torch.int64).view_as(weights) if mask is not None else torch.empty(0),
    )


@pytest.mark.parametrize("masked", [False, True], ids=["dense", "masked"])
@pytest.mark.parametrize("dtype", ELEMENTS, ids=str)
@pytest.mark.parametrize("downsample", reference.DOWNSAMPLE)
@pytest.mark.parametrize("size", [*SIZES, (288, 384)], ids=str)
def test_all_losses_and_their_gradient(program, size, downsample, dtype, masked):
    height, width = size
    pred, target = (x.to(dtype) for x in depth_pair(2, height, width, seed=sum(size)))
    weights = torch.randn(2, len(ALL), generator=torch.Generator().manual_seed(0))
    weights *= height * width if dtype == torch.float16 else 1  # 1 / HW would be subnormal
    if masked and downsample == "area" and dtype != torch.float32:
        # differences of thirds of 16-bit depths are full of exact ties, and each rounding gives them its own sign
        weights *= torch.tensor([KINDS[i % len(KINDS)] in WITHOUT_TIES for i in ALL])
    mask = None
    if masked:
        mask = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(1)) < 0.98
        mask[..., : width // 8] = False
    known = torch.ones_like(pred, dtype=torch.bool) if mask is None else mask
    maps = (torch.where(known, x, float("nan")) for x in (pred, target))
    values, grad, counts = run(program, *maps, weights, downsample, mask)
    exact, exact_grad, exact_counts = reference.multi_loss(
        pred.double(), target.double(), weights.double(), ALL, downsample, mask
    )
    assert mask is None or torch.equal(counts, exact_counts)
    scale = float((pred.double() - target.double()).abs().amax())
    torch.testing.assert_close(values.double(), exact, rtol=1e-5, atol=1e-6 * scale)
    rounding = 0 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
    assert (grad - exact_grad).norm() <= (1e-4 + rounding) * exact_grad.norm()
