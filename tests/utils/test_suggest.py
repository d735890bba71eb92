# SPDX-License-Identifier: Apache-2.0
"""The end of errors about unknown names."""

from __future__ import annotations

from mlr.utils.suggest import did_you_mean, nearest, suggest

KNOWN = ("nyu", "nyu-h5", "kitti")


def test_the_nearest_names_first_those_of_another_case():
    assert nearest("NYU", KNOWN) == ["nyu"]
    assert nearest("nyv", KNOWN, 2) == ["nyu"]
    assert nearest("m5/0", ["M5/0", "M5/1", "M65/0"], 2)[0] == "M5/0"


def test_an_error_reads_on_whether_something_is_near_or_not():
    assert suggest("kiti", KNOWN) == ": did you mean kitti?"
    assert suggest("zzz", KNOWN) == "."
    assert did_you_mean(["a", "b", "c"]) == ": did you mean a, b or c?"
