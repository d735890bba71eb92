# SPDX-License-Identifier: Apache-2.0
"""The loss function space of the paper's Table 1: 13 kinds of loss at 6 scales, their names, order and selection.

Every other part of the project asks this module which losses exist. Kinds and their formulas stand in
:mod:`mlr.losses.kinds`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator

from mlr.losses.kinds import KIND_TABLE
from mlr.utils.named import few
from mlr.utils.suggest import did_you_mean, nearest

#: Names of the kinds in the order of Table 1.
KINDS: tuple[str, ...] = tuple(kind.name for kind in KIND_TABLE)

#: Number of scales: scale k is the depth map reduced by 2^k.
SCALES: int = 6

#: Side of the averaging window of each local-mean-removed loss, eq. (5).
WINDOWS: dict[str, int] = {kind.name: kind.window for kind in KIND_TABLE if kind.window is not None}

#: The families of section 3.1 (L_D, L_M, L_G and L_N) and their kinds.
FAMILIES: dict[str, tuple[str, ...]] = {
    family: tuple(kind.name for kind in KIND_TABLE if kind.family == family)
    for family in dict.fromkeys(kind.family for kind in KIND_TABLE)
}

#: The ten loss sets of Table 5(a), in the table's order, as selections.
TABLE5: dict[str, str] = {
    "baseline": "D/0",
    "eigen-fergus": "D/0+M/0+r/0+c/0",
    "hu": "D/0+r/0+c/0+N/0",
    "depth+normal": "depth+normal",
    "depth+mean": "depth+mean",
    "depth+gradient": "depth+gradient",
    "scale-0": "*/0",
    "fine": "*/0-2",
    "coarse": "*/3-5",
    "all": "all",
}

_SCALE_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def loss_name(index: int) -> str:
    """Name ``kind/scale`` of the loss with an index ``len(KINDS) * scale + kind``.

    Example:
        >>> loss_name(len(KINDS) * 3 + KINDS.index("M17"))
        'M17/3'
    """
    if not 0 <= index < len(KINDS) * SCALES:
        raise ValueError(f"there is no loss with index {index}: indices run from 0 to {len(KINDS) * SCALES - 1}")
    scale, kind = divmod(index, len(KINDS))
    return f"{KINDS[kind]}/{scale}"


class LossSpace:
    """A set of losses out of the 78 of Table 1, in the order of Table 1, scale by scale.

    A selection is a union of parts joined by ``+``. A part is

    * ``all``, or the name of a family: ``depth``, ``mean``, ``gradient``, ``normal``;
    * ``kind/scale``, e.g. ``M17/3``; ``*`` stands for every kind or every scale, ``3-5`` for a range of scales, and a
      family may stand for the kind: ``*/3-5``, ``D/*``, ``gradient/0-2``;
    * the name of a loss set of Table 5 (see :data:`TABLE5`), e.g. ``hu`` or ``coarse``.

    Args:
        selection: the selection, or an iterable of names ``kind/scale``. The losses are put in the order of Table 1
            whatever the order of the names: terms and weights follow :attr:`names`.

    Attributes:
        selection: the selection as it was given (names joined by ``+``).
        indices: index ``len(KINDS) * scale + kind`` of every loss, ascending.
        names: ``kind/scale`` of every loss, in the same order.

    Raises:
        ValueError: if a part names no loss; the message lists the nearest valid ones.

    Example:
        >>> LossSpace("D/0+r/0+c/0").names
        ('D/0', 'r/0', 'c/0')
        >>> len(LossSpace("all"))
        78
    """

    def __init__(self, selection: str | Iterable[str] = "all") -> None:
        parts = [selection] if isinstance(selection, str) else list(selection)
        self.selection = "+".join(parts)
        self.indices: tuple[int, ...] = tuple(sorted(_select(self.selection)))
        self.names: tuple[str, ...] = tuple(map(loss_name, self.indices))
        if len(parts) > 1:
            self._warn_of_another_order(parts)

    def _warn_of_another_order(self, parts: list[str]) -> None:
        named = [part for part in parts if part in self.names]
        if named != sorted(named, key=self.names.index):
            warnings.warn(
                f"LossSpace puts its losses in the order of Table 1: {few(self.names)}. Terms and weights follow "
                "LossSpace(...).names, not the order of the list: give weights by name, or the names in this order",
                stacklevel=3,
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LossSpace) and self.indices == other.indices

    def __hash__(self) -> int:
        return hash(self.indices)

    def __repr__(self) -> str:
        return f"LossSpace({self.selection!r})  # {len(self)} of {len(KINDS) * SCALES} losses"


def _select(selection: str) -> set[int]:
    """Indices of a selection: the union of its parts."""
    if not isinstance(selection, str):
        raise TypeError(f"a loss selection is a string such as 'all' or 'D/0+r/0', got {type(selection).__name__}")
    indices: set[int] = set()
    for part in selection.split("+"):
        part = part.strip()
        if part == "all":
            part = "*/*"
        elif part in TABLE5:
            indices |= _select(TABLE5[part])
            continue
        kind, slash, scale = part.partition("/")
        kinds, scales = _kinds(kind, bool(slash)), _scales(scale) if slash else range(SCALES)
        if kinds is None or scales is None:
            raise ValueError(_unknown(part, selection))
        indices |= {len(KINDS) * s + KINDS.index(k) for s in scales for k in kinds}
    return indices


def _kinds(text: str, with_scale: bool) -> tuple[str, ...] | None:
    if text in FAMILIES:
        return FAMILIES[text]
    if not with_scale:  # a bare kind such as "D" is ambiguous (one scale or all six): ask for "D/*"
        return None
    return KINDS if text == "*" else ((text,) if text in KINDS else None)


def _scales(text: str) -> range | None:
    if text == "*":
        return range(SCALES)
    match = _SCALE_RANGE.fullmatch(text)
    if match is None:
        return None
    first, last = int(match[1]), int(match[2] or match[1])
    return range(first, last + 1) if first <= last < SCALES else None


def _unknown(part: str, selection: str) -> str:
    """The error for a part that names no loss, with the nearest parts that do."""
    kind, _, scale = part.partition("/")
    if kind in KINDS and not scale:
        near = [f"{kind}/*", f"{kind}/0"]
    else:
        names = [loss_name(i) for i in range(len(KINDS) * SCALES)]
        near = nearest(part, [*names, *FAMILIES, *TABLE5], 4, cutoff=0.5) or ["all", "depth", "*/3-5", "D/0"]
    return (
        f"unknown loss {part!r} in the selection {selection!r}{did_you_mean(near)} "
        f"A part is 'all', a family ({', '.join(FAMILIES)}), a set of Table 5 ({', '.join(TABLE5)}) or kind/scale with "
        f"kind one of {' '.join(KINDS)} or '*' and scale 0-{SCALES - 1}, a range such as 3-5, or '*'."
    )
