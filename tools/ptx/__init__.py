# SPDX-License-Identifier: Apache-2.0
"""Runs the PTX that Triton compiles on the CPU, with checks: see README.md."""

from ptx.counts import Counts, Traffic, counts
from ptx.driver import install, installed, run, uninstall, why_not
from ptx.dtypes import PtxError
from ptx.engine import launch
from ptx.findings import Finding, Kind, PtxFault
from ptx.settings import Settings, options, settings
from ptx.shadow import mark_unwritten, mark_written, track_empty, unwritten

__all__ = [
    "Counts",
    "Finding",
    "Kind",
    "PtxError",
    "PtxFault",
    "Settings",
    "Traffic",
    "counts",
    "install",
    "installed",
    "launch",
    "mark_unwritten",
    "mark_written",
    "options",
    "run",
    "settings",
    "track_empty",
    "uninstall",
    "unwritten",
    "why_not",
]
