# SPDX-License-Identifier: Apache-2.0
"""Periods: which optimizer step ends which."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from mlr.balancing.checks import positive


class PeriodClock:
    """Counts optimizer steps and says which of them end a period.

    Period k ends after the first step s with ``s >= (k + 1) * length``. A period shorter than a step holds none: it
    merges with the next one that does.

    Attributes:
        steps: optimizer steps so far.
        index: index of the current period.
    """

    def __init__(self) -> None:
        self.steps = self.index = self._steps_at_start = 0
        self._length: Fraction | None = None
        self._end = Fraction(0)

    @property
    def length(self) -> float | None:
        """Optimizer steps in a period; None as long as it is unknown."""
        return None if self._length is None else float(self._length)

    @length.setter
    def length(self, value: float | None) -> None:
        length = None if value is None else _fraction(value)
        if length != self._length:
            self._length = length
            self._end = self.steps + (length or Fraction(0))

    @property
    def steps_in_period(self) -> int:
        """Optimizer steps since the current period began."""
        return self.steps - self._steps_at_start

    def count_step(self) -> int | None:
        """Count an optimizer step.

        Returns:
            Index of the period that ends with this step, or None. :meth:`begin` then begins the next one.
        """
        self.steps += 1
        if self._length is None or self.steps < self._end:
            return None
        return self.index + int((self.steps - self._end) // self._length)

    def begin(self, index: int) -> None:
        """Begin a period after the last one has ended."""
        self._end += (index - self.index) * (self._length or 0)
        self.index, self._steps_at_start = index, self.steps

    def state(self) -> dict[str, Any]:
        """The state in plain numbers."""
        return {
            "steps": self.steps,
            "steps_at_start": self._steps_at_start,
            "index": self.index,
            "end": list(self._end.as_integer_ratio()),
            "period": self.length,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a state. A length that is already set here replaces the saved one."""
        self.steps, self._steps_at_start, self.index = state["steps"], state["steps_at_start"], state["index"]
        wanted = self.length
        self.length = state["period"]
        self._end = Fraction(*state["end"])
        if wanted is not None:
            self.length = wanted


def _fraction(value: float) -> Fraction:
    # 10 / 3 steps means ten thirds: as a fraction it never drifts, whatever the number of epochs
    return max(Fraction(positive("period", value)).limit_denominator(10_000), Fraction(1, 10_000))
