# SPDX-License-Identifier: Apache-2.0
"""The optimizer of a run: groups of parameters and the schedule of their learning rates."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from mlr.training.settings import OptimizerSettings

#: Power of the polynomial schedule.
POWER = 0.9
#: Share of a run in which the rate of "onecycle" rises, unless a warm-up says otherwise.
RISE = 0.3
#: Optimizer steps of the shortest "onecycle": two that rise, two that fall.
SHORTEST = 4


def parameter_groups(model: nn.Module, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """The parameters that are trained, grouped by learning rate and weight decay.

    Biases, the parameters of normalisations (all of which are vectors or numbers) and what a backbone names itself,
    such as position embeddings, have no weight decay. Where all parameters are treated alike there is one group.

    Args:
        model: the network; what its ``encoder`` holds is the backbone.
        settings: learning rate, weight decay, factor of the backbone.

    Returns:
        Groups for a torch optimizer, in the order of the network's parameters.
    """
    encoder = getattr(model, "encoder", None)
    spared = {f"encoder.{name}" for name in getattr(encoder, "no_weight_decay", set)()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = settings.learning_rate * (settings.backbone_lr_factor if name.startswith("encoder.") else 1)
        decay = 0.0 if parameter.ndim <= 1 or name in spared else settings.weight_decay
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The optimizer over :func:`parameter_groups`."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
    return kind(parameter_groups(model, settings), lr=settings.learning_rate, weight_decay=settings.weight_decay)


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: OptimizerSettings, steps: int
) -> lr_scheduler.LRScheduler:
    """The schedule of the learning rates, which takes a step after every step of the optimizer.

    Args:
        optimizer: its groups have their largest rates.
        settings: the schedule, and the epochs of the warm-up.
        steps: optimizer steps of the whole run.

    Raises:
        ValueError: the run is too short for the schedule.
    """
    warmup = min(round(steps * settings.warmup / settings.epochs), steps - 1)
    rest = steps - warmup
    if settings.schedule == "onecycle":
        if steps < SHORTEST:
            raise ValueError(f"--schedule onecycle needs {SHORTEST} optimizer steps, and the run has {steps}")
        return lr_scheduler.OneCycleLR(
            optimizer,
            [group["lr"] for group in optimizer.param_groups],
            total_steps=steps,
            pct_start=max(warmup or RISE * steps, 2) / steps,  # its first two rates differ
            cycle_momentum=False,
        )
    main: lr_scheduler.LRScheduler
    if settings.schedule == "cosine":
        main = lr_scheduler.CosineAnnealingLR(optimizer, T_max=rest)
    elif settings.schedule == "poly":
        main = lr_scheduler.PolynomialLR(optimizer, total_iters=rest, power=POWER)
    else:
        main = lr_scheduler.ConstantLR(optimizer, factor=1)
    if not warmup:
        return main
    # step k of the warm-up has the rate k / (warmup + 1), so that the first step is not in vain
    rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    return lr_scheduler.SequentialLR(optimizer, [rise, main], milestones=[warmup])
