# SPDX-License-Identifier: Apache-2.0
"""NYU Depth v2 at 288 x 384 in parquet files, as published for multi-task learning (``tanganke/nyuv2``).

``data/train-*.parquet`` (795 frames) and ``data/val-*.parquet`` (654). A row holds ``image`` [3, 288, 384] in 0-1 and
``depth`` [1, 288, 384] in metres as nested lists of float32. It is the resolution the paper works at, so the set is a
quick start; scores on it are not those of the 480 x 640 protocols.

Parquet is read by whole row groups. In random order that means decoding a group a frame: pack the set with
``mlr prepare`` before training on it.
"""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from mlr.data.datasets.base import DepthDataset, PerProcess
from mlr.data.depth_files import DataError, check_pixels, refuse_irregular
from mlr.utils.counted import counted
from mlr.utils.files import list_files

COLUMNS = ("image", "depth")
#: A row group that declares more numbers is refused; groups of the published files hold 33 million.
MAX_NUMBERS = 500_000_000


class NYUParquet(DepthDataset):
    """Frames in parquet files; needs pyarrow (``pip install "mlr-depth[parquet]"``).

    Args:
        root: folder of the files, or one that holds them in ``data``.
        split: "train" or "val".

    Raises:
        DataError: pyarrow is not installed, or there are no such files, or they hold other columns.
    """

    left_out = "file"

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.root, self.missing = Path(root), []
        files: list[Path] = []
        for folder in (self.root, self.root / "data"):
            if folder.is_dir():
                listing = list_files(folder, (".parquet",), recursive=False)
                files += [path for path in listing.files if path.name.startswith(split)]
                self.missing += [line for line in listing.left_out if Path(line).name.startswith(split)]
        if not files:
            raise DataError(f"there is no file {self.root}/{split}*.parquet nor {self.root}/data/{split}*.parquet")
        self.files = [PerProcess(partial(open_parquet, path)) for path in files]
        self.paths = files
        #: (file, row group) and its number of rows
        self.groups: list[tuple[int, int]] = []
        rows = []
        for number, file in enumerate(self.files):
            metadata = file().metadata
            for group in range(metadata.num_row_groups):
                self.groups.append((number, group))
                rows.append(metadata.row_group(group).num_rows)
        self.ends = list(accumulate(rows))
        if not self.ends or self.ends[-1] == 0:
            raise DataError(f"there are no rows in {len(files)} parquet files such as {files[0]}")
        self._cache: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return self.ends[-1]

    def name(self, index: int) -> str:
        """File and row group and row, such as train-00000-of-00004/0/17."""
        place, row = self._place(index)
        file, group = self.groups[place]
        return f"{self.paths[file].stem}/{group}/{row}"

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and depth of a row."""
        place, row = self._place(index)
        if self._cache is None or self._cache[0] != place:
            file, group = self.groups[place]
            where = f"{self.paths[file]}, row group {group}"
            try:
                _check_group(self.files[file](), group, where)
                table = self.files[file]().read_row_group(group, columns=list(COLUMNS))
            except DataError:
                raise
            except Exception as error:  # pyarrow raises errors of any kind over damaged files
                raise DataError(f"{where}: cut off or damaged: {error}") from error
            self._cache = place, table
        table, where = self._cache[1], self.name(index)
        try:
            image, depth = (to_array(table.column(name).slice(row, 1), f"{where}: {name}") for name in COLUMNS)
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{where}: cut off or damaged: {error}") from error
        if image.shape[0] != 3 or depth.shape[0] != 1:
            raise DataError(
                f"{where}: expected image [3, H, W] and depth [1, H, W], got {list(image.shape)}, {list(depth.shape)}"
            )
        if not (image.min() >= 0 and image.max() <= 1):
            raise DataError(f"{where}: the image must lie in 0-1, got {image.min():g} to {image.max():g}")
        pixels = np.rint(image.transpose(1, 2, 0) * 255).astype(np.uint8)
        return pixels, depth[0].astype(np.float32)

    def _place(self, index: int) -> tuple[int, int]:
        place = int(np.searchsorted(self.ends, index, side="right"))
        return place, index - (self.ends[place - 1] if place else 0)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": None}

    def __repr__(self) -> str:
        return f"{counted(len(self), 'frame')} of {self.root}"


def open_parquet(path: Path) -> Any:
    """Open for reading: only the footer is loaded."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            'parquet files need pyarrow: pip install "mlr-depth[parquet]", or pip install pyarrow'
        ) from error
    try:
        refuse_irregular(path)
        file = parquet.ParquetFile(path)
    except DataError:
        raise
    except Exception as error:  # pyarrow raises errors of any kind over damaged files
        raise DataError(f"{path} is not a parquet file, or it is cut off: {error}") from error
    columns = file.schema_arrow.names
    if not set(COLUMNS) <= set(columns):
        raise DataError(f"{path} has the columns {', '.join(columns)}; expected image and depth")
    return file


def _check_group(file: Any, group: int, where: str) -> None:
    """Refuse a row group that declares more numbers than fit into memory."""
    declared = file.metadata.row_group(group)
    for number in range(declared.num_columns):
        column = declared.column(number)
        if column.path_in_schema.split(".")[0] in COLUMNS and column.num_values > MAX_NUMBERS:
            raise DataError(f"{where} declares {column.num_values:,} numbers; at most {MAX_NUMBERS:,} are read")


def to_array(column: Any, where: str) -> np.ndarray:
    """A one-row column of nested lists as an array [channels, H, W].

    Raises:
        DataError: the lists are not nested three deep, or not of equal length.
    """
    import pyarrow as pa
    from pyarrow import compute

    values = column.combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = values.chunk(0)
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    shape = []
    for _ in range(3):
        if not isinstance(values.type, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
            raise DataError(f"{where} is no nested list [channels, H, W] of numbers, but {column.type}")
        lengths = np.unique(compute.list_value_length(values).to_numpy(zero_copy_only=False))
        if lengths.size != 1 or not lengths[0] > 0:
            raise DataError(f"{where} is ragged or empty: its rows have the lengths {lengths[:5].tolist()}")
        shape.append(int(lengths[0]))
        values = values.flatten()
    if not pa.types.is_floating(values.type):
        raise DataError(f"{where} holds {values.type} values; expected floating-point numbers")
    if values.null_count:
        raise DataError(f"{where} has {values.null_count} values that are not set")
    check_pixels(tuple(shape[-2:]), where)
    return values.to_numpy(zero_copy_only=False).reshape(shape)
