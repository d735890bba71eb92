# SPDX-License-Identifier: Apache-2.0
"""Compiles the machine and the handlers of its instructions, and keeps them in build/ptx.

Handlers come in packs, shared libraries with a table of functions. The first pack has what common.ptx lists, which is
what this project's kernels use; whatever else a kernel needs is compiled when it comes, in a second or two. File names
carry a hash of everything that they were made of, so what is found there is current.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ptx.dtypes import PtxError

HERE = Path(__file__).parent
MACHINE = HERE / "machine"
FOLDER = HERE.parents[1] / "build" / "ptx"

# contraction would change results; lanes that are not active may compute anything, so nothing may trap
_FLAGS = [
    "-std=c++17",
    "-O2",
    "-ftree-vectorize",
    "-fwrapv",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-fno-math-errno",
]
_FLAGS += ["-fno-trapping-math", "-shared", "-fPIC", "-pthread", "-w"]


@functools.cache
def missing() -> str:
    """What the machine lacks here, in words; empty if it can be built."""
    if shutil.which("g++") is None:
        return "the PTX machine needs g++, which is not installed"
    return ""


@functools.cache
def _flags() -> tuple[str, ...]:
    try:
        vectors = "avx2" in Path("/proc/cpuinfo").read_text() and platform.machine() == "x86_64"
    except OSError:
        vectors = False
    return (*_FLAGS, "-march=x86-64-v3") if vectors else tuple(_FLAGS)


@functools.cache
def _key() -> str:
    """Hash of the machine: its sources, the flags, the compiler."""
    version = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout
    parts = [version, *_flags(), *(p.name + p.read_text() for p in sorted(MACHINE.iterdir()))]
    return _hash("\0".join(parts))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def _alone() -> Iterator[None]:
    """Test processes that start together build once."""
    if missing():
        raise PtxError(missing())
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _compile(sources: Sequence[Path], library: Path) -> None:
    scratch = library.with_suffix(f".{os.getpid()}")
    command = ["g++", *_flags(), f"-I{MACHINE}", *map(str, sources), "-o", str(scratch)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise PtxError(f"g++ does not compile the PTX machine:\n{done.stderr[-4000:]}")
    scratch.rename(library)


@functools.cache
def machine() -> ctypes.CDLL:
    """The machine; handlers find its checks by name."""
    with _alone():
        library = FOLDER / f"machine-{_key()}.so"
        if not library.exists():
            _compile(sorted(MACHINE.glob("*.cpp")), library)
    return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


_handlers: dict[str, int] = {}  # body -> address
_loaded: set[Path] = set()


def _load_packs() -> None:
    for listing in FOLDER.glob(f"pack-{_key()}-*.txt"):
        if listing in _loaded:
            continue
        _loaded.add(listing)
        bodies = listing.read_text().splitlines()
        table = (ctypes.c_void_p * len(bodies)).in_dll(ctypes.CDLL(str(listing.with_suffix(".so"))), "handlers")
        _handlers.update({body: address or 0 for body, address in zip(bodies, table, strict=True)})


def _build_pack(bodies: Sequence[str]) -> None:
    pack = FOLDER / f"pack-{_key()}-{_hash(chr(10).join(bodies))}.so"
    source = pack.with_suffix(".cpp")
    functions = [f"void h{k}(Warp& w, const Instruction& ins, u32 lanes) {{ {body} }}" for k, body in enumerate(bodies)]
    names = ", ".join(f"h{k}" for k in range(len(bodies)))
    headers = [f'#include "{name}.h"' for name in ("scalar", "memory", "warp")]
    lines = [*headers, "namespace {", *functions, "}", f'extern "C" const Handler handlers[] = {{{names}}};']
    source.write_text("\n".join(lines) + "\n")
    _compile([source], pack)
    pack.with_suffix(".txt").write_text("\n".join(bodies))  # last: the listing says that the pack is there


@functools.cache
def _common() -> tuple[str, ...]:
    from ptx.program import translate

    return tuple(sorted(translate((HERE / "common.ptx").read_text(), "common").bodies))


def handlers(bodies: Sequence[str]) -> list[int]:
    """Addresses of the handlers with these bodies; what is not there is built.

    Raises:
        PtxError: if there is no g++, or it refuses a body.
    """
    machine()
    if not _handlers.keys() >= set(bodies):
        with _alone():
            _load_packs()
            for wanted in (_common(), tuple(bodies)):
                absent = sorted(set(wanted) - _handlers.keys())
                if absent:
                    _build_pack(absent)
                    _load_packs()
    return [_handlers[body] for body in bodies]
