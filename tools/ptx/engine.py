# SPDX-License-Identifier: Apache-2.0
"""Runs a translated kernel on the machine: parameters, checked copies of the tensors, findings and counts."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ptx import build
from ptx.counts import add_counts
from ptx.dtypes import PtxError
from ptx.findings import Finding, Kind, PtxFault, place
from ptx.program import CONTROL, INSTRUCTION, Program, translate
from ptx.settings import settings
from ptx.shadow import SECTOR, Shadow, extent, shadow_of

_MAX_FINDINGS = 1024
_CHECK, _COUNT = 1, 2
#: The structs of machine.h.
_REGION = np.dtype(
    [(name, "u8") for name in ("base", "size", "written", "writer", "reader")]
    + [(name, "u8") for name in ("sector_reader", "sector_writer", "read_only")]
)
_FINDING = np.dtype(
    {
        "names": ["kind", "pc", "program", "warp", "lane", "size", "address", "other", "count"],
        "formats": ["u4", "u4", ("u4", (3,)), "u4", "u4", "u4", "u8", "u8", "u8"],
    }
)
_LAUNCH = """
    code handlers length checks regions region_count register_bytes constant_offset constants constant_bytes parameters
    shared_bytes grid warps first_tag budget jitter order threads executions lanes traffic sectors
    findings finding_capacity finding_count finding_index executed failed recent_region
