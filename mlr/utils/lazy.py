# SPDX-License-Identifier: Apache-2.0
"""Names of a package that are imported when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from mlr.utils.optional import missing_explained


def lazy_attributes(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's ``__getattr__`` (PEP 562) that imports names from other modules.

    Args:
        package: the package's ``__name__``.
        modules: name -> module that has it.
    """

    def get(name: str) -> Any:
        if name in modules:
            with missing_explained(f"{package}.{name}"):
                return getattr(import_module(modules[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
