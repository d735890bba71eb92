# SPDX-License-Identifier: Apache-2.0
"""Who started this process of a run: the command itself, torchrun or srun; and whether that fits the settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

#: Hands the folder that rank 0 made on to the ranks that it started.
RANK_ZERO_FOLDER = "MLR_RUN_FOLDER"


@dataclass(frozen=True)
class Launch:
    """Where this process stands among the processes of a run.

    Attributes:
        launcher: what started the processes: "mlr" (rank 0 starts the others), "torchrun" or "srun".
        rank: the number of this process over all machines.
        processes: how many there are over all machines.
        here: how many there are on this machine.
    """

    launcher: str
    rank: int
    processes: int
    here: int

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Launch:
        """Read the environment variables that launchers set.

        Raises:
            ValueError: they are of a launcher that is not supported.
        """

        def number(name: str, default: int) -> int:
            return int(environment.get(name, default))

        if RANK_ZERO_FOLDER in environment:
            count = number("WORLD_SIZE", 1)
            return cls("mlr", number("LOCAL_RANK", 0), count, count)
        if "TORCHELASTIC_RUN_ID" in environment:
            return cls("torchrun", number("RANK", 0), number("WORLD_SIZE", 1), number("LOCAL_WORLD_SIZE", 1))
        if number("SLURM_STEP_NUM_TASKS", 1) > 1:  # a batch script has SLURM_NTASKS too, the tasks of srun have this
            if "SLURM_NTASKS_PER_NODE" not in environment:
                raise ValueError("srun needs --ntasks-per-node, the number of processes on each machine")
            here = number("SLURM_NTASKS_PER_NODE", 1)
            return cls("srun", number("SLURM_PROCID", 0), number("SLURM_STEP_NUM_TASKS", 1), here)
        if number("LOCAL_RANK", 0) or number("WORLD_SIZE", 1) > 1:
            raise ValueError(
                "the environment has LOCAL_RANK or WORLD_SIZE, but not of torchrun or srun: start several processes by "
                "one of these, or let --devices start them"
            )
        return cls("mlr", 0, 1, 1)

    @property
    def external(self) -> bool:
        """Whether another program has started all processes."""
        return self.launcher != "mlr"

    def cluster(self) -> ClusterEnvironment:
        """What Lightning calls this launcher. It is named, as Lightning takes a batch script for a task of srun."""
        if self.launcher == "torchrun":
            return TorchElasticEnvironment()
        return SLURMEnvironment(auto_requeue=False) if self.launcher == "srun" else LightningEnvironment()

    def check(self, devices: int, nodes: int, named: bool) -> None:
        """Refuse settings that do not fit the processes that there are.

        Args:
            devices: processes on a machine.
            nodes: machines.
            named: whether the run's folder is given, so that all processes know it.

        Raises:
            ValueError: saying how to start.
        """
        if not self.external:
            if nodes > 1:
                raise ValueError(
                    f"--nodes {nodes}: start the command on every machine by torchrun or srun, see docs/scaling.md"
                )
            return
        if self.processes != devices * nodes or self.here != devices:
            machines, rest = divmod(self.processes, self.here)
            right = f"--devices {self.here}" + (f" --nodes {machines}" if machines > 1 else "")
            raise ValueError(
                f"{self.launcher} started {self.processes} processes, {self.here} of them here, which is not "
                f"--devices {devices} --nodes {nodes}: "
                + ("start as many on each machine" if rest else f"give {right}")
            )
        if self.processes > 1 and not named:
            raise ValueError(f"{self.launcher} started several processes, which must know the run's folder: give --out")
