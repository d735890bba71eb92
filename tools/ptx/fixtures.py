# SPDX-License-Identifier: Apache-2.0
"""Fixtures for tests that run compiled kernels; tests/conftest.py imports them, so that every test may ask for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ptx


def _installed(capability: int) -> Iterator[int]:
    if ptx.why_not():
        pytest.skip(ptx.why_not())
    with ptx.installed(capability):
        yield capability


@pytest.fixture
def sm_80() -> Iterator[int]:
    """Kernels are compiled for sm_80 and run on CPU tensors; skips where that cannot be."""
    yield from _installed(80)


@pytest.fixture
def sm_90() -> Iterator[int]:
    """Kernels are compiled for sm_90 and run on CPU tensors; skips where that cannot be."""
    yield from _installed(90)
