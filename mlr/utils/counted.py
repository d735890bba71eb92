# SPDX-License-Identifier: Apache-2.0
"""Numbers of things in messages."""

from __future__ import annotations

#: The verbs of messages that do not just take an s.
_SINGULAR = {"are": "is", "have": "has", "were": "was"}


def counted(number: int, noun: str, verb: str = "") -> str:
    """A number and what is counted, with a verb that agrees.

    Args:
        number: how many.
        noun: what, one of it.
        verb: what they do, as of several.

    Example:
        >>> counted(1, "pair"), counted(1200, "loss"), counted(1, "file", "belong"), counted(2, "frame", "are")
        ('1 pair', '1,200 losses', '1 file belongs', '2 frames are')
    """
    if number == 1:
        return f"1 {noun} {_SINGULAR.get(verb, verb + 's')}" if verb else f"1 {noun}"
    return f"{number:,} {noun}{'es' if noun.endswith('s') else 's'} {verb}".rstrip()
