# SPDX-License-Identifier: Apache-2.0
"""HDF5 files that are complete or absent, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from mlr.utils.files import atomic_replace


class Disk:
    """A file that takes what it is given even when the disk is full, and remembers the error.

    HDF5 cannot give up a file that it cannot finish: it fails again when the file is closed, or ends the process. So it
    is let finish, and the file is thrown away.

    Args:
        path: the file; it is written anew.

    Attributes:
        error: the first error; nothing is written after it.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 - closed by close()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of the data, or none and remember why."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while self.error is None and done < len(view):
                done += self._file.write(view[done:])
        except OSError as error:
            self.error = error
        return len(view)

    def truncate(self, size: int) -> int:
        """Set the length."""
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size

    def read(self, size: int = -1) -> bytes:
        """Read; h5py takes what can read and seek for a file."""
        return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        """Read; what could not be written reads as zeros."""
        view = memoryview(buffer).cast("B")
        count = self._file.readinto(view)
        view[count:] = bytes(len(view) - count)
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Where it is."""
        return self._file.tell()

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Wait until all is on the disk, and let go of the file."""
        try:
            if self.error is None:
                os.fsync(self._file.fileno())
        except OSError as error:
            self.error = error
        self._file.close()


@contextmanager
def atomic_hdf5(path: Path, folder: Path) -> Iterator[tuple[h5py.File, Disk]]:
    """An HDF5 file that is written in ``folder`` and appears under its name only when all of it is on the disk."""
    with atomic_replace(path, folder) as temporary:
        disk = Disk(temporary)
        try:
            with h5py.File(disk, "w") as file:
                yield file, disk
        finally:
            disk.close()
            if disk.error is not None:
                reason = "the disk is full" if disk.error.errno in (errno.ENOSPC, errno.EDQUOT) else disk.error
                raise OSError(f"cannot write {path}: {reason}") from disk.error
