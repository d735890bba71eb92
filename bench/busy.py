# SPDX-License-Identifier: Apache-2.0
"""Seconds of a training step alone and beside busy processes, by how threads wait: a table of docs/training.md.

    python bench/busy.py --neighbours 0,1,2 --seconds 8 --rounds 3

Ways are measured in turn, so that other work on the machine disturbs all alike; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext

#: Ways to wait, and the variables that make them: PyTorch's default, at once to sleep, and the trainer's.
WAYS = {"spinning": {}, "sleeping": {"OMP_WAIT_POLICY": "PASSIVE"}, "the trainer": {}}

#: Seconds of steps that are not counted; the trainer has looked at the machine by then.
WARM_UP = 2.0


def steps(way: str, seconds: float) -> None:
    """Take steps for some seconds, at least two, after the warm-up; print the mean seconds of a step."""
    import torch

    import mlr
    from mlr.training.threads import yielding_when_busy

    torch.manual_seed(0)
    model = mlr.DepthModel("tf_efficientnet_lite0", 256, pretrained=False).to(memory_format=torch.channels_last)
    criterion, optimizer = mlr.MultiLoss("all"), torch.optim.Adam(model.parameters())
    image, depth = torch.rand(8, 3, 96, 128).to(memory_format=torch.channels_last), 1 + torch.rand(8, 1, 96, 128)
    times: list[float] = []
    start = time.monotonic()
    with yielding_when_busy() if way == "the trainer" else nullcontext():
        while len(times) < 2 or sum(times) < seconds:
            begun = time.monotonic()
            optimizer.zero_grad()
            criterion(model(image), depth).total.backward()
            optimizer.step()
            if begun - start > WARM_UP:
                times.append(time.monotonic() - begun)
    print(f"SECONDS {statistics.mean(times)}")


def measure(way: str, neighbours: int, seconds: float) -> float:
    """Mean seconds of a step beside processes that never rest."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(neighbours)]
    try:
        environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")}
        command = [sys.executable, "-W", "ignore", __file__, "--way", way, "--seconds", str(seconds)]
        done = subprocess.run(command, env=environment | WAYS[way], capture_output=True, text=True, check=True)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    return float(done.stdout.split("SECONDS")[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neighbours", default="0,1,2", help="numbers of busy processes")
    parser.add_argument("--seconds", type=float, default=8, help="length of a measurement")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        steps(options.way, options.seconds)
        return
    print(
        "| busy neighbours | load before | " + " | ".join(WAYS) + " | the trainer / spinning | the trainer / sleeping |"
    )
    print("|---:|---:|" + "---:|" * (len(WAYS) + 2))
    for neighbours in map(int, options.neighbours.split(",")):
        load = os.getloadavg()[0]
        rounds = [{way: measure(way, neighbours, options.seconds) for way in WAYS} for _ in range(options.rounds)]
        middle = [f"{statistics.median(times[way] for times in rounds):.2f} s" for way in WAYS]
        ratios = [
            f"{statistics.median(times['the trainer'] / times[way] for times in rounds):.2f}"
            for way in ("spinning", "sleeping")
        ]
        print(f"| {neighbours} | {load:.1f} | " + " | ".join([*middle, *ratios]) + " |", flush=True)


if __name__ == "__main__":
    main()
