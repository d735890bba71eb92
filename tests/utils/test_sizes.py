# SPDX-License-Identifier: Apache-2.0
"""Sizes as they are typed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlr.utils.sizes import MIN_SIDE, parse_size


@given(st.integers(1, 9999), st.integers(1, 9999), st.sampled_from("xX"))
def test_height_comes_first(height, width, cross):
    assert parse_size(f"{height}{cross}{width}") == (height, width)


@pytest.mark.parametrize("text", ["", "64", "x64", "64x", "64x96x3", "-64x96", "6 4x96", "²x64"])
def test_another_form_is_refused(text):
    with pytest.raises(ValueError, match="--size must be HxW in pixels such as 288x384, got"):
        parse_size(text)


def test_too_small_is_refused():
    with pytest.raises(ValueError, match="--size must be at least 1x1, got 0x5"):
        parse_size("0x5")
    with pytest.raises(ValueError, match="must be at least 32x32, got 64x31"):
        parse_size("64x31", MIN_SIDE)
