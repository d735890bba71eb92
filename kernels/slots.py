# SPDX-License-Identifier: Apache-2.0
"""Positions of the kinds in the kernels' tables: weights, partial sums and counts by (image, scale, slot).

They are this engine's own. A loss of the table of kinds that stands here has a kernel; the others have not.
"""

import triton.language as tl

from mlr.losses.kinds import KIND_TABLE

#: The kinds that this engine evaluates, in the order of their slots.
KINDS: tuple[str, ...] = ("D", "M", "M5", "M17", "M65", "r", "c", "rr", "rc", "cc", "N", "Nr", "Nc")

D, M, M5, M17, M65, R, C, RR, RC, CC, N, NR, NC = (tl.constexpr(slot) for slot in range(len(KINDS)))
#: Number of kinds: bits of a scale in the choice of losses.
KIND_COUNT = tl.constexpr(len(KINDS))
#: The slot of the sum of the signs of M, in the partial sums of the windows.
SIGN = tl.constexpr(len(KINDS))
#: Slots of a scale, a power of two.
SLOTS = tl.constexpr(16)
#: Slots of an image, a power of two: six scales, rounded up.
TABLE_PITCH = tl.constexpr(8 * SLOTS.value)


def _reads(name: str) -> tl.constexpr:
    """Pixels that a position of a kind reads, as bits ``3 * rows down + columns right`` of its 3 x 3 neighbourhood."""
    (kind,) = (kind for kind in KIND_TABLE if kind.name == name)
    return tl.constexpr(sum({1 << (3 * down + right) for down, right in kind.reads}))


READS_D, READS_R, READS_C, READS_RR, READS_RC, READS_CC, READS_N, READS_NR, READS_NC = (
    _reads(name) for name in ("D", "r", "c", "rr", "rc", "cc", "N", "Nr", "Nc")
)
