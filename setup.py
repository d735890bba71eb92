# SPDX-License-Identifier: Apache-2.0
"""Builds the C++ engine (csrc/ -> mlr._C) where torch and a compiler are at hand; it is optional."""

import os
import shutil
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "tools" / "packaging"))

from mlr_build import find_torch, why_no_engine  # noqa: E402

#: mlr/losses/backends.py reads the reason from this file of the installed package and shows it at import.
REASON = Path("mlr", "_no_cpp_engine.txt")


class FreshBuild(build):
    """Modules and engines that an earlier build left in its folder do not get into the wheel."""

    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


def without_engine(why: str) -> None:
    if os.environ.get("MLR_BUILD_CPP") == "1":
        raise SystemExit(f"mlr: MLR_BUILD_CPP=1 asks for the C++ engine, but there would be none: {why}")
    print(f"mlr: installing WITHOUT the C++ engine ({why}): losses on the CPU will run in plain PyTorch")


def record(command: build_ext, why: str) -> None:
    """Leave the reason in the package that is being built, or remove an earlier one."""
    path = (ROOT if command.inplace or command.editable_mode else Path(command.build_lib)) / REASON
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(why + "\n") if why else path.unlink(missing_ok=True)


def no_engine(why: str) -> dict:
    """``setup`` arguments that build no extension and record why."""
    without_engine(why)

    class NoBuild(build_ext):
        def run(self) -> None:
            record(self, why)

    return {"ext_modules": [Extension("mlr._C", [])], "cmdclass": {"build": FreshBuild, "build_ext": NoBuild}}


def cpp_engine() -> dict:
    """``setup`` arguments that build the extension, or that record why there is none."""
    if why := why_no_engine():
        return no_engine(why)
    find_torch()
    try:
        import torch
        from torch.utils.cpp_extension import BuildExtension, CppExtension
    except ImportError as error:
        return no_engine(f"torch was missing at installation ({error})")

    class OptionalBuild(BuildExtension):
        """A failing compiler costs the engine, not the installation."""

        def run(self) -> None:
            try:
                super().run()
            except Exception as error:
                why = f"its build failed ({error}); `pip install -v` shows the compiler's messages"
                without_engine(why)
                record(self, why)
            else:
                record(self, "")

    # the two -fno- let loops be vectorised and keep the meaning of NaN; GCC 12's own intrinsics use undefined vectors
    flags = ["-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
    flags += ["-Wall", "-Wno-maybe-uninitialized", "-g0"]  # debug symbols would be two thirds of the file
    link_flags = []
    if sanitizers := os.environ.get("MLR_SANITIZE"):
        flags += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-g", "-O1"]
        link_flags += [f"-fsanitize={sanitizers}"]
    extension = CppExtension(  # torch's headers include pybind11
        "mlr._C",
        sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").glob("*.cpp")),
        depends=sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").glob("*.[hi]*")),
        define_macros=[("MLR_TORCH", torch.__version__)],
        extra_compile_args=flags,
        extra_link_args=link_flags,
    )
    return {"ext_modules": [extension], "cmdclass": {"build": FreshBuild, "build_ext": OptionalBuild}}


setup(
    packages=[*find_packages(include=["mlr", "mlr.*"]), "mlr.kernels"],
    # the Triton engine lives in kernels/ and is imported as mlr.kernels: a top-level package called `kernels` would
    # shadow another well-known one
    package_dir={"mlr": "mlr", "mlr.kernels": "kernels"},
    **cpp_engine(),
)
