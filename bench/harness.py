# SPDX-License-Identifier: Apache-2.0
"""Measure implementations against each other: parity first, then interleaved rounds, then medians.

    case = Case(batch=8, threads=2)
    results = measure_case(case, select(only=("l1", "cpp")), Limits(seconds=5))

:func:`measure_case` makes the inputs, compares what every implementation returns with the float64 definition, and times
only those that pass. One that fails is reported as ``refused`` with its errors and without a time. The rest take turns
in short rounds until the time is up. The one with the least time so far is next, so a noisy moment falls on all.
A script that needs another implementation passes its own: ``Implementation("mine", "what it is", build=make_call)``,
where ``make_call(case)`` returns a function from the inputs to the values and the gradient.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from cuda_clock import CudaClock
from first_call import first_call
from implementations import Call, Case, Implementation, Inputs, Unavailable, Values, depth_maps, threads
from moved import KINDS, reference
from torch import Tensor

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Limits:
    """How long a case may take.

    Attributes:
        seconds: for all rounds of a case together.
        implementation_seconds: for one implementation of a case; it drops out of the rounds once it has used them.
        compile_seconds: for the first call of a implementation that compiles.
    """

    seconds: float = 6.0
    implementation_seconds: float = 8.0
    compile_seconds: float = 400.0


#: Seconds of one implementation's turn, so that short calls are timed often and warm.
TURN_SECONDS = 0.02
#: Calls longer than this need no warm-up call in every turn.
LONG_CALL = 0.1


# --- parity -----------------------------------------------------------------------------------------------------------


def value_error(values: Tensor, exact: Tensor, floor: Tensor | float = 0.0) -> float:
    """Largest relative error of any loss; infinite where one is not finite.

    Args:
        values: what a implementation returned, [B, n].
        exact: what is right, in float64.
        floor: losses smaller than this are judged as if they were that large, [n].
    """
    if values.numel() == 0:
        return 0.0
    error = ((values.double() - exact).abs() / exact.abs().clamp(min=floor)).max().item()
    return error if error == error else float("inf")


def floors(case: Case) -> Tensor:
    """Where losses may cancel to nothing: on coarse maps of a few pixels, [n].

    A loss is a mean of absolute values and has a size to be relative to; that of one pixel's derivative may be 0, and
    then nothing is left but the rounding of metres in float32.
    """
    sizes = [reference.scale_size(case.height, case.width, term // len(KINDS)) for term in case.terms]
    values = [0.1 if height * width < 64 else 1e-30 for height, width in sizes]
    return torch.tensor(values, dtype=torch.float64, device=case.device)


def gradient_error(grad: Tensor | None, exact: Tensor | None) -> float:
    """Relative L2 error of a gradient; infinite where it is not finite or not there."""
    if exact is None:
        return 0.0
    if grad is None or grad.shape != exact.shape:
        return float("inf")
    error = ((grad.double() - exact).norm() / exact.norm().clamp(min=1e-300)).item()
    return error if error == error else float("inf")


def parity(implementation: Implementation, case: Case, got: Values, exact: Values) -> tuple[float, float, str]:
    """Errors of values and gradient, and why the implementation is refused (empty where it is not)."""
    if got[0].shape != exact[0].shape:
        return float("inf"), float("inf"), f"values {list(got[0].shape)}, expected {list(exact[0].shape)}"
    floor = floors(case) if got[0].shape[1] == len(case.terms) else 0.0
    values, grad = value_error(got[0], exact[0], floor), gradient_error(got[1], exact[1])
    rounding = torch.finfo(case.type).eps if case.type.itemsize < 4 else 0.0  # the gradient has the input's type
    allowed = implementation.gradient_tolerance + rounding
    if values > implementation.values_tolerance:
        return values, grad, f"a loss is off by {values:.1e} relative, {implementation.values_tolerance:.0e} is allowed"
    if grad > allowed:
        return values, grad, f"the gradient is off by {grad:.1e} in relative L2, {allowed:.0e} is allowed"
    return values, grad, ""


# --- clocks -----------------------------------------------------------------------------------------------------------


class CpuClock:
    """Wall time of single calls."""

    def synchronize(self) -> None:
        """Nothing runs behind the caller's back on a CPU."""

    def time_calls(self, call: Call, sets: Sequence[Inputs], count: int, first: int = 0) -> list[float]:
        """Seconds of each of ``count`` calls on the input sets in turn, from set ``first`` on."""
        samples = []
        for i in range(first, first + count):
            inputs = sets[i % len(sets)]
            start = time.perf_counter()
            call(inputs)
            samples.append(time.perf_counter() - start)
        return samples

    def extras(self, call: Call, sets: Sequence[Inputs]) -> dict[str, Any]:
        """Nothing more to say."""
        return {}


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """Median, 20th and 80th percentile and minimum in milliseconds."""
    ordered = sorted(samples)

    def percentile(p: float) -> float:
        return ordered[min(len(ordered) - 1, int(p * len(ordered)))]

    return {
        "median_ms": _digits(1e3 * statistics.median(ordered)),
        "p20_ms": _digits(1e3 * percentile(0.2)),
        "p80_ms": _digits(1e3 * percentile(0.8)),
        "min_ms": _digits(1e3 * ordered[0]),
        "samples": len(ordered),
    }


