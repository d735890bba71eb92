# SPDX-License-Identifier: Apache-2.0
"""Progress of what takes longer than seconds: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from mlr.utils.console import plain

T = TypeVar("T")

#: Seconds before the first line; the pause between lines doubles up to the other number.
FIRST, LONGEST = 5.0, 300.0


def duration(seconds: float) -> str:
    """Seconds in the unit that people would choose.

    Example:
        >>> duration(5), duration(600), duration(9000)
        ('5 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class Lines:
    """Lines such as ``predicting: 120 of 800, about 3 min left``, in a log file or a pipe.

    Args:
        console: where to print.
        what: what goes on, such as "predicting".
        total: how much there is; None = unknown.
        done: how much was there at the start.
        first: seconds before the first line.
    """

    def __init__(
        self, console: Console, what: str, total: int | None = None, done: int = 0, first: float = FIRST
    ) -> None:
        self.console, self.what, self.total = console, what, total
        self._from, self._begun = done, time.monotonic()
        self._pause, self._next = first, self._begun + first

    def update(self, done: int) -> None:
        """Print a line if it is time for one."""
        now = time.monotonic()
        if now < self._next:
            return
        self._pause = min(2 * self._pause, LONGEST)
        self._next = now + self._pause
        of = "" if self.total is None else f" of {self.total}"
        left = ""
        if self.total is not None and done > self._from:
            seconds = (now - self._begun) / (done - self._from) * (self.total - done)
            left = f", about {duration(seconds)} left"
        plain(self.console, f"{self.what}: {done}{of}{left}", "dim")


class Progress:
    """A bar that goes away on a terminal, and :class:`Lines` elsewhere; a quiet console shows neither.

    Args:
        console: where to show it.
        what: what goes on, such as "predicting".
        total: how much there is; None = unknown.
        done: how much was there at the start.
    """

    def __init__(self, console: Console, what: str, total: int | None = None, done: int = 0) -> None:
        self.done = done
        columns = (TextColumn(what, markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=total, completed=done)
        self._lines = None if console.is_terminal else Lines(console, what, total, done)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lines is None:  # a disabled bar of rich 13 and 14 ends with an empty line
            self._bar.stop()

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The items, each counted once the next one is asked for."""
        with self:
            for item in items:
                yield item
                self.advance()

    def advance(self, count: int = 1) -> None:
        """So much more is done."""
        self.done += count
        self._bar.update(self._task, completed=self.done)
        if self._lines:
            self._lines.update(self.done)
