# SPDX-License-Identifier: Apache-2.0
"""Atomic writes: files and folders that appear complete or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

#: How the names of files end that are being written; what is left of a killed process has it too.
UNFINISHED = ".part"


@contextlib.contextmanager
def atomic_replace(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path; move it to ``path`` on success, delete it on error.

    Args:
        path: the file or folder to make; its folder exists.
        folder: where the temporary path lies, on the same disk; by default beside ``path``.

    Yields:
        The temporary path. Its name does not end like the other's, so that no reader takes it for one.
    """
    partial = (folder or path.parent) / f".{path.name}.{os.getpid()}{UNFINISHED}"
    try:
        yield partial
        os.replace(partial, path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """:func:`atomic_replace` for code that does nothing but write, so that every error is one of writing.

    Raises:
        OSError: the file or folder cannot be written; the message names it.
    """
    try:
        with atomic_replace(path) as partial:
            yield partial
    except OSError as error:
        reason = error.strerror or str(error).rstrip(".")
        raise OSError(f"cannot write {path}: {reason}. Is the folder there, writable, not full?") from error


def atomic_save(content: Any, path: Path) -> None:
    """``torch.save`` to a file that keeps what it held before until all of it is written.

    Raises:
        OSError: the folder is missing, not writable or full.
    """
    with atomic_write(path) as partial:
        try:
            torch.save(content, partial)
        except RuntimeError as error:  # how torch reports a missing folder and a full disk
            raise OSError(str(error)) from error
