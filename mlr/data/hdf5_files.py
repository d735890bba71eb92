# SPDX-License-Identifier: Apache-2.0
"""HDF5 files: read without trust in what they declare, and written so that they are complete or absent.

A file from a stranger may name other files of this machine as the place of its contents (external storage, virtual data
sets, external links), or declare sizes that fill the memory. :func:`stored` is the only way to a data set of a file.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from mlr.data.depth_files import DataError, refuse_irregular
from mlr.utils.files import atomic_replace

#: HDF5 decodes whole chunks: one that declares more bytes is refused.
MAX_CHUNK = 1 << 30

#: Kinds of numpy's types in words.
_KINDS = {"u": "unsigned integers", "i": "integers", "f": "floating-point numbers", "S": "text", "O": "text"}


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn what h5py raises over damaged files, which may be anything, into one error that names the file.

    Raises:
        DataError: naming it.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{what} is cut off or damaged: {error}") from error


def open_hdf5(path: Path, what: str = "HDF5") -> h5py.File:
    """Open for reading.

    Raises:
        DataError: the file is missing, foreign or cut off.
    """
    try:
        refuse_irregular(path)
        return h5py.File(path, "r")
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except DataError:
        raise
    except Exception as error:  # h5py raises errors of any kind over damaged files
        raise DataError(f"{path} is not {what}, or it is cut off: {error}") from error


def stored(file: h5py.File, name: str, axes: int, kinds: str = "uif") -> h5py.Dataset:
    """A data set whose values lie in the file itself.

    Args:
        file: the file.
        name: path of the data set in it.
        axes: how many it must have.
        kinds: numpy's letters of the types it may have; "O" and "S" are text.

    Raises:
        DataError: it is not there, or its values lie in another file, or it has another type or number of axes, or its
            chunks do not fit into memory.
    """
    place, what = file, f"{file.filename}: {name}"
    for part in name.split("/"):
        link = place.get(part, getlink=True) if isinstance(place, h5py.Group) else None
        if link is None:
            raise DataError(f"{file.filename} has no {name!r}; it holds {', '.join(sorted(file)[:8]) or 'nothing'}")
        if not isinstance(link, h5py.HardLink):
            raise DataError(f"{what} is a link, possibly into another file, and is not followed: copy the data itself")
        place = place[part]
    if not isinstance(place, h5py.Dataset):
        raise DataError(f"{what} is a group; expected a data set")
    if place.external or place.is_virtual:
        raise DataError(f"{what} takes its values from other files, which are not read: copy the data itself")
    if place.shape is None:
        raise DataError(f"{what} is empty")
    text = place.dtype.kind == "O" and h5py.check_string_dtype(place.dtype) is None
    if place.dtype.kind not in kinds or text:
        expected = " or ".join(dict.fromkeys(_KINDS[kind] for kind in kinds))
        raise DataError(f"{what} holds {place.dtype} values; expected {expected}")
    if place.ndim != axes:
        raise DataError(f"{what} has shape {place.shape}, expected {axes} axes")
    if math.prod(place.chunks or ()) * place.dtype.itemsize > MAX_CHUNK:
        raise DataError(f"{what} is stored in chunks of {place.chunks} values, which do not fit into memory")
    return place


class Disk:
    """A file that takes what it is given even when the disk is full, and remembers the error.

    HDF5 cannot give up a file that it cannot finish: it fails again when the file is closed, or ends the process. So it
    is let finish, and the file is thrown away.

    Args:
        path: the file; an earlier one is overwritten.

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
