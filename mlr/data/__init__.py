# SPDX-License-Identifier: Apache-2.0
"""Data: built-in scenes, data sets on disk, augmentation, batches. One module a source."""

from mlr.data.depth_io import DataError, read_depth, read_image
from mlr.data.folder import Folder
from mlr.data.module import DepthData
from mlr.data.nyu import NYU
from mlr.data.rooms import Rooms
from mlr.data.sample import Sample, make_sample

__all__ = [
    "NYU",
    "DataError",
    "DepthData",
    "Folder",
    "Rooms",
    "Sample",
    "make_sample",
    "read_depth",
    "read_image",
]
