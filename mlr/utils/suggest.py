# SPDX-License-Identifier: Apache-2.0
"""The end of an error about an unknown name: the nearest known ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], count: int = 1, cutoff: float = 0.6) -> list[str]:
    """Known names like an unknown one: first those that differ in case alone, then similar ones, at most ``count``."""
    known = list(known)
    folded = [other for other in known if other.lower() == name.lower()]
    return list(dict.fromkeys([*folded, *difflib.get_close_matches(name, known, count, cutoff)]))[:count]


def did_you_mean(names: Iterable[str]) -> str:
    """What follows "unknown data set 'nyv'": ": did you mean nyu?", or a full stop if nothing is near.

    Example:
        >>> f"unknown loss 'grad'{did_you_mean(['gradient', 'r/0'])}"
        "unknown loss 'grad': did you mean gradient or r/0?"
    """
    *first, last = names or [""]
    return f": did you mean {' or '.join(filter(None, [', '.join(first), last]))}?" if last else "."


def suggest(name: str, known: Iterable[str], count: int = 1) -> str:
    """:func:`did_you_mean` of the :func:`nearest` names."""
    return did_you_mean(nearest(name, known, count))
