# SPDX-License-Identifier: Apache-2.0
"""Settings as they are typed."""

from __future__ import annotations

from collections.abc import Collection

#: Settings of data that several commands have, and other names under which a command may have or had them.
SPELLINGS = {"data_options": ("options",), "depth_unit": ("unit",), "root": ("data_root",)}


def spelled(name: str, known: Collection[str]) -> str:
    """A setting as the command calls it, whichever of its spellings was typed.

    Example:
        >>> spelled("data_options", {"options"}), spelled("options", {"data_options"}), spelled("size", {"options"})
        ('options', 'data_options', 'size')
    """
    for first, others in SPELLINGS.items():
        names = (first, *others)
        if name in names and name not in known:
            return next((other for other in names if other in known), name)
    return name


def flag(name: str) -> str:
    """Command-line flag of a setting: ``batch_size`` is ``--batch-size``."""
    return "--" + name.replace("_", "-")
