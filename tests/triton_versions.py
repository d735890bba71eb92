# SPDX-License-Identifier: Apache-2.0
"""What the tests ask of the Triton at hand: every version compiles the kernels to other instructions."""

from __future__ import annotations

import pytest
import triton
from packaging.version import Version

_version = Version(triton.__version__)
#: The kernels' registers, spills and instructions were counted with this version or a later one.
COUNTED = _version >= Version("3.8")
counted = pytest.mark.skipif(not COUNTED, reason=f"the limits are those of Triton 3.8, this is {_version}")
#: Whether the variants of a kernel round alike: earlier versions contract other products with sums in each.
VARIANTS_ROUND_ALIKE = _version >= Version("3.7")
#: Whether the kernels compile for AMD's GPUs.
COMPILES_FOR_AMD = _version >= Version("3.7")
