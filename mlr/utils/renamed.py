# SPDX-License-Identifier: Apache-2.0
"""Names that older files and command lines use for what is called otherwise today; all are still read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

AUGMENTATIONS = {"eccv2020": "paper"}
HOLES = {"keep": "mask"}
METRICS = {"ard": "abs_rel", "srd": "sq_rel", "rmse_si": "silog"}
PROTOCOLS = {"eccv2020": "paper"}
UNITS = {"eccv2020": "nyu-10m"}
#: Settings by their older names, with the values of today by the older ones as they were typed.
SETTINGS = {"freeze_encoder": ("freeze", {"true": "encoder", "false": "none"})}


def current_setting(name: str, value: Any) -> tuple[str, Any]:
    """A setting by its name of today, with its value of today.

    Example:
        >>> current_setting("freeze_encoder", True), current_setting("freeze", "encoder:3")
        (('freeze', 'encoder'), ('freeze', 'encoder:3'))
    """
    if name not in SETTINGS:
        return name, value
    new, values = SETTINGS[name]
    return new, values.get(str(value).lower(), value)


#: Values of settings that command lines take without naming them in their help.
VALUES = {"augment": AUGMENTATIONS, "holes": HOLES}


def current_metrics(scores: Mapping[str, T]) -> dict[str, T]:
    """Scores, or a row of columns such as ``val/ard``, by the names of today."""
    old = {prefix + name: prefix + new for name, new in METRICS.items() for prefix in ("", "val/")}
    return {old.get(name, name): value for name, value in scores.items()}
