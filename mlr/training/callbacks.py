# SPDX-License-Identifier: Apache-2.0
"""What a run writes and prints while it trains: rebalancings, epochs, models, resumable state."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from mlr.balancing import RebalanceRecord
from mlr.models.checkpoints import save_checkpoint
from mlr.utils.files import atomic_save
from mlr.utils.renamed import current_metrics


class RebalanceListener(Callback):
    """A callback that is told of every rebalancing."""

    def on_rebalance(self, trainer: L.Trainer, record: RebalanceRecord) -> None:
        """Called after the optimizer step that ended a period."""


class BalancingLog(RebalanceListener):
    """Mean, weight and contribution of every loss at every rebalancing, as a CSV table and in TensorBoard.

    Args:
        file: the table; one row a period and loss.
    """

    COLUMNS = ("period", "step", "epoch", "lambda", "term", "mean", "weight", "contribution", "clipped", "held")

    def __init__(self, file: Path) -> None:
        self.file = file

    @rank_zero_only
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the table, or cut it back to the state that training continues from."""
        rows = [r for r in read_balancing(self.file) if int(r["step"]) <= trainer.global_step]
        with self.file.open("w", newline="") as out:
            writer = csv.DictWriter(out, self.COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    @rank_zero_only
    def on_rebalance(self, trainer: L.Trainer, record: RebalanceRecord) -> None:
        """Append a period."""
        losses = list(zip(record.names, record.means, record.weights, record.contributions, strict=True))
        with self.file.open("a", newline="") as out:
            writer = csv.writer(out)
            for name, *values in losses:
                flags = int(name in record.clipped), int(name in record.held)
                writer.writerow(
                    [record.period, record.step, trainer.current_epoch, record.lam, name, *map(repr, values), *flags]
                )
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                scalars = {"balancing/lambda": record.lam or 0.0, "balancing/dropped_images": float(record.dropped)}
                for name, mean, weight, contribution in losses:
                    scalars |= {f"mean/{name}": mean, f"weight/{name}": weight, f"contribution/{name}": contribution}
                logger.log_metrics(scalars, record.step)


def read_balancing(file: Path) -> Iterator[dict[str, str]]:
    """Rows of a table of :class:`BalancingLog`; none if there is no table."""
    if file.is_file():
        with file.open(newline="") as table:
            yield from csv.DictReader(table)


def read_metrics(file: Path) -> Iterator[dict[str, str]]:
    """Rows of metrics.csv, under the metrics' names of today; none if there is no table."""
    if file.is_file():
        with file.open(newline="") as table:
            yield from map(current_metrics, csv.DictReader(table))


def metrics_logger(folder: Path, steps: int) -> CSVLogger:
    """Losses and scores as metrics.csv; a continued run keeps the rows of its first ``steps`` steps.

    Lightning's logger starts by deleting the table that it finds.
    """
    file = folder / "metrics.csv"
    rows = [row for row in read_metrics(file) if int(row["step"]) < steps]
    logger = CSVLogger(folder, name="", version="")
    writer = logger.experiment
    if rows:
        writer.metrics_keys = list(rows[0])
        with file.open("w", newline="") as table:
            out = csv.DictWriter(table, list(rows[0]))
            out.writeheader()
            out.writerows(rows)
    return logger


class EpochReport(RebalanceListener):
    """A line of text for every rebalancing and every epoch, readable in a terminal and in a log file.

    Args:
        console: where to print.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._start = self._first = 0.0

    def _print(self, trainer: L.Trainer, line: str) -> None:
        # a line printed past a live progress bar would be drawn over
        console = getattr(trainer.progress_bar_callback, "_console", None) or self.console
        console.print(line, highlight=False, soft_wrap=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock for the estimate of the time left."""
        self._start, self._first = time.monotonic(), trainer.current_epoch

    @rank_zero_only
    def on_rebalance(self, trainer: L.Trainer, record: RebalanceRecord) -> None:
        """What the rebalancing did."""
        names = sorted(zip(record.contributions, record.names, strict=True), reverse=True)[:3]
        # the period that initialises has no lambda, and balancers other than the paper's never have one
        what = "" if record.lam is None else f"lambda {record.lam:+.1f}, {len(record.clipped)} clipped; "
        top = ", ".join(f"{name} {100 * share:.1f}%" for share, name in names)
        notes = f", {record.dropped} images dropped" if record.dropped else ""
        notes += f", {len(record.held)} losses held" if record.held else ""
        self._print(
            trainer,
            f"  [dim]step {record.step:>6}  period {record.period:>2}: {what}largest shares {top}{notes}[/dim]",
        )

    @rank_zero_only
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Loss and scores of the epoch, and how long the rest will take."""
        m = trainer.callback_metrics
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 0
        left = (time.monotonic() - self._start) / max(done - self._first, 1) * (total - done)
        eta = f"  about {_duration(left)} left" if done < total else ""
        self._print(
            trainer,
            f"epoch {done:>2}/{total}  loss {float(m['train/loss_epoch']):.4f}  "
            f"delta1 {float(m['val/delta1']):.3f}  rmse {float(m['val/rmse']):.3f} m  "
            f"abs_rel {float(m['val/abs_rel']):.3f}{eta}",
        )
        if unknown := int(m.get("train/images_without_depth", 0)):
            self._print(trainer, f"  {unknown} images without a known depth were left out")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class ModelFiles(Callback):
    """The model as a file: best.pt by delta_1 and last.pt, after every validation of an epoch.

    Args:
        folder: the run's.
        config: the run's settings, kept in the files.
    """

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder, self.config, self.best = folder, config, -1.0

    def state_dict(self) -> dict[str, Any]:
        """The best score so far, for --resume."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue to compare with it."""
        self.best = state_dict["best"]

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write last.pt, and best.pt if the model is better than any before."""
        if trainer.state.fn != "fit":
            return
        scores = {name[4:]: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        better = scores["delta1"] > self.best
        self.best = max(self.best, scores["delta1"])
        for name in ("last.pt", "best.pt") if better else ("last.pt",):
            save_checkpoint(self.folder / name, pl_module.model, config=self.config, metrics=scores)  # type: ignore[arg-type]


def state_checkpoint(file: Path) -> ModelCheckpoint:
    """The full state of training after every epoch, which --resume continues from; only the newest is kept."""
    return ModelCheckpoint(
        dirpath=file.parent, filename=file.stem, enable_version_counter=False, save_on_train_epoch_end=True
    )


class StateFiles(TorchCheckpointIO):
    """Writes the state of training beside its place: Lightning's own way fills the system's temporary folder and copies
    from there, over the only older state."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Replace the older state once this one is whole.

        Raises:
            OSError: it cannot be written; the older one is kept.
        """
        atomic_save(checkpoint, Path(path))
