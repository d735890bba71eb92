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


def unknown_depth(target: Tensor) -> str | None:
    """What is wrong with a target that is used without a mask: text for a warning, empty if nothing is.

    Reads the target, which waits for the device. None if the target holds no values to read: in a trace, a transform,
    a captured CUDA graph, or on a device without memory.
    """
    if not _can_be_read(target):
        return None
    if not target.is_floating_point():
        return _not_metres(target) or _holes(target <= 0)
    return _holes(~(target > 0) | target.isinf())


#: Integers beyond this are no metres: millimetres, steps of a sensor or disparities.
_LARGEST_WHOLE_METRES = 200


def _can_be_read(target: Tensor) -> bool:
    if not isinstance(target, Tensor) or target.is_meta or torch.jit.is_tracing():
        return False
    if torch._C._functorch.peek_interpreter_stack() is not None or torch._C._len_torch_dispatch_stack() > 0:
        return False
    return not (target.is_cuda and torch.cuda.is_current_stream_capturing())


def _not_metres(target: Tensor) -> str:
    if target.dtype in (torch.bool, torch.complex64, torch.complex128) or target.numel() == 0:
        return ""  # refused elsewhere
    largest = int(target.max())
    if largest <= _LARGEST_WHOLE_METRES:
        return ""
    return (
        f"the target holds whole numbers up to {largest}, which are no metres: divide by the steps of a metre, for "
        "millimetres target.float() / 1000, before the losses"
    )


def _holes(unknown: Tensor) -> str:
    share = float(unknown.double().mean() if unknown.device.type != "mps" else unknown.float().mean())
    if not share > 0:
        return ""
    return (
        f"{share:.2%} of the target is 0, negative or not finite, and the losses take it as true depth: pass "
        "mask=mlr.known_depth(target) to leave it out, or fill it before"
    )
