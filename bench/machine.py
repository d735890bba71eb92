# SPDX-License-Identifier: Apache-2.0
"""What a measurement was made on: processor, versions, threads, commit, and how fast the machine copies memory."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]


def _first_match(path: str, pattern: str) -> str | None:
    try:
        match = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    except OSError:
        return None
    return match[1].strip() if match else None


def cpu_name() -> str:
    """Name of the processor; where the system hides it, its family and model too."""
    name = _first_match("/proc/cpuinfo", r"^model name\s*:\s*(.+)$") or platform.processor() or platform.machine()
    family = _first_match("/proc/cpuinfo", r"^cpu family\s*:\s*(\d+)$")
    model = _first_match("/proc/cpuinfo", r"^model\s*:\s*(\d+)$")
    return f"{name} (family {family}, model {model})" if family and model and not re.search(r"\d", name) else name


def last_level_cache() -> int:
    """Bytes of the largest cache of CPU 0; 0 where the system does not say."""
    sizes = [0]
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        match = re.fullmatch(r"(\d+)([KMG]?)", index.read_text().strip())
        if match:
            sizes.append(int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]])
    return max(sizes)


def git(*arguments: str, cwd: Path = ROOT) -> str | None:
    """Output of a git command, or None where there is no git or no repository."""
    try:
        result = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def commit() -> str:
    """Commit of the sources, with ``+`` where tracked sources differ from it; MLR_COMMIT where git is not at hand."""
    head = git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return os.environ.get("MLR_COMMIT", "unknown")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "mlr", "csrc", "kernels", "bench", "setup.py")
    return head + ("+" if changed else "")


@cache
def cpp_instruction_set() -> str | None:
    """Instruction set the C++ engine runs with; None where it is not built."""
    try:
        from mlr import _C  # type: ignore[attr-defined, unused-ignore]
    except ImportError:
        return None
    named = _C.instruction_set if hasattr(_C, "instruction_set") else _C.capability  # older commits, for compare.py
    return str(named())


def metadata(device: str) -> dict[str, Any]:
    """Everything a reader needs to judge or repeat a measurement, JSON-ready."""
    data: dict[str, Any] = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "last_level_cache_mb": round(last_level_cache() / 2**20, 1),
        "load_at_start": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpp": cpp_instruction_set(),
        "device": device,
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        data |= {
            "gpu": properties.name,
            "gpu_memory_gb": round(properties.total_memory / 2**30, 1),
            "gpu_l2_mb": round(getattr(properties, "L2_cache_size", 0) / 2**20, 1),
            "runtime": torch.version.hip or torch.version.cuda,
            "triton": _triton_version(),
        }
    return data


def _triton_version() -> str | None:
    try:
        import triton
    except ImportError:
        return None
    return triton.__version__


def copy_bandwidth(device: str, repeats: int = 7) -> float:
    """GB/s of a large copy, bytes read plus bytes written, the best of some repeats.

    The buffer is far larger than any cache, so this is the memory's speed: what a loss that did nothing but read both
    maps and write a gradient would run at.
    """
    size = 2**30 if device == "cuda" else max(2**28, 4 * last_level_cache())
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(repeats):
        if device == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            target.copy_(source)
            end.record()
            end.synchronize()
            best = min(best, start.elapsed_time(end) / 1e3)
        else:
            begin = time.perf_counter()
            target.copy_(source)
            best = min(best, time.perf_counter() - begin)
    return 2 * size / best / 1e9
