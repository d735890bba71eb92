# SPDX-License-Identifier: Apache-2.0
"""The folder of a training run: never an earlier run's, with a record of what was run and what came out.

config.yaml        the settings; `train.py --config` takes it back
run.json           versions, loss backend, what the network started from, scores
metrics.csv        losses and scores of every epoch
balancing.csv      mean, weight and contribution of every loss at every rebalancing
best.pt, last.pt   the model by best delta_1 and after the last epoch (`DepthModel.from_checkpoint`)
resume.ckpt        everything that --resume needs
*.png              curves, samples, contributions
samples.npz        images of the validation, their depth and the last network's
report.html        the run as a page for the browser
report.md          the run as text, of `mlr report`
tensorboard/       the same for TensorBoard
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.utilities import rank_zero_only

from mlr._version import __version__
from mlr.data.named_sets import as_settings
from mlr.losses import backend_report
from mlr.training.launch import RANK_ZERO_FOLDER
from mlr.training.settings import TrainingSettings
from mlr.training.state import State, read_state
from mlr.utils.files import UNFINISHED, atomic_write, create, is_free
from mlr.utils.renamed import current_metrics


def _are_scores(value: Any) -> bool:
    numbers = value.values() if isinstance(value, dict) else [None]
    return all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_lines(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(line, str) for line in value)


#: What entries of run.json must be, where it matters.
_RECORD: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("constant", "before", "after"), _are_scores),
    **dict.fromkeys(("parameters", "epochs", "steps"), _is_count),
    **dict.fromkeys(("loss_backend", "loss_engine"), _are_lines),
    **dict.fromkeys(("versions", "machine"), lambda value: isinstance(value, dict)),
    "weights_source": lambda value: isinstance(value, str),
}


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
            return cls(Path(os.environ.get(RANK_ZERO_FOLDER) or config.out or ""))
        run = cls(config.out or Path("runs"))
        run.require_space(space)
        cls.check_place(config)
        try:
            if config.out:
                run.path.mkdir(parents=True, exist_ok=True)
            else:
                run = cls(
                    _own_folder(run.path, f"{config.backbone}-{config.data_names}-{datetime.now():%Y%m%d-%H%M%S}")
                )
            create(run.config_file, _settings_text(config))  # of two runs that found the folder empty, one goes on
            run.clean()
        except OSError as error:
            raise OSError(
                f"cannot write to the run folder {run.path}: {error.strerror or error}; choose another --out"
            ) from error
        return run

    @staticmethod
    def check_place(config: TrainingSettings) -> None:
        """Refuse an --out that holds something.

        Raises:
            FileExistsError: saying what to do.
        """
        out = None if getattr(rank_zero_only, "rank", 0) else config.out
        if out and not is_free(out):
            raise FileExistsError(
                f"{out} is there already and a run never overwrites another: choose another --out, "
                f"or continue that run with --resume {out}"
            )

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open the folder of an earlier run, to look at it or to continue it.

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
        return f"no epoch was finished: --resume {self.path} begins again"

    @rank_zero_only
    def write_config(self, config: TrainingSettings) -> None:
        """Write the settings. ``out`` is not saved, so config.yaml can start another run."""
        with atomic_write(self.config_file) as partial:
            partial.write_text(_settings_text(config))

    def training_settings(self) -> TrainingSettings:
        """The settings of the run.

        Raises:
            ValueError: the file is damaged, or of another version.
        """
        from mlr.cli.commands import saved_settings

        return saved_settings(self.config_file)

    def state(self) -> State | None:
        """What --resume continues from; None for a run that was stopped before its first epoch was finished.

        Raises:
            ValueError: the file is damaged.
        """
        return read_state(self.state_file) if self.state_file.is_file() else None

    def is_finished(self, epochs: int) -> bool:
        """Whether the scores and figures after so many epochs are there."""
        record = self.recorded()
        return record.get("epochs") == epochs and "after" in record

    @rank_zero_only
    def clean(self, everything: bool = False) -> None:
        """Remove files that killed processes did not finish.

        Args:
            everything: remove TensorBoard's files too, as the run starts from its beginning.
        """
        for path in self.path.glob(f".*{UNFINISHED}"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        if everything:
            shutil.rmtree(self.path / "tensorboard", ignore_errors=True)

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
        """The entries of run.json; scores by the metrics' names of today.

        Raises:
            ValueError: the file is damaged.
        """
        if not self.record_file.is_file():
            return {}
        try:
            entries = json.loads(self.record_file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.record_file} is damaged: {error}") from error
        if not isinstance(entries, dict):
            raise ValueError(f"{self.record_file} is damaged: it holds {type(entries).__name__}, not named entries")
        for name, value in entries.items():
            if not _RECORD.get(name, lambda _: True)(value):
                raise ValueError(f"{self.record_file} is damaged: {name} is {str(value)[:80]}")
        return {name: current_metrics(value) if isinstance(value, dict) else value for name, value in entries.items()}

    def check_record(self, *needed: str) -> None:
        """Refuse a record that lacks entries.

        Raises:
            ValueError: naming them.
        """
        if missing := set(needed) - self.recorded().keys():
            raise ValueError(f"{self.record_file} is damaged: it lacks {', '.join(sorted(missing))}")

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


def _settings_text(config: TrainingSettings) -> str:
    settings = config.as_dict() | {"data": as_settings(config.data), "out": None}
    return yaml.safe_dump(settings, sort_keys=False)


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
