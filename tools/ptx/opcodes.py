# SPDX-License-Identifier: Apache-2.0
"""What arithmetic instructions mean: types of their operands, and a C++ expression of one lane.

The expression speaks of its operands as a, b, c, e and may use what machine/scalar.h defines. Anything that is not
described here raises: an instruction is never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass

from ptx.dtypes import FLOATS, HALVES, INTEGERS, PtxError, bits_of, c_type

#: Names of the operands of an expression.
LETTERS = "abce"


@dataclass(frozen=True)
class Arithmetic:
    """An instruction that maps lanes to lanes.

    Attributes:
        result: PTX type of the result.
        operands: PTX types of the operands.
        expression: C++ expression of the result.
    """

    result: str
    operands: tuple[str, ...]
    expression: str


@dataclass(frozen=True)
class Comparison:
    """``setp``: a C++ condition, and how it is joined with the predicate p (result r)."""

    operand: str
    condition: str
    join: str


_COMPARE = {
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "lo": "<",
    "ls": "<=",
    "hi": ">",
    "hs": ">=",
}
#: Comparisons of floats that hold when an operand is NaN are the negation of their opposite.
_UNORDERED = {
    "equ": "(a < b || a > b)",
    "neu": "(a == b)",
    "ltu": "(a >= b)",
    "leu": "(a > b)",
    "gtu": "(a <= b)",
    "geu": "(a < b)",
}
_ROUND = {"rni": "rint", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}


def arithmetic(opcode: str) -> Arithmetic:
    """Meaning of an instruction with a result in a register, other than ``cvt``, ``setp`` and ``selp``.

    Raises:
        PtxError: if the instruction is not known.
    """
    name, *modifiers = opcode.split(".")
    if not modifiers:
        raise PtxError(f"unknown instruction {opcode}")
    ptx_type = modifiers.pop()
    if name == "mov" and not modifiers:
        return Arithmetic(f"b{bits_of(ptx_type)}", (f"b{bits_of(ptx_type)}",), "a")
    meaning = None
    if ptx_type in ("s16x2", "u16x2") and name == "add" and not modifiers:
        return Arithmetic("b32", ("b32", "b32"), "((a + b) & 0xFFFFu) | ((a & 0xFFFF0000u) + (b & 0xFFFF0000u))")
    if ptx_type in INTEGERS:
        meaning = _integer(name, modifiers, ptx_type)
    elif ptx_type in FLOATS:
        meaning = _float(name, set(modifiers), ptx_type)
    elif ptx_type.removesuffix("x2") in HALVES:
        meaning = _half(name, set(modifiers), ptx_type)
    if meaning is None:
        raise PtxError(f"unknown instruction {opcode}")
    return meaning


# --- integers ---------------------------------------------------------------------------------------------------------


def _integer(name: str, modifiers: list[str], t: str) -> Arithmetic | None:
    width = bits_of(t)
    unsigned = f"u{width}"
    if name in ("mul", "mad") and modifiers in (["wide"], ["hi"], ["lo"]):
        return _product(name, modifiers[0], t)
    if name == "shf" and t == "b32" and len(modifiers) == 2:
        return _funnel(*modifiers)
    if modifiers:
        return None
    same = {
        "add": "a + b",
        "sub": "a - b",
        "div": f"quotient<{c_type(t)}>(a, b)",
        "rem": f"remainder<{c_type(t)}>(a, b)",
        "min": "a < b ? a : b",
        "max": "a > b ? a : b",
        "and": "a & b",
        "or": "a | b",
        "xor": "a ^ b",
    }
    unary = {"not": "~a", "cnot": "a == 0", "neg": "0 - a", "abs": "a < 0 ? 0 - a : a"}
    if name in same:
        # two's complement: where the sign has no effect, both types are one operation
        plain = t if name in ("div", "rem", "min", "max") else f"u{width}"
        return Arithmetic(plain, (plain, plain), same[name])
    if name in unary:
        return Arithmetic(t, (t,), unary[name])
    if name in ("shl", "shr"):
        direction = "left" if name == "shl" else "right"
        return Arithmetic(t, (t, "u32"), f"shift_{direction}<{c_type(t)}>(a, b)")
    if name == "bfe":
        return Arithmetic(t, (t, "u32", "u32"), f"bit_field<{c_type(t)}>(a, b, c)")
    if name == "bfi":
        return Arithmetic(t, (t, t, "u32", "u32"), f"insert_bits<{unsigned}>(a, b, c, e)")
    if name == "popc":
        return Arithmetic("u32", (t,), "(u32)__builtin_popcountll(a)")
    if name == "clz":
        return Arithmetic("u32", (t,), f"a ? (u32)__builtin_clzll(a) - {64 - width} : {width}")
    if t != "b32":
        return None
    return {
        "brev": Arithmetic(t, (t,), "reverse_bits(a)"),
        "prmt": Arithmetic(t, (t, t, t), "permute_bytes(a, b, c)"),
        "lop3": Arithmetic(t, (t, t, t, "u32"), "logic3(a, b, c, e)"),
    }.get(name)


def _product(name: str, part: str, t: str) -> Arithmetic | None:
    width, sign = bits_of(t), t[0]
    plus = " + c" if name == "mad" else ""
    if part == "lo":  # 16 bits would be computed in signed integers
        operands = (f"u{width}",) * (3 if name == "mad" else 2)
        return Arithmetic(f"u{width}", operands, f"(u{max(width, 32)})a * b{plus}")
    if part == "wide":
        if width == 64:
            return None
        wide = f"{sign}{2 * width}"
        operands = (t, t, wide) if name == "mad" else (t, t)
        return Arithmetic(wide, operands, f"({wide})a * ({wide})b{plus}")
    double = {16: f"{sign}32", 32: f"{sign}64", 64: "__int128" if sign == "s" else "unsigned __int128"}[width]
    operands = (t,) * (3 if name == "mad" else 2)
    return Arithmetic(t, operands, f"({t})(({double})a * ({double})b >> {width}){plus}")


def _funnel(direction: str, mode: str) -> Arithmetic | None:
    if direction not in ("l", "r") or mode not in ("wrap", "clamp"):
        return None
    amount = "(c & 31)" if mode == "wrap" else "(c > 32 ? 32 : c)"
    both = "((u64)b << 32 | a)"
    shifted = f"({both} << {amount}) >> 32" if direction == "l" else f"{both} >> {amount}"
    return Arithmetic("b32", ("b32", "b32", "u32"), f"(u32)({shifted})")


# --- floats -----------------------------------------------------------------------------------------------------------


def _float(name: str, modifiers: set[str], t: str) -> Arithmetic | None:
    suffix = "f" if t == "f32" else ""
    flush = modifiers & {"ftz"} and t == "f32"
    a, b, c = (f"flush({x})" if flush else x for x in "abc")
    approximate = modifiers & {"approx", "full"}
    nan = "_or_nan" if "NaN" in modifiers else ""
    # name: number of operands, modifiers that change nothing or are handled below, expression
    known: dict[str, tuple[int, str, str]] = {
        "add": (2, "rn ftz sat", f"{a} + {b}"),
        "sub": (2, "rn ftz sat", f"{a} - {b}"),
        "mul": (2, "rn ftz sat", f"{a} * {b}"),
        "fma": (3, "rn ftz sat", f"__builtin_fma{suffix}({a}, {b}, {c})"),
        "div": (2, "rn full approx ftz", f"{a} / {b}"),
        "rcp": (1, "rn approx ftz", f"1 / {a}"),
        "sqrt": (1, "rn approx ftz", f"__builtin_sqrt{suffix}({a})"),
        "rsqrt": (1, "approx ftz", f"({t})(1 / __builtin_sqrt((f64){a}))"),
        "neg": (1, "ftz", f"-{a}"),
        "abs": (1, "ftz", f"__builtin_fabs{suffix}({a})"),
        "min": (2, "ftz NaN", f"least{nan}({a}, {b})"),
        "max": (2, "ftz NaN", f"greatest{nan}({a}, {b})"),
        "copysign": (2, "", f"__builtin_copysign{suffix}(b, a)"),
    }
    if t == "f32":
        functions = {"ex2": "exp2f", "lg2": "log2f", "sin": "sinf", "cos": "cosf", "tanh": "tanhf"}
        known |= {op: (1, "approx ftz", f"{function}({a})") for op, function in functions.items()}
    if name in ("min", "max") and {"xorsign", "abs"} <= modifiers:  # of the sizes; the sign of the product
        smaller = "least" if name == "min" else "greatest"
        size = f"{smaller}{nan}(__builtin_fabs{suffix}({a}), __builtin_fabs{suffix}({b}))"
        sign = f"__builtin_signbit({a}) != __builtin_signbit({b})"
        known[name] = (2, "ftz NaN xorsign abs", f"{sign} ? -{size} : {size}")
    if name not in known:
        return None
    count, allowed, expression = known[name]
    if not modifiers <= set(allowed.split()):
        return None
    if flush:
        expression = f"flush({expression})"
    if "sat" in modifiers:
        expression = f"saturate({expression})"
    if approximate and t == "f32":
        expression = f"jittered({expression}, jitter)"
    return Arithmetic(t, (t,) * count, expression)


def _half(name: str, modifiers: set[str], t: str) -> Arithmetic | None:
    """f16, bf16 and pairs of them. A product of two is exact in float64, so that ``fma`` is rounded once, through a
    float32 rounded to odd."""
    base = t.removesuffix("x2")
    load, store = HALVES[base]
    nan = "_or_nan" if "NaN" in modifiers else ""
    if name in ("neg", "abs") and modifiers <= {"ftz"}:
        sign = "0x80008000u" if t != base else "0x8000u"
        return Arithmetic(t, (t,), f"a ^ {sign}" if name == "neg" else f"a & ~{sign}")
    expressions = {
        "add": (2, "A + B"),
        "sub": (2, "A - B"),
        "mul": (2, "A * B"),
        "fma": (3, "to_odd((f64)A * (f64)B + (f64)C)"),
        "min": (2, f"least{nan}(A, B)"),
        "max": (2, f"greatest{nan}(A, B)"),
    }
    if name not in expressions or not modifiers <= {"rn", "NaN"}:
        return None
    count, expression = expressions[name]

    def one(shift: str) -> str:
        return f"{store}({re.sub('[ABC]', lambda m: f'{load}((u16)({m[0].lower()}{shift}))', expression)})"

    return Arithmetic(t, (t,) * count, one("") if t == base else f"{one('')} | (u32){one(' >> 16')} << 16")


# --- comparisons and conversions --------------------------------------------------------------------------------------


def comparison(opcode: str) -> Comparison:
    """Meaning of a ``setp``."""
    _, relation, *modifiers, t = opcode.split(".")
    join = next((m for m in modifiers if m in ("and", "or", "xor")), "")
    floating = t in FLOATS or t in HALVES
    condition = f"a {_COMPARE[relation]} b" if relation in _COMPARE else ""
    if floating:
        condition = {"ne": "a < b || a > b", "num": "a == a && b == b", "nan": "a != a || b != b"}.get(
            relation, condition
        )
        if relation in _UNORDERED:
            condition = f"!{_UNORDERED[relation]}"
    if not condition or not (floating or t in INTEGERS) or not set(modifiers) <= {join, "ftz"}:
        raise PtxError(f"unknown instruction {opcode}")
    if not floating and relation in ("eq", "ne"):
        t = f"u{bits_of(t)}"  # signed or not, it is one operation
    if t in HALVES or "ftz" in modifiers:
        function = HALVES[t][0] if t in HALVES else "flush"
        condition = re.sub(r"\b[ab]\b", lambda m: f"{function}({m[0]})", condition)
    return Comparison(t, condition, {"and": "r & p", "or": "r | p", "xor": "r ^ p", "": "r"}[join])


def conversion(opcode: str) -> Arithmetic:
    """Meaning of a ``cvt``. The expression expects a of the C++ type of the operand."""
    _, *rest, to, of = opcode.split(".")
    modifiers = set(rest)
    unknown = PtxError(f"unknown instruction {opcode}")
    if to in ("f16x2", "bf16x2") and of == "f32" and modifiers == {"rn"}:
        store = HALVES[to.removesuffix("x2")][1]
        return Arithmetic(to, (of, of), f"(u32){store}(a) << 16 | {store}(b)")
    floating = [x in FLOATS or x in HALVES for x in (to, of)]
    if not all(known or x in INTEGERS for known, x in zip(floating, (to, of), strict=True)):
        raise unknown
    value = f"{HALVES[of][0]}(a)" if of in HALVES else "flush(a)" if "ftz" in modifiers and of == "f32" else "a"
    rounding = [m for m in rest if m in _ROUND]
    if rounding and floating[1]:
        value = f"__builtin_{_ROUND[rounding[0]]}{'' if of == 'f64' else 'f'}({value})"
    if floating == [False, False]:
        return Arithmetic(to, (of,), _narrow(value, to, modifiers, unknown))
    if floating == [False, True]:
        if not rounding or not modifiers <= {*rounding, "ftz", "sat"}:  # conversions to integers saturate anyway
            raise unknown
        return Arithmetic(to, (of,), f"to_integer<{c_type(to)}>({value})")
    if not modifiers <= {"rn", "ftz", "sat", *rounding}:
        raise unknown
    if "sat" in modifiers:
        value = f"saturate({value})"
    if to in HALVES:
        # what float32 cannot hold is rounded to odd on the way
        value = value if floating[1] and of != "f64" else f"to_odd((f64){value})"
        return Arithmetic(to, (of,), f"{HALVES[to][1]}({value})")
    value = f"({c_type(to)})({value})"
    return Arithmetic(to, (of,), f"flush({value})" if "ftz" in modifiers and to == "f32" else value)


def _narrow(value: str, to: str, modifiers: Set[str], unknown: PtxError) -> str:
    if not modifiers:
        return f"({c_type(to)}){value}"
    if modifiers != {"sat"} or bits_of(to) == 64:
        raise unknown
    width = bits_of(to)
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if to[0] == "s" else (0, (1 << width) - 1)
    return f"({c_type(to)})clamped({value}, {low}ll, {high}ll)"
