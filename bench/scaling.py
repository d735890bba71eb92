# SPDX-License-Identifier: Apache-2.0
"""What several processes exchange, and how fast one and two are here: the tables of docs/scaling.md.

python bench/scaling.py                 # bytes a step and a period, from the networks and the balancer
python bench/scaling.py --measure       # and training steps by 1 and 2 processes, one thread each, in turn
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise

NETWORKS = (("tf_efficientnet_lite0", 256), ("resnet50", 1024), ("vit_small_patch14_dinov2", 1024), ("pnasnet", 1024))
#: A measured training: small images, so that a step is short and its communication shows.
TRAINING = {
    "backbone": "tf_efficientnet_lite0", "decoder-channels": 256, "pretrained": "false", "size": "96x128",
    "train-length": 96, "val-length": 2, "epochs": 1, "augment": "none", "workers": 0, "device": "cpu", "threads": 1,
}  # fmt: skip
#: The estimate: GPUs in 8 machines, and bytes a second between two machines.
GPUS, LINKS = 64, {"8 x 400 Gb/s": 400e9, "100 Gb/s": 12.5e9}


def exchanged(backbone: str, channels: int) -> tuple[int, int, int, int]:
    """Trained parameters; bytes of gradients and of buffers a step; bytes of the balancer a period."""
    import mlr
    from mlr.training.module import DepthTraining

    space = mlr.LossSpace("all")
    balancer = mlr.Rebalancing(space.names)
    task = DepthTraining(mlr.DepthModel(backbone, channels, pretrained=False), mlr.MultiLoss(space), balancer)
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    gradients = sum(parameter.numel() * parameter.element_size() for parameter in trained)
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in task.buffers())
    sums = balancer._sums.values
    return sum(p.numel() for p in trained), gradients, buffers, sums.numel() * sums.element_size()


def byte_table() -> Iterator[str]:
    """Bytes, and the seconds that an all_reduce of the gradients takes over the links of the estimate."""
    columns = "".join(f" all_reduce, {name} |" for name in LINKS)
    yield f"| network | trained parameters | gradients a step | buffers a step | balancer a period |{columns}"
    yield "|---|---:|---:|---:|---:|" + "---:|" * len(LINKS)
    for backbone, channels in NETWORKS:
        parameters, gradients, buffers, sums = exchanged(backbone, channels)
        seconds = "".join(f" {2e3 * (GPUS - 1) / GPUS * gradients / link:.1f} ms |" for link in LINKS.values())
        yield (
            f"| {backbone}, {channels} channels | {parameters / 1e6:.1f} M | {gradients / 1e6:.0f} MB | "
            f"{buffers / 1e3:.0f} kB | {sums:,} B |{seconds}"
        )


def work(flags: list[str]) -> None:
    """Train, and print the median seconds of a step on rank 0."""
    from mlr.cli import train_command
    from mlr.training.module import DepthTraining

    ends: list[float] = []
    DepthTraining.on_train_batch_end = lambda *_: ends.append(time.monotonic())  # type: ignore[method-assign]

    def say(task: DepthTraining) -> None:
        if task.global_rank == 0:
            steps = [later - earlier for earlier, later in pairwise(ends[2:])]
            print(f"SECONDS {statistics.median(steps)}", flush=True)

    DepthTraining.on_train_end = say  # type: ignore[method-assign, assignment]
    sys.exit(train_command(flags))


def measure(processes: int, batch: int) -> float:
    """Median seconds of a step."""
    start = [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    with tempfile.TemporaryDirectory() as folder:
        flags = [f"--{name}={value}" for name, value in TRAINING.items()]
        flags += [f"--batch-size={batch}", f"--devices={processes}", f"--out={folder}/run"]
        command = [sys.executable, *start, __file__, "--work", *flags]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return float(next(line for line in done.stdout.splitlines() if line.startswith("SECONDS")).split()[1])


def measured_table(rounds: int) -> Iterator[str]:
    """Steps of 1 and 2 processes, measured in turn, so that neighbours disturb all alike."""
    cases = [(1, 8), (2, 8), (2, 4)]
    seconds: dict[tuple[int, int], list[float]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            seconds[case].append(measure(*case))
    yield "| processes | images a step | seconds a step | images a second | against one process, by rounds |"
    yield "|---:|---:|---:|---:|---:|"
    single = seconds[1, 8]
    for (processes, batch), times in seconds.items():
        images = processes * batch
        ratios = [images / 8 * one / time for one, time in zip(single, times, strict=True)]
        yield (
            f"| {processes} | {processes} x {batch} | {statistics.median(times):.2f} | "
            f"{images / statistics.median(times):.1f} | {', '.join(f'{ratio:.2f}' for ratio in ratios)} |"
        )


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="train by 1 and 2 processes too")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    options = parser.parse_args()
    lines = measured_table(options.rounds) if options.measure else byte_table()
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
