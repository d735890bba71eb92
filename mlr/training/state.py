# SPDX-License-Identifier: Apache-2.0
"""resume.ckpt: the full state of training that --resume continues from, checked before anything is taken over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

#: What Lightning reads of a state, and its type.
PARTS: dict[str, type | tuple[type, ...]] = {
    "pytorch-lightning_version": str, "epoch": int, "global_step": int, "state_dict": Mapping, "loops": Mapping,
    "callbacks": Mapping, "optimizer_states": list, "lr_schedulers": list,
}  # fmt: skip


@dataclass(frozen=True)
class State:
    """The state of a run.

    Attributes:
        file: where it lies.
        content: what Lightning saved.
        epochs: finished epochs.
        steps: optimizer steps.
    """

    file: Path
    content: Mapping[str, Any]
    epochs: int
    steps: int


def damaged(file: Path, why: object) -> ValueError:
    """The error over a state that cannot be used."""
    text = " ".join(str(why).split())
    return ValueError(
        f"{file} is damaged ({text if len(text) < 500 else text[:500] + ' ...'}): the run cannot be continued; "
        f"{file.parent / 'last.pt'} holds its last network"
    )


def read_state(file: Path) -> State:
    """Read the state and check its parts.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        content = torch.load(file, weights_only=True, mmap=True)
    except Exception as error:  # a damaged file raises anything
        raise damaged(file, error) from error
    if not isinstance(content, Mapping):
        raise damaged(file, f"it holds {type(content).__name__}, not the parts of a state")
    for name, kind in PARTS.items():
        if not isinstance(content.get(name), kind):
            raise damaged(file, f"{name} is {type(content[name]).__name__}" if name in content else f"it lacks {name}")
    try:
        loop = content["loops"]["fit_loop"]
        epochs, _ = loop["epoch_progress"]["current"]["processed"], loop["epoch_loop.batch_progress"]
    except (KeyError, TypeError) as error:
        raise damaged(file, f"loops lacks {error}") from error
    if not isinstance(epochs, int) or epochs < 0 or content["global_step"] < 0:
        raise damaged(file, f"it says {epochs!r} epochs and {content['global_step']} steps")
    return State(file, content, epochs, content["global_step"])


def check_state(state: State, task: nn.Module, groups: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a state whose tensors do not fit the network and its optimizer.

    Args:
        state: the state.
        task: the module that is to take it over.
        groups: what the optimizer moves, in its groups.

    Raises:
        ValueError: saying what differs.
    """
    own = {name: value for name, value in task.state_dict().items() if isinstance(value, Tensor)}
    saved = state.content["state_dict"]
    for name, value in own.items():
        if not isinstance(saved.get(name), Tensor) or saved[name].shape != value.shape:
            found = list(saved[name].shape) if isinstance(saved.get(name), Tensor) else "nothing"
            raise damaged(state.file, f"{name} must be a tensor {list(value.shape)}, and there is {found}")
    optimizer = state.content["optimizer_states"]
    moments = optimizer[0].get("state") if len(optimizer) == 1 and isinstance(optimizer[0], Mapping) else None
    if not isinstance(moments, Mapping):
        raise damaged(state.file, "it lacks the state of one optimizer")
    saved_groups = optimizer[0].get("param_groups")
    if isinstance(saved_groups, list) and len(saved_groups) != len(groups):
        raise damaged(
            state.file,
            f"its optimizer has {len(saved_groups)} groups of parameters, and this version makes {len(groups)}",
        )
    for number, parameter in enumerate(parameter for group in groups for parameter in group["params"]):
        for name in ("exp_avg", "exp_avg_sq") if number in moments else ():
            moment = moments[number].get(name) if isinstance(moments[number], Mapping) else None
            if not isinstance(moment, Tensor) or moment.shape != parameter.shape:
                raise damaged(
                    state.file, f"{name} of parameter {number} does not have its shape {list(parameter.shape)}"
                )


@contextmanager
def restoring(state: State | None, started: Any) -> Iterator[None]:
    """Take an error for damage of the state as long as training has not started.

    Args:
        state: what is restored; None if nothing is.
        started: a function that tells whether training has started.

    Raises:
        ValueError: the state is damaged.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RuntimeError, AssertionError) as error:
        if state is None or started():
            raise
        raise damaged(state.file, f"{type(error).__name__}: {error}") from error
