# SPDX-License-Identifier: Apache-2.0
"""How many CPUs this process may use: those it is bound to, within the quota of its control groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def available_cpus(root: Path = Path("/")) -> int:
    """CPUs that this process can keep busy, at least 1.

    A quota that is no whole number is rounded down: a team of threads that uses a quota up early is stopped as a whole
    for the rest of the period.

    Args:
        root: where /proc and /sys lie.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([bound, *cgroup_quotas(root)])))


def cgroup_quotas(root: Path = Path("/")) -> Iterator[float]:
    """CPU quotas, in CPUs, of this process's control groups and of those around them; versions 1 and 2.

    A container may see its groups under another path than ``/proc/self/cgroup`` says, so the mount is looked at too.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = mount / controllers if controllers else mount
        inner = base / path.lstrip("/")
        for folder in {base, inner, *(parent for parent in inner.parents if parent.is_relative_to(base))}:
            if (quota := _quota(folder)) is not None:
                yield quota


def _quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").is_file():  # version 2
            used, period = (folder / "cpu.max").read_text().split()
        else:
            used, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return int(used) / int(period) if used not in ("max", "-1") else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
