# SPDX-License-Identifier: Apache-2.0
"""The folder of a training run: never an earlier run's, with a record of what was run and what came out.

config.yaml        the settings; `train.py --config` takes it back
run.json           versions, loss backend, weights the network started from, data, scores
metrics.csv        losses and scores of every epoch
balancing.csv      mean, weight and contribution of every loss at every rebalancing
best.pt, last.pt   the model by best delta_1 and after the last epoch (`DepthModel.from_checkpoint`)
resume.ckpt        everything that --resume needs
*.png              curves, samples, contributions
report.md          the run on a page, of `mlr report`
tensorboard/       the same for TensorBoard
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.utilities import rank_zero_only

from mlr._version import __version__
from mlr.losses import backend_report
from mlr.training.processes import RANK_ZERO_FOLDER
from mlr.training.settings import TrainingSettings
from mlr.utils.files import atomic_write
from mlr.utils.renamed import current_metrics


class Run:
    """An open run folder. Rank 0 makes and writes it, the other ranks only know where it is."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, config: TrainingSettings, space: int = 0) -> Run:
        """Make the folder of a new run and write its settings.

        Args:
            config: the settings.
            space: bytes that the run's checkpoints will take.

        Raises:
            FileExistsError: the folder holds something already.
            OSError: the folder cannot be made or written, or its disk has not that much space.
        """
        if getattr(rank_zero_only, "rank", 0):
            return cls(Path(os.environ[RANK_ZERO_FOLDER]))
        run = cls(config.out or Path("runs"))
        run.require_space(space)
        if config.out and (run.path.is_file() or (run.path.is_dir() and any(run.path.iterdir()))):
            raise FileExistsError(
                f"{run.path} is there already and a run never overwrites another: choose another --out, "
                f"or continue that run with --resume {run.path}"
            )
        try:
            if config.out:
                run.path.mkdir(parents=True, exist_ok=True)
            else:
                run = cls(_own_folder(run.path, f"{config.backbone}-{config.data}-{datetime.now():%Y%m%d-%H%M%S}"))
            run.config_file.touch(exist_ok=False)  # of two runs that found the folder empty, one goes on
            run.write_config(config)
        except OSError as error:
            raise OSError(
                f"cannot write to the run folder {run.path}: {error.strerror or error}; choose another --out"
            ) from error
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open the folder of an earlier run, to continue it.

        Raises:
            FileNotFoundError: it is no run folder, or it was stopped before its first checkpoint.
        """
        run = cls.read(path)
        if not run.state_file.is_file():
            raise FileNotFoundError(
                f"--resume {path}: this run was stopped before its first checkpoint, there is nothing to continue; "
                "start a new run with its settings: --config " + str(run.config_file)
            )
        return run

    @classmethod
    def read(cls, path: Path) -> Run:
        """Open the folder of an earlier run, to look at it.

        Raises:
            FileNotFoundError: it is no run folder.
        """
        run = cls(path)
        if not run.config_file.is_file():
            raise FileNotFoundError(f"{path} is no run folder: it has no config.yaml")
        return run

    @property
    def config_file(self) -> Path:
        """Settings in YAML."""
        return self.path / "config.yaml"

    @property
    def record_file(self) -> Path:
        """Record of what was run and what came out."""
        return self.path / "run.json"

    @property
    def state_file(self) -> Path:
        """Full state of training."""
        return self.path / "resume.ckpt"

    def left(self) -> str:
        """What a run that stops here leaves, and how to go on."""
        if self.state_file.is_file():
            return f"--resume {self.path} continues after the last finished epoch"
        return f"no epoch was finished: there is nothing to continue in {self.path}"

    @rank_zero_only
    def write_config(self, config: TrainingSettings) -> None:
        """Write the settings; the folder is none of them, so that they serve another run."""
        with atomic_write(self.config_file) as partial:
            partial.write_text(yaml.safe_dump(config.as_dict() | {"out": None}, sort_keys=False))

    def config(self) -> dict[str, Any]:
        """The settings of the run.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            settings = yaml.safe_load(self.config_file.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.config_file} is damaged: {error}") from error
        if not isinstance(settings, dict):
            raise ValueError(f"{self.config_file} is damaged: it holds no settings")
        return settings

    def training_settings(self) -> TrainingSettings:
        """The same as :class:`TrainingSettings`.

        Raises:
            ValueError: the file holds something else, or another version's settings.
        """
        try:
            return TrainingSettings(**self.config())
        except TypeError as error:
            raise ValueError(
                f"{self.config_file} does not hold the settings of mlr {__version__}: {error}; it is damaged or of "
                "another version"
            ) from error

    def progress(self) -> tuple[int, int]:
        """Epochs and optimizer steps in the state that --resume continues from.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            state = torch.load(self.state_file, weights_only=True, mmap=True)
            return int(state["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]), int(state["global_step"])
        except Exception as error:  # a damaged file raises anything
            raise ValueError(
                f"{self.state_file} is damaged ({error}): the run cannot be continued; {self.path / 'last.pt'} holds "
                "its last network"
            ) from error

    def require_space(self, needed: int) -> None:
        """Refuse to start when the disk cannot hold the run's checkpoints.

        Args:
            needed: bytes.

        Raises:
            OSError: with the numbers.
        """
        folder = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise OSError(
                f"the disk of {self.path} has {free / 2**20:,.0f} MiB free, and the checkpoints of this run need "
                f"{needed / 2**20:,.0f} MiB: free some space or choose another --out"
            )

    @rank_zero_only
    def record(self, **entries: Any) -> None:
        """Add entries to run.json, which is replaced as a whole and so never half-written."""
        with atomic_write(self.record_file) as partial:
            partial.write_text(json.dumps(self.recorded() | entries, indent=1) + "\n")

    def recorded(self) -> dict[str, Any]:
        """The entries of run.json."""
        if not self.record_file.is_file():
            return {}
        entries = json.loads(self.record_file.read_text())
        return {name: current_metrics(value) if isinstance(value, dict) else value for name, value in entries.items()}

    def record_environment(self) -> None:
        """Record the programs and the machine that a result depends on."""
        self.record(
            versions={"mlr": __version__, "torch": torch.__version__, "python": platform.python_version()},
            loss_backend=backend_report().splitlines(),
            machine={
                "cpu": platform.processor() or platform.machine(),
                "threads": torch.get_num_threads(),
                "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            },
        )


def _own_folder(parent: Path, name: str) -> Path:
    """Make a folder of that name, numbered where runs start in the same second."""
    name = name.replace("/", "-").replace(":", "-")
    for number in count(1):
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise AssertionError("count() does not end")
