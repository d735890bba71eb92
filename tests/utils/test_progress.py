# SPDX-License-Identifier: Apache-2.0
"""Progress: a bar on a terminal, elsewhere lines at pauses that grow."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mlr.utils import progress
from mlr.utils.progress import FIRST, LONGEST, Lines, Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets: clock[0]."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_after_pauses_that_double_and_tell_the_time_left(clock):
    out = io.StringIO()
    lines = Lines(Console(file=out, width=20), "counting [b]", 1000, done=100)
    told = []
    for second in range(1, 900):
        clock[0] = 100.0 + second
        lines.update(100 + second)
        if text := out.getvalue():
            told.append((second, text))
            out.seek(0)
            out.truncate()
    pauses = [second - before for (second, _), (before, _) in zip(told, [(0, ""), *told], strict=False)]
    assert pauses[0] == FIRST
    assert pauses[1:6] == [2 * FIRST, 4 * FIRST, 8 * FIRST, 16 * FIRST, 32 * FIRST]
    assert max(pauses) <= LONGEST
    assert told[0][1] == "counting [b]: 105 of 1000, about 15 min left\n"  # 895 to go, one a second
    assert told[4][1] == "counting [b]: 255 of 1000, about 12 min left\n"


def test_without_a_total_the_count_is_told(clock):
    out = io.StringIO()
    lines = Lines(Console(file=out), "counting")
    clock[0] += FIRST
    lines.update(7)
    assert out.getvalue() == "counting: 7\n"


def test_short_work_and_quiet_consoles_print_nothing(clock):
    out = io.StringIO()
    assert list(Progress(Console(file=out), "counting", 3).over("abc")) == ["a", "b", "c"]
    for _ in Progress(Console(file=out, quiet=True), "counting", 3).over("abc"):
        clock[0] += 60
    assert out.getvalue() == ""


def test_a_terminal_has_a_bar_that_goes_away():
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=True, width=80), "count[b]ing", 3) as bar:
        bar.advance(2)
        assert bar.done == 2
    assert "count[b]ing" in out.getvalue()
    assert "2/3" in out.getvalue()


def test_an_error_ends_the_bar():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True)
    with pytest.raises(ZeroDivisionError), Progress(console, "counting", 3):
        1 / 0  # noqa: B018
    with Progress(console, "another", 3):  # two bars at once would be refused
        pass
