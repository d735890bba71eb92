# SPDX-License-Identifier: Apache-2.0
"""Whole training steps of a real network: the paper's Table 7 (+4 % for 39 losses, +21 % for all 78 there).

A step is the network's forward pass, the loss and its gradient, the network's backward pass, Adam, and for our losses
the rebalancing's bookkeeping. Steps with different losses take turns on the same network and data. What a loss adds is
smaller than the noise of a whole step, so it is also timed by itself inside the step, between the two passes, where
caches and allocator are in the state that a real step leaves them in.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from harness import Limits, Progress, measure_case, summary
from implementations import IMPLEMENTATIONS, Case, Implementation, Inputs, select, threads
from torch import Tensor, nn

import mlr

#: Gradient of a loss by the prediction, and whatever the loss keeps account of: (pred, target) -> grad.
LossStep = Callable[[Tensor, Tensor], Tensor]


def _plain(formulation: str, case: Case) -> LossStep:
    call = IMPLEMENTATIONS[formulation].build(case)
    weights = torch.full((case.batch, len(case.terms)), 1 / len(case.terms) / case.batch, device=case.device)
    one = torch.ones((), device=case.device)

    def step(pred: Tensor, target: Tensor) -> Tensor:
        grad = call(Inputs(pred, target, weights, weights, one, pred))[1]
        assert grad is not None
        return grad

    return step


def _rebalanced(case: Case) -> LossStep:
    """Our losses with the paper's rebalancing, as `train.py` runs them."""
    space = mlr.LossSpace(case.losses)
    criterion, balancer = mlr.MultiLoss(space), mlr.Rebalancing(space.names, period=50)
    balancer.to(case.device)

    def step(pred: Tensor, target: Tensor) -> Tensor:
        leaf = pred.requires_grad_()
        out = criterion(leaf, target, balancer.weights)
        out.total.backward()
        balancer.observe(out.terms)
        balancer.step()
        assert leaf.grad is not None
        return leaf.grad

    return step


def _variants(case: Case, progress: Progress) -> dict[str, tuple[str, LossStep] | str]:
    """Losses to take steps with, each checked first: name -> (what runs, step), or why it is refused."""
    from dataclasses import replace

    alone, coarse = replace(case, losses="D/0"), replace(case, losses="coarse")
    # short races: they check parity, and find the fastest plain PyTorch on this device
    chosen: list[Implementation] = select(only=("l1", "eager", "doubling", "module"))
    checked = measure_case(case, chosen, Limits(seconds=1, implementation_seconds=2), progress)["results"]
    checked_coarse = measure_case(coarse, select(only=("module",)), Limits(seconds=0.2), progress)["results"]
    plain = [name for name in ("eager", "doubling") if checked[name]["status"] == "ok"]
    variants: dict[str, tuple[str, LossStep] | str] = {}
    variants["D/0"] = ("l1", _plain("l1", alone)) if checked["l1"]["status"] == "ok" else str(checked["l1"])
    for name, of, row in (("coarse", coarse, checked_coarse["module"]), ("all", case, checked["module"])):
        variants[name] = ("mlr.MultiLoss + Rebalancing", _rebalanced(of)) if row["status"] == "ok" else row["reason"]
    if plain:
        best = min(plain, key=lambda name: checked[name]["median_ms"])
        variants["all, plain PyTorch"] = (best, _plain(best, case))
    return variants


class _Timer:
    """Seconds between marks, by CUDA events on a GPU and by the wall clock on a CPU."""

    def __init__(self, device: str) -> None:
        self.device = device

    def mark(self) -> Any:
        if self.device != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        if self.device != "cuda":
            return end - start
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, image: Tensor, depth: Tensor, loss: LossStep, timer: _Timer
) -> tuple[float, float]:
    """Seconds of one training step and of the loss inside it."""
    start = timer.mark()
    optimizer.zero_grad(set_to_none=True)
    pred = model(image)
    before = timer.mark()
    grad = loss(pred.detach(), depth)
    after = timer.mark()
    pred.backward(grad)
    optimizer.step()
    end = timer.mark()
    return timer.seconds(start, end), timer.seconds(before, after)


def check(backbones: Sequence[str]) -> None:
    """Refuse names of no network, before anything is measured.

    Raises:
        ValueError: naming the nearest ones.
    """
    if backbones and importlib.util.find_spec("timm"):  # without it, measure() says so
        from mlr.models.depth_model import check_backbone

        for backbone in backbones:
            check_backbone(backbone)


def measure(
    backbone: str,
    case: Case,
    rounds: int = 4,
    seconds: float = 120.0,
    decoder_channels: int = 1024,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Training steps of a network with D/0 alone, L^3 u L^4 u L^5, all losses, and all losses in plain PyTorch.

    Args:
        backbone: encoder of :class:`mlr.DepthModel`; random weights, which take the same time.
        case: batch, size, device and threads.
        rounds: steps with each loss, after one for warming up.
        seconds: no further round starts after this time.
        decoder_channels: of the model; the paper's 1024.
        progress: told what is going on.

    Returns:
        Network, sizes and ``variants``: by name ``runs`` (the code that ran), ``step`` and ``loss`` (medians and
        percentiles in milliseconds), or ``reason`` where the variant is refused.
    """
    row: dict[str, Any] = {
        "backbone": backbone, "batch": case.batch, "height": case.height, "width": case.width, "device": case.device,
        "threads": case.threads, "decoder_channels": decoder_channels,
    }  # fmt: skip
    try:
        model = mlr.DepthModel(backbone, decoder_channels, pretrained=False).to(case.device)
    except ImportError as error:
        return {**row, "reason": f"the network needs {error.name}, which is not installed"}
    timer, begin = _Timer(case.device), time.perf_counter()
    with threads(case.threads):
        variants = _variants(case, progress)
        g = torch.Generator().manual_seed(0)
        image = torch.rand(case.batch, 3, case.height, case.width, generator=g).to(case.device)
        depth = (1 + 4 * torch.rand(case.batch, 1, case.height, case.width, generator=g)).to(case.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        model.train()
        samples: dict[str, list[tuple[float, float]]] = {n: [] for n, v in variants.items() if not isinstance(v, str)}
        for i in range(rounds + 1):
            for name in samples:
                progress(f"{backbone}: round {i} of {rounds}, {name}")
                variant = variants[name]
                assert not isinstance(variant, str)
                sample = _step(model, optimizer, image, depth, variant[1], timer)
                if i:  # round 0 warms up
                    samples[name].append(sample)
            if i and time.perf_counter() - begin > seconds:
                break
    row["variants"] = {}
    for name, variant in variants.items():
        if isinstance(variant, str):
            row["variants"][name] = {"reason": variant}
            continue
        steps, losses = zip(*samples[name], strict=True)
        row["variants"][name] = {"runs": variant[0], "step": summary(steps), "loss": summary(losses)}
    alone = [loss for _, loss in samples.get("D/0", [])]
    if alone:
        whole = statistics.median(step for step, _ in samples["D/0"])
        for name in samples:
            own = statistics.median(loss for _, loss in samples[name])
            row["variants"][name]["added_percent"] = float(f"{100 * (own - statistics.median(alone)) / whole:.3g}")
    return row
