# SPDX-License-Identifier: Apache-2.0
"""What a run writes and prints while it trains: rebalancings, epochs, models, resumable state."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from mlr.balancing import RebalanceRecord
from mlr.models.checkpoints import save_checkpoint
from mlr.training.scores import DEPTH_SCORES, ScoreNames
from mlr.training.tables import BALANCING, Table, read_balancing, read_metrics
from mlr.utils.console import plain
from mlr.utils.counted import counted
from mlr.utils.files import atomic_save
from mlr.utils.progress import Lines, duration


class RebalanceListener(Callback):
    """A callback that is told of every rebalancing."""

    def on_rebalance(self, trainer: L.Trainer, record: RebalanceRecord) -> None:
        """Called after the optimizer step that ended a period."""


class BalancingLog(RebalanceListener):
    """Mean, weight and contribution of every loss at every rebalancing, as a CSV table and in TensorBoard.

    Args:
        file: the table; one row a period and loss.
    """

    def __init__(self, file: Path) -> None:
        self.table = Table(file, BALANCING)

    @rank_zero_only
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the table, or cut it back to the state that training continues from."""
        self.table.start(r for r in read_balancing(self.table.file) if int(r["step"]) <= trainer.global_step)

    @rank_zero_only
    def on_rebalance(self, trainer: L.Trainer, record: RebalanceRecord) -> None:
        """Append a period."""
        losses = list(zip(record.names, record.means, record.weights, record.contributions, strict=True))
        shared = {
            "period": record.period, "step": record.step, "epoch": trainer.current_epoch + 1, "lambda": record.lam,
        }  # fmt: skip
        self.table.append(
            shared
            | {"term": name, "mean": repr(mean), "weight": repr(weight), "contribution": repr(share)}
            | {"clipped": int(name in record.clipped), "held": int(name in record.held)}
            for name, mean, weight, share in losses
        )
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                scalars = {"balancing/lambda": record.lam or 0.0, "balancing/dropped_images": float(record.dropped)}
                for name, mean, weight, contribution in losses:
                    scalars |= {f"mean/{name}": mean, f"weight/{name}": weight, f"contribution/{name}": contribution}
                logger.log_metrics(scalars, record.step)


