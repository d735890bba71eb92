# SPDX-License-Identifier: Apache-2.0
"""Import this before mlr: it adds a kind to the table, a smooth D (Charbonnier), as a contributor's new row does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_file = Path(__file__).parents[2] / "mlr" / "losses" / "kinds.py"
_spec = importlib.util.spec_from_file_location("mlr.losses.kinds", _file)
assert _spec is not None
assert _spec.loader is not None
_kinds = importlib.util.module_from_spec(_spec)
sys.modules["mlr.losses.kinds"] = _kinds
_spec.loader.exec_module(_kinds)


def _charbonnier(maps):
    """sqrt(E^2 + eps^2) - eps with eps = 0.1 m; 0 at invalid pixels, where E is 0."""
    return (maps.error**2 + 0.01).sqrt() - 0.1


#: Where the row stands; the engines number their own kinds whatever the place.
PLACE = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdecimal() else len(_kinds.KIND_TABLE)
_row = _kinds.Kind("Dh", "depth", "(none)", _charbonnier)
_kinds.KIND_TABLE = (*_kinds.KIND_TABLE[:PLACE], _row, *_kinds.KIND_TABLE[PLACE:])
