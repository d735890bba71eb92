# SPDX-License-Identifier: Apache-2.0
"""Docstrings as the site's reader of Google's style takes them."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Names the section of examples in the plural, and shows the names of Sphinx's roles as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object that was read."""
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r":(?:class|data|func|meth|mod|attr):`~?([^`]+)`", r"`\1`", text)
