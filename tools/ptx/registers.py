# SPDX-License-Identifier: Apache-2.0
"""The register file of a warp: names, scopes, constants, and where each of them lies.

    special registers | registers | predicates | constants

A register of b bits takes 32 lanes of max(b, 16) bits, a predicate one word of 32 bits. Constants are registers that
hold the same value in every lane, filled in once. Registers are never shared: the file is as large as there are names.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ptx.dtypes import PtxError, bits_of

LANES = 32
#: 32-bit special registers in the order of machine.cpp.
_SPECIAL_NAMES = ["%tid", "%laneid", "%warpid", "%ctaid", "%nctaid", "%ntid"]
SPECIAL = {
    name: number
    for number, name in enumerate(
        f"{family}{axis}"
        for family in _SPECIAL_NAMES
        for axis in ([""] if family in ("%laneid", "%warpid") else [".x", ".y", ".z"])
    )
}
_RANGE = re.compile(r"(.*)<(\d+)>$")
_INTEGER = re.compile(r"-?(0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)U?$")


class Operand(NamedTuple):
    """A place in the register file, before the file is laid out."""

    area: str  # "special", "register", "predicate", "constant" or "none"
    number: int  # byte offset, or which predicate or constant it is


NO_OPERAND = Operand("none", 0)


class Name(NamedTuple):
    """A declared register: its width, and the number of its declaration (inner scopes may use a name again)."""

    bits: int
    declaration: int


@dataclass
class Layout:
    """Offsets of everything in the register file, and the content of its constants."""

    bytes: int
    constant_offset: int
    constants: npt.NDArray[np.uint8]
    predicate_offset: int
    constant_offsets: list[int]

    def offset(self, operand: Operand) -> int:
        """Byte offset of an operand; all ones for none."""
        if operand.area == "none":
            return 0xFFFFFFFF
        if operand.area == "predicate":
            return self.predicate_offset + 4 * operand.number
        return self.constant_offsets[operand.number] if operand.area == "constant" else operand.number


@dataclass
class Registers:
    """Registers of a kernel as its statements declare them."""

    scopes: list[dict[str, Name]] = field(default_factory=list)
    _declarations: int = 0
    _places: dict[tuple[str, int], Operand] = field(default_factory=dict)
    _bytes: int = len(SPECIAL) * LANES * 4
    _predicates: int = 0
    _constants: dict[tuple[int, int], int] = field(default_factory=dict)

    def declare(self, operands: tuple[str, ...]) -> None:
        """Take in ``.reg .b32 %r<9>`` or ``.reg .b32 a, b``."""
        ptx_type, first = operands[0].split(" ", 1)
        for name in (first, *operands[1:]):
            self._declarations += 1
            family = _RANGE.match(name)
            # a family %r<9> is kept under its prefix
            key = f"{family[1]}<>" if family else name
            self.scopes[-1][key] = Name(bits_of(ptx_type.lstrip(".")), self._declarations)

    def find(self, name: str) -> Name | None:
        """The register of some name that is visible here."""
        family = name.rstrip("0123456789") + "<>"
        for scope in reversed(self.scopes):
            for key in (name, family):
                if key in scope:
                    return scope[key]
        return None

    def place(self, name: str, bits: int | None = None) -> Operand:
        """Where a register is; ``_`` is one that nobody reads.

        Raises:
            PtxError: if there is no such register, or it does not have ``bits`` bits.
        """
        if name == "_":
            return self._place(("_", bits or 0), bits or 32)
        found = self.find(name)
        if found is None:
            raise PtxError(f"unknown register {name}")
        if bits is not None and found.bits != bits:
            raise PtxError(f"register {name} has {found.bits} bits, the instruction wants {bits}")
        return self._place((name, found.declaration), found.bits)

    def _place(self, key: tuple[str, int], bits: int) -> Operand:
        if key not in self._places:
            if bits == 1:
                self._places[key] = Operand("predicate", self._predicates)
                self._predicates += 1
            else:
                self._places[key] = Operand("register", self._bytes)
                self._bytes += max(bits, 16) // 8 * LANES
        return self._places[key]

    def temporary(self, bits: int) -> Operand:
        """A register of no name."""
        self._declarations += 1
        return self._place(("", self._declarations), bits)

    def constant(self, value: int, bits: int) -> Operand:
        """A constant in every lane; a predicate for one bit."""
        key = (value % (1 << bits), bits)
        return Operand("constant", self._constants.setdefault(key, len(self._constants)))

    def source(self, text: str, bits: int, symbols: Mapping[str, int]) -> Operand:
        """An operand that is read: a register, a special register, a number, or the address of a variable."""
        if text in SPECIAL:
            if bits != 32:
                raise PtxError(f"{text} is read with {bits} bits")
            return Operand("special", SPECIAL[text] * LANES * 4)
        number = immediate(text, bits)
        if number is not None:
            return self.constant(number, bits)
        if text in symbols:
            return self.constant(symbols[text], bits)
        return self.place(text, bits)

    def layout(self) -> Layout:
        """Lay out the file; nothing may be added afterwards."""
        predicates = -(-self._bytes // 64) * 64
        start = -(-(predicates + 4 * self._predicates) // 64) * 64
        offsets, content, size = [0] * len(self._constants), bytearray(), 0
        # wide ones first keeps all of them aligned
        for (value, bits), index in sorted(self._constants.items(), key=lambda item: -item[0][1]):
            offsets[index] = start + size
            lanes = (
                (b"\xff\xff\xff\xff" if value else bytes(4))
                if bits == 1
                else value.to_bytes(bits // 8, "little") * LANES
            )
            content += lanes
            size += len(lanes)
        return Layout(start + size, start, np.frombuffer(bytes(content), np.uint8), predicates, offsets)


def immediate(text: str, bits: int) -> int | None:
    """The bits of a number in PTX: decimal, 0x.., 0b.., 0f and 0d for the bits of a float; None if it is no number."""
    if re.match(r"0[fF][0-9a-fA-F]{8}$", text):
        value = int(text[2:], 16)
        if bits != 64:
            return value
        (single,) = struct.unpack("<f", value.to_bytes(4, "little"))
        return int(struct.unpack("<Q", struct.pack("<d", single))[0])
    if re.match(r"0[dD][0-9a-fA-F]{16}$", text):
        value = int(text[2:], 16)
        if bits == 64:
            return value
        (double,) = struct.unpack("<d", value.to_bytes(8, "little"))
        return int(struct.unpack("<I", struct.pack("<f", double))[0])
    if not _INTEGER.match(text):
        return None
    digits = text.rstrip("U").lstrip("-")
    value = int(digits, 8) if re.match(r"0[0-7]+$", digits) else int(digits, 0)
    return -value if text.startswith("-") else value
