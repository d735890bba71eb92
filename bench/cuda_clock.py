# SPDX-License-Identifier: Apache-2.0
"""Time on a GPU: events around single calls, wall time of many, CUDA graphs, kernels and memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from implementations import Call, Case, Inputs


def cold_sets(case: Case) -> int:
    """How many input sets to use in turn so that none is still in the L2 cache when its turn comes again."""
    cache = getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 64 * 2**20)
    return min(64, 1 + -(-2 * cache // case.bytes))


class CudaClock:
    """Times by CUDA events; the same interface as the CPU's clock."""

    def synchronize(self) -> None:
        """Wait for the GPU."""
        torch.cuda.synchronize()

    def time_calls(self, call: Call, sets: Sequence[Inputs], count: int, first: int = 0) -> list[float]:
        """Seconds between two events around each of ``count`` calls on the input sets in turn, from set ``first`` on.

        A call of many small kernels is bound by their launches, and this shows it; the graph time does not.
        """
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
        torch.cuda.synchronize()
        for i, (start, end) in enumerate(events, first):
            start.record()
            call(sets[i % len(sets)])
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1e3 for start, end in events]

    def extras(self, call: Call, sets: Sequence[Inputs]) -> dict[str, Any]:
        """Wall time a call when issued back to back, time in a CUDA graph, kernels a call and memory beyond inputs."""
        facts: dict[str, Any] = {"wall_ms": _wall(call, sets), "memory_mb": _memory(call, sets[0])}
        for name, measure in (("kernels", lambda: _kernels(call, sets[0])), ("graph", lambda: _graph(call, sets))):
            try:
                facts |= measure()
            except (RuntimeError, AssertionError) as error:  # no profiler here, or a call that cannot be captured
                torch.cuda.synchronize()
                facts[f"{name}_error"] = str(error).partition("\n")[0][:200]
        return facts


def _digits(x: float) -> float:
    return float(f"{x:.4g}")


def _wall(call: Call, sets: Sequence[Inputs], seconds: float = 0.2) -> float:
    torch.cuda.synchronize()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for inputs in sets:
            call(inputs)
        count += len(sets)
        torch.cuda.synchronize()
    return _digits(1e3 * (time.perf_counter() - start) / count)


def _memory(call: Call, inputs: Inputs) -> float:
    """Peak of the allocator beyond what is held before the call, less the gradient that has to be returned anyway."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = call(inputs)
    torch.cuda.synchronize()
    grad = result[1]
    returned = 0 if grad is None or grad is inputs.grad else grad.numel() * grad.element_size()
    return _digits((torch.cuda.max_memory_allocated() - before - returned) / 2**20)


def _kernels(call: Call, inputs: Inputs) -> dict[str, Any]:
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    call(inputs)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        call(inputs)
        torch.cuda.synchronize()
    events = [e for e in profiler.events() if e.device_type == DeviceType.CUDA]
    kernels = [e for e in events if not e.name.startswith(("Memcpy", "Memset"))]
    return {"kernels": len(kernels), "copies": len(events) - len(kernels)}


def _graph(call: Call, sets: Sequence[Inputs], replays: int = 30) -> dict[str, Any]:
    """Time a call inside one graph that holds a call on every input set: the GPU's own time, launches excluded."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call(sets[0])
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for inputs in sets:
            call(inputs)
    samples = []
    for _ in range(replays + 3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        samples.append(start.elapsed_time(end) / len(sets))
    samples = samples[3:]
    return {"graph_ms": _digits(statistics.median(samples)), "graph_min_ms": _digits(min(samples))}
