# SPDX-License-Identifier: Apache-2.0
"""Which backend runs the losses, and why.

PyTorch's dispatcher picks the backend:

=========  =====================================================  ========================================
backend    registered for                                         runs
=========  =====================================================  ========================================
cpp        CPU, by importing ``mlr._C``                           float32, float16 and bfloat16 on the CPU
triton     CUDA (ROCm has the same key), imported at first use    float32, float16 and bfloat16 on GPUs
reference  every device (CompositeExplicitAutograd)               any floating type, whatever is left over
=========  =====================================================  ========================================

``MLR_BACKEND=reference|cpp|triton`` or ``with mlr.backend(name)`` override the choice;
:func:`backend_report` explains it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlr.losses import reference
from mlr.losses.missing_kinds import Kernel, missing_kinds, with_all_kinds
from mlr.losses.operator import check_operands

BACKENDS: tuple[str, ...] = ("reference", "cpp", "triton")


#: setup.py leaves here why it did not build the C++ engine.
_REASON = Path(__file__).parents[1] / "_no_cpp_engine.txt"

#: What to do once the reason is gone.
_REINSTALL = """\
The engine needs torch and a C++ compiler (Debian: apt install g++). With both, install mlr-depth again:
  in a checkout with .venv:  make setup
  in another checkout:       pip install --force-reinstall --no-deps .
  from the index:            pip install --force-reinstall --no-deps --no-cache-dir --no-binary mlr-depth mlr-depth"""


def _load_cpp() -> tuple[Any, str]:
    """Import the C++ engine, which registers itself for CPU tensors; else say why there is none."""
    try:
        from mlr import _C
    except ImportError as error:
        if importlib.util.find_spec("mlr._C") is not None:
            why = f"it does not load here ({error})"
        elif _REASON.is_file():
            why = f"it was not built: {_REASON.read_text().strip()}"
        else:
            why = "it was not built: this is a source tree without an installation"
        warnings.warn(
            f"mlr: the C++ engine is missing: {why}. Losses on the CPU run in plain PyTorch, which is right but two "
            f"orders of magnitude slower. {_REINSTALL}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None, why
    return _C, ""


_cpp, _why_no_cpp = _load_cpp()


def _why_without_triton() -> str:
    """Why there is no Triton engine; empty if there is."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if torch.version.hip is not None:
        try:
            import triton
        except Exception as error:
            return f"the package triton does not load here ({error})"
        release = re.match(r"(\d+)\.(\d+)", triton.__version__)
        if release and tuple(map(int, release.groups())) < (3, 7):
            return f"Triton {triton.__version__} cannot compile the kernels for AMD's GPUs: PyTorch 2.12 brings 3.7"
    return ""


_why_no_triton = _why_without_triton()
_has_triton = not _why_no_triton


def _triton_runs_cpu_tensors() -> bool:
    """Whether Triton kernels can run on CPU tensors: in its interpreter, or under a driver that says so."""
    if not _has_triton:
        return False
    import triton

    if triton.knobs.runtime.interpret:
        return True
    try:
        return bool(getattr(triton.runtime.driver.active, "runs_cpu_tensors", False))
    except RuntimeError:  # no driver is active: no GPU
        return False


