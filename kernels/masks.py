# SPDX-License-Identifier: Apache-2.0
"""Which pixels are known.

Under a mask phase 1 stores E and the target of every scale, scale 0 included, and no later phase reads the mask: in a
map of E the number -0.0 marks an unknown pixel. It adds nothing to a sum, and E of a known pixel is never -0.0
(``marked`` sees to it). The target is 0 there. So nothing that stands under the mask goes beyond phase 1, and maps of E
need no maps of bits beside them.
"""

import triton
import triton.language as tl

#: The bits of -0.0. Triton makes +0.0 of the literal.
UNKNOWN = tl.constexpr(-(2**31))


@triton.jit
def known(error):
    """Whether the pixels of a map of E are known."""
    return error.to(tl.int32, bitcast=True) != UNKNOWN


@triton.jit
def marked(valid, error):
    """A map of E with its unknown pixels marked."""
    bits = (error + 0.0).to(tl.int32, bitcast=True)  # -0.0 + 0.0 is 0.0
    return tl.where(valid, bits, UNKNOWN).to(tl.float32, bitcast=True)


@triton.jit
def byte_flags(word):
    """A word of four bytes with 1 for every byte that is not 0: any such byte is True in a mask."""
    word |= word >> 4
    word |= word >> 2
    return (word | (word >> 1)) & 0x01010101


@triton.jit
def bits_set(bits):
    """How many bits of 32 are set."""
    bits -= (bits >> 1) & 0x55555555
    bits = (bits & 0x33333333) + ((bits >> 2) & 0x33333333)
    bits = (bits + (bits >> 4)) & 0x0F0F0F0F
    return (bits * 0x01010101) >> 24


@triton.jit
def over(value, count):
    """value / count, or 0 where there is nothing to divide by."""
    return tl.where(count > 0, value / tl.maximum(count, 1.0), 0.0)
