# SPDX-License-Identifier: Apache-2.0
"""Files: writes that appear complete or not at all, and listings of folders that name what they leave out."""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import stat
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from glob import has_magic
from pathlib import Path
from typing import Any, NamedTuple

import torch

#: How the names of files end that are being written; what is left of a killed process has it too.
UNFINISHED = ".part"


@contextlib.contextmanager
def atomic_replace(path: Path, folder: Path | None = None, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path; move it to ``path`` on success, delete it on error.

    Args:
        path: the file or folder to make; its folder exists.
        folder: where the temporary path lies, on the same disk; by default beside ``path``.
        durable: wait until a file is on the disk before it takes its place, and its name after that. Without it a
            power failure may leave an empty file under the name; a kill never does.

    Yields:
        The temporary path. Its name does not end like the other's, so that no reader takes it for one.
    """
    partial = (folder or path.parent) / f".{path.name}.{os.getpid()}{UNFINISHED}"
    try:
        yield partial
        durable = durable and partial.is_file()
        if durable:
            _sync(partial)
        os.replace(partial, path)
        if durable:
            with contextlib.suppress(OSError):  # some systems cannot sync a folder
                _sync(path.parent)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until what was written to a file, or the names in a folder, are on the disk."""
    place = os.open(path, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


@contextlib.contextmanager
def atomic_write(path: Path, durable: bool = True) -> Iterator[Path]:
    """:func:`atomic_replace` for code that does nothing but write, so that every error is one of writing.

    Raises:
        OSError: the file or folder cannot be written; the message names it.
    """
    try:
        with atomic_replace(path, durable=durable) as partial:
            yield partial
    except OSError as error:
        reason = error.strerror or str(error).rstrip(".")
        raise OSError(f"cannot write {path}: {reason}. Is the folder there, writable, not full?") from error


def create(path: Path, text: str) -> None:
    """Make a text file that must not be there yet; of two processes that try, one succeeds.

    Raises:
        FileExistsError: it is there.
        OSError: it cannot be written.
    """
    partial = path.parent / f".{path.name}.{os.getpid()}{UNFINISHED}"
    try:
        partial.write_text(text)
        _sync(partial)
        try:
            os.link(partial, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            path.touch(exist_ok=False)
            os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def is_free(folder: Path) -> bool:
    """Whether a folder is missing or holds nothing but what killed processes did not finish."""
    return not folder.exists() or (
        folder.is_dir() and all(p.name.startswith(".") and p.name.endswith(UNFINISHED) for p in folder.iterdir())
    )


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


# --- listing ----------------------------------------------------------------------------------------------------------


class Listing(NamedTuple):
    """What a folder holds.

    Attributes:
        files: regular files with a wanted suffix, also behind links, in natural order.
        others: regular files with another suffix that are not hidden.
        left_out: what could be meant and is not taken, each with the reason; paths are relative to the folder.
    """

    files: list[Path]
    others: list[Path]
    left_out: list[str]


def natural_key(path: str | Path) -> tuple[list[tuple[float, str]], str]:
    """Sort key that counts: 2.png comes before 10.png; numbers come before letters.

    Example:
        >>> sorted(["10.png", "2.png", "1.png"], key=natural_key)
        ['1.png', '2.png', '10.png']
    """
    text = path.as_posix() if isinstance(path, Path) else path
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return [(int(part), "") if part.isdecimal() else (math.inf, part) for part in parts], text


def not_regular(path: Path) -> str | None:
    """What a path is instead of a regular file, such as "a named pipe", which must not be opened; None if it is one.

    Raises:
        FileNotFoundError: there is nothing.
        OSError: nobody may look.
    """
    mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def expand_pattern(root: Path, parts: Sequence[str]) -> list[Path]:
    """Files and folders that fit a pattern, as the shell and ``glob`` take it, in finite time.

    ``**`` stands for any number of folders. Folders that link to each other have no end of names; for ``**`` each real
    folder counts once, under its shortest name. Hidden names fit a pattern that begins with a dot alone.

    Args:
        root: the folder to begin in.
        parts: the pattern below it, folder by folder, e.g. ``("**", "rgb", "*.png")``.
    """
    found: dict[Path, None] = {}
    seen: set[tuple[int, int, int]] = set()
    waiting = deque([(root, 0)])
    while waiting:
        path, place = waiting.popleft()
        if place == len(parts):
            found.setdefault(path)
            continue
        any_depth = parts[place] == "**"
        if any_depth:
            waiting.append((path, place + 1))
        try:
            status = path.stat()
            key = (status.st_dev, status.st_ino, place)
            if not stat.S_ISDIR(status.st_mode) or (any_depth and key in seen):
                continue
            seen.add(key)
            if not any_depth and not has_magic(parts[place]):
                waiting.extend([(path / parts[place], place + 1)] * (path / parts[place]).exists())
                continue
            entries = sorted(os.scandir(path), key=lambda entry: (entry.is_symlink(), natural_key(entry.name)))
        except OSError:
            continue
        for entry in entries:
            hidden = entry.name.startswith(".")
            if any_depth and not hidden and (entry.is_dir() or place + 1 == len(parts)):
                waiting.append((path / entry.name, place))
            wanted = not any_depth and fnmatchcase(entry.name, parts[place])
            if wanted and (not hidden or parts[place].startswith(".")):
                waiting.append((path / entry.name, place + 1))
    return list(found)


def list_files(folder: Path, suffixes: Collection[str], recursive: bool = True) -> Listing:
    """List the files of a folder and what else lies there.

    Links to files and folders are followed; every real folder is visited once, even if folders link to each other.
    Hidden files, broken links, pipes, sockets and devices are named and never opened.

    Args:
        folder: the folder.
        suffixes: of the wanted files, in lower case, such as ".png".
        recursive: whether sub-folders count too.

    Raises:
        OSError: the folder cannot be read.
    """
    files: list[Path] = []
    others: list[Path] = []
    left_out: list[str] = []
    waiting, linked = [folder], list[Path]()
    seen: set[tuple[int, int]] = set()
    while waiting or linked:  # links come last: files keep the shortest of their names
        path = waiting.pop() if waiting else linked.pop(0)
        try:
            status = path.stat()
            if (status.st_dev, status.st_ino) in seen:
                left_out.append(f"{path.relative_to(folder)} links to a folder that is read already")
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(path), key=lambda entry: natural_key(entry.name))
        except OSError as error:
            if path == folder:
                raise
            left_out.append(f"{path.relative_to(folder)} cannot be read: {error.strerror}")
            continue
        for entry in entries:
            item = Path(entry.path)
            name = item.relative_to(folder)
            wanted = item.suffix.lower() in suffixes
            hidden = any(part.startswith(".") for part in name.parts)
            try:
                kind = not_regular(item)
            except OSError as error:
                if wanted or not hidden:
                    broken = "is a broken link" if entry.is_symlink() else f"cannot be read: {error.strerror}"
                    left_out.append(f"{name} {broken}")
                continue
            if kind == "a folder":
                if recursive:
                    (linked if entry.is_symlink() else waiting).append(item)
            elif kind is not None:
                left_out.append(f"{name} is {kind}")
            elif wanted and hidden:
                left_out.append(f"{name} is hidden")
            elif wanted:
                files.append(item)
            elif not hidden:
                others.append(item)

    def key(path: Path) -> tuple[list[tuple[float, str]], str]:
        return natural_key(path.relative_to(folder))

    return Listing(sorted(files, key=key), sorted(others, key=key), sorted(left_out, key=natural_key))
