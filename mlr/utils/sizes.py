# SPDX-License-Identifier: Apache-2.0
"""Sizes in pixels as they are typed: HxW."""

from __future__ import annotations

#: Smallest side of a network's input: encoders reduce the image by 32.
MIN_SIDE = 32


def parse_size(text: str, least: int = 1, what: str = "--size") -> tuple[int, int]:
    """Height and width of ``HxW``.

    Args:
        text: what was typed, such as 288x384.
        least: neither may be smaller.
        what: what the size is called in errors.

    Raises:
        ValueError: it is of another form, or too small.
    """
    height, cross, width = text.lower().partition("x")
    if not (cross and height.isdecimal() and width.isdecimal()):
        raise ValueError(f"{what} must be HxW in pixels such as 288x384, got {text!r}")
    size = int(height), int(width)
    if min(size) < least:
        raise ValueError(f"{what} must be at least {least}x{least}, got {text}")
    return size
