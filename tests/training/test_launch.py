# SPDX-License-Identifier: Apache-2.0
"""Who started a process, read from the variables that launchers set, and what is refused before any work."""

from __future__ import annotations

import pytest
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment

from mlr.cli import train_command
from mlr.training.launch import RANK_ZERO_FOLDER, Launch

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
SRUN = {
    "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_JOB_ID": "77",
}  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "launch", "cluster"),
    [
        ({}, Launch("mlr", 0, 1, 1), LightningEnvironment),
        (
            {RANK_ZERO_FOLDER: "runs/a", "LOCAL_RANK": "1", "WORLD_SIZE": "2"},
            Launch("mlr", 1, 2, 2),
            LightningEnvironment,
        ),
        (TORCHRUN, Launch("torchrun", 3, 4, 2), TorchElasticEnvironment),
        (SRUN, Launch("srun", 3, 4, 2), SLURMEnvironment),
        # the batch script itself is no task of srun, and may start the processes of its machine
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, Launch("mlr", 0, 1, 1), LightningEnvironment),
    ],
)
def test_the_launcher_is_known_by_its_variables(environment, launch, cluster, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Launch.of(environment) == launch
    assert type(launch.cluster()) is cluster
    assert launch.external == (launch.launcher != "mlr")


def test_srun_must_say_how_many_tasks_a_machine_has():
    with pytest.raises(ValueError, match="srun needs --ntasks-per-node"):
        Launch.of({name: value for name, value in SRUN.items() if name != "SLURM_NTASKS_PER_NODE"})


@pytest.mark.parametrize("environment", [{"LOCAL_RANK": "1"}, {"WORLD_SIZE": "2", "LOCAL_RANK": "0"}])
def test_processes_of_another_launcher_are_refused(environment):
    with pytest.raises(ValueError, match=r"start several processes by\s+one of these"):
        Launch.of(environment)


@pytest.mark.parametrize(
    ("launch", "devices", "nodes", "named", "message"),
    [
        (Launch("mlr", 0, 1, 1), 2, 2, True, "--nodes 2: start the command on every machine by torchrun or srun"),
        (Launch("torchrun", 0, 4, 4), 1, 1, True, "started 4 processes, 4 of them here.*: give --devices 4$"),
        (Launch("torchrun", 0, 4, 2), 4, 1, True, ": give --devices 2 --nodes 2$"),
        (Launch("srun", 0, 4, 2), 1, 4, True, ": give --devices 2 --nodes 2$"),
        (Launch("torchrun", 0, 5, 3), 3, 2, True, "start as many on each machine"),
        (Launch("torchrun", 0, 4, 2), 2, 2, False, "give --out"),
    ],
)
def test_settings_that_do_not_fit_the_processes_are_refused(launch, devices, nodes, named, message):
    with pytest.raises(ValueError, match=message):
        launch.check(devices, nodes, named)


def test_what_fits_passes():
    Launch("mlr", 0, 1, 1).check(4, 1, False)
    Launch("torchrun", 1, 4, 2).check(2, 2, True)
    Launch("torchrun", 0, 1, 1).check(1, 1, False)


def test_a_mismatch_is_explained_before_anything_is_written(tmp_path, monkeypatch, capsys):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert train_command(["--out", str(tmp_path / "run")]) == 1
    assert "give --devices 2 --nodes 2" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
