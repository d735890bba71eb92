# SPDX-License-Identifier: Apache-2.0
"""Checks of the balancers' options."""

from __future__ import annotations

import math
import numbers


def finite(name: str, value: float) -> float:
    """``value`` as a float, if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return float(value)


def positive(name: str, value: float) -> float:
    """``value`` as a float, if it is a finite number above zero."""
    if finite(name, value) <= 0:
        raise ValueError(f"{name} must be positive, got {value!r}")
    return float(value)


def share(name: str, value: float) -> float:
    """``value`` as a float, if it lies in [0, 1]."""
    if not 0 <= finite(name, value) <= 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value!r}")
    return float(value)


def whole(name: str, value: int, at_least: int = 0) -> int:
    """``value``, if it is a whole number not below the least one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < at_least:
        raise ValueError(f"{name} must be a whole number of {at_least} or more, got {value!r}")
    return value
