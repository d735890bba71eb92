# SPDX-License-Identifier: Apache-2.0
"""Values given by the names of losses, in the order of the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from mlr.utils.suggest import suggest

T = TypeVar("T")


def in_order(values: Mapping[str, T], names: Sequence[str], what: str = "weights") -> list[T]:
    """Values by name, one for each of the names and in their order.

    Raises:
        ValueError: if a name has no value, or a value belongs to no name.

    Example:
        >>> in_order({"D/0": 1.0, "r/0": 0.5}, ["r/0", "D/0"])
        [0.5, 1.0]
    """
    unknown = [name for name in values if name not in names]
    if unknown:
        hint = suggest(str(unknown[0]), names)
        raise ValueError(f"{what} are given for losses that are not in use: {few(unknown)}{hint}")
    missing = [name for name in names if name not in values]
    if missing:
        raise ValueError(f"{what} by name must name every loss; there is none for {few(missing)}")
    return [values[name] for name in names]


def few(names: Sequence[object]) -> str:
    """The first five of some names, and how many more there are."""
    return ", ".join(map(str, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
