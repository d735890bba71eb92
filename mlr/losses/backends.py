# SPDX-License-Identifier: Apache-2.0
"""Which engine runs the losses, and why.

PyTorch's dispatcher picks the engine:

=========  =====================================================  ========================================
engine     registered for                                         runs
=========  =====================================================  ========================================
cpp        CPU, by importing ``mlr._C``                           float32, float16 and bfloat16 on the CPU
triton     CUDA (ROCm has the same key), imported at first use    float32, float16 and bfloat16 on GPUs
reference  every device (CompositeExplicitAutograd)               any floating type, whatever is left over
=========  =====================================================  ========================================

``MLR_BACKEND=reference|cpp|triton`` or ``with mlr.backend(name)`` override the choice;
:func:`backend_report` explains it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlr.losses import reference
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
_has_triton = importlib.util.find_spec("triton") is not None
_why_no_triton = "" if _has_triton else "the package triton is not installed"


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
    kernels = importlib.import_module("mlr.kernels")
    return kernels.multi_loss(pred, target, weights, indices, downsample, mask)


def _refuse(backend: str, key: str) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    def refuse(*_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor]:
        raise RuntimeError(f"the {backend} backend was chosen, but it has no kernel for {key} tensors")

    return refuse


def _kernel(key: str, backend: str | None) -> Callable[..., tuple[Tensor, Tensor, Tensor]] | None:
    """Python kernel to register for a dispatch key, or None where what lies beneath is already right.

    Beneath lie the C++ engine for CPU and the reference for everything.
    """
    if backend is None:
        return _triton if key == "CUDA" and _has_triton else None
    if backend == "cpp":
        return None if key == "CPU" else _refuse(backend, key)
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
    """Run the losses on one engine, whatever the device would choose; for tests and comparisons.

    The choice is the whole process's, so it is not for concurrent threads.

    Args:
        name: "reference", "cpp" or "triton". ``triton`` takes CPU tensors only in Triton's interpreter
            (``TRITON_INTERPRET=1``) or under a Triton driver that runs CPU tensors.

    Raises:
        ValueError: for an unknown name.
        RuntimeError: if the engine is not there; the message says why.

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


def backend_report() -> str:
    """Which engine runs the losses on CPU and GPU tensors, and why not another; a few lines of text."""
    cpp = "" if _cpp is None else f"cpp ({_cpp.capability()})"
    no_gpu = "" if torch.cuda.is_available() else " (PyTorch sees no GPU here)"
    if _override is not None:
        engine = cpp if _override == "cpp" else _override
        chosen = f"{engine}, chosen by mlr.backend or MLR_BACKEND"
        gpu = "none: the cpp backend was chosen" if _override == "cpp" else chosen
        return f"CPU tensors: {chosen}\nGPU tensors: {gpu}{no_gpu}"
    cpu = f"{cpp}; float64 by the reference" if cpp else f"reference, because the C++ engine is missing: {_why_no_cpp}"
    gpu = "triton; float64 by the reference" if _has_triton else f"reference, because {_why_no_triton}"
    return f"CPU tensors: {cpu}\nGPU tensors: {gpu}{no_gpu}"


_choose(os.environ.get("MLR_BACKEND") or None)
