# SPDX-License-Identifier: Apache-2.0
"""The first call of a implementation that compiles, in a process of its own.

A compilation cannot be stopped from within: it may wait in C++ or in another thread, where no alarm is heard. A process
can. What it compiled stays in PyTorch's cache on disk, so the call that is timed afterwards finds it there.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import asdict

import torch
from implementations import IMPLEMENTATIONS, Case, Unavailable, depth_maps, threads


def first_call(name: str, case: Case, seconds: float) -> float:
    """Seconds that the first call takes, compilation included.

    Raises:
        Unavailable: it takes longer than it may, or fails; with the reason.
    """
    command = [sys.executable, "-W", "ignore", __file__, name, json.dumps(asdict(case))]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"its compilation was stopped after {seconds:g} s") from None
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip()] or ["its first call failed"]
        errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b.*:", line)]  # advice may follow it
        raise Unavailable((errors or lines)[-1])
    return float(result.stdout.splitlines()[-1])


def _measure(name: str, case: Case) -> float:
    with threads(case.threads):
        call, inputs = IMPLEMENTATIONS[name].build(case), depth_maps(case, 0)
        start = time.perf_counter()
        call(inputs)
        if case.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


if __name__ == "__main__":
    try:
        print(_measure(sys.argv[1], Case(**json.loads(sys.argv[2]))))
    except Unavailable as error:
        sys.exit(str(error))
