# SPDX-License-Identifier: Apache-2.0
"""The tables of a run, metrics.csv and balancing.csv.

A table is only appended to while a run goes on. Where a run continues, the rows that it keeps are written beside the
table, which they then replace, so no moment has fewer rows on the disk. A row that a full disk or a kill cut off is
left out.
"""

from __future__ import annotations

import csv
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from mlr.losses.space import KINDS, SCALES
from mlr.utils.counted import counted
from mlr.utils.files import atomic_write
from mlr.utils.renamed import current_metrics

Row = dict[str, str]


class Table:
    """A CSV file with fixed columns.

    Args:
        file: its place.
        columns: their names.
    """

    def __init__(self, file: Path, columns: Sequence[str]) -> None:
        self.file, self.columns = file, columns

    def start(self, rows: Iterable[Mapping[str, str]] = ()) -> None:
        """Replace the table by these rows.

        Raises:
            OSError: it cannot be written; the older table is kept.
        """
        with atomic_write(self.file) as partial:
            self._write(partial, rows, header=True)

    def append(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows.

        Raises:
            OSError: they cannot be written; the message names the file.
        """
        try:
            self._write(self.file, rows)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(f"cannot write {self.file}: {reason}; its earlier rows are kept") from error

    def _write(self, path: Path, rows: Iterable[Mapping[str, object]], header: bool = False) -> None:
        with path.open("a", newline="") as out:
            writer = csv.DictWriter(out, self.columns, restval="", lineterminator="\n")
            if header:
                writer.writeheader()
            writer.writerows(rows)
            out.flush()
            os.fsync(out.fileno())


def read_table(file: Path, required: Mapping[str, Callable[[str], object]]) -> list[Row]:
    """The complete rows of a table; a warning says how many others there are. None if there is no table.

    Args:
        file: its place.
        required: columns that it has, and what reads a cell of each: a row whose cell it refuses is damaged.
    """
    if not file.is_file():
        return []
    lines = file.read_bytes().decode(errors="replace").splitlines(keepends=True)
    whole = [line.rstrip("\r\n") for line in lines if line.endswith("\n")]
    header, *records = csv.reader(whole[:1] + whole[1:]) if whole else [[]]
    damaged = len(lines) - len(whole)
    if not required.keys() <= set(header):
        if lines:
            warnings.warn(f"{file} is damaged: it has no columns {', '.join(required)}; it is not read", stacklevel=2)
        return []
    rows = []
    for record in records:
        row = dict(zip(header, record, strict=False))
        if len(record) == len(header) and all(_reads(row[name], kind) for name, kind in required.items()):
            rows.append(row)
        else:
            damaged += 1
    if damaged:
        warnings.warn(f"{counted(damaged, 'damaged row', 'are')} left out of {file}", stacklevel=2)
    return rows


def _reads(cell: str, kind: Callable[[str], object]) -> bool:
    try:
        kind(cell)
    except ValueError:
        return False
    return True


def _number_or_nothing(cell: str) -> float | None:
    return float(cell) if cell else None


# --- balancing.csv

BALANCING = ("period", "step", "epoch", "lambda", "term", "mean", "weight", "contribution", "clipped", "held")


#: A loss, perhaps of one of several heads, or the ranking loss.
_LOSS = re.compile(rf"([DR][3-8]:)?({'|'.join(KINDS)})/[0-{SCALES - 1}]|rank")


def _loss(cell: str) -> str:
    if not _LOSS.fullmatch(cell):
        raise ValueError(f"{cell!r} is no loss")
    return cell


def read_balancing(file: Path) -> list[Row]:
    """Rows of balancing.csv, one a period and loss, of complete periods; none if there is no table."""
    required: dict[str, Callable[[str], object]] = {
        "period": int,
        "step": int,
        "epoch": int,
        "lambda": _number_or_nothing,
        "term": _loss,
    }
    rows = read_table(file, required | dict.fromkeys(("mean", "weight", "contribution"), float))
    sizes = Counter(row["period"] for row in rows)
    cut = [period for period, size in sizes.items() if size < max(sizes.values())]
    if cut:
        warnings.warn(f"{file}: period {', '.join(cut)} is not complete and left out", stacklevel=2)
    if rows and rows[0]["epoch"] == "0":  # earlier versions numbered the first epoch 0
        rows = [row | {"epoch": str(int(row["epoch"]) + 1)} for row in rows]
    return [row for row in rows if row["period"] not in cut]


# --- metrics.csv


def read_metrics(file: Path) -> list[Row]:
    """Rows of metrics.csv by the number of finished epochs, from 0 on; none if there is no table.

    Earlier versions wrote two rows an epoch and numbered the first one 0; they are read as today's.
    """
    rows = [current_metrics(row) for row in read_table(file, {"epoch": int, "step": int})]
    if not rows or "train/loss_step" not in rows[0]:
        return rows
    merged: dict[int, Row] = {}
    for number, row in enumerate(rows):
        if number == 0:
            merged[0] = row
        elif row.get("train/loss_epoch") or row.get("val/delta1"):
            epoch = int(row["epoch"]) + 1
            filled = {name: value for name, value in row.items() if value}
            merged[epoch] = merged.get(epoch, {}) | filled | {"epoch": str(epoch), "step": str(int(row["step"]) + 1)}
    return list(merged.values())
