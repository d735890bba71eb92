# SPDX-License-Identifier: Apache-2.0
"""The frame of every loss balancer: it gathers losses on the device and decides on new weights once per period."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mlr.balancing.period import PeriodClock
from mlr.balancing.record import NewWeights, PeriodStatistics, RebalanceRecord, can_be_in_force, usable
from mlr.balancing.state import why_unfit
from mlr.balancing.sums import LossSums, PeriodSums
from mlr.utils.named import few

#: Batches without a step after which a balancer asks whether the step was forgotten.
_BATCHES_WITHOUT_STEP = 100


class LossBalancer(nn.Module, ABC):
    """Base of the balancers: weights for a set of losses, revised at the end of every period.

    Period 0 runs with equal weights ``1/n``. At its end every loss is given the same contribution and the overall loss
    is kept (eq. 9 with the factor 1/n that it needs, see :func:`equal_contributions`); :meth:`new_weights`, the one
    method a subclass writes, decides at the end of each later period.

    Call :meth:`observe` after each forward pass and :meth:`step` after each optimizer step. Only the end of a period
    waits for the device: one copy of 3 n + 3 numbers, and one all_reduce if there are several ranks. All ranks must
    take the same steps. Their batches may differ in size; DDP's ``Join`` is not supported.

    A loss is held, which means that it keeps its weight and is left out of the totals, if its mean is zero, not finite
    or within rounding of zero (less than 8 machine epsilons of the largest mean), if no image of the period has it, or
    if its new weight would leave the range :data:`mlr.balancing.record.WEIGHT_RANGE`. An image with a loss that is not
    finite is dropped and counted. In eval mode :meth:`observe` ignores what it is given.

    The whole state, also within a period, is part of ``state_dict``, loads with ``weights_only=True`` and continues bit
    for bit. Of several ranks usually one saves; a run that continues within a period then has this rank's part of it.

    Args:
        names: the losses, for instance ``LossSpace("all").names``.
        period: optimizer steps in a period; ``steps_per_epoch / 4`` is the paper's quarter epoch. It need not be
            whole: period k ends after the first step s with ``s >= (k + 1) * period``, and periods that hold no step
            merge with the one that does, so four periods are an epoch even in epochs shorter than four batches. It may
            be set later (``balancer.period = ...``), which restarts the current period.

    Attributes:
        names: the losses.
        memory: what the balancer remembers from period to period: tensors [..., n] on the CPU, saved with the state.

    Raises:
        TypeError, ValueError: for names or a period that make no sense.
    """

    #: Whether the end of the first period gives every loss an equal contribution.
    equal_start = True

    def __init__(self, names: Iterable[str], period: float | None = None) -> None:
        super().__init__()
        self.names = _checked_names(names)
        count = len(self.names)
        # register_buffer would refuse the name of a property
        self._buffers["weights"] = torch.full((count,), 1 / count, dtype=torch.float64)
        self._sums, self._clock = LossSums(count), PeriodClock()
        self.memory: dict[str, Tensor] = {"previous": torch.full((count,), math.nan, dtype=torch.float64, device="cpu")}
        self._weights_read, self._batches_since_step = False, 0
        self.period = period

    @property
    def weights(self) -> Tensor:
        """[n], float64 buffer: the weights in force, ``total = sum_i weights[i] terms[i]``. Changed in place."""
        self._weights_read = True
        return self._weights

    @property
    def _weights(self) -> Tensor:
        """The weights, for the balancer itself, which does not count as a use of them."""
        weights = self._buffers["weights"]
        assert weights is not None
        return weights

    @property
    def period(self) -> float | None:
        """Length of a period in optimizer steps; None as long as it has not been set."""
        return self._clock.length

    @period.setter
    def period(self, value: float | None) -> None:
        self._clock.length = value

    @property
    def period_index(self) -> int:
        """Index of the current period."""
        return self._clock.index

    @property
    def started(self) -> bool:
        """Whether the losses have been given equal contributions."""
        return "start" in self.memory

    @abstractmethod
    def new_weights(self, stats: PeriodStatistics) -> NewWeights | Tensor:
        """Weights [n] for the next period; the statistics are float64 tensors on the CPU."""

    @torch.no_grad()
    def observe(self, terms: Tensor, counts: Tensor | None = None) -> None:
        """Add the losses of a batch to the current period, on the device and without waiting for it.

        Args:
            terms: [B, n], every loss of every image, e.g. ``out.terms`` of :class:`mlr.MultiLoss`. May be called any
                number of times between two steps (gradient accumulation). Ignored in eval mode.
            counts: [B, n], number of valid positions of every loss, e.g. ``out.counts``. An image with count 0 is left
                out of the mean of that loss. None if every image has every loss.

        Raises:
            ValueError: if the shapes are not [B, n].
        """
        if terms.dim() != 2 or terms.shape[1] != len(self.names):
            raise ValueError(
                f"terms must be [B, n] = [B, {len(self.names)}], one row an image and one column a loss "
                f"({', '.join(self.names[:3])}{', ...' if len(self.names) > 3 else ''}), got {list(terms.shape)}; "
                "pass the terms of a MultiLoss over the same losses"
            )
        if counts is not None and counts.shape != terms.shape:
            raise ValueError(f"counts must have the shape of terms, {list(terms.shape)}, got {list(counts.shape)}")
        if not self.training:
            return
        if terms.device != self._sums.values.device:
            self.to(terms.device)
        self._sums.add(terms, counts)
        self._batches_since_step += 1
        if self._batches_since_step == _BATCHES_WITHOUT_STEP:
            warnings.warn(
                f"{type(self).__name__} observed {_BATCHES_WITHOUT_STEP} batches without a step, so its weights never "
                "change: call balancer.step() after each optimizer step (with gradient accumulation over that many "
                "batches all is well)",
                stacklevel=3,
            )

    def step(self) -> RebalanceRecord | None:
        """Count an optimizer step, and revise the weights if it ends a period.

        Returns:
            None within a period; at its end a record of what was decided.

        Raises:
            RuntimeError: in eval mode, without a period, or at the end of a period in which nothing was observed.
        """
        if not self.training:
            raise RuntimeError(
                "step() of a loss balancer was called in eval mode, where observe() records nothing: "
                "call balancer.train() (or train() of the module that holds it) before the training step"
            )
        if self.period is None and self.equal_start:
            raise RuntimeError(
                f"{type(self).__name__} does not know when a period ends: set balancer.period to a number of "
                "optimizer steps before the first step; steps_per_epoch / 4 is the paper's quarter epoch"
            )
        self._batches_since_step = 0
        ended = self._clock.count_step()
        if ended is None:
            return None
        record = self._finish_period(ended)
        self._clock.begin(ended + 1)
        if self.equal_start:
            self._ask_whether_weights_are_used()
        return record

    def _ask_whether_weights_are_used(self) -> None:
        """Warn once if nobody has read the weights."""
        if not self._weights_read:
            self._weights_read = True
            warnings.warn(
                f"the weights of {type(self).__name__} have no effect: balancer.weights was never read. Pass it to the "
                "losses in each step: criterion(pred, target, weights=balancer.weights)",
                stacklevel=3,
            )

    @torch.no_grad()
    def _finish_period(self, period: int) -> RebalanceRecord:
        """Decide on the weights for the next period. This is the only place that waits for the device."""
        sums = self._sums.collect(self._weights)
        if sums is None:
            raise RuntimeError(
                f"no losses were observed in period {period}, which ends at step {self._clock.steps}: call "
                "balancer.observe(out.terms) after each forward pass, before balancer.step()"
            )
        measured, previous = usable(sums.means, sums.resolution), self.memory["previous"]
        preliminary = self.equal_start and not self.started
        if preliminary:
            active, new = measured, NewWeights(equal_contributions(sums.weights, sums.means, measured))
        else:
            # a loss that was never measured before has nothing to be compared with
            active = measured & usable(previous) if self.equal_start else measured
            start = self.memory.get("start", sums.weights)
            steps = self._clock.steps_in_period
            stats = PeriodStatistics(period, steps, sums.means, previous, sums.weights, start, active)
            new = self._checked(self.new_weights(stats))
        changed = active & can_be_in_force(new.weights)
        decided = torch.where(changed, new.weights, sums.weights)
        self._weights.copy_(decided)  # in place: a captured CUDA graph reads this memory
        if preliminary and changed.any():
            self.memory["start"] = decided
        self.memory["previous"] = torch.where(measured, sums.means, previous)
        self._sums.clear()
        return self._record(period, sums, new, decided, changed)

    def _checked(self, new: Any) -> NewWeights:
        """What :meth:`new_weights` of a subclass returned, as float64 on the CPU."""
        method, count = f"{type(self).__name__}.new_weights", len(self.names)
        answer = NewWeights(new) if isinstance(new, Tensor) else new
        if not isinstance(answer, NewWeights) or not isinstance(answer.weights, Tensor) or answer.weights.is_complex():
            raise TypeError(f"{method} must return NewWeights or a tensor of {count} weights, got {new!r}")
        if answer.weights.shape != (count,):
            raise ValueError(f"{method} must return one weight a loss, [{count}], got {list(answer.weights.shape)}")
        return answer._replace(weights=answer.weights.detach().to("cpu", torch.float64))

    def _record(
        self, period: int, sums: PeriodSums, new: NewWeights, weights: Tensor, changed: Tensor
    ) -> RebalanceRecord:
        clipped = torch.zeros_like(changed) if new.clipped is None else new.clipped & changed
        contributions = torch.where(sums.means.isfinite(), weights * sums.means, 0.0)
        return RebalanceRecord(
            period=period,
            step=self._clock.steps,
            lam=new.lam,
            names=self.names,
            means=tuple(sums.means.tolist()),
            weights=tuple(weights.tolist()),
            contributions=tuple((contributions / contributions.sum()).tolist()),
            clipped=self._named(clipped),
            held=self._named(~changed),
            absent=self._named(sums.present == 0),
            images=sums.images,
            dropped=sums.dropped,
            empty=sums.empty,
        )

    def _named(self, which: Tensor) -> tuple[str, ...]:
        return tuple(name for name, flag in zip(self.names, which.tolist(), strict=True) if flag)

    def get_extra_state(self) -> dict[str, Any]:
        """State beside the buffer: plain numbers, strings and tensors, so that ``weights_only=True`` loads it."""
        own = {"balancer": type(self).__name__, "names": list(self.names), "memory": dict(self.memory)}
        return own | self._sums.state() | self._clock.state()

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; a period that is set on this balancer replaces the saved one."""
        self._sums.load(state)
        self._clock.load(state)
        self.memory = {key: value.cpu() for key, value in state["memory"].items()}

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Refuse a state that does not fit before a value of it is taken over."""
        error_msgs: list[str] = args[-1]
        weights, state = state_dict.get(prefix + "weights"), state_dict.get(prefix + "_extra_state")
        unfit = why_unfit(weights, state, type(self).__name__, self.names)
        if unfit is None:
            super()._load_from_state_dict(state_dict, prefix, *args)
        else:
            error_msgs.append(unfit)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LossBalancer:
        """Follow the model to another device, but not to another type: ``model.half()`` must not round the weights."""
        weights = self._weights
        super()._apply(fn, recurse)
        device = self._weights.device
        self._sums.to(device)
        if weights.is_meta:  # without values, which to_empty() does not give it either
            weights = self._weights
        self._buffers["weights"] = weights.to(device, self._sums.values.dtype)
        return self

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"{len(self.names)} losses, period={self.period}"


def equal_contributions(weights: Tensor, means: Tensor, active: Tensor) -> Tensor:
    """Weights that give every active loss the same contribution and keep the overall loss, eq. (9).

    ``w_i = (1/n) sum_j w_j L_j / L_i``

    Equation (9) as printed lacks the factor ``1/n``. Taken literally the overall loss would grow n-fold, and with
    ``L_all(0)`` under the old weights eq. (11) would then multiply every weight by ``1 + lambda (n - 1)``: by 232 for
    78 losses and lambda = 3. The authors' program has the factor.

    Args:
        weights: [n], weights in force during the preliminary period.
        means: [n], mean of every loss over its images.
        active: [n], bool; the others keep their weight.
    """
    share = torch.where(active, weights * means, 0.0).sum() / active.sum()
    return torch.where(active, share / means, weights)


def _checked_names(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"names must be a sequence of loss names such as LossSpace({names!r}).names, got {names!r}")
    out = tuple(names)
    if not out or not all(isinstance(name, str) for name in out):
        raise ValueError(f"names must be one or more loss names such as 'D/0', got {out!r}")
    twice = sorted({name for name in out if out.count(name) > 1})
    if twice:
        raise ValueError(f"every loss may be named once, but these appear again: {few(twice)}")
    return out
