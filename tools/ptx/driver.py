# SPDX-License-Identifier: Apache-2.0
"""A driver for Triton that runs compiled kernels on CPU tensors; user code stays ``kernel[grid](tensors, ...)``.

Triton's own binder, specialisation, compiler and disk cache are used, so that what runs is what a GPU would get.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ptx import build
from ptx.dtypes import PtxError
from ptx.engine import launch
from ptx.shadow import mark_unwritten

#: Shared memory of a program in bytes by compute capability, as CUDA's occupancy tables have it.
_MAX_SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
_HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def why_not() -> str:
    """Why kernels cannot be run here, in words; empty if they can."""
    if importlib.util.find_spec("triton") is None:
        return "the PTX runner needs the package triton, which is not installed"
    return build.missing()


def install(capability: int = 90) -> None:
    """Make the runner Triton's active driver.

    Args:
        capability: GPU that kernels are compiled for: 80 or 90.

    Raises:
        PtxError: if there is no g++ or no Triton, or Triton's interpreter is on.
    """
    if why_not():
        raise PtxError(why_not())
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.backends.driver import DriverBase
    from triton.compiler.compiler import CompiledKernel

    if triton.knobs.runtime.interpret:
        raise PtxError("TRITON_INTERPRET=1 is set: kernels are not compiled; unset it to run their PTX")
    if capability not in _MAX_SHARED:
        raise PtxError(f"compute capability must be one of {sorted(_MAX_SHARED)}, got {capability}")

    class PtxDriver(DriverBase):
        """Runs PTX on the CPU."""

        #: For those who want to know whether kernels take CPU tensors.
        runs_cpu_tensors = True
        utils = None
        launcher_cls = None

        def __init__(self) -> None:
            pass  # the base class would look for the functions of a GPU

        @staticmethod
        def is_active() -> bool:
            return True

        def map_python_to_cpp_type(self, ty: str) -> str:
            return ty

        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", capability, 32)

        def get_current_device(self) -> int:
            return 1000 + capability  # Triton keeps kernels by device

        def set_current_device(self, device: int) -> None:
            pass

        def get_current_stream(self, device: int | None = None) -> int:
            return 0

        def get_device_capability(self, device: int | None = None) -> tuple[int, int]:
            return divmod(capability, 10)

        def get_active_torch_device(self) -> torch.device:
            return torch.device("cpu")

        def get_device_interface(self) -> Any:
            raise PtxError("there is no GPU behind the PTX runner")

        def get_benchmarker(self) -> Any:
            raise PtxError("the PTX runner cannot time kernels")

    def init_handles(compiled: Any) -> None:
        if compiled.module is None:
            compiled.module = compiled.function = object()
            compiled.n_regs = compiled.n_spills = 0
            compiled.n_max_threads = 1024
            compiled._run = lambda x, y, z, stream, function, packed, metadata, enter, leave, *args: run(
                compiled, (x, y, z), args
            )

    _saved.append((triton.runtime.driver._active, CompiledKernel._init_handles))
    CompiledKernel._init_handles = init_handles
    triton.runtime.driver.set_active(PtxDriver())


_saved: list[tuple[Any, Any]] = []  # drivers and methods to go back to; the first are Triton's own


def uninstall() -> None:
    """Give Triton the driver back that it had before ``install``; kernels that ran here stay compiled for here."""
    if not _saved:
        return
    import triton
    from triton.compiler.compiler import CompiledKernel

    driver, CompiledKernel._init_handles = _saved.pop()
    triton.runtime.driver._active = driver


@contextmanager
def installed(capability: int = 90) -> Iterator[None]:
    """``install`` for a while.

    Example:
        >>> with installed(90), options(check=True):
        ...     kernel[grid](x, y)
    """
    install(capability)
    try:
        yield
    finally:
        uninstall()


def run(compiled: Any, grid: tuple[int, int, int], arguments: Sequence[Any]) -> int:
    """Run an object of ``triton.compile`` with the arguments of its signature, constants included.

    Returns:
        Executed warp instructions.
    """
    metadata = compiled.metadata
    if getattr(metadata, "num_ctas", 1) != 1:
        raise PtxError(f"{metadata.name}: clusters of programs are not supported")
    limit = _MAX_SHARED[metadata.target.arch]
    if metadata.shared > limit:
        raise PtxError(f"{metadata.name} wants {metadata.shared} bytes of shared memory, the GPU has {limit}")
    named = list(_run_time(compiled.src.signature.items(), arguments))
    values = [_argument(name, ptx_type, value) for name, ptx_type, value in named]
    names = [name for name, _, _ in named]
    for scratch in ("global_scratch", "profile_scratch"):  # pointers that Triton adds
        size = getattr(metadata, f"{scratch}_size", 0) or 0
        names.append(scratch)
        values.append(0)
        if size:
            buffer = torch.empty(size * grid[0] * grid[1] * grid[2], dtype=torch.uint8)
            mark_unwritten(buffer)
            values[-1] = buffer
    ptx = compiled.asm["ptx"]
    hidden = ptx[: ptx.index(")", ptx.index(".entry"))].count(".param") - len(named)
    values = values[: len(named) + hidden]
    return launch(
        ptx,
        metadata.name,
        grid,
        values,
        names=names[: len(values)],
        num_warps=metadata.num_warps,
        shared=metadata.shared,
    )


def _run_time(signature: Any, arguments: Sequence[Any]) -> Iterator[tuple[str, str, Any]]:
    """Name, type and value of the arguments that are not compiled in; tuples are spread out."""
    for (name, ptx_type), value in zip(signature, arguments, strict=True):
        if isinstance(ptx_type, (tuple, list)):
            fields = getattr(ptx_type, "_fields", range(len(ptx_type)))
            yield from _run_time([(f"{name}.{f}", t) for f, t in zip(fields, ptx_type, strict=True)], value)
        elif ptx_type != "constexpr":
            yield name, ptx_type, value


def _argument(name: str, ptx_type: str, value: Any) -> Tensor | int | float | bytes:
    if ptx_type.startswith(("tensordesc", "nvTmaDesc")):
        raise PtxError(f"argument {name}: tensor descriptors are not supported")
    if ptx_type.startswith("*"):
        tensor = getattr(value, "base", value) if not isinstance(value, Tensor) else value
        if tensor is None:
            return 0
        if not isinstance(tensor, Tensor) or tensor.device.type != "cpu":
            raise PtxError(f"argument {name} must be a tensor on the CPU, got {type(value).__name__}")
        return tensor
    if ptx_type in _HALVES:
        return torch.tensor([value], dtype=_HALVES[ptx_type]).view(torch.int16).numpy().tobytes()
    return float(value) if ptx_type in ("fp32", "f32", "fp64") else int(value)
