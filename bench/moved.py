# SPDX-License-Identifier: Apache-2.0
"""What has another place or name in mlr at older commits, which bench/compare.py runs too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlr

# an editable installation would find the newer checkout's module in the older one's place, so ask where mlr lies
if (Path(mlr.__file__).parent / "losses").is_dir():
    from mlr.losses import reference
    from mlr.losses.space import KINDS, SCALES, WINDOWS
else:  # before the losses had a folder
    from mlr import reference  # type: ignore[attr-defined, no-redef, unused-ignore]
    from mlr.space import KINDS, SCALES, WINDOWS  # type: ignore[no-redef, unused-ignore]


def indices(space: Any) -> tuple[int, ...]:
    """Indices of a space's losses, whose attribute was once called ``terms``."""
    return space.indices if hasattr(space, "indices") else space.terms


__all__ = ["KINDS", "SCALES", "WINDOWS", "indices", "reference"]
