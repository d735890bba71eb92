# SPDX-License-Identifier: Apache-2.0
"""The C++ engine on random shapes, types, layouts, masks, weights and selections, against the reference in float64."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from depth_maps import depth_pair
from torch import Tensor
from torture.trials import Campaign, Counts, Trial, check

from mlr.losses import reference
from mlr.losses.space import LossSpace

ALL = list(LossSpace("all").indices)
LARGEST = torch.finfo(torch.float32).max
#: Cases in a trial: a process takes longer than a case.
CASES = 20
LAYOUTS = ("contiguous", "sliced", "transposed", "every other column", "expanded", "3-D")

op = torch.ops.mlr.multi_loss


def missing() -> str:
    """Why there is nothing to test."""
    try:
        import mlr._C  # noqa: F401
    except ImportError as error:
        return f"the C++ engine is not built ({error})"
    return ""


def prepare(shared: Path) -> None:
    """Outputs start as NaN: a part that the engine does not write shows."""
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_num_threads(1)  # a process that has run threads cannot be forked into ones that do


class Case(NamedTuple):
    """Operands of one call.

    ``even`` maps differ by the same number, or by a few whole ones, everywhere: many differences of the losses are 0,
    and rounding decides on their signs.
    """

    pred: Tensor
    target: Tensor
    weights: Tensor | None
    indices: list[int]
    downsample: str
    mask: Tensor | None
    even: bool = False

    def __repr__(self) -> str:
        weights = "none" if self.weights is None else f"{float(self.weights.abs().max()):.3g} at most"
        masked = "none" if self.mask is None else f"{float(self.mask.float().mean()):.3f} of {list(self.mask.shape)}"
        return (
            f"pred {list(self.pred.shape)} {self.pred.dtype} strides {self.pred.stride()}, indices {self.indices}, "
            f"weights {weights}, {self.downsample}, mask {masked}"
        )


def trial(given: Trial) -> Counts:
    """Some cases."""
    from mlr import _C

    random, counts = given.random, {"calls": 0, "calls with a tie": 0}
    for _ in range(CASES):
        case = draw(random)
        chosen = random.choice(_C.instruction_sets())
        _C.set_instruction_set(chosen)
        torch.set_num_threads(int(random.integers(1, 4)))
        try:
            ties = compare(case, random)
        except Exception as error:
            raise AssertionError(f"{chosen}, {torch.get_num_threads()} threads, {case!r}: {error}") from error
        counts["calls"] += 1
        counts["calls with a tie"] += ties
    return counts


def draw(random: np.random.Generator) -> Case:
    """Any operands that the engine takes."""
    seed = int(random.integers(2**31))
    generator = torch.Generator().manual_seed(seed)
    small = random.random() < 0.9
    batch = int(random.integers(1, 4 if small else 2))
    height, width = (int(side) for side in random.integers(1, 70 if small else 260, 2))
    if random.random() < 0.1:
        height, width = (1, width) if random.random() < 0.5 else (height, 1)
    dtype = random.choice(np.array([torch.float32] * 6 + [torch.float16, torch.bfloat16, torch.float64], dtype=object))
    indices = list(ALL) if random.random() < 0.3 else random.permutation(ALL)[: random.integers(1, 12)].tolist()
    pred, target = depth_pair(batch, height, width, seed=seed, noise=float(random.choice([0.003, 0.05, 0.5])))
    scale = 10.0 ** random.integers(-3, 4) if dtype == torch.float32 else 1.0
    pred, target = (maps.mul(scale).to(dtype) for maps in (pred, target))
    kind = random.random()
    if kind < 0.05:
        pred = target.clone()
    elif kind < 0.1:
        pred, target = torch.full_like(pred, 2.5), torch.full_like(target, 2.0)
    elif kind < 0.2:  # whole numbers: differences are exact, and often zero
        pred, target = ((maps / scale).round() for maps in (pred, target))
    mask = None
    if random.random() < 0.6:
        share = float(random.choice([0.0, 0.02, 0.3, 0.9, 0.995, 1.0]))
        mask = torch.rand(batch, 1, height, width, generator=generator) < share
        if random.random() < 0.5:
            mask[..., height // 3 : height // 2 + 1, width // 4 : width // 2 + 1] = True
        value = float(random.choice([np.nan, np.inf, 0.0, -7.0]))
        pred, target = torch.where(mask, pred, value), torch.where(mask, target, value)
    weights = None
    if random.random() < 0.9:
        weights = torch.randn(batch, len(indices), generator=generator, dtype=torch.float64)
        weights *= torch.from_numpy(random.choice([0.0, 1.0, 1.0, 1.0], (batch, len(indices))))
        if dtype == torch.float32 and random.random() < 0.3:
            weights *= 10.0 ** random.integers(-30, 31)
        if dtype == torch.float16:
            weights *= height * width  # 1 / HW would be subnormal
        weights = weights.to(torch.float64 if dtype == torch.float64 else torch.float32)
    layout = str(random.choice(LAYOUTS))
    operands = [None if maps is None else laid_out(maps, layout) for maps in (pred, target, mask)]
    if layout == "expanded" and weights is not None:
        weights = weights[:1].expand(batch, -1)
    downsample = str(random.choice(reference.DOWNSAMPLE))
    return Case(operands[0], operands[1], weights, indices, downsample, operands[2], even=0.05 <= kind < 0.2)


def laid_out(maps: Tensor, layout: str) -> Tensor:
    """The maps with other strides; of "expanded" the first of them, repeated."""
    batch, _, height, width = maps.shape
    if layout == "sliced":
        large = maps.new_zeros(2 * batch, 1, height + 3, width + 5)
        large[::2, :, 1:-2, 2:-3] = maps
        return large[::2, :, 1:-2, 2:-3]
    if layout == "transposed":
        return maps.mT.contiguous().mT
    if layout == "every other column":
        large = maps.new_zeros(batch, 1, height, 2 * width)
        large[..., ::2] = maps
        return large[..., ::2]
    if layout == "expanded":
        return maps[:1].expand(batch, -1, -1, -1)
    return maps.squeeze(1) if layout == "3-D" else maps


def truth(case: Case, pred: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The definition in float64."""
    weights = None if case.weights is None else case.weights.double()
    maps = case.pred.double() if pred is None else pred
    return reference.multi_loss(maps, case.target.double(), weights, case.indices, case.downsample, case.mask)


