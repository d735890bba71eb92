# SPDX-License-Identifier: Apache-2.0
"""What has another place in mlr at older commits, which bench/compare.py runs too."""

try:
    from mlr.losses import reference
    from mlr.losses.space import KINDS, SCALES, WINDOWS
except ImportError:  # before the losses had a folder
    from mlr import reference  # type: ignore[attr-defined, no-redef, unused-ignore]
    from mlr.space import KINDS, SCALES, WINDOWS  # type: ignore[no-redef, unused-ignore]

__all__ = ["KINDS", "SCALES", "WINDOWS", "reference"]
