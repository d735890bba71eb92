# SPDX-License-Identifier: Apache-2.0
"""Text that holds names is printed as it is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mlr.utils.console import plain


@pytest.mark.parametrize("name", ["x[/b]", "[bold]", "[red]a[/red]", "a\\[b]", ":smile:", "{x}", "%s", "日本", "'q'"])
@pytest.mark.parametrize("terminal", [False, True])
def test_markup_in_a_name_is_part_of_it(name, terminal):
    out = io.StringIO()
    plain(
        Console(file=out, force_terminal=terminal, color_system=None, width=20), f"the file {name} is there", "yellow"
    )
    assert out.getvalue() == f"the file {name} is there\n"


def test_a_name_cannot_steer_the_terminal():
    out = io.StringIO()
    plain(Console(file=out, force_terminal=True), "a\x1b]0;title\x07b\rc\u202ed", label=("error:", ""))
    assert out.getvalue() == "error: a\\x1b]0;title\\x07b\\rc\\u202ed\n"
