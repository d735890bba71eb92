# SPDX-License-Identifier: Apache-2.0
"""Masks: which pixels of a depth map are known."""

from __future__ import annotations

import torch
from torch import Tensor


def known_depth(target: Tensor, lowest: float = 1e-3, highest: float | None = None) -> Tensor:
    """The usual mask of a depth map: True where depth is finite and ``lowest <= depth <= highest``.

    Sensors and data sets write 0, a negative number, NaN or infinity where they measured nothing.

    Args:
        target: true depth, any shape, metres.
        lowest: smallest depth that counts as known, metres.
        highest: largest one, metres; None for no limit.

    Returns:
        A bool tensor of the same shape.

    Example:
        >>> known_depth(torch.tensor([0.0, 2.5, float("nan"), 90.0]), highest=80.0)
        tensor([False,  True, False, False])
    """
    known = torch.isfinite(target) & (target >= lowest)
    return known if highest is None else known & (target <= highest)
