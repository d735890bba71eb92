# SPDX-License-Identifier: Apache-2.0
"""Printing text that holds names: as it is, without rich's markup."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def shown(text: str) -> str:
    """A text with its control characters as escapes, so that a file's name cannot steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def plain(console: Console, text: str, style: str = "", label: tuple[str, str] | None = None) -> None:
    """Print a text on lines as long as they are: ``[bold]`` in a file's name is part of the name.

    Args:
        console: where.
        text: what.
        style: of the text, such as "yellow".
        label: a word before it, and its style.
    """
    before = [(f"{label[0]} ", label[1])] if label else []
    console.print(Text.assemble(*before, (shown(text), style)), soft_wrap=True, highlight=False)
