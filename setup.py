# SPDX-License-Identifier: Apache-2.0
"""Builds the C++ engine (csrc/ -> mlr._C) where a compiler, torch, ninja and pybind11 are at hand; it is optional."""

import os
import shlex
import shutil
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def cpp_engine() -> dict:
    """``setup`` arguments that build the extension, or none, saying why."""
    if os.environ.get("MLR_BUILD_CPP", "1") == "0":
        return without_engine("MLR_BUILD_CPP=0")
    try:
        import pybind11
        import torch
        from torch.utils.cpp_extension import BuildExtension, CppExtension, get_cxx_compiler
    except ImportError as error:
        return without_engine(f"{error}; `pip install --no-build-isolation .` uses the torch that is installed")
    if shutil.which(shlex.split(get_cxx_compiler())[0]) is None:
        return without_engine(f"no C++ compiler ({get_cxx_compiler()})")

    class OptionalBuild(BuildExtension):
        """A failing compiler costs the engine, not the installation."""

        def run(self) -> None:
            try:
                super().run()
            except Exception as error:
                without_engine(f"the build failed: {error}")

    # the two -fno- let loops be vectorised and keep the meaning of NaN; GCC 12's own intrinsics use undefined vectors
    flags = ["-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
    flags += ["-Wall", "-Wno-maybe-uninitialized"]
    link_flags = []
    if sanitizers := os.environ.get("MLR_SANITIZE"):
        flags += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-g", "-O1"]
        link_flags += [f"-fsanitize={sanitizers}"]
    extension = CppExtension(
        "mlr._C",
        sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").glob("*.cpp")),
        depends=sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").glob("*.[hi]*")),
        include_dirs=[pybind11.get_include()],
        define_macros=[
            ("TORCH_TARGET_VERSION", "0x020A000000000000"),  # the stable ABI of 2.10: built once, runs with any later
            ("MLR_TORCH", torch.__version__),
        ],
        extra_compile_args=flags,
        extra_link_args=link_flags,
    )
    return {"ext_modules": [extension], "cmdclass": {"build_ext": OptionalBuild}}


def without_engine(why: str) -> dict:
    if os.environ.get("MLR_BUILD_CPP") == "1":
        raise SystemExit(f"mlr: MLR_BUILD_CPP=1 asks for the C++ engine, but there would be none: {why}")
    print(f"mlr: installing WITHOUT the C++ engine ({why}): losses on the CPU will run in plain PyTorch")
    return {}


setup(
    packages=[*find_packages(include=["mlr", "mlr.*"]), "mlr.kernels"],
    # the Triton engine lives in kernels/ and is imported as mlr.kernels: a top-level package called `kernels` would
    # shadow another well-known one
    package_dir={"mlr": "mlr", "mlr.kernels": "kernels"},
    **cpp_engine(),
)
