# SPDX-License-Identifier: Apache-2.0
"""The build backend (PEP 517): setuptools, plus what the C++ engine needs where it can be built.

A static ``requires = ["torch"]`` downloads gigabytes on every machine, also on those without a compiler. These hooks
look first:

* Without a C++ compiler, or with ``MLR_BUILD_CPP=0``, nothing is asked for.
* If the environment that the package is installed into has torch already, the engine is built against that torch.
  pip runs the build with that environment's Python, so its folder of packages is known here.
* Otherwise torch is asked for. The engine uses torch's stable ABI: built once, it loads with any later torch.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from importlib.metadata import distributions

from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

#: The oldest torch whose stable ABI has all that csrc/ uses; pyproject.toml says the same.
OLDEST_TORCH = (2, 10)


def why_no_engine() -> str:
    """Why the C++ engine cannot or shall not be built here; empty if it can."""
    if os.environ.get("MLR_BUILD_CPP", "1") == "0":
        return "MLR_BUILD_CPP=0 was set at installation"
    compiler = os.environ.get("CXX", "c++")  # as torch chooses it
    if shutil.which(shlex.split(compiler)[0]) is None:
        return f"there was no C++ compiler ({compiler}) at installation"
    return ""


def installed_torch() -> str:
    """Folder of packages that has a torch new enough, in the environment of this Python; empty if there is none."""
    for folder in dict.fromkeys((sysconfig.get_path("platlib"), sysconfig.get_path("purelib"))):
        for package in distributions(name="torch", path=[folder]):
            if tuple(map(int, package.version.split(".")[:2])) >= OLDEST_TORCH:
                return folder
    return ""


def find_torch() -> None:
    """Make the installed torch importable inside pip's isolated build, behind the build's own packages."""
    folder = installed_torch()
    if folder and folder not in sys.path:
        sys.path.append(folder)


def get_requires_for_build_wheel(config_settings: dict | None = None) -> list[str]:
    """Packages that pip puts into the isolated environment of the build."""
    if why_no_engine():
        return []
    return ["ninja>=1.11"] + ([] if installed_torch() else [f"torch>={'.'.join(map(str, OLDEST_TORCH))}"])


get_requires_for_build_editable = get_requires_for_build_wheel
