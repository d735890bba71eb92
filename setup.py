# SPDX-License-Identifier: Apache-2.0
from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["mlr", "mlr.*"]), "mlr.kernels"],
    # the Triton engine lives in kernels/ and is imported as mlr.kernels: a top-level package called `kernels` would
    # shadow another well-known one
    package_dir={"mlr": "mlr", "mlr.kernels": "kernels"},
)
