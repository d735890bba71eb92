# SPDX-License-Identifier: Apache-2.0
"""From one PTX instruction to the C++ body of its handler and the operands of its bytecode.

A body is C++ that may use ``w`` (the warp), ``ins`` (the instruction) and ``lanes`` (the active lanes); machine/*.h
have the templates that bodies are made of. Two instructions with one body share a handler.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ptx.dtypes import PtxError, bits_of, c_type, register_type
from ptx.opcodes import LETTERS, Arithmetic, arithmetic, comparison, conversion
from ptx.parser import Statement, split_operands
from ptx.program import ALL, Builder
from ptx.registers import Operand, immediate

#: Without effect on values here, where programs run one after another.
_IDLE = {"membar", "fence", "griddepcontrol", "prefetch", "prefetchu", "nanosleep", "setmaxnreg", "discard", "pmevent"}
#: Hints, and parameters of calls: the only calls are failing assertions.
_DECLARATIONS = {".pragma", ".param"}
_ADDRESS = re.compile(r"\[\s*([%\w$.]+)\s*(?:\+\s*(-?\w+))?\s*\]")
_SHUFFLE = {"up": "UP", "down": "DOWN", "bfly": "BUTTERFLY", "idx": "INDEX"}
_REDUCE = {
    "add": "a + b",
    "min": "a < b ? a : b",
    "max": "a > b ? a : b",
    "and": "a & b",
    "or": "a | b",
    "xor": "a ^ b",
}


def instruction(b: Builder, s: Statement) -> None:
    """Translate an instruction.

    Raises:
        PtxError: if it is not known, or its operands do not fit.
    """
    name = s.opcode.split(".")[0] or s.opcode
    if name in _DECLARATIONS:
        return
    if name == ".local":  # spilled or indexed registers; only an unused declaration is understood
        b.symbols[s.operands[0].split()[-1].split("[")[0]] = 0
    elif name in _IDLE:
        b.emit("NOTHING")
    elif name in _SPECIAL:
        _SPECIAL[name](b, s)
    elif s.opcode.endswith(".pred"):
        _logic(b, s)
    else:
        _map(b, s, arithmetic(s.opcode))


# --- lanes ------------------------------------------------------------------------------------------------------------


def _expect(s: Statement, count: int) -> None:
    if len(s.operands) != count:
        raise PtxError(f"it has {len(s.operands)} operands, not {count}")


def _lambda(result: str, types: list[str], expression: str) -> str:
    arguments = ", ".join(f"{t} {letter}" for t, letter in zip(types, LETTERS, strict=False))
    capture = "jitter = w.block->launch->jitter" if "jitter" in expression else ""
    return f"[{capture}]({arguments}) {{ return ({result})({expression}); }}"


def _map_body(result: str, types: list[str], expression: str) -> str:
    return f"map<{', '.join([result, *types])}>(w, ins, lanes, {_lambda(result, types, expression)});"


def _map(b: Builder, s: Statement, meaning: Arithmetic) -> None:
    _expect(s, 1 + len(meaning.operands))
    operands = [b.registers.place(s.operands[0], bits_of(meaning.result))]
    operands += [b.source(x, bits_of(t)) for x, t in zip(s.operands[1:], meaning.operands, strict=True)]
    b.emit(_map_body(c_type(meaning.result), [c_type(t) for t in meaning.operands], meaning.expression), operands)


def _convert(b: Builder, s: Statement) -> None:
    """``cvt``: registers may be wider than its types."""
    meaning = conversion(s.opcode)
    if len(meaning.operands) == 2:
        return _map(b, s, meaning)
    _expect(s, 2)
    of = meaning.operands[0]
    wide_result, wide_operand = b.registers.find(s.operands[0]), b.registers.find(s.operands[1])
    if wide_result is None:
        raise PtxError(f"unknown register {s.operands[0]}")
    bits = wide_operand.bits if wide_operand else max(16, bits_of(of))
    if bits < bits_of(of) or wide_result.bits < bits_of(meaning.result):
        raise PtxError("a register is narrower than its type")
    expression = meaning.expression
    if bits != bits_of(of):
        expression = re.sub(r"\ba\b", f"({c_type(of)})a", expression)
    operands = [b.registers.place(s.operands[0]), b.source(s.operands[1], bits)]
    if bits_of(meaning.result) < wide_result.bits:
        expression = f"({c_type(meaning.result)})({expression})"
    b.emit(_map_body(register_type(meaning.result, wide_result.bits), [register_type(of, bits)], expression), operands)
    return None


def _compare(b: Builder, s: Statement) -> None:
    meaning = comparison(s.opcode)
    joins = meaning.join != "r"
    _expect(s, 4 if joins else 3)
    first, _, second = s.operands[0].partition("|")
    third = s.operands[3] if joins else "1"
    t, bits = c_type(meaning.operand), bits_of(meaning.operand)
    operands = [
        b.registers.place(first.strip(), 1),
        b.registers.place(second.strip() or "_", 1),
        b.source(s.operands[1], bits),
        b.source(s.operands[2], bits),
        b.source(third.lstrip("!"), 1),
    ]
    condition = _lambda("bool", [t, t], meaning.condition)
    join = f"[](u32 r, u32 p) {{ return {meaning.join}; }}" if joins else "[](u32 r, u32) { return r; }"
    b.emit(f"compare<{t}>(w, ins, lanes, {condition}, {join});", operands, ALL if third.startswith("!") else 0)


def _select(b: Builder, s: Statement) -> None:
    _expect(s, 4)
    bits = bits_of(s.opcode.split(".")[-1])
    operands = [b.registers.place(s.operands[0], bits), b.source(s.operands[1], bits), b.source(s.operands[2], bits)]
    b.emit(f"select<u{bits}>(w, ins, lanes);", [*operands, b.source(s.operands[3], 1)])


def _logic(b: Builder, s: Statement) -> None:
    expressions = {"mov": "a", "not": "~a", "and": "a & b", "or": "a | b", "xor": "a ^ b"}
    name = s.opcode.removesuffix(".pred")
    if name not in expressions:
        raise PtxError(f"unknown instruction {s.opcode}")
    _expect(s, 2 if name in ("mov", "not") else 3)
    operands = [b.registers.place(s.operands[0], 1), *(b.source(x, 1) for x in s.operands[1:])]
    unused = "" if "b" in expressions[name] else "/**/"
    second = "u32 b" if not unused else "u32"
    body = f"logic(w, ins, lanes, [](u32 a, {second}) {{ return {expressions[name]}; }});"
    b.emit(body, operands if len(operands) == 3 else [*operands, operands[1]])


def _move(b: Builder, s: Statement) -> None:
    """``mov``, also between a register and a vector of narrower ones."""
    _expect(s, 2)
    to, of = s.operands
    if s.opcode == "mov.pred":
        return _logic(b, s)
    if not (to.startswith("{") or of.startswith("{")):
        return _map(b, s, arithmetic(s.opcode))
    bits = bits_of(s.opcode.split(".")[-1])
    packs = of.startswith("{")
    parts = _vector(of if packs else to)
    narrow = bits // len(parts)
    if narrow < 16:
        raise PtxError("registers of 8 bits are not supported")
    whole = b.registers.place(to, bits) if packs else b.source(of, bits)
    each = [b.source(x, narrow) if packs else b.registers.place(x, narrow) for x in parts]
    b.emit(f"{'pack' if packs else 'unpack'}<u{bits}, u{narrow}, {len(parts)}>(w, ins, lanes);", [whole, *each])
    return None


def _to_generic(b: Builder, s: Statement) -> None:
    """``cvta.global``: addresses of the global space are generic ones."""
    if "global" not in s.opcode.split("."):
        raise PtxError("only global addresses can be made generic")
    _map(b, s, arithmetic("mov.b64"))


# --- memory -----------------------------------------------------------------------------------------------------------


def _vector(text: str) -> list[str]:
    return list(split_operands(text.strip("{} "))) if text.startswith("{") else [text]


def _address(b: Builder, text: str, bits: int) -> tuple[Operand, int]:
    match = _ADDRESS.fullmatch(text)
    if not match:
        raise PtxError(f"cannot read the address {text}")
    base, offset = match[1], int(match[2] or "0", 0)
    register = b.registers.find(base)
    if register and register.bits == 64 and bits == 32:  # a shared address in a 64-bit register
        narrow = b.registers.temporary(32)
        b.emit(_map_body("u32", ["u64"], "a"), [narrow, b.registers.place(base)])
        return narrow, offset
    return b.source(base, bits), offset


def _memory(b: Builder, s: Statement) -> None:
    """``ld`` and ``st``."""
    name, *modifiers, ptx_type = s.opcode.split(".")
    loads = name == "ld"
    space = next(
        (m.split("::")[0] for m in modifiers if m.split("::")[0] in ("global", "const", "shared", "param")), None
    )
    if space is None:
        raise PtxError("accesses to generic and local addresses are not supported")
    if space == "param" and not loads:  # an argument of a call
        return None
    count = next((int(m[1:]) for m in modifiers if re.fullmatch(r"v\d", m)), 1)
    _expect(s, 2)
    address, values = s.operands if not loads else (s.operands[1], s.operands[0])
    data = _vector(values)
    if len(data) != count:
        raise PtxError(f"{len(data)} registers for {count} values")
    width = max(16, bits_of(ptx_type))
    bits = next((found.bits for found in map(b.registers.find, data) if found), width)
    held = register_type(ptx_type, bits) if ptx_type[0] == "s" else f"u{bits}"
    memory = f"s{bits_of(ptx_type)}" if ptx_type[0] == "s" else f"u{bits_of(ptx_type)}"
    if space == "param":
        return _parameter(b, s, data, ptx_type, f"load_parameter<{memory}, {held}>(w, ins, lanes);", bits)
    where, offset = _address(b, address, 32 if space == "shared" else 64)
    operands = [b.registers.place(x, bits) if loads else b.source(x, bits) for x in data]
    kind = f"{'load' if loads else 'store'}_{'shared' if space == 'shared' else 'global'}"
    return b.emit(f"{kind}<{memory}, {held}, {count}>(w, ins, lanes);", [where, *operands], offset)


def _parameter(b: Builder, s: Statement, data: list[str], ptx_type: str, body: str, bits: int) -> None:
    match = _ADDRESS.fullmatch(s.operands[1])
    if not match or match[1] not in b.parameters:
        raise PtxError(f"there is no parameter {s.operands[1]}")
    offset = b.parameters[match[1]].offset + int(match[2] or "0", 0)
    for k, register in enumerate(data):
        b.emit(body, [b.registers.place(register, bits)], offset + k * bits_of(ptx_type) // 8)


def _matrix(b: Builder, s: Statement) -> None:
    """``ldmatrix`` and ``stmatrix`` of 16-bit elements."""
    name, *modifiers = s.opcode.split(".")
    count = next((int(m[1:]) for m in modifiers if re.fullmatch(r"x[124]", m)), 0)
    if "m8n8" not in modifiers or modifiers[-1] != "b16" or not count:
        raise PtxError(f"unknown instruction {s.opcode}")
    loads = name == "ldmatrix"
    registers, address = s.operands if loads else s.operands[::-1]
    where, offset = _address(b, address, 32)
    operands = [where, *(b.registers.place(x, 32) for x in _vector(registers))]
    flags = f"{str('trans' in modifiers).lower()}, {str(loads).lower()}"
    b.emit(f"move_matrix<{count}, {flags}>(w, ins, lanes);", operands, offset, b.registers.constant(ALL, 32))


# --- warps, barriers, flow --------------------------------------------------------------------------------------------


def _shuffle(b: Builder, s: Statement) -> None:
    _expect(s, 5)
    result, _, in_range = s.operands[0].partition("|")
    operands = [b.registers.place(result.strip(), 32), b.registers.place(in_range.strip() or "_", 1)]
    operands += [b.source(x, 32) for x in s.operands[1:4]]
    mode = _SHUFFLE[s.opcode.split(".")[2]]
    b.emit(f"shuffle<{mode}>(w, ins, lanes);", operands, members=b.source(s.operands[4], 32))


def _reduce(b: Builder, s: Statement) -> None:
    _expect(s, 3)
    _, _, operation, t = s.opcode.split(".")
    combine = _lambda(c_type(t), [c_type(t)] * 2, _REDUCE[operation])
    operands = [b.registers.place(s.operands[0], 32), b.source(s.operands[1], 32)]
    b.emit(f"reduce<{c_type(t)}>(w, ins, lanes, {combine});", operands, members=b.source(s.operands[2], 32))


def _vote(b: Builder, s: Statement) -> None:
    _expect(s, 3)
    mode = s.opcode.split(".")[2]
    if mode not in ("ballot", "all", "any"):
        raise PtxError(f"unknown instruction {s.opcode}")
    operands = [b.registers.place(s.operands[0], 32 if mode == "ballot" else 1), b.source(s.operands[1].lstrip("!"), 1)]
    imm = ALL if s.operands[1].startswith("!") else 0
    b.emit(f"vote_{mode}(w, ins, lanes);", operands, imm, b.source(s.operands[2], 32))


def _barrier(b: Builder, s: Statement) -> None:
    """``bar.sync``, ``barrier.sync`` and ``bar.warp.sync``."""
    modifiers = s.opcode.split(".")[1:]
    if modifiers[:2] == ["warp", "sync"]:
        return b.emit("NOTHING", members=b.source(s.operands[0], 32))
    number = immediate(s.operands[0], 32)
    if "sync" not in modifiers or number is None or s.guard:
        raise PtxError(f"unknown instruction {s.opcode}")
    threads = [b.source(s.operands[1], 32)] if len(s.operands) > 1 else [Operand("none", 0)]
    return b.emit("BARRIER", threads, number, b.registers.constant(ALL, 32))


def _call(b: Builder, s: Statement) -> None:
    if "__assertfail" not in s.text:
        raise PtxError("calls are not supported")
    b.emit("TRAP")


_SPECIAL: dict[str, Callable[[Builder, Statement], None]] = {
    "cvt": _convert,
    "setp": _compare,
    "selp": _select,
    "mov": _move,
    "cvta": _to_generic,
    "ld": _memory,
    "st": _memory,
    "ldmatrix": _matrix,
    "stmatrix": _matrix,
    "shfl": _shuffle,
    "redux": _reduce,
    "vote": _vote,
    "bar": _barrier,
    "barrier": _barrier,
    "call": _call,
    "trap": lambda b, s: b.emit("TRAP"),
    "bra": lambda b, s: b.emit("BRANCH", imm=s.operands[0]),
    "ret": lambda b, s: b.emit("RETURN"),
    "exit": lambda b, s: b.emit("RETURN"),
}