def _digits(x: float) -> float:
    return float(f"{x:.4g}")


# --- a case ---------------------------------------------------------------------------------------------------------


@dataclass
class _Timed:
    implementation: Implementation
    call: Call
    facts: dict[str, Any]
    estimate: float = 0.0
    spent: float = 0.0
    samples: list[float] = field(default_factory=list)
    calls: int = 0

    def time_calls(self, clock: CpuClock | CudaClock, sets: Sequence[Inputs], count: int) -> list[float]:
        """Calls that go on with the input set after the last one's: all of them get their turn."""
        start = time.perf_counter()
        samples = clock.time_calls(self.call, sets, count, self.calls)
        self.calls += count
        self.spent += time.perf_counter() - start
        return samples


def _prepare(
    implementation: Implementation,
    case: Case,
    sets: Sequence[Inputs],
    clock: CpuClock | CudaClock,
    limits: Limits,
    exact: dict[Any, Values],
) -> _Timed | dict[str, Any]:
    """Build, call once, check: a runner, or why there is none."""
    try:
        call = implementation.build(case)
        compiled = first_call(implementation.name, case, limits.compile_seconds) if implementation.compiles else None
    except Unavailable as reason:
        return {"status": "unavailable", "reason": str(reason)}
    start = time.perf_counter()
    got = call(sets[0])
    clock.synchronize()
    first = time.perf_counter() - start if compiled is None else compiled
    if implementation.truth not in exact:  # computed once for all who must agree on it
        exact[implementation.truth] = implementation.truth(case, sets[0])
    values, grad, refusal = parity(implementation, case, got, exact[implementation.truth])
    facts: dict[str, Any] = {"error_terms": _digits(values), "error_gradient": _digits(grad)}
    if refusal:
        return {"status": "refused", "reason": refusal, **facts}
    runner = _Timed(implementation, call, {"status": "ok", **facts, "first_call_s": _digits(first)})
    samples = runner.time_calls(clock, sets, 1)
    runner.estimate = samples[0]
    if runner.estimate > LONG_CALL:  # long enough not to be a warm-up only
        runner.samples = samples
    return runner


def _turn(runner: _Timed, sets: Sequence[Inputs], clock: CpuClock | CudaClock) -> None:
    if runner.estimate > LONG_CALL:
        runner.samples += runner.time_calls(clock, sets, 1)
    else:
        # the first call after somebody else's turn meets their cache
        count = max(2, min(100, round(TURN_SECONDS / max(runner.estimate, 1e-6))))
        runner.samples += runner.time_calls(clock, sets, count + 1)[1:]


def measure_case(
    case: Case, chosen: Sequence[Implementation], limits: Limits | None = None, progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Measure a case.

    Args:
        case: what to compute.
        chosen: who computes it.
        limits: how long it may take.
        progress: told what is going on.

    Returns:
        The case's fields, and ``results``: by implementation ``status`` ("ok", "unavailable" or "refused"), ``reason``
        where it is not "ok", and where it is the errors against float64, ``first_call_s``, ``median_ms``, ``p20_ms``,
        ``p80_ms``, ``min_ms`` and ``samples``; on a GPU also ``wall_ms``, ``graph_ms``, ``graph_min_ms``, ``kernels``
        and ``memory_mb``.
    """
    limits = limits or Limits()
    clock: CpuClock | CudaClock = CudaClock() if case.device == "cuda" else CpuClock()
    with threads(case.threads):
        sets = [depth_maps(case, seed) for seed in range(case.sets)]
        results: dict[str, dict[str, Any]] = {}
        runners: list[_Timed] = []
        exact: dict[Any, Values] = {}
        for implementation in chosen:
            progress(f"{case}: checking {implementation.name}")
            prepared = _prepare(implementation, case, sets, clock, limits, exact)
            if isinstance(prepared, _Timed):
                runners.append(prepared)
            else:
                results[implementation.name] = prepared
        exact.clear()
        progress(f"{case}: timing {', '.join(r.implementation.name for r in runners)}")
        deadline, active = time.perf_counter() + limits.seconds, list(runners)
        while active:
            runner = min(active, key=lambda r: r.spent)  # equal time for all: short calls alternate, long ones are rare
            _turn(runner, sets, clock)
            active = [r for r in active if not r.samples or r.spent < limits.implementation_seconds]
            if time.perf_counter() > deadline:
                active = [r for r in active if len(r.samples) < 3]
        for runner in runners:
            results[runner.implementation.name] = {**runner.facts, **summary(runner.samples)}
        for runner in runners:  # last, because a failed capture would disturb the others
            results[runner.implementation.name] |= clock.extras(runner.call, sets)
    ordered = {c.name: results[c.name] for c in chosen}
    return {**asdict(case), "count": len(case.terms), "bytes": case.bytes, "results": ordered}
