# SPDX-License-Identifier: Apache-2.0
"""The results file: one record a finished run, by the digest of everything that its scores depend on.

::

    {"format": 1, "runs": {digest: {"results_version", "settings", "evaluation", "scores", "before", "versions"}}}

It holds no times and no folders, so an experiment that was interrupted ends with the same file as one that was not, and
a fresh checkout continues with the runs that are missing.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlr.utils.files import atomic_write

FORMAT = 1


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Records of a results file by digest; none if there is no file.

    Raises:
        ValueError: the file is no results file, or of a newer format.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
        number, runs = content["format"], content["runs"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no results file of mlr ablate: {error!r}") from error
    if number > FORMAT:
        raise ValueError(f"{path} has format {number}; this program reads up to {FORMAT}")
    return runs


def add_results(path: Path, records: dict[str, dict[str, Any]]) -> None:
    """Add records to a results file; several processes may do so at the same time.

    Args:
        path: the file; made if it is not there.
        records: by digest.

    Raises:
        OSError, ValueError: the file cannot be written or read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):
        merged = read_results(path) | records
        runs = {digest: merged[digest] for digest in sorted(merged)}
        text = json.dumps({"format": FORMAT, "runs": runs}, indent=1, sort_keys=True) + "\n"
        if not path.is_file() or path.read_text() != text:
            with atomic_write(path) as partial:
                partial.write_text(text)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, waiting for it. The system frees it when the process ends, however that ends."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Take the lock of a file without waiting; gives whether it was had."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
