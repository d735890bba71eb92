# SPDX-License-Identifier: Apache-2.0
"""Settings as they are typed."""

from __future__ import annotations


def flag(name: str) -> str:
    """A setting as it is typed: ``batch_size`` is ``--batch-size``."""
    return "--" + name.replace("_", "-")
