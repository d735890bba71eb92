# SPDX-License-Identifier: Apache-2.0
"""Data: built-in scenes, data sets on disk, augmentation, batches. One module a source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlr.data.depth_io import DataError, read_depth, read_image
from mlr.data.folder import Folder
from mlr.data.nyu import NYU
from mlr.data.packed import Packed
from mlr.data.registry import SOURCES, check_source, open_dataset
from mlr.data.rooms import Rooms
from mlr.data.sample import Sample, make_sample
from mlr.data.source import Source

if TYPE_CHECKING:
    from mlr.data.module import DepthData

__all__ = [
    "NYU",
    "SOURCES",
    "DataError",
    "DepthData",
    "Folder",
    "Packed",
    "Rooms",
    "Sample",
    "Source",
    "check_source",
    "make_sample",
    "open_dataset",
    "read_depth",
    "read_image",
]


def __getattr__(name: str) -> Any:
    """Import what needs Lightning, which takes seconds, only when it is used."""
    if name == "DepthData":
        from mlr.data.module import DepthData

        return DepthData
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
