# SPDX-License-Identifier: Apache-2.0
"""Disks that fill up while a command writes."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
from pathlib import Path

import data_files
from torture.runs import KINDS, check_equal, finish, load, reference, start, watched
from torture.trials import Campaign, Counts, Trial, check, command

NAMES = list(KINDS)
CLONE_NEWNS = 0x20000
#: Bytes of the disk of a trial.
SIZE = 64 << 20


def small_disk(folder: Path) -> None:
    """Mount a disk in memory, which this process and its children see alone, and which ends with them.

    Raises:
        OSError: this user may not.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
        raise OSError(os.strerror(ctypes.get_errno()))
    folder.mkdir()
    for words in (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]):
        done = subprocess.run(["mount", *words], capture_output=True, text=True)
        if done.returncode:
            raise OSError(done.stderr.strip())


def missing() -> str:
    """Why no disk can be made; tried in a process of its own."""
    if shutil.which("mount") is None or os.name != "posix":
        return "there is no mount here"
    if os.geteuid():
        return "to mount a small disk needs root"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            import tempfile

            small_disk(Path(tempfile.mkdtemp()) / "disk")
            code = 0
        finally:
            os._exit(code)
    return "" if os.waitpid(child, 0)[1] == 0 else "this user may not mount a small disk"


def fill(folder: Path, left: int) -> Path:
    """Fill a disk up to some bytes."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
        file.truncate(max(os.fstat(file.fileno()).st_size - left, 0))
    return ballast


def prepare(shared: Path) -> None:
    """Uninterrupted runs, and what they begin with."""
    load()
    for index, kind in enumerate(NAMES):
        reference(kind, shared / str(index))
    data_files.write_folder(shared / "set", range(12))


def trial(given: Trial) -> Counts:
    """Fill the disk at a random operation of a command, see what it says, make room and continue."""
    disk = given.folder / "disk"
    small_disk(disk)
    left = int(given.random.choice([0, 1, 100, 4096, 20_000, 200_000]))
    if given.number % 4 == 3:
        return prepare_trial(given, disk, left)
    index, out = given.number % len(NAMES), disk / "run"
    operations = json.loads((given.shared / str(index) / "operations.json").read_text())["operations"]
    at = int(given.random.integers(2, operations + 1))
    code, said = watched(start(NAMES[index], out), filling(disk, left, at), out)
    check_full(code, said, out)
    (disk / "ballast").unlink(missing_ok=True)
    finish(NAMES[index], out)
    check_equal(given.shared / str(index), out)
    return {"training": 1, "it did not fit": code != 0}


def prepare_trial(given: Trial, disk: Path, left: int) -> Counts:
    """The same of ``mlr prepare``."""
    words = ("prepare", f"folder:{given.shared / 'set'}", f"--out={disk / 'x.h5'}", "--depth-unit=mm", "--workers=0")
    code, said = watched(words, filling(disk, left, int(given.random.integers(2, 14))), disk)
    check_full(code, said, disk)
    check(code == 0 or not (disk / "x.h5").exists(), "a file that is not complete")
    (disk / "ballast").unlink(missing_ok=True)
    again, text = command(*words) if code else (0, "")
    check(again == 0, f"exit code {again}:", text)
    again, text = command("check-data", f"packed:{disk / 'x.h5'}", "--workers=0")
    check(again == 0, f"exit code {again}:", text)
    return {"mlr prepare": 1, "it did not fit": code != 0}


def filling(disk: Path, left: int, at: int):
    """What fills the disk before an operation, once."""

    def hook(number: int, event: str) -> None:
        if number == at:
            fill(disk, left)

    return hook


def check_full(code: int, said: str, place: Path) -> None:
    """Fail unless a command either succeeded or said in a sentence which file the disk did not take."""
    check(code in (0, 1) and "Traceback" not in said, f"exit code {code}:", said)
    full = any(words in said for words in ("No space left", "disk is full", "MiB free", "not full"))
    check(code == 0 or (full and str(place) in said), f"exit code {code}:", said)


CAMPAIGN = Campaign(
    "disk",
    "The disk is full from a random operation on, while a run trains or a data set is packed. The command names the "
    "file; with room made, it continues and ends as it would have.",
    trial,
    share=2,
    prepare=prepare,
    missing=missing,
)
