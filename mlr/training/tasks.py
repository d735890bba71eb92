# SPDX-License-Identifier: Apache-2.0
"""What a network is trained for: the classes behind the names of ``--task``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlr.models.depth_model import DepthModel
    from mlr.training.module import DepthTraining

#: Task -> "module:class" of its training, and the name of its network; modules are imported when they are used.
TASKS = {
    "metric": ("mlr.training.module:DepthTraining", "depth"),
    "relative": ("mlr.training.relative:RelativeTraining", "depth"),
    "fusion": ("mlr.training.fusion:FusionTraining", "ordinary-relative"),
}


def task_network(task: str) -> type[DepthModel]:
    """The network that is trained for a task."""
    from mlr.models.depth_model import network_class

    return network_class(TASKS[task][1])


def training_class(task: str) -> type[DepthTraining]:
    """The Lightning module that trains for a task."""
    module, _, name = TASKS[task][0].partition(":")
    return getattr(import_module(module), name)
