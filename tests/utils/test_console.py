# SPDX-License-Identifier: Apache-2.0
"""Text that holds names is printed as it is, and warnings are lines."""

from __future__ import annotations

import io
import sys
import warnings

import pytest
from rich.console import Console

from mlr.data import DepthData
from mlr.utils import console
from mlr.utils.console import plain, quiet_third_parties, warnings_as_lines


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


def warn(message: str, module: str, file: str = "x.py") -> None:
    warnings.warn_explicit(message, UserWarning, file, 1, module=module, registry={})


def test_warnings_of_other_packages_are_left_out_and_ours_are_not():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_third_parties()
        for module in ("lightning.pytorch.trainer", "timm", "torch.onnx.utils", "torch.nn", "mlr.data", "lightningrod"):
            warn(module, module)
    assert [str(warning.message) for warning in caught] == ["torch.nn", "mlr.data", "lightningrod"]


def test_who_asks_for_warnings_gets_all(monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", ["default"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_third_parties()
        warn("old", "lightning.pytorch")
    assert len(caught) == 1


def test_our_warnings_are_lines():
    usual = warnings.formatwarning
    with warnings_as_lines():
        assert warnings.formatwarning("a\x1b[b]", UserWarning, console.__file__, 3) == "warning: a\\x1b[b]\n"
        assert "elsewhere.py:3" in warnings.formatwarning("a", UserWarning, "elsewhere.py", 3)
    assert warnings.formatwarning is usual


def test_what_our_own_hooks_warn_of_is_not_taken_for_lightnings():
    data = DepthData("rooms", None, (32, 48), train_length=1, val_length=1)
    data.left_out = lambda: "something"  # type: ignore[method-assign]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_third_parties()
        eval(compile("data.teardown('fit')", "lightning/x.py", "eval"), {"data": data, "__name__": "lightning.pytorch"})
    assert [str(warning.message) for warning in caught] == ["something"]
