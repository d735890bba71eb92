# SPDX-License-Identifier: Apache-2.0
"""The text of a PTX module, cut into statements of one kernel. Nothing is known here of what instructions mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePath

from ptx.dtypes import PtxError, bits_of

_FILE = re.compile(r'^\s*\.file\s+(\d+)\s+"([^"]*)"(?:\s+"([^"]*)")?', re.MULTILINE)
_LOCATION = re.compile(r"\.loc\s+(\d+)\s+(\d+)\s")
_PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+(?:\.ptr\S*\s+(?:\.\S+\s+|\d+\s+)*)?([\w$]+)(?:\[(\d+)\])?"
)
_VARIABLE = re.compile(
    r"^\s*(?:\.(?:visible|extern|weak)\s+)*\.(global|const|shared)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)"
    r"(?:\[(\d*)\])?\s*(?:=\s*\{([^}]*)\})?\s*;",
    re.MULTILINE,
)
_LABEL = re.compile(r"([\w$]+)\s*:(?!:)")
_GUARDED = re.compile(r"@(!?)([%\w$]+)\s+(.*)", re.DOTALL)


@dataclass(frozen=True)
class Parameter:
    """A kernel parameter and its place in the parameter buffer, in bytes."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Variable:
    """A variable of the module: its space, its size in bytes and its initial content."""

    name: str
    space: str  # "global", "const" or "shared"
    align: int
    size: int
    content: bytes


@dataclass(frozen=True)
class Statement:
    """One statement of a kernel.

    ``opcode`` is an instruction's full name, ".reg" and the like for a declaration, "label", "{" or "}". ``guard`` is
    the predicate that an instruction depends on, and ``negated`` whether it must be false.
    """

    opcode: str
    operands: tuple[str, ...] = ()
    guard: str = ""
    negated: bool = False
    line: int = 0  # of the PTX, from 1
    source: str = ""  # "file.py:12"
    text: str = ""


@dataclass
class Entry:
    """A kernel of a module."""

    name: str
    parameters: list[Parameter]
    statements: list[Statement]
    variables: list[Variable] = field(default_factory=list)

    @property
    def targets(self) -> set[str]:
        """Labels that some branch goes to."""
        return {s.operands[0] for s in self.statements if s.opcode.split(".")[0] == "bra"}


def parse(text: str, name: str) -> Entry:
    """The kernel ``name`` of a module.

    Raises:
        PtxError: if the module has no such kernel, or is cut short.
    """
    found = re.search(rf"\.entry\s+{re.escape(name)}\s*\(", text)
    if not found:
        raise PtxError(f"the PTX has no kernel {name}; it has {re.findall(r'[.]entry +([a-zA-Z0-9_$]+)', text)}")
    end = text.index(")", found.end())
    files = {int(number): PurePath(second or first).name for number, first, second in _FILE.findall(text)}
    statements = list(_statements(text, text.index("{", end), files))
    return Entry(name, _parameters(text[found.end() : end]), statements, _variables(text))


def _parameters(text: str) -> list[Parameter]:
    parameters: list[Parameter] = []
    offset = 0
    for declaration in filter(None, (part.strip() for part in text.split(","))):
        match = _PARAMETER.match(declaration)
        if not match:
            raise PtxError(f'cannot read the parameter "{declaration}"')
        align, ptx_type, name, count = match.groups()
        width = bits_of(ptx_type) // 8
        alignment = max(width, int(align or 1) if count else 1)
        offset = -(-offset // alignment) * alignment
        parameters.append(Parameter(name, offset, width * int(count or 1)))
        offset += parameters[-1].size
    return parameters


def _variables(text: str) -> list[Variable]:
    variables = []
    for space, align, ptx_type, name, count, content in _VARIABLE.findall(text):
        width = bits_of(ptx_type) // 8
        # `x[]` has its size from the launch, `x` alone is one element
        size = width * int(count) if count else 0 if f"{name}[]" in text else width
        values = [int(v, 0) % (1 << (8 * width)) for v in content.split(",")] if content else []
        variables.append(
            Variable(name, space, int(align or width), size, b"".join(v.to_bytes(width, "little") for v in values))
        )
    return variables


def _statements(text: str, start: int, files: dict[int, str]) -> Iterator[Statement]:
    """Statements from the opening brace at ``start`` to the one that closes it."""
    line = text.count("\n", 0, start) + 1
    source, pending, begun, depth = "", "", line, 0
    for number, raw in enumerate(text[start:].split("\n"), line):
        location = _LOCATION.match(raw.strip())
        if location:
            source = f"{files.get(int(location[1]), '?')}:{location[2]}"
            continue
        rest = raw.split("//")[0]
        while rest.strip():
            if not pending:
                rest, begun = rest.lstrip(), number
                if rest[0] in "{}":  # a scope: inline assembly declares registers of its own
                    depth += 1 if rest[0] == "{" else -1
                    yield Statement(rest[0])
                    if depth == 0:
                        return
                    rest = rest[1:]
                    continue
                label = _LABEL.match(rest)
                if label:
                    yield Statement("label", (label[1],), line=number, source=source)
                    rest = rest[label.end() :]
                    continue
            piece, semicolon, rest = rest.partition(";")
            pending += piece + " "
            if semicolon:
                if pending.strip():
                    yield _statement(pending.strip(), begun, source)
                pending = ""
    raise PtxError("the PTX ends inside a kernel")


def _statement(text: str, line: int, source: str) -> Statement:
    guarded = _GUARDED.match(text)
    negated, guard, rest = (guarded[1] == "!", guarded[2], guarded[3]) if guarded else (False, "", text)
    opcode, _, operands = re.sub(r"\s+", " ", rest).partition(" ")
    return Statement(opcode, tuple(split_operands(operands)), guard, negated, line, source, text)


def split_operands(text: str) -> Iterator[str]:
    """The operands of an instruction: cut at commas, but not inside brackets."""
    depth, current = 0, ""
    for character in text:
        depth += (character in "{[(") - (character in "}])")
        if character == "," and depth == 0:
            yield current.strip()
            current = ""
        else:
            current += character
    if current.strip():
        yield current.strip()
