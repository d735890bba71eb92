# SPDX-License-Identifier: Apache-2.0
"""Which cases are measured: the main ones with every implementation, and sweeps of one property with the fast ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import machine
import torch
from implementations import Case, Implementation

#: Sets of 1, 4, 13, 39 and 78 losses, and the other 39.
LOSS_SETS: tuple[str, ...] = ("baseline", "eigen-fergus", "scale-0", "coarse", "fine", "all")
QUICK_LOSS_SETS: tuple[str, ...] = ("baseline", "scale-0", "all")
SIZES: tuple[tuple[int, int], ...] = (  # up to full HD; KITTI's odd size among them
    (96, 128),
    (192, 256),
    (288, 384),
    (480, 640),
    (375, 1242),
    (720, 1280),
    (1080, 1920),
)
QUICK_SIZES: tuple[tuple[int, int], ...] = (  # up to full HD; KITTI's odd size among them
    (96, 128),
    (288, 384),
    (720, 1280),
)
DTYPES: tuple[str, ...] = ("float32", "bfloat16", "float16")

#: Masks and the pyramid that suits them, each pyramid first without a mask.
MASKED: tuple[tuple[str, str], ...] = (
    ("none", "bicubic"), ("ones", "bicubic"), ("kinect", "bicubic"), ("none", "area"), ("lidar", "area"),
)  # fmt: skip

SWEEPS: dict[str, str] = {
    "size": "time against pixels",
    "losses": "time against the number of losses",
    "threads": "1 to all cores (CPU)",
    "dtype": "float32, bfloat16, float16",
    "batch": "images at a time",
    "cold": "inputs out of the cache",
    "terms": "the losses without their gradient",
    "mask": "depth with holes",
}

#: Plain PyTorch keeps every intermediate map of every loss for its backward pass: above this it is left out.
PLAIN_PIXELS = {"cpu": 4_000_000, "cuda": 40_000_000}


def main_cases(base: Case) -> list[Case]:
    """The case of the paper, and one image alone."""
    return [base] if base.batch == 1 else [base, replace(base, batch=1)]


def sweep_cases(name: str, base: Case, quick: bool) -> Iterator[Case]:
    """Cases of a sweep around a base case."""
    base = replace(base, sweep=name)
    if name == "size":
        batch = 1 if base.device == "cpu" else base.batch
        for height, width in QUICK_SIZES if quick else SIZES:
            yield replace(base, batch=batch, height=height, width=width)
        cache = machine.last_level_cache()
        beyond = replace(base, batch=batch, height=SIZES[-1][0], width=SIZES[-1][1])
        if base.device == "cpu" and not quick and beyond.bytes < 2 * cache:
            # maps that no cache of this machine holds
            yield replace(beyond, batch=-(-2 * cache // beyond.bytes))
    elif name == "losses":
        for losses in QUICK_LOSS_SETS if quick else LOSS_SETS:
            yield replace(base, losses=losses)
    elif name == "threads":
        for batch in (base.batch,) if quick or base.batch == 1 else (base.batch, 1):
            for threads in _powers(base.threads) if base.device == "cpu" else ():
                yield replace(base, batch=batch, threads=threads)
    elif name == "dtype":
        for dtype in DTYPES:
            yield replace(base, dtype=dtype)
    elif name == "batch":
        for batch in (2, 4, 16) if base.device == "cpu" else (2, 4, 16, 32, 64):
            yield replace(base, batch=batch)
    elif name == "cold" and base.device == "cpu":  # GPU cases always are
        yield replace(base, sets=max(2, -(-2 * machine.last_level_cache() // base.bytes) + 1))
    elif name == "terms":
        yield replace(base, gradient=False)
    elif name == "mask":
        for mask, downsample in MASKED:
            yield replace(base, mask=mask, downsample=downsample)


def _powers(largest: int) -> list[int]:
    counts = [2**i for i in range(largest.bit_length()) if 2**i <= largest]
    return counts if counts[-1] == largest else [*counts, largest]


def takes_part(implementation: Implementation, case: Case) -> bool:
    """Whether a implementation is worth its time in a case."""
    if case.sweep == "main":
        return implementation.name != "compile" or case.batch > 1  # one compilation of minutes is enough
    if implementation.slow:
        return False
    plain = implementation.name in ("eager", "doubling")
    if plain and case.pixels > PLAIN_PIXELS[case.device]:
        return False
    return not (plain and case.sweep in ("dtype", "batch", "cold"))


def devices(wanted: str) -> Sequence[str]:
    """Devices to measure on.

    Raises:
        ValueError: a GPU is asked for and PyTorch sees none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch sees no GPU here; --device cpu measures the C++ engine")
    if wanted != "all":
        return (wanted,)
    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