class MetricsTable(Callback):
    """Losses and scores as a CSV table: a row before training (epoch 0), and one after every epoch.

    The row of an epoch is written before its state, so that no epoch of a run that continues lacks its row.

    Args:
        file: the table.
        metrics: names of the scores.
    """

    LOSSES = ("train/loss_epoch", "train/equal_loss_epoch", "train/images_without_depth")

    def __init__(self, file: Path, metrics: Sequence[str]) -> None:
        self.table = Table(file, ("epoch", "step", *self.LOSSES, *(f"val/{name}" for name in metrics)))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the table with the scores before training."""
        if trainer.state.fn == "validate":
            if trainer.is_global_zero:
                self.table.start()
            self._append(trainer, 0)

    @rank_zero_only
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Cut the table back to the state that training continues from."""
        rows = [row for row in read_metrics(self.table.file) if int(row["step"]) <= trainer.global_step]
        self.table.start({name: row.get(name, "") for name in self.table.columns} for row in rows)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Append the epoch."""
        self._append(trainer, trainer.current_epoch + 1)

    def _append(self, trainer: L.Trainer, epoch: int) -> None:
        metrics = trainer.callback_metrics  # of all ranks: this may wait for the others
        if trainer.is_global_zero:
            values = {name: float(metrics[name]) for name in self.table.columns if name in metrics}
            self.table.append([{"epoch": epoch, "step": trainer.global_step, **values}])


class EpochReport(RebalanceListener):
    """A line of text for every rebalancing and every epoch, readable in a terminal and in a log file.

    Args:
        console: where to print.
        scores: which scores there are.
    """

    #: Steps before the first estimate of the time left, after one that warms up.
    FIRST = 5

    def __init__(self, console: Console, scores: ScoreNames = DEPTH_SCORES) -> None:
        self.console, self.scores = console, scores
        self._start = self._first_step = 0.0
        self._first = 0

    def _print(self, trainer: L.Trainer, line: str, style: str = "") -> None:
        # a line printed past a live progress bar would be drawn over
        plain(getattr(trainer.progress_bar_callback, "_console", None) or self.console, line, style)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock for the estimate of the time left."""
        self._start, self._first = time.monotonic(), trainer.current_epoch

    @rank_zero_only
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """How long the run will take, once a few steps are done."""
        batch, batches = int(args[-1]), int(trainer.num_training_batches)
        if trainer.current_epoch != self._first or batch > self.FIRST:
            return
        if batch == 0:
            self._first_step = time.monotonic()
        elif batch == self.FIRST:
            step = (time.monotonic() - self._first_step) / batch
            left = step * (batches * ((trainer.max_epochs or 0) - self._first) - batch - 1)
            self._print(trainer, f"  {step:.2f} s a step: about {duration(left)} to go, without validation", "dim")

    @rank_zero_only
    def on_rebalance(self, trainer: L.Trainer, record: RebalanceRecord) -> None:
        """What the rebalancing did, and why."""
        count = len(record.names)
        if record.lam is None:
            what = f"the {count} losses get equal shares of the total" if record.period == 0 else "new weights"
        else:
            towards = "losses that fall fast" if record.lam > 0 else "losses that fall slowly"
            what = f"lambda {record.lam:+.1f}" + (f", towards {towards}" if record.lam else ", the weights stay")
            names = sorted(zip(record.contributions, record.names, strict=True), reverse=True)[:3]
            what += "; largest shares " + ", ".join(f"{name} {100 * share:.1f} %" for share, name in names)
        notes = f"; {len(record.clipped)} of {count} changes limited" if record.clipped else ""
        notes += f"; {counted(len(record.held), 'loss', 'keep')} the old weight" if record.held else ""
        notes += f"; {counted(record.dropped, 'image')} left out, whose losses are not finite" if record.dropped else ""
        self._print(trainer, f"  step {record.step:>6}, rebalancing {record.period + 1}: {what}{notes}", "dim")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Loss and scores of the epoch, and how long the rest will take."""
        m = trainer.callback_metrics  # of all ranks: this may wait for the others
        if not trainer.is_global_zero:
            return
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 0
        left = (time.monotonic() - self._start) / max(done - self._first, 1) * (total - done)
        eta = f"  about {duration(left)} left" if done < total else ""
        self._print(
            trainer,
            # the total under the weights in force falls and rises with them
            f"epoch {done:>2}/{total}  mean of the losses {float(m['train/equal_loss_epoch']):.4f}  "
            f"{self.scores.line({name: float(m[f'val/{name}']) for name in self.scores.names})}{eta}",
        )
        if unknown := int(m.get("train/images_without_depth", 0)):
            self._print(trainer, f"  {counted(unknown, 'image')} without a known depth left out")


class ProgressLines(Callback):
    """Progress of steps and of validations where the output is no terminal, which has a bar.

    Args:
        console: where to print.
    """

    #: Seconds before the first line about steps: lines about epochs and rebalancings come too.
    FIRST = 60.0

    def __init__(self, console: Console) -> None:
        self.console = console
        self._steps = self._validation = Lines(console, "")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the steps of the whole run, as far as it is still to go."""
        batches = int(trainer.num_training_batches)
        total, done = batches * (trainer.max_epochs or 0), batches * trainer.current_epoch
        self._steps = Lines(self.console, "training, batch", total, done, self.FIRST)

    @rank_zero_only
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """A line now and then."""
        self._steps.update(int(trainer.num_training_batches) * trainer.current_epoch + int(args[-1]) + 1)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the batches of this validation."""
        self._validation = Lines(self.console, "validating, batch", int(trainer.num_val_batches[0]))

    @rank_zero_only
    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """A line now and then."""
        self._validation.update(int(args[2]) + 1)


class ModelFiles(Callback):
    """The model as a file: best.pt by a score and last.pt, after every validation of an epoch.

    Where the weights are averaged, the average is the model and the trained weights lie beside it.

    Args:
        folder: the run's.
        config: the run's settings, kept in the files.
        score: name of the score; higher is better.
    """

    def __init__(self, folder: Path, config: dict[str, Any], score: str = DEPTH_SCORES.best) -> None:
        self.folder, self.config, self.score, self.best = folder, config, score, -math.inf

    def state_dict(self) -> dict[str, Any]:
        """The best score so far, for --resume."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue to compare with it."""
        self.best = state_dict["best"]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write last.pt, and best.pt if the model is better than any before."""
        metrics = trainer.callback_metrics  # of all ranks: this may wait for the others
        if trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        scores = {name[4:]: float(value) for name, value in metrics.items() if name.startswith("val/")}
        better = scores[self.score] > self.best
        self.best = max(self.best, scores[self.score])
        for name in ("last.pt", "best.pt") if better else ("last.pt",):
            save_checkpoint(
                self.folder / name,
                pl_module.network,  # type: ignore[arg-type]
                config=self.config,
                metrics=scores,
                unaveraged=pl_module.model if pl_module.average is not None else None,  # type: ignore[arg-type]
            )


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
