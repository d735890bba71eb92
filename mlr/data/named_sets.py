# SPDX-License-Identifier: Apache-2.0
"""Data sets as they are named on command lines and in settings: ``NAME``, ``NAME:PATH``, or several for one training.

Several are joined by plus signs, ``rooms+kitti:/data/kitti``. What is particular to a set of several stands in a list,
in a settings file or as JSON: ``[{"data": "rooms"}, {"data": "kitti:/data/kitti", "losses": "depth"}]``.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from mlr.data.datasets.registry import (
    DATASETS,
    check_dataset,
    check_metric,
    check_options,
    check_root,
    parse_options,
)
from mlr.data.depth_files import units_per_metre
from mlr.data.fill import HOLES
from mlr.losses.space import LossSpace
from mlr.utils.sizes import parse_size
from mlr.utils.suggest import suggest

#: A plus sign that stands before a further set; paths may have plus signs too.
_JOINT = re.compile(r"\+(?=(?:" + "|".join(map(re.escape, DATASETS)) + r")(?:[:+]|$))")


@dataclass(frozen=True)
class NamedSet:
    """A data set of several in one training.

    Attributes:
        data: name of the data set.
        root: its folder or file; "rooms" has none.
        name: what scores and figures call it; by default the data set's name, numbered where it occurs again.
        weight: share of an epoch, relative to the other sets; None, for all sets alike, takes each frame once.
        crop: HxW in pixels of the frames, cut out before they are resized: in training anywhere, in validation from the
            middle.
        data_options: options of the reader, as they are typed.
        depth_unit: unit of integer depth files.
        holes: one of :data:`mlr.data.fill.HOLES`; None = as the training says.
        losses: selection of the training's losses that images of this set have; None = all of them.
        loss_weight: factor of the losses of its images.
    """

    data: str
    root: str | None = None
    name: str = ""
    weight: float | None = None
    crop: str | None = None
    data_options: str = ""
    depth_unit: str | None = None
    holes: str | None = None
    losses: str | None = None
    loss_weight: float = 1.0

    def validate(self, space: LossSpace) -> None:
        """Refuse what cannot work, before anything is opened.

        Raises:
            ValueError: naming the set, what was given and what it takes.
        """
        try:
            check_root(check_dataset(self.data), self.root)
            check_metric(self.data)
            if self.root is None and self.data != "rooms":
                raise ValueError(f"its path is missing: write {self.data}:PATH")
            check_options(self.data, parse_options(self.data_options))
            if self.depth_unit is not None:
                units_per_metre(self.depth_unit)
            if self.holes not in (None, *HOLES):
                raise ValueError(f"holes must be one of {', '.join(HOLES)}, got {self.holes!r}")
            for what, value in (("weight", self.weight), ("loss_weight", self.loss_weight)):
                if value is not None and not 0 < value < math.inf:
                    raise ValueError(f"{what} must be a positive number, got {value}")
            if not re.fullmatch(r"[\w-]+", self.name):
                raise ValueError("name must be made of letters, digits, dashes and underscores")
            self.crop_size()
            self.loss_factors(space)
        except ValueError as error:
            raise ValueError(f"--data, set {self.name or self.data}: {error}") from error

    def crop_size(self) -> tuple[int, int] | None:
        """The crop as numbers."""
        return None if self.crop is None else parse_size(self.crop)

    def loss_factors(self, space: LossSpace) -> list[float]:
        """Factor of every loss of the training: ``loss_weight`` for those of this set, 0 for the others.

        Raises:
            ValueError: the selection is unknown, or names losses that the training does not have.
        """
        own = set(space.names if self.losses is None else LossSpace(self.losses).names)
        if foreign := own - set(space.names):
            few = ", ".join(sorted(foreign)[:3])
            raise ValueError(
                f"losses {self.losses} are not all among --losses {space.selection}: {few} are missing there"
            )
        return [self.loss_weight if name in own else 0.0 for name in space.names]


def split_name(text: str) -> tuple[str, str | None]:
    """Name and path of ``NAME`` or ``NAME:PATH``."""
    name, _, root = text.partition(":")
    return name, root or None


def is_mixture(text: str) -> bool:
    """Whether a text names several data sets, or one with what is particular to it."""
    return text.lstrip().startswith("[") or _JOINT.search(text) is not None


def parse_sets(text: str) -> tuple[NamedSet, ...]:
    """The data sets that a text names.

    Raises:
        ValueError: it is of another form, or a set lacks its name or has settings that there are not.

    Example:
        >>> [(s.name, s.root) for s in parse_sets("rooms+folder:/shots/a+b+folder:/more")]
        [('rooms', None), ('folder', '/shots/a+b'), ('folder-2', '/more')]
    """
    if not text.lstrip().startswith("["):
        return _numbered([NamedSet(*split_name(part)) for part in _JOINT.split(text)])
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--data {text!r} is no list of data sets: {error}") from error
    if not entries:
        raise ValueError("--data: the list of data sets is empty")
    return _numbered([_set_of(entry) for entry in entries])


def _set_of(entry: Any) -> NamedSet:
    if isinstance(entry, str):
        return NamedSet(*split_name(entry))
    known = [setting.name for setting in fields(NamedSet)]
    if not isinstance(entry, Mapping):
        raise ValueError(f"--data: a data set is NAME:PATH or settings by name ({', '.join(known)}), got {entry!r}")
    values = {str(key).replace("-", "_"): value for key, value in entry.items()}
    for key in values:
        if key not in known:
            raise ValueError(
                f"--data: a data set has no setting {key!r}{suggest(key, known)} There are {', '.join(known)}"
            )
    if not isinstance(values.get("data"), str):
        raise ValueError(f"--data: an entry of the list lacks data, the name of its data set: {entry!r}")
    name, root = split_name(values["data"])
    if root and values.get("root"):
        raise ValueError(f"--data: {values['data']} has its path twice, also as root: {values['root']}")
    values |= {"data": name, "root": root or values.get("root")}
    return NamedSet(**{key: _typed(key, value) for key, value in values.items() if value is not None})


def _typed(key: str, value: Any) -> Any:
    """A value of a set in its own type."""
    if key == "data_options" and isinstance(value, Mapping):
        return ",".join(f"{option}={setting}" for option, setting in value.items())
    if key == "losses" and isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "+".join(value)
    if isinstance(value, Mapping | list | bool):
        raise ValueError(f"--data: {key} must be a single value, got {value!r}")
    if key not in ("weight", "loss_weight"):
        return str(value)
    try:
        return float(value)
    except ValueError as error:
        raise ValueError(f"--data: {key} must be a number, got {value!r}") from error


def _numbered(sets: Sequence[NamedSet]) -> tuple[NamedSet, ...]:
    """The sets under names that differ."""
    seen: Counter[str] = Counter()
    out = []
    for entry in sets:
        name = entry.name or entry.data
        seen[name] += 1
        if entry.name and seen[name] > 1:
            raise ValueError(f"--data: two sets are called {name!r}")
        out.append(replace(entry, name=name if seen[name] == 1 else f"{name}-{seen[name]}"))
    return tuple(out)


def check_sets(sets: Sequence[NamedSet], space: LossSpace) -> None:
    """Refuse sets that cannot train together, before anything is opened.

    Args:
        sets: the data sets.
        space: losses of the training.

    Raises:
        ValueError: naming the set, what was given and what it takes.
    """
    missing = [entry.name for entry in sets if entry.weight is None]
    if missing and len(missing) < len(sets):
        raise ValueError(f"--data: give weight for every set or for none; {', '.join(missing)} has none")
    for entry in sets:
        entry.validate(space)
    factors = zip(*(entry.loss_factors(space) for entry in sets), strict=True)
    if unused := [name for name, own in zip(space.names, factors, strict=True) if not any(own)]:
        few = ", ".join(unused[:3])
        raise ValueError(f"--losses {space.selection}: no data set has {few}: leave them out there")


def as_settings(text: str) -> Any:
    """What a settings file holds for ``data``: the list itself where the text is one."""
    if not text.lstrip().startswith("["):
        return text
    defaults = asdict(NamedSet(""))
    return [
        {key: value for key, value in asdict(entry).items() if value != defaults[key]} for entry in parse_sets(text)
    ]
