# SPDX-License-Identifier: Apache-2.0
"""Printing text that holds names: as it is, without rich's markup."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def plain(console: Console, text: str, style: str = "") -> None:
    """Print a text as it is on lines as long as they are: ``[bold]`` in a file's name is part of the name.

    Args:
        console: where.
        text: what; control characters are shown as escapes, so that a name cannot steer a terminal.
        style: of all of it, such as "yellow".
    """
    shown = "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
    console.print(Text(shown, style=style), soft_wrap=True, highlight=False)
