# SPDX-License-Identifier: Apache-2.0
"""Which data a command works on: what its flags say, and for the rest what a run was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlr.data.datasets.registry import DATASETS, check_dataset, dataset_options, parse_options
from mlr.data.depth_files import DataError, units_per_metre
from mlr.data.fill import HOLES
from mlr.data.named_sets import NamedSet, is_mixture, parse_sets, split_name

#: Settings of the data, by their names in a run's record, and the flags that give them.
FLAGS = {
    "data": "--data",
    "root": "--root",
    "data_options": "--data-options",
    "depth_unit": "--depth-unit",
    "holes": "--holes",
}


@dataclass(frozen=True)
class ChosenData:
    """A data set with the settings that choose what it gives; None = not said.

    Attributes:
        data: name of the data set.
        root: its folder or file.
        data_options: options of its reader, as they are typed.
        depth_unit: unit of integer depth files.
        holes: what to do with pixels without depth.
    """

    data: str | None = None
    root: str | None = None
    data_options: str | None = None
    depth_unit: str | None = None
    holes: str | None = None

    def __post_init__(self) -> None:
        name, root = split_name(self.data or "")
        if root is None or is_mixture(self.data or ""):
            return
        if self.root not in (None, root):
            raise DataError(f"--data {self.data} says its path, and --root {self.root} another: leave one out")
        object.__setattr__(self, "data", name)
        object.__setattr__(self, "root", root)

    @classmethod
    def of_run(cls, config: Mapping[str, Any], path: Path, wanted: str | None = None) -> ChosenData:
        """The data that the network of a checkpoint was trained on.

        Args:
            config: settings of the run.
            path: the checkpoint's file.
            wanted: of several data sets, the one of that name; nothing is chosen if there is none.

        Raises:
            DataError: the record is damaged.
        """
        values = {name: config[name] for name in FLAGS if config.get(name) is not None}
        for name, value in values.items():
            if not isinstance(value, str):
                raise DataError(f"{path} is damaged: its setting {name} is {type(value).__name__}, not text")
        if not is_mixture(values.get("data", "")):
            return cls(**values)
        for entry in _sets(values["data"], path):
            if wanted in (entry.name, entry.data):
                holes = entry.holes or values.get("holes")
                return cls(entry.data, entry.root, entry.data_options, entry.depth_unit, holes)
        return cls()

    def completed(self, run: ChosenData) -> tuple[ChosenData, str]:
        """What is said here, and the rest from a run, unless another data set is named here.

        Returns:
            The settings, and those of the run as flags; "" if none is taken.
        """
        if self.data is not None and self.data != run.data:
            return self, ""
        own, others = asdict(self), asdict(run)
        taken = {name: value for name, value in others.items() if own[name] is None and value not in (None, "")}
        return replace(self, **taken), " ".join(f"{FLAGS[name]} {value}" for name, value in taken.items())

    def completed_by(self, config: Mapping[str, Any], path: Path) -> tuple[ChosenData, str]:
        """:meth:`completed` by the run that a checkpoint records.

        Raises:
            DataError: neither says which data is meant, or the record is damaged.
        """
        run = ChosenData.of_run(config, path, self.data)
        trained = config.get("data")
        if self.data is None and isinstance(trained, str) and is_mixture(trained):
            names = ", ".join(entry.name for entry in _sets(trained, path))
            raise DataError(f"--data is missing: {path} was trained on several data sets, choose one of {names}")
        if self.data is None and run.data is None:
            raise DataError(f"--data is missing, and {path} does not say which data it was trained on")
        if self.data is not None and self.data not in DATASETS and run.data is not None and run.data != trained:
            return replace(self, data=run.data).completed(run)  # a set's own name, such as kitti-2
        return self.completed(run)

    @property
    def options(self) -> dict[str, str]:
        """Options of the reader by name."""
        return parse_options(self.data_options)

    @property
    def takes_unit(self) -> bool:
        """Whether a unit was given that the reader takes, other than by an option of its own."""
        return self.depth_unit is not None and "unit" in dataset_options(self.name) and "unit" not in self.options

    @property
    def name(self) -> str:
        """Name of the data set.

        Raises:
            DataError: none was given.
        """
        if self.data is None:
            raise DataError("--data is missing: say what holds the frames, e.g. --data folder --root FOLDER")
        return self.data

    def validate(self) -> ChosenData:
        """Refuse names, units and ways that there are not, before anything is opened.

        Raises:
            ValueError, DataError: one is unknown or missing.
        """
        check_dataset(self.name)
        if self.depth_unit is not None:
            units_per_metre(self.depth_unit)
        if self.holes not in (None, *HOLES):
            raise ValueError(f"--holes must be one of {', '.join(HOLES)}, got {self.holes!r}")
        return self


def _sets(text: str, path: Path) -> tuple[NamedSet, ...]:
    try:
        return parse_sets(text)
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}") from error
