# SPDX-License-Identifier: Apache-2.0
"""Peak memory of a loss on the CPU beyond the prediction, the target and the gradient.

PyTorch keeps no such count on the CPU, and a backend's own arena would escape it, so the operating system is asked: a
fresh process makes the inputs, resets its high-water mark of resident memory, computes once, and reads the mark.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from implementations import IMPLEMENTATIONS, Case, Unavailable, depth_maps, threads

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _resident(key: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (the most since the last reset)."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise Unavailable(f"{STATUS} has no {key}")


def _measure(name: str, case: Case) -> float:
    implementation = IMPLEMENTATIONS[name]
    small = replace(case, batch=1, height=32, width=48)
    with threads(case.threads):
        implementation.build(small)(depth_maps(small, 0))  # loads code and starts threads
        inputs = depth_maps(case, 0)
        inputs.grad.zero_()  # resident, so that a gradient returned in fresh pages is all that is subtracted
        call = implementation.build(case)
        gc.collect()
        if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)  # pages that were freed but kept would hide what the call takes
        CLEAR.write_text("5")  # VmHWM := VmRSS
        before = _resident("VmRSS")
        result = call(inputs)
        peak = _resident("VmHWM") - before
    grad = result[1]
    return max(0, peak - (0 if grad is None else grad.numel() * grad.element_size())) / 2**20


def peak_memory(name: str, case: Case) -> dict[str, Any]:
    """MB that an implementation needs beyond inputs and gradient, measured in a process of its own."""
    row: dict[str, Any] = {"implementation": name, "threads": case.threads, "mask": case.mask}
    row |= {"batch": case.batch, "height": case.height, "width": case.width}
    if not (STATUS.exists() and CLEAR.exists()):
        return {**row, "reason": "needs Linux's /proc"}
    command = [sys.executable, "-W", "ignore", __file__, name, json.dumps(asdict(case))]
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": str(case.threads)}
    )
    if result.returncode:
        return {**row, "reason": (result.stderr.strip().splitlines() or ["failed"])[-1]}
    return {**row, "memory_mb": float(f"{float(result.stdout):.3g}")}


if __name__ == "__main__":
    try:
        print(_measure(sys.argv[1], Case(**json.loads(sys.argv[2]))))
    except Unavailable as error:
        sys.exit(str(error))
