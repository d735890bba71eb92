# SPDX-License-Identifier: Apache-2.0
"""What checks find, in words: the fault, the instruction, the program and the element of the tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor


class Kind(IntEnum):
    """Faults, in the order of Kind in machine.h."""

    READ_OUTSIDE = 0
    WRITE_OUTSIDE = 1
    READ_UNWRITTEN = 2
    WRITE_WRITE = 3
    READ_AFTER_WRITE = 4
    WRITE_AFTER_READ = 5
    WARP_RACE = 6
    READ_ONLY = 7
    MISALIGNED = 8
    SHARED_OUTSIDE = 9
    SHARED_UNWRITTEN = 10
    SHARED_RACE = 11
    DIVERGENT = 12
    BUDGET = 13
    DEADLOCK = 14
    ASSERTION = 15


_WORDS = {
    Kind.READ_OUTSIDE: "read out of bounds",
    Kind.WRITE_OUTSIDE: "write out of bounds",
    Kind.READ_UNWRITTEN: "read of memory that nobody wrote",
    Kind.WRITE_WRITE: "write to what program {other} wrote in the same launch",
    Kind.READ_AFTER_WRITE: "read of what program {other} wrote in the same launch",
    Kind.WRITE_AFTER_READ: "write to what program {other} read in the same launch",
    Kind.WARP_RACE: "race with warp {other} of the program, no barrier in between",
    Kind.READ_ONLY: "write to a constant table",
    Kind.MISALIGNED: "misaligned access",
    Kind.SHARED_OUTSIDE: "access outside the {other} bytes of shared memory",
    Kind.SHARED_UNWRITTEN: "read of shared memory that nobody wrote",
    Kind.SHARED_RACE: "race in shared memory with warp {other}, no barrier in between",
    Kind.DIVERGENT: "lanes that a .sync instruction waits for never come",
    Kind.BUDGET: "endless loop: the budget of instructions is used up",
    Kind.DEADLOCK: "deadlock: not all warps reach the barrier",
    Kind.ASSERTION: "device assertion failed",
}
_SHARED = {Kind.SHARED_OUTSIDE, Kind.SHARED_UNWRITTEN, Kind.SHARED_RACE}
_NOWHERE = {Kind.DIVERGENT, Kind.BUDGET, Kind.DEADLOCK, Kind.ASSERTION}


@dataclass(frozen=True)
class Finding:
    """One fault at one instruction; ``count`` is how often it happened, the rest describes the first time.

    Attributes:
        kind: of fault.
        kernel: its name.
        source: line of the Triton source, "file.py:12".
        line: line of the PTX.
        text: the PTX instruction.
        program: position in the grid.
        warp: number in the program.
        lane: number in the warp.
        size: bytes of the access.
        where: element of a tensor or offset in shared memory; empty where no memory is concerned.
        other: the other program or warp, where there is one.
        count: occurrences.
    """

    kind: Kind
    kernel: str
    source: str
    line: int
    text: str
    program: tuple[int, int, int]
    warp: int
    lane: int
    size: int
    where: str
    other: int
    count: int

    def __str__(self) -> str:
        access = f", {self.size} bytes at {self.where}" if self.where else ""
        return (
            f"{_WORDS[self.kind].format(other=self.other)}: {self.kernel}, {self.source}, program {self.program}, "
            f'warp {self.warp}, lane {self.lane}{access} ({self.count} times; PTX line {self.line}: "{self.text}")'
        )


class PtxFault(RuntimeError):
    """A kernel did something wrong.

    Attributes:
        findings: every fault of the launch, in order of appearance.
    """

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = list(findings)
        lines = [f"{len(findings)} faulty instructions", *map(str, findings[:20])]
        super().__init__("\n".join(lines) if len(findings) != 1 else str(findings[0]))

    @property
    def kinds(self) -> set[Kind]:
        """Kinds of faults that were found."""
        return {finding.kind for finding in self.findings}


def place(kind: Kind, address: int, tensors: Sequence[tuple[str, Tensor]]) -> str:
    """Where a fault is: "grad[517] = grad[0, 3, 5]", the nearest tensor for addresses outside all of them."""
    if kind in _NOWHERE:
        return ""
    if kind in _SHARED:
        return f"byte {address} of shared memory"
    filled = [(name, t) for name, t in tensors if t.numel()]
    if not filled:
        return hex(address)

    def distance(tensor: Tensor) -> int:
        size = tensor.numel() * tensor.element_size() if tensor.is_contiguous() else 0
        return max(tensor.data_ptr() - address, address - tensor.data_ptr() - max(size - 1, 0), 0)

    name, tensor = min(filled, key=lambda item: distance(item[1]))
    element, rest = divmod(address - tensor.data_ptr(), tensor.element_size())
    where = f"{name}[{element}]" + (f" + {rest} bytes" if rest else "")
    if not 0 <= element < tensor.numel():
        return f"{where}, outside its {tensor.numel()} elements"
    if tensor.is_contiguous() and tensor.ndim > 1:
        index = torch.unravel_index(torch.tensor(element), tensor.shape)
        where += f" = {name}[{', '.join(str(int(i)) for i in index)}]"
    return where
