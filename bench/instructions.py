# SPDX-License-Identifier: Apache-2.0
"""Instructions a call of the C++ engine takes, counted by callgrind: a regression guard that does not time.

One process under valgrind computes every case twice and counts the second call, Python's part included. The count
repeats to a few parts in ten thousand on any machine, however busy. Valgrind knows no AVX-512, so the backend runs the
widest set it does know there; the result says which.

    python bench/instructions.py
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from implementations import IMPLEMENTATIONS, Case, depth_maps, threads

#: What is counted: small maps, because an instruction takes some 50 times longer there.
CASES: tuple[Case, ...] = (
    Case(batch=1, height=96, width=128, losses="D/0"),
    Case(batch=1, height=96, width=128, losses="*/0"),
    Case(batch=1, height=96, width=128, losses="*/3-5"),
    Case(batch=1, height=96, width=128),
    Case(batch=1, height=96, width=128, gradient=False),
    Case(batch=1, height=288, width=384),
)


def why_not() -> str:
    """Why instructions cannot be counted here; empty where they can."""
    import machine

    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    if machine.cpp_instruction_set() is None:
        return "the C++ engine is not built here"
    return ""


def count(cases: tuple[Case, ...] = CASES, timeout: float = 900.0) -> dict[str, Any]:
    """Instructions a call by case, or ``reason`` where there is no count."""
    reason = why_not()
    if reason:
        return {"reason": reason}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "count"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--collect-atstart=no"]
        command += [sys.executable, "-W", "ignore", __file__, "--worker"]
        command += [json.dumps([case.__dict__ for case in cases])]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        try:
            result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout)
        except subprocess.TimeoutExpired:
            return {"reason": f"valgrind took more than {timeout:.0f} s"}
        if result.returncode:
            return {"reason": (result.stderr.strip().splitlines() or ["valgrind failed"])[-1]}
        # dump N belongs to case N
        totals = [_total(out.with_name(f"count.{i}")) for i in range(1, len(cases) + 1)]
    worker = json.loads(result.stdout.strip().splitlines()[-1])
    rows = [
        {
            "losses": case.losses, "count": len(case.terms), "gradient": case.gradient, "batch": case.batch,
            "height": case.height, "width": case.width, "instructions": total,
            "per_pixel": round(total / case.pixels, 1),
        }
        for case, total in zip(cases, totals, strict=True)
    ]  # fmt: skip
    return {"instruction_set": worker["instruction_set"], "rows": rows}


def _total(path: Path) -> int:
    match = re.search(r"^(?:totals|summary): (\d+)", path.read_text(), re.MULTILINE)
    if match is None:
        raise RuntimeError(f"{path.name} of callgrind has no total")
    return int(match[1])


def _worker(cases: list[Case]) -> None:
    import machine
    import torch

    with threads(1):
        for case in cases:
            call, inputs = IMPLEMENTATIONS["cpp"].build(case), depth_maps(case, 0)
            call(inputs)
            torch._C._valgrind_toggle()
            call(inputs)
            torch._C._valgrind_toggle_and_dump_stats()
    print(json.dumps({"instruction_set": machine.cpp_instruction_set()}))


if __name__ == "__main__":
    if "--worker" in sys.argv:
        _worker([Case(**case) for case in json.loads(sys.argv[-1])])
    else:
        print(json.dumps(count(), indent=1))
