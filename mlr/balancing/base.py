# SPDX-License-Identifier: Apache-2.0
"""The frame of every loss balancer: it gathers losses on the device and decides on new weights once per period."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, distributed, nn

from mlr.balancing.checks import positive
from mlr.balancing.record import NewWeights, PeriodStatistics, RebalanceRecord, usable


class LossBalancer(nn.Module, ABC):
    """Base of the balancers: weights for a set of losses, revised at the end of every period.

    Period 0 runs with equal weights ``1/n``. At its end every loss is given the same contribution and the overall loss
    is kept (eq. 9 with the factor 1/n that it needs, see :func:`equal_contributions`); :meth:`new_weights`, the one
    method a subclass writes, decides at the end of each later period.

    Call :meth:`observe` after each forward pass and :meth:`step` after each optimizer step. Nothing in them waits for
    the device except the end of a period: one copy of 2 n + 2 numbers, and one all_reduce if there are several ranks,
    all of which must take the same steps (batches of unlike size are right; DDP's ``Join`` is not for balancers).

    A loss whose mean is zero or not finite keeps its weight and is left out of the totals; an image with a loss that
    is not finite is dropped and counted. In eval mode :meth:`observe` ignores what it is given. The whole state, also
    in mid-period, travels in ``state_dict``, loads with ``weights_only=True``, and continues bit for bit. (Of several
    ranks only one saves: what the others had gathered of an unfinished period is then represented by its share.)

    Args:
        names: the losses, for instance ``LossSpace("all").names``.
        period: optimizer steps in a period; ``steps_per_epoch / 4`` is the paper's quarter epoch. It need not be
            whole: period k ends after the first step s with ``s >= (k + 1) * period``, and periods that hold no step
            merge with the one that does, so four periods are an epoch even in epochs shorter than four batches. It may
            be set later (``balancer.period = ...``), which starts the length of the current period anew.

    Attributes:
        names: the losses.
        weights: [n], float64 buffer: the weights in force; always the derivative of the total by the term.

    Raises:
        TypeError, ValueError: for names or a period that make no sense.
    """

    weights: Tensor
    #: Whether the end of the first period gives every loss an equal contribution.
    equal_start = True

    def __init__(self, names: Iterable[str], period: float | None = None) -> None:
        super().__init__()
        self.names = _checked_names(names)
        count = len(self.names)
        self.register_buffer("weights", torch.full((count,), 1 / count, dtype=torch.float64))
        # Sums of the losses over the current period's images, number of images, number of dropped ones. Not a buffer:
        # DistributedDataParallel copies rank 0's buffers over those of the other ranks at every forward pass, and these
        # are each rank's own until the all_reduce at the end of the period. They travel in the extra state instead.
        self._sums = torch.zeros(count + 2, dtype=torch.float64)
        #: What the balancer remembers from period to period: tensors on the CPU, saved with the state.
        self.memory: dict[str, Tensor] = {"previous": torch.full((count,), math.nan, dtype=torch.float64, device="cpu")}
        self._steps = self._steps_at_start = self._index = 0
        self._period: Fraction | None = None
        self._end = Fraction(0)
        self.period = period

    @property
    def period(self) -> float | None:
        """Length of a period in optimizer steps; None as long as it has not been set."""
        return None if self._period is None else float(self._period)

    @period.setter
    def period(self, value: float | None) -> None:
        length = None if value is None else _checked_period(value)
        if length != self._period:
            self._period = length
            self._end = self._steps + (length or Fraction(0))

    @property
    def period_index(self) -> int:
        """Index of the current period."""
        return self._index

    @property
    def started(self) -> bool:
        """Whether the losses have been given equal contributions."""
        return "start" in self.memory

    @abstractmethod
    def new_weights(self, stats: PeriodStatistics) -> NewWeights:
        """Weights for the next period; the statistics are float64 tensors on the CPU."""

    @torch.no_grad()
    def observe(self, terms: Tensor) -> None:
        """Add the losses of a batch to the current period, on the device and without waiting for it.

        Args:
            terms: [B, n], every loss of every image, e.g. ``out.terms`` of :class:`mlr.MultiLoss`. May be called any
                number of times between two steps (gradient accumulation). Ignored in eval mode.

        Raises:
            ValueError: if the shape is not [B, n].
        """
        if terms.dim() != 2 or terms.shape[1] != len(self.names):
            raise ValueError(
                f"terms must be [B, n] = [B, {len(self.names)}], one row an image and one column a loss "
                f"({', '.join(self.names[:3])}{', ...' if len(self.names) > 3 else ''}), got {list(terms.shape)}; "
                "pass the terms of a MultiLoss over the same losses"
            )
        if not self.training:
            return
        if terms.device != self._sums.device:
            self.to(terms.device)
        finite = terms.isfinite().all(dim=1, keepdim=True)
        rows = torch.cat([torch.where(finite, terms, 0), finite, ~finite], dim=1)
        self._sums += rows.sum(dim=0, dtype=self._sums.dtype)

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
        if self._period is None:
            if self.equal_start:
                raise RuntimeError(
                    f"{type(self).__name__} does not know when a period ends: set balancer.period to a number of "
                    "optimizer steps before the first step; steps_per_epoch / 4 is the paper's quarter epoch"
                )
            self._steps += 1
            return None
        self._steps += 1
        if self._steps < self._end:
            return None
        # a period shorter than a step holds no image: it merges with the one that ends here
        merged = int((self._steps - self._end) // self._period)
        record = self._finish_period(self._index + merged)
        self._index += merged + 1
        self._end += (merged + 1) * self._period
        self._steps_at_start = self._steps
        return record

    @torch.no_grad()
    def _finish_period(self, period: int) -> RebalanceRecord:
        """Decide on the weights for the next period. This is the only place that waits for the device."""
        sums, count = self._sums, len(self.names)
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
            sums = sums.clone()
            distributed.all_reduce(sums)
        host = torch.cat([sums, self.weights]).to("cpu", torch.float64)
        images, dropped = int(host[count]), int(host[count + 1])
        if images + dropped == 0:
            raise RuntimeError(
                f"no losses were observed in period {period}, which ends at step {self._steps}: call "
                "balancer.observe(out.terms) after each forward pass, before balancer.step()"
            )
        means, weights = host[:count] / images, host[count + 2 :]
        active, previous = usable(means), self.memory["previous"]
        preliminary = self.equal_start and not self.started
        if preliminary:
            new = NewWeights(equal_contributions(weights, means, active))
        else:
            if self.equal_start:  # a loss that was never measured before has nothing to be compared with
                active = active & usable(previous)
            start, steps = self.memory.get("start", weights), self._steps - self._steps_at_start
            new = self.new_weights(PeriodStatistics(period, steps, means, previous, weights, start, active))
        # the operator works in float32: a weight that is not a positive float32 number cannot come into force
        changed = active & usable(new.weights) & new.weights.float().isfinite()
        decided = torch.where(changed, new.weights, weights)
        self.weights.copy_(decided)  # in place: a captured CUDA graph reads this memory
        if preliminary and changed.any():
            self.memory["start"] = decided
        self.memory["previous"] = torch.where(usable(means), means, previous)
        self._sums.zero_()
        clipped = torch.zeros_like(changed) if new.clipped is None else new.clipped & changed
        contributions = torch.where(means.isfinite(), decided * means, 0.0)
        return RebalanceRecord(
            period=period,
            step=self._steps,
            lam=new.lam,
            names=self.names,
            means=tuple(means.tolist()),
            weights=tuple(decided.tolist()),
            contributions=tuple((contributions / contributions.sum()).tolist()),
            clipped=self._named(clipped),
            held=self._named(~changed),
            images=images,
            dropped=dropped,
        )

    def _named(self, which: Tensor) -> tuple[str, ...]:
        return tuple(name for name, flag in zip(self.names, which.tolist(), strict=True) if flag)

    def get_extra_state(self) -> dict[str, Any]:
        """State beside the buffer: plain numbers, strings and tensors, so that ``weights_only=True`` loads it."""
        return {
            "balancer": type(self).__name__,
            "names": list(self.names),
            "sums": self._sums,
            "memory": dict(self.memory),
            "steps": self._steps,
            "steps_at_start": self._steps_at_start,
            "index": self._index,
            "end": list(self._end.as_integer_ratio()),
            "period": self.period,
        }

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Continue where the state was taken; a period length set on this balancer outranks the saved one."""
        self._sums.copy_(state["sums"])
        self.memory = {key: value.cpu() for key, value in state["memory"].items()}
        self._steps, self._steps_at_start, self._index = state["steps"], state["steps_at_start"], state["index"]
        wanted = self.period
        self.period = state["period"]
        self._end = Fraction(*state["end"])
        if wanted is not None:
            self.period = wanted

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Refuse a foreign state before a single value of it is taken over."""
        error_msgs: list[str] = args[-1]
        foreign = self._why_foreign(state_dict.get(prefix + "_extra_state"))
        if foreign is None:
            super()._load_from_state_dict(state_dict, prefix, *args)
        else:
            error_msgs.append(foreign)

    def _why_foreign(self, state: Any) -> str | None:
        if state is None:
            return None  # a missing key is load_state_dict's own to report
        if not isinstance(state, Mapping) or "balancer" not in state:
            return f"the extra state is not that of a loss balancer, but {type(state).__name__}"
        if state["balancer"] != type(self).__name__:
            return f"this is the state of a {state['balancer']}, and this balancer is a {type(self).__name__}"
        saved, own = list(state["names"]), list(self.names)
        if saved == own:
            return None
        detail = f"it holds {len(saved)} losses, this balancer {len(own)}"
        missing, extra = [n for n in own if n not in saved], [n for n in saved if n not in own]
        if missing:
            detail += f"; not in the state: {_few(missing)}"
        if extra:
            detail += f"; only in the state: {_few(extra)}"
        if not missing and not extra:
            detail += ", the same ones in another order"
        return (
            f"the state belongs to other losses: {detail}. Build the balancer with the losses the state was made with"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LossBalancer:
        """Follow the model to another device, but not to another type: ``model.half()`` must not round the weights."""
        weights = self.weights
        super()._apply(fn, recurse)
        device = self.weights.device
        dtype = _widest_float(device)
        if weights.is_meta:  # without values, which to_empty() does not give it either
            weights, self._sums = self.weights, torch.zeros_like(self._sums, device=device)
        self._sums = self._sums.to(device, dtype)
        self.weights = weights.to(device, dtype)
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


def _widest_float(device: torch.device) -> torch.dtype:
    """float64, except on Apple's GPUs, which do not have it."""
    return torch.float32 if device.type == "mps" else torch.float64


def _checked_names(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"names must be a sequence of loss names such as LossSpace({names!r}).names, got {names!r}")
    out = tuple(names)
    if not out or not all(isinstance(name, str) for name in out):
        raise ValueError(f"names must be one or more loss names such as 'D/0', got {out!r}")
    twice = sorted({name for name in out if out.count(name) > 1})
    if twice:
        raise ValueError(f"every loss may be named once, but these appear again: {_few(twice)}")
    return out


def _checked_period(value: float) -> Fraction:
    # 10 / 3 steps means ten thirds: as a fraction it never drifts, whatever the number of epochs
    return max(Fraction(positive("period", value)).limit_denominator(10_000), Fraction(1, 10_000))


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