def compare(case: Case, random: np.random.Generator) -> bool:
    """Fail unless the engine agrees with the definition; whether a sign near a tie went the other way."""
    values, grad, counts = op(*case[:-1])
    exact, exact_grad, exact_counts = truth(case)
    check(torch.equal(counts, exact_counts), "other counts")
    check(values.isfinite().all(), "losses are not finite")
    if case.pred.dtype == torch.float64:
        check(torch.equal(values, exact) and torch.equal(grad, exact_grad), "float64 is not the reference's")
        return False
    known = torch.ones_like(case.pred, dtype=torch.bool) if case.mask is None else case.mask.reshape(case.pred.shape)
    maps = torch.cat([case.pred[known], case.target[known], torch.zeros(1, dtype=case.pred.dtype)]).double()
    rounding = 8 * torch.finfo(torch.float32).eps * float(maps.abs().max())
    close = (values.double() - exact).abs() <= 1e-5 * exact.abs() + rounding
    check(close.all(), f"losses differ by {float((values.double() - exact).abs().max()):.3g}")
    if case.weights is None:
        check(grad.shape == (0,), "a gradient that nobody asked for")
        return False
    check(grad.shape == case.pred.shape and grad.dtype == case.pred.dtype, "shape or type of the gradient")
    check(not grad[~known].any(), "a gradient under the mask")
    check(grad.isfinite().all() or exact_grad.abs().max() > LARGEST / 4, "the gradient is not finite")
    if case.even:
        return True
    return agrees(case, grad.double().clamp(-LARGEST, LARGEST), exact_grad, random)


def agrees(case: Case, grad: Tensor, exact: Tensor, random: np.random.Generator) -> bool:
    """Fail unless the gradients agree; whether they do but for signs of differences that rounding decides."""
    # differences of half-precision maps are few and often equal
    tolerance = 1e-3 if case.pred.dtype == torch.float32 else 5e-2
    # what float32, or the half type, cannot hold
    least = torch.finfo(case.pred.dtype).smallest_normal * torch.finfo(case.pred.dtype).eps * grad[0].numel() ** 0.5

    def near(difference: Tensor, size: Tensor) -> bool:
        norms = (x.flatten(1).norm(dim=1) for x in (difference, size))
        off, whole = norms
        return bool(((off - 2 * least).clamp(min=0) <= tolerance * whole).all())

    held = exact.clamp(-LARGEST, LARGEST)
    if near(grad - held, held):
        return False
    generator = torch.Generator().manual_seed(int(random.integers(2**31)))
    pred = case.pred.double()
    low, high = held.clone(), held.clone()
    for _ in range(12):
        moved = pred * (1 + 1e-6 * torch.randn(pred.shape, generator=generator, dtype=torch.float64))
        other = truth(case, moved)[1].clamp(-LARGEST, LARGEST)
        low, high = torch.minimum(low, other), torch.maximum(high, other)
    outside = (grad - high).clamp(min=0) + (low - grad).clamp(min=0)
    error = float((grad - held).norm() / held.norm())
    check(near(outside, held), f"the gradient differs by {error:.3g} of its size, and ties do not explain it")
    return True


CAMPAIGN = Campaign(
    "engine",
    "The C++ engine on random shapes, types, strides, masks, weights, selections and instruction sets, both pyramids. "
    "Its outputs start as NaN, and NaN or infinity stands under the mask. Losses, counts and gradient are the "
    "reference's in float64.",
    trial,
    share=3,
    prepare=prepare,
    missing=missing,
)
