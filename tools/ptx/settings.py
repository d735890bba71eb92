# SPDX-License-Identifier: Apache-2.0
"""How kernels are run: one place for the switches, and a context manager that sets them for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any


@dataclass
class Settings:
    """Switches of the runner.

    Attributes:
        check: look for faults in every memory access (one thread, about 30 times slower).
        count: count instructions and memory traffic into ``counts`` (one thread, about 7 times slower).
        order: of the programs of a launch; 0 ascending, 1 descending, else the seed of a permutation.
        jitter: approximate instructions move by up to this many units in the last place.
        threads: that run programs where nothing is checked or counted.
        budget: instructions that a warp may execute before it counts as endless.
        red_zone: bytes around every tensor that no tensor is in, in checked launches.
    """

    check: bool = False
    count: bool = False
    order: int = 0
    jitter: int = 0
    threads: int = 1
    budget: int = 1 << 32
    red_zone: int = 1 << 16


settings = Settings()


@contextmanager
def options(**changes: Any) -> Iterator[Settings]:
    """Run with other settings for a while.

    Args:
        changes: fields of ``Settings``.

    Raises:
        TypeError: for a setting that does not exist.

    Example:
        >>> with options(check=True, order=7):
        ...     kernel[grid](x, y)
    """
    names = {f.name for f in fields(Settings)}
    if not changes.keys() <= names:
        raise TypeError(f"unknown settings {sorted(changes.keys() - names)}; there are {sorted(names)}")
    before = {name: getattr(settings, name) for name in changes}
    for name, value in changes.items():
        setattr(settings, name, value)
    try:
        yield settings
    finally:
        for name, value in before.items():
            setattr(settings, name, value)
