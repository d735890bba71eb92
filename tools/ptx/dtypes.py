# SPDX-License-Identifier: Apache-2.0
"""PTX types: their width in bits, and the C++ type in which the machine computes with them."""

from __future__ import annotations

BITS = {
    "pred": 1,
    **dict.fromkeys(("b8", "u8", "s8"), 8),
    **dict.fromkeys(("b16", "u16", "s16", "f16", "bf16"), 16),
    **dict.fromkeys(("b32", "u32", "s32", "f32", "f16x2", "bf16x2"), 32),
    **dict.fromkeys(("b64", "u64", "s64", "f64"), 64),
}

INTEGERS = frozenset({"u8", "s8", "b16", "u16", "s16", "b32", "u32", "s32", "b64", "u64", "s64"})
FLOATS = frozenset({"f32", "f64"})
#: 16-bit floats are computed in float32: names of the conversions from and to it.
HALVES = {"f16": ("from_half", "to_half"), "bf16": ("from_bfloat", "to_bfloat")}


class PtxError(Exception):
    """The PTX cannot be run: it uses something that the machine does not know, or it is not consistent."""


def bits_of(ptx_type: str) -> int:
    """Width of a PTX type in bits; 1 for predicates."""
    if ptx_type not in BITS:
        raise PtxError(f"type .{ptx_type} is not supported")
    return BITS[ptx_type]


def c_type(ptx_type: str) -> str:
    """C++ type of a PTX type; a 16-bit float is its bits."""
    if ptx_type in FLOATS:
        return ptx_type
    return f"s{bits_of(ptx_type)}" if ptx_type[0] == "s" else f"u{bits_of(ptx_type)}"


def register_type(ptx_type: str, register_bits: int) -> str:
    """C++ type of a register of some width that holds a value: wider registers extend its sign."""
    if bits_of(ptx_type) == register_bits:
        return c_type(ptx_type)
    return ("s" if ptx_type[0] == "s" else "u") + str(register_bits)