def _triton(
    pred: Tensor,
    target: Tensor,
    weights: Tensor | None,
    indices: Sequence[int],
    downsample: str,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The Triton engine; its import and compilation are put off until a tensor arrives."""
    check_operands(pred, target, weights, indices, downsample, mask)
    if pred.dtype == torch.float64:
        return torch.ops.mlr.multi_loss_reference(pred, target, weights, indices, downsample, mask)
    if pred.device.type == "cpu" and not _triton_runs_cpu_tensors():
        raise RuntimeError(
            "the triton backend was chosen but pred is on the CPU: move it to a GPU, set TRITON_INTERPRET=1 for "
            "Triton's interpreter, or choose another backend (MLR_BACKEND=cpp or reference)"
        )
    return _triton_kernel()(pred, target, weights, indices, downsample, mask)


def _triton_kinds() -> tuple[str, ...]:
    kinds: tuple[str, ...] = importlib.import_module("mlr.kernels").KINDS
    return kinds


@functools.lru_cache(maxsize=1)
def _triton_kernel() -> Kernel:
    return with_all_kinds(importlib.import_module("mlr.kernels").multi_loss, _triton_kinds())


def _cpp_kernel() -> Kernel | None:
    """A kernel over the C++ engine's own, which stays the dispatcher's choice if it has all kinds."""
    if _cpp is None or not missing_kinds(_cpp.KINDS):
        return None
    engine: Any = torch.library.get_kernel("mlr::multi_loss", "CPU")  # nothing is registered over it now
    return with_all_kinds(
        functools.partial(engine.call_boxed, torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)), _cpp.KINDS
    )


def _refuse(backend: str, key: str) -> Kernel:
    def refuse(*_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor]:
        raise RuntimeError(f"the {backend} backend was chosen, but it has no kernel for {key} tensors")

    return refuse


def _kernel(key: str, backend: str | None) -> Kernel | None:
    """Python kernel to register for a dispatch key, or None where what lies beneath is already right.

    Beneath lie the C++ engine for CPU and the reference for everything.
    """
    if backend is None and key == "CUDA":
        return _triton if _has_triton else None
    if backend is None:
        return _cpp_kernel()
    if backend == "cpp":
        return _cpp_kernel() if key == "CPU" else _refuse(backend, key)
    return _triton if backend == "triton" else reference.multi_loss


_registrations: dict[str, torch.library.Library] = {}
_override: str | None = None


def _choose(backend: str | None) -> None:
    """Make a backend the operator's kernel on CPU and GPU; None restores the natural choice."""
    global _override
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    missing = {"cpp": _why_no_cpp, "triton": _why_no_triton}.get(backend or "", "")
    if missing:
        raise RuntimeError(f"the {backend} backend cannot be used: {missing}")
    for library in _registrations.values():
        library._destroy()
    _registrations.clear()
    for key in ("CPU", "CUDA"):
        kernel = _kernel(key, backend)
        if kernel is not None:
            with warnings.catch_warnings():  # replacing a kernel is the point
                warnings.simplefilter("ignore")
                _registrations[key] = torch.library.Library("mlr", "IMPL")
                _registrations[key].impl("multi_loss", kernel, key)
    _override = backend


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Run the losses on one backend, whatever the device would choose; for tests and comparisons.

    The choice is the whole process's, so it is not for concurrent threads.

    Args:
        name: "reference", "cpp" or "triton". ``triton`` takes CPU tensors only in Triton's interpreter
            (``TRITON_INTERPRET=1``) or under a Triton driver that runs CPU tensors.

    Raises:
        ValueError: for an unknown name.
        RuntimeError: if the backend is not there; the message says why.

    Example:
        >>> with backend("reference"):
        ...     print(backend_report().splitlines()[0])
        CPU tensors: reference, chosen by mlr.backend or MLR_BACKEND
    """
    before = _override
    _choose(name)
    try:
        yield
    finally:
        _choose(before)


def _lacking(kinds: Sequence[str]) -> str:
    lacking = missing_kinds(kinds)
    return f"; {' '.join(lacking)} by the reference" if lacking else ""


def backend_report() -> str:
    """Which backend runs the losses on CPU and GPU tensors, and why not another; a few lines of text.

    Kinds of loss that an engine lacks, and that the reference computes for it, are named. The Triton engine's are known
    once it is loaded, or where there is a GPU.
    """
    cpp = "" if _cpp is None else f"cpp ({_cpp.instruction_set()}{_lacking(_cpp.KINDS)})"
    triton = "triton"
    if _has_triton and (torch.cuda.is_available() or "mlr.kernels" in sys.modules):
        lacking = _lacking(_triton_kinds())
        triton += f" ({lacking.removeprefix('; ')})" if lacking else ""
    no_gpu = "" if torch.cuda.is_available() else " (PyTorch sees no GPU here)"
    if _override is not None:
        name = {"cpp": cpp, "triton": triton}.get(_override, _override)
        chosen = f"{name}, chosen by mlr.backend or MLR_BACKEND"
        gpu = "none: the cpp backend was chosen" if _override == "cpp" else chosen
        return f"CPU tensors: {chosen}\nGPU tensors: {gpu}{no_gpu}"
    cpu = f"{cpp}; float64 by the reference" if cpp else f"reference, because the C++ engine is missing: {_why_no_cpp}"
    gpu = f"{triton}; float64 by the reference" if _has_triton else f"reference, because {_why_no_triton}"
    return f"CPU tensors: {cpu}\nGPU tensors: {gpu}{no_gpu}"


_choose(os.environ.get("MLR_BACKEND") or None)
