# SPDX-License-Identifier: Apache-2.0
"""onnxruntime-web, which runs networks in a browser: fetched once from the npm registry, and kept.

It stays out of the wheel, which it would make five times as large.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile
import urllib.request
from pathlib import Path

from mlr.utils.files import atomic_write

VERSION = "1.30.0"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
MEGABYTES = 33
#: The registry's hash of the package, ``npm view onnxruntime-web dist.integrity``.
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="

#: What the page needs of the package: the library without WebGPU, and its WebAssembly.
FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")

#: The package states its licence and holds no copy of it.
LICENCE = Path(__file__).parent / "onnxruntime-web-LICENSE.txt"

#: Seconds without an answer after which the registry counts as out of reach.
PATIENCE = 20


def runtime_files(package: Path | None = None, cache: Path | None = None) -> list[Path]:
    """The files of onnxruntime-web that a page needs, and its licence.

    Args:
        package: its npm package as a file; None = the cache, or else the npm registry.
        cache: folder where the files are kept; None = ``mlr`` in the user's cache folder.

    Raises:
        OSError: the registry cannot be reached or the files cannot be written; the message says what else to do.
        ValueError: the package is another than the pinned one.
    """
    folder = (cache or _user_cache()) / f"onnxruntime-web-{VERSION}"
    files = [folder / name for name in FILES]
    if package is not None or not all(file.is_file() for file in files):
        content = _fetched() if package is None else package.read_bytes()
        _require_pinned(content, str(package or URL))
        folder.mkdir(parents=True, exist_ok=True)
        _unpack(content, folder)
    return [*files, LICENCE]


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlr"


def _fetched() -> bytes:
    try:
        with urllib.request.urlopen(URL, timeout=PATIENCE) as answer:
            return answer.read()
    except OSError as error:
        raise OSError(
            f"the demo needs onnxruntime-web {VERSION} once, and {URL} ({MEGABYTES} MB) cannot be fetched: "
            f"{getattr(error, 'reason', error)}. Try again online, or fetch the file elsewhere and give it with "
            "--runtime"
        ) from error


def _require_pinned(content: bytes, source: str) -> None:
    kind, _, wanted = INTEGRITY.partition("-")
    if base64.b64encode(hashlib.new(kind, content).digest()).decode() != wanted:
        raise ValueError(f"{source} is not onnxruntime-web {VERSION}: its {kind} is another than the registry's")


def _unpack(content: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(content)) as package:
        for name in FILES:
            member = package.extractfile(f"package/dist/{name}")
            assert member is not None  # the hash says which package it is
            with atomic_write(folder / name) as partial:
                partial.write_bytes(member.read())
