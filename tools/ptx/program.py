# SPDX-License-Identifier: Apache-2.0
"""A kernel translated for the machine: bytecode, and the C++ body of the handler of each operation in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ptx.dtypes import PtxError
from ptx.parser import Entry, Parameter, Statement, Variable, parse
from ptx.registers import NO_OPERAND, Operand, Registers

#: Instruction of machine.h.
INSTRUCTION = np.dtype(
    [("op", "u4"), ("predicate", "u4"), ("negate", "u4"), ("members", "u4"), ("x", "u4", (10,)), ("imm", "i8")]
)
#: Operations of the machine itself, in the order of Control in machine.h; every other operation is a C++ body.
CONTROL = ("NOTHING", "JOIN", "BRANCH", "RETURN", "BARRIER", "TRAP")

ALL = 0xFFFFFFFF


@dataclass
class Program:
    """A translated kernel.

    Attributes:
        name: of the kernel.
        code: bytecode; ``op`` counts ``CONTROL`` first and ``bodies`` after it.
        bodies: C++ bodies of the handlers.
        statements: where each instruction of the code comes from.
        parameters: of the kernel.
        register_bytes: size of a warp's register file.
        constant_offset: where the constants start in it.
        constants: their content.
        tables: constant variables of the module, which the kernel may read.
        static_shared: bytes of shared memory that the kernel declares itself.
    """

    name: str
    code: npt.NDArray[np.void]
    bodies: list[str]
    statements: list[Statement]
    parameters: list[Parameter]
    register_bytes: int
    constant_offset: int
    constants: npt.NDArray[np.uint8]
    tables: list[npt.NDArray[np.uint8]]
    static_shared: int

    @property
    def parameter_bytes(self) -> int:
        """Size of the parameter buffer."""
        last = self.parameters[-1] if self.parameters else Parameter("", 0, 0)
        return last.offset + last.size


class Builder:
    """Collects the instructions of a kernel; ``instructions.translate`` calls it, statement by statement."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.registers = Registers()
        self.parameters = {p.name: p for p in entry.parameters}
        self.tables: list[npt.NDArray[np.uint8]] = []
        self.static_shared = 0
        self.symbols = {v.name: self._allocate(v) for v in entry.variables}
        self.statement = Statement("")
        self._true = self.registers.constant(1, 1)
        self._bodies: dict[str, int] = {}
        self._labels: dict[str, int] = {}
        self._code: list[tuple[int, Operand, int, Operand, Sequence[Operand], int | str]] = []
        self._statements: list[Statement] = []

    def _allocate(self, variable: Variable) -> int:
        """The address of a variable: of the host, or in shared memory (``.extern`` ones start it)."""
        if variable.space == "shared":
            self.static_shared = -(-self.static_shared // variable.align) * variable.align
            address = self.static_shared
            self.static_shared += variable.size
            return address
        table = np.zeros(variable.size + variable.align, np.uint8)
        start = -table.ctypes.data % variable.align
        table = table[start : start + variable.size]
        table[: len(variable.content)] = np.frombuffer(variable.content, np.uint8)
        self.tables.append(table)
        return table.ctypes.data

    def source(self, text: str, bits: int) -> Operand:
        """An operand that is read."""
        return self.registers.source(text, bits, self.symbols)

    def label(self, name: str) -> None:
        """A place that branches go to."""
        self._labels[name] = len(self._code)
        self.emit("JOIN")

    def emit(
        self,
        operation: str,
        operands: Sequence[Operand] = (),
        imm: int | str = 0,
        members: Operand = NO_OPERAND,
    ) -> None:
        """Add an instruction: one of ``CONTROL`` or the C++ body of its handler; ``imm`` may be a label."""
        if operation in CONTROL:
            op = CONTROL.index(operation)
        else:
            op = len(CONTROL) + self._bodies.setdefault(operation, len(self._bodies))
        guard = self.registers.place(self.statement.guard, 1) if self.statement.guard else self._true
        self._code.append((op, guard, ALL if self.statement.negated else 0, members, operands, imm))
        self._statements.append(self.statement)

    def finish(self) -> Program:
        """Lay out the registers and resolve the labels."""
        self.statement = Statement("ret", text="end of the kernel")
        self.emit("RETURN")
        layout = self.registers.layout()
        code = np.zeros(len(self._code), INSTRUCTION)
        for at, (op, guard, negate, members, operands, imm) in zip(code, self._code, strict=True):
            at["op"], at["predicate"], at["negate"] = op, layout.offset(guard), negate
            at["members"] = layout.offset(members)
            at["x"][: len(operands)] = [layout.offset(operand) for operand in operands]
            at["imm"] = self._labels[imm] if isinstance(imm, str) else imm
        return Program(
            name=self.entry.name,
            code=code,
            bodies=list(self._bodies),
            statements=self._statements,
            parameters=self.entry.parameters,
            register_bytes=layout.bytes,
            constant_offset=layout.constant_offset,
            constants=layout.constants,
            tables=self.tables,
            static_shared=self.static_shared,
        )


def translate(text: str, name: str) -> Program:
    """Translate the kernel ``name`` of a PTX module.

    Raises:
        PtxError: for anything the machine does not know, with kernel, PTX line and text.
    """
    from ptx.instructions import instruction

    entry = parse(text, name)
    targets = entry.targets
    builder = Builder(entry)
    scopes: dict[str, Callable[[], object]] = {
        "{": lambda: builder.registers.scopes.append({}),
        "}": builder.registers.scopes.pop,
    }
    for statement in entry.statements:
        if statement.opcode in scopes:
            scopes[statement.opcode]()
            continue
        builder.statement = statement
        try:
            if statement.opcode == ".reg":
                builder.registers.declare(statement.operands)
            elif statement.opcode == "label":
                if statement.operands[0] in targets:
                    builder.label(statement.operands[0])
            else:
                instruction(builder, statement)
        except (PtxError, KeyError, ValueError, IndexError) as error:
            raise PtxError(f'{name}, PTX line {statement.line}: cannot run "{statement.text}": {error}') from error
    return builder.finish()
