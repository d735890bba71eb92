# SPDX-License-Identifier: Apache-2.0
"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


@contextlib.contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write to; what was written moves to ``path`` at the end, and vanishes on an error.

    Args:
        path: the file to make; its folder exists.

    Yields:
        The temporary file's path. Its name does not end like the other's, so that no reader takes it for one.

    Raises:
        OSError: the file cannot be written; the message names it.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        reason = error.strerror or str(error).rstrip(".")
        raise OSError(f"cannot write {path}: {reason}. Is the folder there, writable, not full?") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def save_complete(content: Any, path: Path) -> None:
    """``torch.save`` to a file that keeps what it held before until all of it is written.

    Raises:
        OSError: the folder is missing, not writable or full.
    """
    with complete_file(path) as partial:
        try:
            torch.save(content, partial)
        except RuntimeError as error:  # how torch reports a missing folder and a full disk
            raise OSError(str(error)) from error
