# SPDX-License-Identifier: Apache-2.0
"""The command lines ``mlr <command>`` and ``python train.py``.

The commands need the packages of the extra ``train``. This module needs none, so that it can say which is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from mlr.utils.optional import missing_explained

__all__ = ["main", "train_command", "training_parser"]


def main(argv: Sequence[str] | None = None) -> int:
    """``mlr``: dispatch to a command.

    Returns:
        The exit code: 0, 1 after an error that was explained in one line, 2 for a command line that is wrong.
    """
    return _run("main", argv)


def train_command(argv: Sequence[str] | None = None) -> int:
    """``python train.py``: train a depth network.

    Returns:
        The exit code, as of :func:`main`.
    """
    return _run("train_command", argv)


def training_parser() -> Any:
    """The parser of ``python train.py``."""
    from mlr.cli import commands

    return commands.training_parser()


def _run(name: str, argv: Sequence[str] | None) -> int:
    try:
        with missing_explained("this command"):
            from mlr.cli import commands
            from mlr.utils.console import quiet_third_parties, warnings_as_lines

            quiet_third_parties()
            with warnings_as_lines():
                return getattr(commands, name)(argv)
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
