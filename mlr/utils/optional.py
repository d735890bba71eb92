# SPDX-License-Identifier: Apache-2.0
"""Packages that only some commands need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType


def import_or_explain(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a package of an extra.

    Args:
        module: its name for ``import``.
        extra: the extra of pyproject.toml that brings it.
        purpose: what needs it, plural, to begin the error with.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f'{purpose} need {module}: pip install "mlr-depth[{extra}]" ({error})') from error


@contextmanager
def missing_explained(purpose: str) -> Iterator[None]:
    """Say how to install a package of the extra ``train`` whose import fails inside the block.

    Args:
        purpose: what needs it, singular, to begin the error with.

    Raises:
        ImportError: a package is not installed; the message says how to install it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "mlr"):  # not a missing package but a mistake in this one
            raise
        raise ImportError(f'{purpose} needs {package}: pip install "mlr-depth[train]" ({error})') from error
