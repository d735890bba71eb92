# SPDX-License-Identifier: Apache-2.0
"""For tests that run several ranks on one machine."""

from __future__ import annotations

import os

from torch import distributed


def leave_group() -> None:
    """End a spawned rank once all have come this far.

    gloo's threads sometimes abort a Python that is shutting down, so it does not come to that.
    """
    distributed.barrier()
    distributed.destroy_process_group()
    os._exit(0)
