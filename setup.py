# SPDX-License-Identifier: Apache-2.0
from setuptools import setup

setup(
    packages=["mlr", "mlr.data", "mlr.kernels"],
    # the Triton engine lives in kernels/ and is imported as mlr.kernels: a top-level package called `kernels` would
    # shadow another well-known one
    package_dir={"mlr": "mlr", "mlr.kernels": "kernels"},
)