"""


class _Launch(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64 * 3 if name == "grid" else ctypes.c_uint64) for name in _LAUNCH.split()]


@functools.cache
def _machine() -> ctypes.CDLL:
    machine = build.machine()
    machine.struct_size.restype = ctypes.c_uint64
    sizes = [INSTRUCTION.itemsize, _REGION.itemsize, _FINDING.itemsize, ctypes.sizeof(_Launch)]
    if sizes != [machine.struct_size(which) for which in range(len(sizes))]:
        raise PtxError("the structs of engine.py and machine.h differ")
    return machine


@functools.lru_cache(maxsize=256)
def _prepared(ptx: str, name: str) -> tuple[Program, npt.NDArray[np.uint64]]:
    """A kernel and the table of its handlers, indexed by ``op``."""
    program = translate(ptx, name)
    return program, np.array([0] * len(CONTROL) + build.handlers(program.bodies), np.uint64)


_next_tag = 1


@dataclass
class _Copy:
    """A stretch of memory with tensors in it, and the copy that a checked launch works on."""

    start: int
    end: int
    shadow: Shadow
    base: int = 0

    def moved(self, address: int) -> int:
        return address - self.start + self.base


class _Arena:
    """Copies of all tensors of a launch, far from each other, so that what runs over lands in no tensor."""

    def __init__(self, tensors: Sequence[tuple[str, Tensor]]) -> None:
        self.copies: list[_Copy] = []
        for (start, end), tensor in sorted(((extent(t), t) for _, t in tensors if t.numel()), key=lambda item: item[0]):
            last = self.copies[-1] if self.copies else None
            if last and start < last.end:  # views of one storage
                last.end = max(last.end, end)
            else:
                self.copies.append(_Copy(start, end, shadow_of(tensor)))
        zone = settings.red_zone
        self._memory = np.empty(sum(c.end - c.start + 2 * zone + 512 for c in self.copies) + zone, np.uint8)
        free = self._memory.ctypes.data + zone
        for copy in self.copies:
            copy.base = -(-free // 256) * 256 + copy.start % 256  # alignment is kept
            ctypes.memmove(copy.base, copy.start, copy.end - copy.start)
            free = copy.base + copy.end - copy.start + zone

    def address(self, tensor: Tensor) -> int:
        """Where a tensor is now; an empty one is in the first red zone."""
        original = tensor.data_ptr()
        if self.copies and tensor.numel() == 0:
            return int(self._memory.ctypes.data)
        return next((c.moved(original) for c in self.copies if c.start <= original < c.end), original)

    def original(self, address: int) -> int:
        """Where an address of the arena would have been; in a red zone, near the closest tensor."""
        zone = settings.red_zone
        near = (c for c in self.copies if c.base - zone // 2 <= address < c.base + c.end - c.start + zone // 2)
        return next((address - c.base + c.start for c in near), address)

    def regions(self, program: Program, keep: list[Any]) -> npt.NDArray[np.void]:
        """Regions of machine.h; ``keep`` takes what has to outlive the launch."""
        rows = []
        for copy in self.copies:
            shadow, offset = copy.shadow, copy.start - copy.shadow.start
            shadow.prepare(settings.check, settings.count)
            sector = copy.start // SECTOR - shadow.start // SECTOR
            tags = [row.ctypes.data + 8 * offset for row in shadow.tags] if shadow.tags is not None else [0, 0]
            sectors = [row.ctypes.data + 4 * sector for row in shadow.sectors] if shadow.sectors is not None else [0, 0]
            written = shadow.written.ctypes.data + offset
            rows.append((copy.base, copy.end - copy.start, written, *tags, *sectors, 0))
        for table in program.tables:
            shadows = (
                np.ones(table.size, np.uint8),
                np.zeros((2, table.size), np.uint64),
                np.zeros((2, table.size // SECTOR + 2), np.uint32),
            )
            keep.append(shadows)
            addresses = [row.ctypes.data for part in shadows[1:] for row in part]
            rows.append((table.ctypes.data, table.size, shadows[0].ctypes.data, *addresses, 1))
        return np.array(sorted(rows), _REGION)

    def copy_back(self) -> None:
        """Bring the results to the tensors."""
        for copy in self.copies:
            ctypes.memmove(copy.start, copy.base, copy.end - copy.start)


def launch(
    ptx: str,
    name: str,
    grid: Sequence[int],
    arguments: Sequence[Tensor | int | float | bytes],
    *,
    names: Sequence[str] = (),
    num_warps: int = 4,
    shared: int = 0,
) -> int:
    """Run a kernel on CPU tensors.

    Args:
        ptx: text of the module.
        name: of the kernel.
        grid: programs along up to three axes.
        arguments: one for each PTX parameter; tensors pass their address.
        names: of the arguments, for findings.
        num_warps: warps of a program.
        shared: bytes of dynamic shared memory.

    Returns:
        Executed warp instructions.

    Raises:
        PtxError: if the PTX cannot be run.
        PtxFault: if the kernel does something wrong.
    """
    global _next_tag
    program, handlers = _prepared(ptx, name)
    if len(arguments) != len(program.parameters):
        raise PtxError(f"{name} has {len(program.parameters)} parameters, got {len(arguments)} arguments")
    named = list(names) + [f"argument {i}" for i in range(len(names), len(arguments))]
    tensors = [(n, a) for n, a in zip(named, arguments, strict=True) if isinstance(a, Tensor)]
    watched = settings.check or settings.count
    arena = _Arena(tensors if watched else [])
    keep: list[Any] = []
    regions = arena.regions(program, keep) if watched else np.zeros(0, _REGION)
    parameters = _parameter_buffer(program, arguments, arena)
    size, x = len(program.code), [*map(int, grid), 1, 1]
    programs = x[0] * x[1] * x[2]
    executions, lanes, sectors = np.zeros(size, np.uint64), np.zeros(size, np.uint64), np.zeros(4, np.uint64)
    traffic = np.zeros((size, 6), np.uint64)
    found, index = np.zeros(_MAX_FINDINGS, _FINDING), np.zeros((len(Kind), size), np.uint32)
    run = _Launch(
        code=program.code.ctypes.data, handlers=handlers.ctypes.data, length=size,
        checks=_CHECK * settings.check | _COUNT * settings.count,
        regions=regions.ctypes.data, region_count=len(regions),
        register_bytes=program.register_bytes, constant_offset=program.constant_offset,
        constants=program.constants.ctypes.data, constant_bytes=program.constants.size,
        parameters=parameters.ctypes.data, shared_bytes=max(shared, program.static_shared),
        grid=(ctypes.c_uint64 * 3)(*x[:3]), warps=num_warps, first_tag=_next_tag, budget=settings.budget,
        jitter=settings.jitter, order=settings.order, threads=settings.threads,
        executions=executions.ctypes.data, lanes=lanes.ctypes.data, traffic=traffic.ctypes.data,
        sectors=sectors.ctypes.data, findings=found.ctypes.data, finding_capacity=_MAX_FINDINGS,
        finding_index=index.ctypes.data,
    )  # fmt: skip
    _next_tag += programs + 1
    _machine().run_launch(ctypes.byref(run))
    arena.copy_back()
    if settings.count:
        add_counts(program, programs, executions, lanes, traffic, sectors)
    if run.finding_count:
        raise PtxFault([_finding(program, row, arena, tensors) for row in found[: run.finding_count]])
    return int(run.executed)


def _parameter_buffer(
    program: Program, arguments: Sequence[Tensor | int | float | bytes], arena: _Arena
) -> npt.NDArray[np.uint8]:
    buffer = np.zeros(program.parameter_bytes + 8, np.uint8)
    for parameter, value in zip(program.parameters, arguments, strict=True):
        size = parameter.size
        if isinstance(value, Tensor):
            content = arena.address(value).to_bytes(8, "little")
        elif isinstance(value, float):
            content = np.array(value, f"f{size}").tobytes()
        elif isinstance(value, bytes):
            content = value
        else:
            content = (int(value) % (1 << 8 * size)).to_bytes(size, "little")
        if len(content) != size:
            raise PtxError(f"parameter {parameter.name} has {size} bytes, its argument {len(content)}")
        buffer[parameter.offset : parameter.offset + size] = np.frombuffer(content, np.uint8)
    return buffer


def _finding(program: Program, row: np.void, arena: _Arena, tensors: Sequence[tuple[str, Tensor]]) -> Finding:
    statement, kind = program.statements[int(row["pc"])], Kind(int(row["kind"]))
    x, y, z = (int(i) for i in row["program"])
    return Finding(
        kind=kind, kernel=program.name, source=statement.source, line=statement.line, text=statement.text,
        program=(x, y, z), warp=int(row["warp"]), lane=int(row["lane"]), size=int(row["size"]),
        where=place(kind, arena.original(int(row["address"])), tensors), other=int(row["other"]),
        count=int(row["count"]),
    )  # fmt: skip
