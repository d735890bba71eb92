# SPDX-License-Identifier: Apache-2.0
"""Result files: what they must hold, and reading them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import machine

#: Version of the layout that this code writes and reads.
SCHEMA = 2
RESULTS = machine.ROOT / "bench" / "results"

_FILE = {
    "schema": int, "meta": dict, "copy_gbs": float, "implementations": dict, "cases": list, "memory": list,
    "instructions": dict, "steps": list,
}  # fmt: skip
_META = ("date", "commit", "cpu", "cores", "threads", "python", "torch", "device", "command", "minutes")
_CASE = (
    "sweep", "batch", "height", "width", "losses", "dtype", "gradient", "threads", "device", "sets", "count", "bytes",
    "mask", "downsample", "results",
)  # fmt: skip
_TIMED = ("error_terms", "error_gradient", "median_ms", "p20_ms", "p80_ms", "min_ms", "samples", "first_call_s")


def check(data: dict[str, Any], name: str = "results") -> dict[str, Any]:
    """The data itself, if it has the layout of a result file.

    Raises:
        ValueError: something is missing or of another type; the message says what and where.
    """
    for key, kind in _FILE.items():
        if not isinstance(data.get(key), kind):
            raise ValueError(f"{name}: {key!r} must be there as {kind.__name__}, got {data.get(key)!r:.60}")
    if data["schema"] != SCHEMA:
        raise ValueError(f"{name}: layout {data['schema']}, this code reads {SCHEMA}; measure again")
    _require(data["meta"], _META, f"{name}: meta")
    for i, case in enumerate(data["cases"]):
        where = f"{name}: case {i}"
        _require(case, _CASE, where)
        for implementation, result in case["results"].items():
            status = result.get("status")
            if status == "ok":
                _require(result, _TIMED, f"{where}, {implementation}")
            elif status not in ("unavailable", "refused") or not result.get("reason") or "median_ms" in result:
                raise ValueError(f"{where}, {implementation}: without status 'ok' there is a reason and no time")
    return data


def _require(data: dict[str, Any], keys: tuple[str, ...], where: str) -> None:
    missing = [key for key in keys if key not in data]
    if missing:
        raise ValueError(f"{where}: {', '.join(missing)} missing")


def read(path: Path) -> dict[str, Any]:
    """A checked result file."""
    return check(json.loads(path.read_text()), path.name)


def write(path: Path, data: dict[str, Any]) -> None:
    """Write a result file, checked."""
    path.write_text(json.dumps(check(data, path.name), indent=1) + "\n")


def read_all(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Every result file of a folder by its stem, CPUs first."""
    found = {path.stem: read(path) for path in folder.glob("*.json")}
    return dict(sorted(found.items(), key=lambda item: (item[1]["meta"]["device"], item[0])))
