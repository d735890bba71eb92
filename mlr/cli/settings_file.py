# SPDX-License-Identifier: Apache-2.0
"""Settings of a training run from YAML files, written the natural way.

A file becomes flags: every value is taken as it stands in the file and means what it means on the command line
(``precision: 32``, ``pretrained: false``). Dashes and underscores in names are alike. Settings may stand below their
group (``model: {backbone: resnet50}``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mlr.training.settings import GROUPS, TrainingSettings
from mlr.utils.renamed import current_setting
from mlr.utils.suggest import suggest

#: Settings are short; larger or deeper files are something else, or are made to fill the memory.
LARGEST_FILE = 1 << 16
DEEPEST = 5

#: How a list in a file is typed, for the settings that may be lists.
LISTS = {"size": "x", "losses": "+", "data_options": ","}


class UnknownSettingError(ValueError):
    """A file names a setting that does not exist."""


def read_settings(file: Path) -> dict[str, str]:
    """The settings in a file, by name, as they would be typed; those without a value are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, too large or holds something else than settings.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    if file.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{file} has {file.stat().st_size:,} bytes, and settings take {LARGEST_FILE:,} at most")
    try:
        text = file.read_text()
        check_yaml(file, text, DEEPEST, "settings are a list of `name: value`, at most within their group")
        # BaseLoader leaves every value as it is written
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{file} is damaged: it holds no settings")
    settings: dict[str, str] = {}
    for key, value in content.items():
        grouped = key in GROUPS and isinstance(value, Mapping)
        for written, entry in value.items() if grouped else [(key, value)]:
            name, entry = current_setting(str(written).replace("-", "_"), entry)
            if name not in TrainingSettings.names():
                raise UnknownSettingError(
                    f"{file}: unknown setting {written!r}{suggest(name, TrainingSettings.names())}"
                )
            if (typed := _typed(file, name, entry)) not in ("", "null", "~", "None"):
                settings[name] = typed
    return settings


def check_yaml(file: Path, text: str, deepest: int, shape: str) -> None:
    """Refuse what makes a short file large in memory: aliases and deep nesting.

    Args:
        file: where the text is from.
        text: YAML.
        deepest: how many lists and mappings may lie in each other.
        shape: what the file should look like.

    Raises:
        ValueError: saying what is refused.
        yaml.YAMLError: the text is no YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"{file}: mlr's files have no aliases (*{event.anchor}): write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > deepest:
            raise ValueError(f"{file}: {shape}")


def _typed(file: Path, name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if name == "data_options" and isinstance(value, Mapping) and all(isinstance(v, str) for v in value.values()):
        return ",".join(f"{key}={option}" for key, option in value.items())
    if name == "data" and isinstance(value, list):
        return json.dumps(value)
    if name in LISTS and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return LISTS[name].join(value)
    raise ValueError(f"{file}: {name} must be a single value, got {value!r}")
