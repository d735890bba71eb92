# SPDX-License-Identifier: Apache-2.0
"""CPUs that a process may use, from files as Linux has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlr.utils.cpus import available_cpus, cgroup_quotas


def system(root: Path, groups: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{n}": t for n, t in files.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "quotas"),
    [
        ("0::/\n", {}, []),
        ("0::/\n", {"cpu.max": "max 100000\n"}, []),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, [1.5]),
        # version 2: the group around limits too
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "400000 100000\n"}, [2, 4]),
        # a container without a namespace of its own sees its group at the mount
        ("0::/docker/0123\n", {"cpu.max": "50000 100000\n"}, [0.5]),
        (
            "3:cpu,cpuacct:/job\n2:memory:/job\n",
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "300000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"},
            [3],
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, []),
        ("0::/\n", {"cpu.max": "damaged\n"}, []),
    ],
)
def test_quotas_of_control_groups(groups, files, quotas, tmp_path):
    assert sorted(cgroup_quotas(system(tmp_path, groups, files))) == quotas


@pytest.mark.parametrize(("quota", "cpus"), [(0.5, 1), (1.5, 1), (2.9, 2), (100, 5)])
def test_cpus_are_those_of_the_affinity_within_the_quota(quota, cpus, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)), raising=False)
    root = system(tmp_path, "0::/\n", {"cpu.max": f"{int(quota * 100_000)} 100000\n"})
    assert available_cpus(root) == cpus


def test_a_system_without_control_groups(tmp_path):
    assert available_cpus(tmp_path) >= 1
