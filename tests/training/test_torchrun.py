# SPDX-License-Identifier: Apache-2.0
"""Runs of several gloo processes under torchrun and under srun's variables: one training, one set of weights."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mlr.training.settings import TrainingSettings

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("ranks_of_a_run.py")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
#: Normalisation statistics are of a process's own images, so the network for comparisons has none: a transformer.
CONFIG = TrainingSettings(
    backbone="test_vit", decoder_channels=64, pretrained="false", size="32x48", train_length=16, val_length=4,
    workers=0, batch_size=2, epochs=2, device="cpu", learning_rate=1e-3, periods_per_epoch=2, augment="none",
)  # fmt: skip


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def torchrun(processes: int, *arguments: str, nodes: int = 1, node: int = 0, port: int = 0) -> list[str]:
    rendezvous = ["--standalone"] if nodes == 1 else ["--master-addr=127.0.0.1", f"--master-port={port}"]
    return [
        sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--nnodes={nodes}",
        f"--node-rank={node}", *rendezvous, *arguments,
    ]  # fmt: skip


def finish(command: list[str], **variables: str) -> None:
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def network(state: dict) -> torch.Tensor:
    """All weights in a row."""
    return torch.cat([value.flatten().double() for name, value in state.items() if name.startswith("model.")])


def table(run: Path, name: str) -> list[dict[str, str]]:
    with (run / name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same training by one process: by the number of its images in a batch."""
    folder = tmp_path_factory.mktemp("alone")

    def run(images: int) -> Path:
        if not (folder / f"{images}").exists():
            (folder / f"{images}").mkdir()
            flags = replace(CONFIG, batch_size=images, out=folder / f"{images}" / "run").flags()
            finish([sys.executable, str(SCRIPT), str(folder / f"{images}"), *flags])
        return folder / f"{images}"

    return run


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.long)])
def test_ranks_agree_to_the_bit_and_with_one_process_of_the_same_batch(processes, alone, tmp_path):
    config = replace(CONFIG, batch_size=8 // processes, devices=processes, out=tmp_path / "run")
    finish(torchrun(processes, str(SCRIPT), str(tmp_path), *config.flags()))
    states = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(processes)]
    for state in states[1:]:
        assert torch.equal(state["balancer.weights"], states[0]["balancer.weights"])
        memories = [one["balancer._extra_state"]["memory"] for one in (state, states[0])]
        torch.testing.assert_close(*memories, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(network(state), network(states[0]))
    # One process adds up the float32 gradients of its images in another order: the ranks do so first within each, then
    # over all. A sum rounds to 6e-8 of itself; steps of Adam carry that on. Seen: 1.1e-6 and 2.8e-6 of the two below.
    single = torch.load(alone(8) / "rank0.pt", weights_only=True)
    assert (network(states[0]) - network(single)).norm() < 1e-4 * network(single).norm()
    torch.testing.assert_close(states[0]["balancer.weights"], single["balancer.weights"], rtol=1e-4, atol=0)
    one, other = table(alone(8) / "run", "balancing.csv"), table(tmp_path / "run", "balancing.csv")
    assert [row["term"] for row in one] == [row["term"] for row in other]
    first = [(float(a["mean"]), float(b["mean"])) for a, b in zip(one, other, strict=True) if a["period"] == "0"]
    assert all(b == pytest.approx(a, rel=1e-6) for a, b in first)


@pytest.mark.long
def test_two_machines_train_and_thaw_together(tmp_path):
    """Two torchruns of one process each; the encoder is thawed, which DDP must notice on both."""
    config = replace(CONFIG, nodes=2, freeze="encoder:1", ema=0.5, schedule="cosine", out=tmp_path / "run")
    port = free_port()
    commands = [
        torchrun(1, str(SCRIPT), str(tmp_path), *config.flags(), nodes=2, node=node, port=port) for node in (0, 1)
    ]
    second = subprocess.Popen(commands[1], cwd=ROOT, env=ENVIRONMENT)
    finish(commands[0])
    assert second.wait(60) == 0
    states = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    networks = [{n: v for n, v in s.items() if n.startswith(("model.", "average."))} for s in states]
    torch.testing.assert_close(*networks, rtol=0, atol=0)
    assert not torch.equal(states[0]["average.module.encoder.pos_embed"], states[0]["model.encoder.pos_embed"])


def srun_variables(rank: int, port: int) -> dict[str, str]:
    return {
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODELIST": "localhost",
        "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0", "MASTER_PORT": str(port),
        "MASTER_ADDR": "127.0.0.1",
    }  # fmt: skip


def test_a_task_of_srun_that_dies_ends_the_other_with_a_message(tmp_path):
    config = replace(CONFIG, devices=2, epochs=500, out=tmp_path / "run")
    port = free_port()
    tasks = [
        subprocess.Popen(
            [sys.executable, "train.py", *config.flags()], cwd=ROOT, env=ENVIRONMENT | srun_variables(rank, port),
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    end = time.monotonic() + 240
    while not (tmp_path / "run" / "resume.ckpt").exists():
        assert time.monotonic() < end
        assert tasks[0].poll() is None, tasks[0].stderr.read()
        time.sleep(0.2)
    os.kill(tasks[1].pid, signal.SIGKILL)
    _, error = tasks[0].communicate(timeout=120)
    assert tasks[0].returncode == 1
    assert "so this one ends" in error or "rank 1" in error
    assert f"--resume {tmp_path / 'run'} continues after the last finished epoch" in error
    assert "Traceback" not in error
    tasks[1].communicate()
