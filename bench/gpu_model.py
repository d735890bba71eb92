# SPDX-License-Identifier: Apache-2.0
"""A PREDICTION of the Triton engine's time on GPUs from counted instructions and bytes; nothing here was timed.

    python bench/gpu_model.py --out bench/results/triton/model.json

The compiled PTX of the four kernels is run on the CPU (tools/ptx), which counts executed instructions by class and the
32-byte sectors that each program touches. From these counts a launch takes the longest of

    instructions   lane instructions / (SMs * lanes a clock * clock), special functions at a quarter of that rate
    L2             bytes that programs request, each sector once a program / L2 bandwidth
    HBM            bytes that the launch touches, each sector once / HBM bandwidth

plus the latency of a launch inside a graph. Assumptions: every unit runs at its data-sheet rate, nothing waits, the
instruction mix of sm_90's PTX holds for the others, PTX instructions stand for machine instructions (ptxas removes
moves: they are left out), and each launch finds its input in L2 where the launch before wrote it.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mlr import kernels
from mlr.kernels.launch import KERNELS
from mlr.losses.space import LossSpace

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
import ptx
from depth_maps import depth_pair


@dataclass(frozen=True)
class GPU:
    """Data-sheet rates.

    Attributes:
        units: multiprocessors (compute units).
        lanes: 32-bit lanes a clock and unit.
        clock: boost clock, GHz.
        hbm: memory bandwidth, GB/s.
        l2: L2 bandwidth, GB/s, as published microbenchmarks give it.
        launch: microseconds between two kernels of a graph.
    """

    units: int
    lanes: int
    clock: float
    hbm: float
    l2: float
    launch: float = 1.0


GPUS = {
    "A100 (predicted)": GPU(108, 64, 1.41, 2039, 4500),
    "H100 SXM (predicted)": GPU(132, 128, 1.755, 3350, 5500),
    "MI300X (predicted)": GPU(304, 64, 2.1, 5300, 8000),
}
#: Share of a lane instruction's rate at which these run.
SLOW = {"special function": 0.25, "float division": 0.25, "conversion": 0.5}


def count(batch: int, height: int, width: int) -> dict[str, dict[str, Any]]:
    """Lane instructions by class and bytes of every launch of a step."""
    pred, target = depth_pair(batch, height, width)
    terms = LossSpace("all").indices
    ptx.counts.clear()
    with ptx.installed(90), ptx.options(count=True):
        kernels.multi_loss(pred, target, torch.ones(batch, len(terms)), terms)
    launches = {}
    for kernel in KERNELS:
        counts = ptx.counts[kernel.fn.__name__]
        launches[kernel.fn.__name__] = {
            "programs": counts.programs,
            "lane instructions": {name: n for name, n in counts.lane_instructions.items() if n},
            "L2 bytes": 32 * (counts.reads.program_sectors + counts.writes.program_sectors),
            "HBM bytes": 32 * (counts.reads.launch_sectors + counts.writes.launch_sectors),
        }
    return launches


def predict(launches: dict[str, dict[str, Any]], gpu: GPU) -> dict[str, float]:
    """Microseconds of every launch and of the step."""
    times = {}
    for name, launch in launches.items():
        work = sum(n / SLOW.get(kind, 1.0) for kind, n in launch["lane instructions"].items() if kind != "move")
        issue = work / (gpu.units * gpu.lanes * gpu.clock * 1e3)
        times[name] = max(issue, launch["L2 bytes"] / gpu.l2 / 1e3, launch["HBM bytes"] / gpu.hbm / 1e3) + gpu.launch
    return times | {"step": sum(times.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description="PREDICT the time of a step on GPUs from counts; nothing is timed.")
    parser.add_argument("--size", default="8x288x384", help="BxHxW")
    parser.add_argument("--out", type=Path, help="result file (JSON)")
    args = parser.parse_args()
    batch, height, width = map(int, args.size.split("x"))
    launches = count(batch, height, width)
    pixels = batch * height * width
    lanes = {name: sum(launch["lane instructions"].values()) / pixels for name, launch in launches.items()}
    moved = sum(launch["L2 bytes"] for launch in launches.values())
    print(f"counted at {args.size}: {sum(lanes.values()):.0f} lane instructions an input pixel, of these "
          f"{sum(x['lane instructions'].get('move', 0) for x in launches.values()) / pixels:.0f} moves; "
          f"{moved / 1e6:.0f} MB through L2; {len(launches)} launches")  # fmt: skip
    predictions = {name: predict(launches, gpu) for name, gpu in GPUS.items()}
    print(f"\n{'PREDICTION, microseconds':28}" + "".join(f"{name:>18}" for name in [*launches, "step"]))
    for name, times in predictions.items():
        print(f"{name:28}" + "".join(f"{time:18.1f}" for time in times.values()))
    print("\nassumptions:" + (__doc__ or "").split("Assumptions:")[1].rstrip())
    print("\n".join(f"  {name}: {asdict(gpu)}" for name, gpu in GPUS.items()))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        result = {
            "what": "PREDICTION from counts; no time in this file was measured",
            "size": args.size,
            "lane instructions an input pixel": lanes,
            "launches": launches,
            "gpus": {name: asdict(gpu) for name, gpu in GPUS.items()},
            "predicted microseconds": predictions,
        }
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
