# SPDX-License-Identifier: Apache-2.0
"""What launches executed: instructions by class, and memory traffic in 32-byte sectors."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ptx.program import Program

#: Classes of instructions: the first pattern that an opcode starts with decides.
_CLASSES = [
    (name, re.compile(pattern))
    for name, pattern in [
        ("load global", r"ld\.(global|const)"),
        ("store global", r"st\.global"),
        ("load shared", r"ld\.shared|ldmatrix"),
        ("store shared", r"st\.shared|stmatrix"),
        ("parameter", r"ld\.param"),
        ("shuffle", r"shfl"),
        ("vote", r"redux|vote"),
        ("barrier", r"bar|barrier"),
        ("branch", r"bra|ret|exit|call|trap"),
        ("special function", r"(rsqrt|rcp|ex2|lg2|sin|cos|tanh|sqrt)\."),
        ("float division", r"div\..*f(32|64)$"),
        ("integer division", r"div|rem"),
        ("conversion", r"cvt\."),
        ("move", r"mov|cvta"),
        ("compare", r"setp"),
        ("select", r"selp"),
        ("predicate logic", r"\w+\.pred"),
        ("fma", r"fma"),
        ("float64", r".*\.f64$"),
        ("float", r".*\.b?f(32|16|16x2)$"),
        ("integer 64", r".*64$|(mul|mad)\.wide\.[us]32"),
        ("integer", r""),
    ]
]


def instruction_class(opcode: str) -> str:
    """Class of an opcode in ``Counts.warp_instructions``."""
    return next(name for name, pattern in _CLASSES if pattern.match(opcode))


@dataclass
class Traffic:
    """Global memory accesses of one direction.

    Attributes:
        requests: memory instructions of warps.
        bytes: that lanes asked for, once per lane.
        sectors: distinct 32-byte sectors of each request, added up: what the L1 cache is asked for.
        lines: distinct 128-byte lines of each request, added up.
        program_sectors: distinct sectors of each program, added up: what the L2 cache is asked for if each program's L1
            were perfect.
        launch_sectors: distinct sectors of each launch, added up: what memory is asked for if the L2 were perfect.
    """

    requests: int = 0
    bytes: int = 0
    sectors: int = 0
    lines: int = 0
    program_sectors: int = 0
    launch_sectors: int = 0


@dataclass
class Counts:
    """What the launches of one kernel executed.

    Attributes:
        launches: of the kernel.
        programs: of all of them.
        warp_instructions: by class, one for each instruction of each warp.
        lane_instructions: active lanes of each instruction, by class.
        reads: global loads.
        writes: global stores.
        shared_requests: accesses of warps to shared memory.
        shared_passes: passes through its banks.
        shared_passes_ideal: passes if no two lanes ever needed the same bank.
    """

    launches: int = 0
    programs: int = 0
    warp_instructions: Counter[str] = field(default_factory=Counter)
    lane_instructions: Counter[str] = field(default_factory=Counter)
    reads: Traffic = field(default_factory=Traffic)
    writes: Traffic = field(default_factory=Traffic)
    shared_requests: int = 0
    shared_passes: int = 0
    shared_passes_ideal: int = 0


#: By the name of the kernel; ``counts.clear()`` starts anew.
counts: dict[str, Counts] = {}


def add_counts(
    program: Program,
    programs: int,
    executions: npt.NDArray[np.uint64],
    lanes: npt.NDArray[np.uint64],
    traffic: npt.NDArray[np.uint64],
    sectors: npt.NDArray[np.uint64],
) -> None:
    """Add the numbers of a launch, per instruction as machine.h describes them."""
    total = counts.setdefault(program.name, Counts())
    total.launches += 1
    total.programs += programs
    by_class: dict[str, list[int]] = {}
    for pc, statement in enumerate(program.statements):
        if statement.opcode != "label":
            by_class.setdefault(instruction_class(statement.opcode), []).append(pc)
    for name, where in by_class.items():
        total.warp_instructions[name] += int(executions[where].sum())
        total.lane_instructions[name] += int(lanes[where].sum())
    for direction, name in enumerate(("load global", "store global")):
        side = total.writes if direction else total.reads
        requests, distinct, size, _, _, lines = (int(n) for n in traffic[by_class.get(name, [])].sum(0))
        side.requests += requests
        side.bytes += size
        side.sectors += distinct
        side.lines += lines
        side.program_sectors += int(sectors[direction])
        side.launch_sectors += int(sectors[2 + direction])
    shared = traffic[by_class.get("load shared", []) + by_class.get("store shared", [])].sum(0)
    total.shared_requests += int(shared[0])
    total.shared_passes_ideal += int(shared[3])
    total.shared_passes += int(shared[4])
