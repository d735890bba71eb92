# SPDX-License-Identifier: Apache-2.0
"""Why a saved state does not fit a balancer: everything is checked before a value of it is taken over."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlr.utils.named import few

_KEYS = ("balancer", "names", "sums", "memory", "steps", "steps_at_start", "index", "end", "period")


def why_unfit(weights: Any, state: Any, balancer: str, names: Sequence[str]) -> str | None:
    """What is wrong with a saved state; None if it fits.

    Args:
        weights: the saved weights, or None if there are none.
        state: the saved extra state, or None if there is none; a missing key is for ``load_state_dict`` to report.
        balancer: name of the class that is to continue from it.
        names: its losses.
    """
    if state is not None:
        foreign = _why_foreign(state, balancer, names) or _why_damaged(state, len(names))
        if foreign:
            return foreign
    return None if weights is None else _why_no_weights(weights, len(names))


def _why_foreign(state: Any, balancer: str, names: Sequence[str]) -> str | None:
    """Whether the state is that of another balancer or of other losses."""
    if not isinstance(state, Mapping) or "balancer" not in state:
        return f"the extra state is not that of a loss balancer, but {type(state).__name__}"
    if state["balancer"] != balancer:
        return f"this is the state of a {state['balancer']}, and this balancer is a {balancer}"
    missing_keys = [key for key in _KEYS if key not in state]
    if missing_keys:
        return f"the state is damaged: it has no {', '.join(missing_keys)}"
    saved, own = state["names"], list(names)
    if not isinstance(saved, list | tuple) or not all(isinstance(name, str) for name in saved):
        return f"the state is damaged: names must be a list of loss names, got {saved!r}"
    if list(saved) == own:
        return None
    detail = f"it holds {len(saved)} losses, this balancer {len(own)}"
    missing, extra = [n for n in own if n not in saved], [n for n in saved if n not in own]
    if missing:
        detail += f"; not in the state: {few(missing)}"
    if extra:
        detail += f"; only in the state: {few(extra)}"
    if not missing and not extra:
        detail += ", the same ones in another order"
    return f"the state belongs to other losses: {detail}. Build the balancer with the losses the state was made with"


def _why_damaged(state: Mapping[str, Any], count: int) -> str | None:
    """Whether a part of the state has a type, shape or value that no balancer saves."""
    for key in ("steps", "steps_at_start", "index"):
        if not _is_whole(state[key]):
            return f"the state is damaged: {key} must be a whole number of 0 or more, got {state[key]!r}"
    end, period = state["end"], state["period"]
    if not (isinstance(end, list | tuple) and len(end) == 2 and all(map(_is_whole, end)) and end[1] > 0):
        return f"the state is damaged: end must be a numerator and a denominator, got {end!r}"
    if period is not None and not _is_positive(period):
        return f"the state is damaged: period must be a positive number or None, got {period!r}"
    if not _is_positive(state.get("resolution", 1.0), or_zero=True):
        return f"the state is damaged: resolution must be a number of 0 or more, got {state['resolution']!r}"
    sums = state["sums"]
    if not _is_real(sums) or sums.shape not in ((2 * count + 3,), (count + 2,)):
        return f"the state is damaged: sums must be a tensor of {2 * count + 3} numbers, got {_described(sums)}"
    counts = sums[count:]
    if not sums.is_meta and not bool((counts.isfinite() & (counts >= 0)).all()):
        return f"the state is damaged: numbers of images must be 0 or more, got {counts.tolist()}"
    memory = state["memory"]
    if not isinstance(memory, Mapping) or "previous" not in memory:
        return "the state is damaged: memory must be a dictionary of tensors with the key 'previous'"
    for key, value in memory.items():
        if not _is_real(value) or value.dim() == 0 or value.shape[-1] != count:
            return f"the state is damaged: memory[{key!r}] must be a tensor of {count} losses, got {_described(value)}"
    for key in ("previous", "start"):
        value = memory.get(key, memory["previous"])
        if value.dim() != 1:
            return f"the state is damaged: memory[{key!r}] must be [{count}], got {_described(value)}"
    return _why_no_weights(memory["start"], count) if "start" in memory else None


def _why_no_weights(weights: Any, count: int) -> str | None:
    if not _is_real(weights) or weights.shape != (count,):
        return f"the state is damaged: weights must be a tensor of {count} numbers, got {_described(weights)}"
    if not weights.is_meta and not bool((weights.isfinite() & (weights > 0)).all()):
        return f"the state is damaged: weights must be positive and finite, got {weights.tolist()}"
    return None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_positive(value: Any, or_zero: bool = False) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return False
    return value > 0 or (or_zero and value == 0)


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.layout == torch.strided


def _described(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else repr(value)[:80]
