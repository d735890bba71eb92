# SPDX-License-Identifier: Apache-2.0
"""What the tests ask of the Triton at hand: every version compiles the kernels to other instructions."""

from __future__ import annotations

import pytest
import triton
from packaging.version import Version

_version = Version(triton.__version__)
#: Such as "3.8".
RELEASE = f"{_version.major}.{_version.minor}"
#: Whether the kernels' instructions were counted with this version.
counted = pytest.mark.skipif(RELEASE != "3.8", reason=f"instructions were counted with Triton 3.8, this is {RELEASE}")
#: Whether the variants of a kernel round alike: earlier versions contract other products with sums in each.
VARIANTS_ROUND_ALIKE = _version >= Version("3.7")
#: Whether the kernels compile for AMD's GPUs.
COMPILES_FOR_AMD = _version >= Version("3.7")
