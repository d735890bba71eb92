# SPDX-License-Identifier: Apache-2.0
"""What the Triton engine does on the GPU at hand: parity first, then times and resources of its kernels.

    python bench/gpu_check.py --out bench/results/triton/gpu.json             # about a minute
    python bench/gpu_check.py --out ... --sweep                              # the block shapes as well
    python bench/gpu_check.py --out ... --parity                             # small maps alone, for `make sanitize-gpu`

No time is printed for a case whose parity check fails. Times are medians over replays of a CUDA graph, with the
L2 cache as the step left it (warm) and after 256 MB have been written through it (cold), and wall time of eager calls.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import triton

from mlr.kernels import phases
from mlr.kernels.configs import Shapes, shapes_for
from mlr.kernels.launch import multi_loss
from mlr.losses import reference
from mlr.losses.space import loss_name

ALL = tuple(range(78))
KERNELS = ("pyramid_kernel", "losses_kernel", "columns_kernel", "gradient_kernel")
#: Parity: terms relative to the float64 reference, gradient in the relative 2-norm.
TERMS, GRADIENT = 1e-5, 1e-3
#: Alternatives tried by --sweep, one field (or several that belong together) at a time.
ALTERNATIVES: dict[str, list[dict[str, int]]] = {
    "column_rows": [{"column_rows": n} for n in (32, 48)],
    "pyramid": [
        {"quad_rows": 2, "pyramid_warps": 2},
        {"quad_rows": 4, "pyramid_warps": 4, "block": 256},
        {"quad_rows": 8, "pyramid_warps": 8, "block": 256},
    ],
    "window_rows": [{"window_rows": n} for n in (4, 16)],
    "coarse_window_rows": [{"coarse_window_rows": 32}],
    "strip_rows": [{"strip_rows": n} for n in (16, 36, 48)],
    "losses": [
        {"unroll": 1},
        {"unroll": 4},
        {"window_columns": 512},
        {"losses_warps": 8, "strips": 8, "window_tile": 8, "window_columns": 512},
    ],
    "sign_rows": [{"sign_rows": n} for n in (16, 64)],
    "coarse_rows": [{"coarse_rows": n} for n in (4, 16)],
    "columns": [
        {"columns_warps": 8, "sign_tile": 8},
        {"columns_warps": 4, "sign_tile": 8},
        {"columns_warps": 2, "sign_tile": 2, "sign_words": 16},
    ],
    "gradient_rows": [{"gradient_rows": n} for n in (8, 32)],
}


def case(batch: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth depth map and a noisy prediction of it, metres."""
    generator = torch.Generator().manual_seed(height * width)
    coarse = 1 + 8 * torch.rand(batch, 1, max(height // 8, 2), max(width // 8, 2), generator=generator)
    target = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True)
    pred = target + 0.2 + 0.3 * torch.randn(target.shape, generator=generator)
    return pred.to("cuda", dtype), target.to("cuda", dtype)


def parity(
    batch: int, height: int, width: int, downsample: str = "bicubic", dtype: torch.dtype = torch.float32,
    shapes: Shapes | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Errors of terms and gradient against the float64 reference on the same inputs."""
    pred, target = case(batch, height, width, dtype)
    weights = torch.rand(batch, 78, device="cuda", generator=torch.Generator("cuda").manual_seed(1)) + 0.1
    values, grad, _ = multi_loss(pred, target, weights, ALL, downsample, shapes=shapes)
    true, true_grad, _ = reference.multi_loss(pred.double(), target.double(), weights.double(), ALL, downsample)
    # Means and derivatives that vanish on maps of a few pixels are rounding, of the size of E at their scale (D): a
    # sum over 65 x 65 pixels for M65, a difference for the derivatives.
    units = torch.tensor([0.0] + 4 * [2e-6] + 5 * [3e-7] + 3 * [0.0], device=true.device, dtype=true.dtype)
    rounding = (true[:, 0::13, None] * units).flatten(1)
    errors = ((values.double() - true).abs() - rounding).clamp(min=0) / true.abs().clamp(min=1e-30)
    image, worst = divmod(int(errors.argmax()), 78)
    terms = errors.max().item()
    gradient = ((grad.double() - true_grad).norm() / true_grad.norm()).item()
    limit = GRADIENT if dtype == torch.float32 else 1e-2  # a half-precision gradient is rounded to its type
    return {
        "case": f"{batch}x{height}x{width} {downsample} {str(dtype)[6:]}",
        "terms": terms,
        "worst": f"{loss_name(worst)}: {values[image, worst].item()} for {true[image, worst].item()}",
        "gradient": gradient,
        "ok": terms <= TERMS and gradient <= limit,
    }


def graph_times(step: Callable[[], object], replays: int = 60) -> dict[str, float]:
    """Microseconds of a captured step: warm and cold, median and quartiles."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    flush = torch.empty(64 << 20, dtype=torch.float32, device="cuda")
    out: dict[str, float] = {}
    for name in ("warm", "cold"):
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(replays)]
        graph.replay()
        for start, end in events:
            if name == "cold":
                flush.zero_()
            start.record()
            graph.replay()
            end.record()
        torch.cuda.synchronize()
        times = sorted(1e3 * start.elapsed_time(end) for start, end in events)
        out[name] = statistics.median(times)
        out[name + "_iqr"] = times[3 * replays // 4] - times[replays // 4]
    # back to back: what a step costs inside a longer graph, without the start of a replay
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(replays):
        graph.replay()
    end.record()
    torch.cuda.synchronize()
    out["back_to_back"] = 1e3 * start.elapsed_time(end) / replays
    return out


def eager_time(step: Callable[[], object], calls: int = 50) -> dict[str, float]:
    """Microseconds of eager calls: on the host alone, and until the device has finished."""
    for _ in range(5):
        step()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        step()
    host = time.perf_counter() - start
    torch.cuda.synchronize()
    return {"host": 1e6 * host / calls, "total": 1e6 * (time.perf_counter() - start) / calls}


def kernel_times(step: Callable[[], object], calls: int = 20) -> dict[str, float]:
    """Microseconds of each kernel inside a step, from the profiler."""
    step()
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(calls):
            step()
        torch.cuda.synchronize()
    return {
        e.key: e.self_device_time_total / e.count
        for e in profile.key_averages()
        if e.self_device_time_total and e.key in KERNELS
    }


def resources() -> list[dict[str, object]]:
    """Registers, spills and shared memory of every compiled kernel."""
    rows: list[dict[str, object]] = []
    for name in KERNELS:
        for cache in getattr(phases, name).device_caches.values():
            for kernel in cache[0].values():
                kernel._init_handles()
                rows.append(
                    {
                        "kernel": name,
                        "warps": kernel.metadata.num_warps,
                        "registers": kernel.n_regs,
                        "spills": kernel.n_spills,
                        "shared": kernel.metadata.shared,
                        "compiled for": _constants(kernel),
                    }
                )
    return rows


def _constants(kernel: Any) -> dict[str, object]:
    """Compile-time arguments of a kernel; not which tensors it does without."""
    names = kernel.src.fn.arg_names
    constants: dict[str, object] = {}
    for (place, *inside), value in kernel.src.constants.items():
        if not inside:
            constants |= value._asdict() if hasattr(value, "_asdict") else {names[place]: value}
    return constants


def step_of(
    batch: int, height: int, width: int, shapes: Shapes | None = None, dtype: torch.dtype = torch.float32
) -> Callable[[], object]:
    """All 78 losses and their gradient as a function of nothing."""
    pred, target = case(batch, height, width, dtype)
    weights = torch.full((batch, 78), 1 / 78, device="cuda")
    return lambda: multi_loss(pred, target, weights, ALL, shapes=shapes)


def compile_case(shapes: Shapes | None, width: int, downsample: str, dtype: torch.dtype) -> str:
    """Fill Triton's disk cache in a process of its own; the empty string or the error."""
    try:
        pred, target = case(1, 40, width, dtype)
        multi_loss(pred, target, torch.ones(1, 78, device="cuda"), ALL, downsample, shapes=shapes)
        torch.cuda.synchronize()
        return ""
    except Exception as error:  # a shape that does not compile is a result of the sweep
        return f"{type(error).__name__}: {str(error)[:300]}"


def compile_all(cases: Sequence[tuple[Shapes | None, int, str, torch.dtype]]) -> list[str]:
    """Compile cases side by side."""
    with ProcessPoolExecutor(min(14, len(cases)), mp_context=get_context("spawn")) as pool:
        return list(pool.map(compile_case, *zip(*cases, strict=True)))


def sweep(batch: int, height: int, width: int, budget: float) -> list[dict[str, object]]:
    """Times of alternatives to the table's block shapes, then of the best ones together."""
    base = shapes_for(torch.device("cuda", torch.cuda.current_device()))
    changes = [change for group in ALTERNATIVES.values() for change in group]
    candidates = [base] + [replace(base, **change) for change in changes]
    errors = compile_all([(shapes, 56, "bicubic", torch.float32) for shapes in candidates])
    rows: list[dict[str, object]] = []
    start = time.perf_counter()

    def measure(shapes: Shapes, change: object) -> float:
        check = parity(2, 96, 128, shapes=shapes)
        if not check["ok"]:
            rows.append({"change": change, "parity": check})
            return float("inf")
        step = step_of(batch, height, width, shapes)
        graph = graph_times(step, 100)
        rows.append({"change": change, **graph, "kernels": kernel_times(step, 8)})
        print(json.dumps(rows[-1]), flush=True)
        return graph["back_to_back"]

    times = {}
    for shapes, change, error in zip(candidates, [{}, *changes], errors, strict=True):
        if error:
            rows.append({"change": change, "error": error})
            print(json.dumps(rows[-1]), flush=True)
        elif time.perf_counter() - start < budget:
            times[json.dumps(change)] = measure(shapes, change)
    # the best alternative of each group that beats the base, together
    chosen: dict[str, int] = {}
    for group in ALTERNATIVES.values():
        best = min(group, key=lambda change: times.get(json.dumps(change), float("inf")))
        if times.get(json.dumps(best), float("inf")) < times["{}"]:
            chosen |= best
    together = replace(base, **chosen)
    if not compile_case(together, 56, "bicubic", torch.float32):
        measure(together, {"together": chosen})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="result file (JSON)")
    parser.add_argument("--size", default="8x288x384", help="BxHxW of the timed step")
    parser.add_argument("--parity", action="store_true", help="stop after the parity of small maps")
    parser.add_argument("--sweep", action="store_true", help="time alternatives to the block shapes")
    parser.add_argument("--budget", type=float, default=60, help="seconds for the sweep's measurements")
    args = parser.parse_args()
    batch, height, width = map(int, args.size.split("x"))
    properties = torch.cuda.get_device_properties(0)
    result: dict[str, object] = {
        "device": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "shapes": asdict(shapes_for(torch.device("cuda", 0))),
    }

    def show(name: str, value: object) -> None:
        result[name] = value
        print(name, json.dumps(value, indent=1, default=str), flush=True)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1, default=str) + "\n")

    started = time.perf_counter()
    if not args.parity:  # side by side, in processes of their own
        full, kinds = torch.float32, ["bicubic", "area"]
        cases = [(None, 56, kind, full) for kind in kinds] + [(None, 57, "bicubic", full)]
        cases += [(None, 56, "bicubic", dtype) for dtype in (torch.float16, torch.bfloat16)]
        show("compiled", compile_all(cases))
        show("compile_seconds", time.perf_counter() - started)
    sizes = [(3, 33, 47), (2, 40, 56), (2, 45, 61)]
    if not args.parity:
        sizes += [(1, 1, 1), (1, 1, 40), (2, 96, 128), (2, 375, 1242), (batch, height, width)]
    checks = [parity(*size) for size in sizes]
    if not args.parity:
        checks += [parity(2, 96, 128, "area")]
        checks += [parity(2, 96, 128, dtype=dtype) for dtype in (torch.float16, torch.bfloat16)]
    show("parity", checks)
    show("first_calls_seconds", time.perf_counter() - started)
    if args.parity:
        raise SystemExit(0 if all(check["ok"] for check in checks) else "parity failed")
    if not next(check for check in checks if check["case"] == f"{batch}x{height}x{width} bicubic float32")["ok"]:
        raise SystemExit("parity failed: no times")
    step = step_of(batch, height, width)
    show("step_graph_us", graph_times(step))
    show("step_eager_us", eager_time(step))
    show("kernels_us", kernel_times(step))
    if all(check["ok"] for check in checks if "bfloat16" in str(check["case"])):
        show("step_bfloat16_graph_us", graph_times(step_of(batch, height, width, dtype=torch.bfloat16)))
    show("resources", resources())

    pred, target = case(batch, height, width)
    leaf = pred.clone().requires_grad_()

    def plain_l1() -> object:
        return torch.autograd.grad((leaf - target).abs().mean(), leaf)

    show("l1_graph_us", graph_times(plain_l1))
    show("l1_eager_us", eager_time(plain_l1))
    weights = torch.full((batch, 78), 1 / 78, device="cuda")
    show("reference_eager_us", eager_time(lambda: reference.multi_loss(pred, target, weights, ALL), 5))
    show("copy_us", graph_times(lambda: pred + target))
    if args.sweep:
        show("sweep", sweep(batch, height, width, args.budget))
    show("seconds", time.perf_counter() - started)


if __name__ == "__main__":
    main()
