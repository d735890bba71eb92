# SPDX-License-Identifier: Apache-2.0
"""Data: built-in scenes, data sets on disk, augmentation, batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlr.data.datasets.base import DepthDataset
from mlr.data.datasets.folder import Folder
from mlr.data.datasets.nyu import NYU
from mlr.data.datasets.packed import Packed
from mlr.data.datasets.registry import DATASETS, check_dataset, open_dataset
from mlr.data.depth_files import DataError, read_depth, read_image
from mlr.data.sample import Sample, make_sample
from mlr.data.synthetic.rooms import Rooms
from mlr.utils.lazy import lazy_attributes

if TYPE_CHECKING:
    from mlr.data.datamodule import DepthData

__all__ = [
    "DATASETS",
    "NYU",
    "DataError",
    "DepthData",
    "DepthDataset",
    "Folder",
    "Packed",
    "Rooms",
    "Sample",
    "check_dataset",
    "make_sample",
    "open_dataset",
    "read_depth",
    "read_image",
]

#: Lightning takes seconds to import.
__getattr__ = lazy_attributes(__name__, {"DepthData": "mlr.data.datamodule"})
