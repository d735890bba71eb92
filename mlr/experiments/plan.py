# SPDX-License-Identifier: Apache-2.0
"""Plans of experiments: a YAML file that names data, recipe, seeds and the rows of a table.

A plan holds

    title         of the table
    results       the results file, relative to the plan
    settings      of every run: names and values of :class:`mlr.training.settings.TrainingSettings`
    evaluation    what a trained network is scored on: data, root, options, protocol, size
    seeds         how many seeds a row has, or their list; a row may have its own
    pack          true: pack the training and evaluation frames into files once, instead of making them in every run
    seconds       how long a run takes, for the estimate before one has finished
    reference     the row that the others are compared with
    columns       metrics of the table
    parts         parts of the table: a title and rows
    figures       names of the rows that are drawn: ``losses`` (Fig. 2), ``contributions`` (Fig. 3), ``depth`` (Fig. 4)

and a row holds a name, a label, its own settings, seeds, turn (rows of a lower turn run first) and ``paper``: the
paper's numbers by metric, on its data.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from mlr.cli.settings_file import check_yaml
from mlr.evaluation.metrics import METRICS
from mlr.evaluation.scoring import STRUCTURE
from mlr.training.settings import TrainingSettings
from mlr.utils.renamed import current_setting

#: Raised by every change of the code that changes what a run's scores come to: losses, balancers, network, data,
#: augmentation, metrics, default settings. Runs of another version are never mixed into a table.
RESULTS_VERSION = 1

#: Settings that say where and how fast a run computes, not what it learns.
PLACES = ("root", "out", "workers", "device", "threads")

#: Plans are short; larger or deeper files, and more seeds, are something else or are made to fill the memory.
LARGEST_FILE = 1 << 18
DEEPEST = 8
MOST_SEEDS = 1000

#: Columns of Table 5.
COLUMNS = ("delta1", "rmse", "rmse_log", "abs_rel")


@dataclass(frozen=True)
class Evaluation:
    """What a trained network is scored on.

    Attributes:
        data: data set, by the names of ``--data``; its validation or test frames.
        root: its folder or file.
        options: of its reader.
        protocol: name of the evaluation protocol.
        size: HxW of the network's input where the protocol has none; None = the training size.
    """

    data: str = "rooms"
    root: str | None = None
    options: str = ""
    protocol: str = "full"
    size: str | None = None


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: the row's, unique in the plan.
        label: the row's text in the table.
        settings: the row's own training settings.
        seeds: the runs' seeds.
        turn: rows of a lower turn run first.
        paper: the paper's numbers by metric.
    """

    name: str
    label: str
    settings: dict[str, Any]
    seeds: tuple[int, ...]
    turn: int = 1
    paper: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedRun:
    """A training run of a plan. Rows and plans of the same settings share it.

    Attributes:
        config: the settings, with the seed.
        evaluation: what it is scored on.
        rows: names of the plan's rows that it belongs to.
    """

    config: TrainingSettings
    evaluation: Evaluation
    rows: tuple[str, ...] = ()

    @property
    def described(self) -> dict[str, Any]:
        """Everything that the scores depend on, defaults left out, as plain values."""
        settings = {k: v for k, v in self.config.as_dict().items() if k not in PLACES and v != _DEFAULTS[k]}
        if settings.get("freeze") == "encoder":  # by its older name, as in the records that there are
            settings["freeze_encoder"] = bool(settings.pop("freeze"))
        given = {f.name: getattr(self.evaluation, f.name) for f in fields(Evaluation) if f.name != "root"}
        evaluation = {k: v for k, v in given.items() if v}
        return {"results_version": RESULTS_VERSION, "settings": settings, "evaluation": evaluation}

    @property
    def digest(self) -> str:
        """Identity of the run: 16 hexadecimal digits of what the scores depend on."""
        return hashlib.sha256(json.dumps(self.described, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """Name of its folder: losses, balancer, seed and digest."""
        losses = re.sub(r"[^\w-]+", ".", self.config.losses.replace("*", "x"))
        return f"{losses[:40]}-{self.config.balancer}-s{self.config.seed}-{self.digest[:8]}"


_DEFAULTS = TrainingSettings().as_dict()


@dataclass(frozen=True)
class Plan:
    """A plan that was read and checked; see the module for the fields."""

    path: Path
    title: str
    results: Path
    evaluation: Evaluation
    parts: tuple[tuple[str, tuple[Row, ...]], ...]
    reference: str
    settings: dict[str, Any]
    columns: tuple[str, ...] = COLUMNS
    pack: bool = False
    seconds: float | None = None
    figures: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def rows(self) -> list[Row]:
        """All rows, in the table's order."""
        return [row for _, rows in self.parts for row in rows]

    def row(self, name: str) -> Row:
        """A row by name."""
        return next(row for row in self.rows if row.name == name)

    def run(self, row: Row, seed: int) -> PlannedRun:
        """The run of a row with a seed."""
        return PlannedRun(TrainingSettings(**{**self.settings, **row.settings, "seed": seed}), self.evaluation)

    def runs(self) -> list[PlannedRun]:
        """The distinct runs in their order: by turn, then seed by seed, so that early results are paired."""
        owners: dict[str, list[str]] = {}
        order: dict[str, tuple[tuple[int, int, int], PlannedRun]] = {}
        for number, row in enumerate(self.rows):
            for seed in row.seeds:
                run, place = self.run(row, seed), (row.turn, seed, number)
                owners.setdefault(run.digest, []).append(row.name)
                if run.digest not in order or place < order[run.digest][0]:
                    order[run.digest] = place, run
        ordered = sorted(order.values(), key=lambda entry: entry[0])
        return [PlannedRun(run.config, run.evaluation, tuple(owners[run.digest])) for _, run in ordered]


def load_plan(path: Path, root: str | None = None, evaluation_root: str | None = None) -> Plan:
    """Read a plan and check all of it.

    Args:
        path: the YAML file.
        root: folder or file of the training data, in place of the plan's.
        evaluation_root: the same for the evaluation's.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no plan, or a setting is wrong; the message names the row.
    """
    if not path.is_file():
        shipped = ", ".join(sorted(str(p) for p in Path("recipes").glob("*.yaml")))
        raise FileNotFoundError(f"there is no plan {path}" + (f"; shipped plans: {shipped}" if shipped else ""))
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, and plans take {LARGEST_FILE:,} at most")
    try:
        text = path.read_text()
        check_yaml(path, text, DEEPEST, "a plan holds parts, a part rows, and a row settings: nothing lies deeper")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    known = {"title", "results", "settings", "evaluation", "seeds", "pack", "seconds", "reference", "columns", "parts",
             "figures"}  # fmt: skip
    content = _mapping(content, f"{path}", known, {"title", "results", "parts", "reference"})
    settings = _settings(content.get("settings", {}), f"{path}: settings")
    if root is not None:
        settings["root"] = root
    evaluation = _mapping(content.get("evaluation", {}), f"{path}: evaluation", {f.name for f in fields(Evaluation)})
    if evaluation_root is not None:
        evaluation["root"] = evaluation_root
    seeds, parts = content.get("seeds", 5), []
    for part in _list(content["parts"], f"{path}: parts"):
        part = _mapping(part, f"{path}: a part", {"title", "rows"}, {"title", "rows"})
        rows = [_row(row, seeds, f"{path}: {part['title']}") for row in _list(part["rows"], f"{path}: rows")]
        parts.append((part["title"], tuple(rows)))
    columns = tuple(content.get("columns", COLUMNS))
    if unknown := [name for name in columns if name not in (*METRICS, *STRUCTURE)]:
        raise ValueError(f"{path}: there is no metric {unknown[0]!r}; metrics: {', '.join((*METRICS, *STRUCTURE))}")
    plan = Plan(
        path=path,
        title=content["title"],
        results=(path.parent / content["results"]).resolve(),
        evaluation=Evaluation(**evaluation),
        parts=tuple(parts),
        reference=content["reference"],
        settings=settings,
        columns=columns,
        pack=bool(content.get("pack", False)),
        seconds=content.get("seconds"),
        figures=_figures(content.get("figures", {}), f"{path}: figures"),
    )
    _check(plan)
    return plan


def _row(row: Any, seeds: Any, where: str) -> Row:
    row = _mapping(
        row, f"{where}: a row", {"name", "label", "settings", "seeds", "turn", "paper"}, {"name", "settings"}
    )
    where = f"{where}: row {row['name']!r}"
    return Row(
        name=str(row["name"]),
        label=str(row.get("label", row["name"])),
        settings=_settings(row["settings"], where),
        seeds=_seeds(row.get("seeds", seeds), where),
        turn=int(row.get("turn", 1)),
        paper=dict(row.get("paper", {})),
    )


def _figures(value: Any, where: str) -> dict[str, tuple[str, ...]]:
    figures = _mapping(value, where, ("losses", "contributions", "depth"))
    return {name: tuple(map(str, _list(rows, f"{where}: {name}"))) for name, rows in figures.items()}


def _check(plan: Plan) -> None:
    names = [row.name for row in plan.rows]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{plan.path}: rows must have names of their own, but {twice[0]!r} appears twice")
    if plan.reference not in names:
        raise ValueError(f"{plan.path}: reference: there is no row {plan.reference!r}; rows: {', '.join(names)}")
    if unknown := sorted({name for rows in plan.figures.values() for name in rows} - set(names)):
        raise ValueError(f"{plan.path}: figures: there is no row {unknown[0]!r}; rows: {', '.join(names)}")
    if plan.pack and plan.settings.get("data", "rooms") != "rooms":
        raise ValueError(f"{plan.path}: pack is for data: rooms; pack other data sets by mlr prepare")
    reference = set(plan.row(plan.reference).seeds)
    for row in plan.rows:
        if not reference & set(row.seeds):
            raise ValueError(
                f"{plan.path}: row {row.name!r} shares no seed with the reference {plan.reference!r}: comparisons are "
                f"paired by seed. It has {list(row.seeds)}, the reference {sorted(reference)}"
            )
        for seed in row.seeds:
            try:
                plan.run(row, seed).config.validate()
            except (ValueError, TypeError, FileNotFoundError) as error:
                raise ValueError(f"{plan.path}: row {row.name!r}: {error}") from error


def _settings(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, dict):
        value = dict(current_setting(str(name), given) for name, given in value.items())
    settings = _mapping(value, where, set(TrainingSettings.names()) - {"seed", "out"})
    kinds = {f.name: f.type for f in fields(TrainingSettings)}
    for name, given in settings.items():
        if kinds[name] == "float" and isinstance(given, int):
            settings[name] = float(given)  # 1 and 1.0 are one setting, with one digest
        if kinds[name] == "float" and isinstance(given, str):
            raise ValueError(f"{where}: {name} must be a number, got {given!r}; YAML reads 1e-3 as text, write 1.0e-3")
        if kinds[name] == "int" and not isinstance(given, int):
            raise ValueError(f"{where}: {name} must be a whole number, got {given!r}")
        if kinds[name] == "str" and not isinstance(given, str):
            settings[name] = str(given).lower() if isinstance(given, bool) else str(given)
    return settings


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    seeds = (
        tuple(range(min(value, MOST_SEEDS + 1)))
        if isinstance(value, int) and not isinstance(value, bool)
        else tuple(_list(value, where))
    )
    if len(seeds) > MOST_SEEDS:
        raise ValueError(f"{where}: a row has at most {MOST_SEEDS:,} seeds, got {str(value)[:40]}")
    if not seeds or not all(isinstance(seed, int) and seed >= 0 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise ValueError(f"{where}: seeds must be a number of seeds or a list of different seeds, got {value!r}")
    return seeds


def _mapping(value: Any, where: str, known: Iterable[str], needed: Iterable[str] = ()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be a mapping of names to values, got {value!r}")
    if unknown := sorted(map(str, value.keys() - set(known))):
        raise ValueError(f"{where}: there is no entry {unknown[0]!r}; entries: {', '.join(sorted(known))}")
    if missing := sorted(set(needed) - value.keys()):
        raise ValueError(f"{where}: the entry {missing[0]!r} is missing")
    return dict(value)


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where} must be a list that is not empty, got {value!r}")
    return value
