# SPDX-License-Identifier: Apache-2.0
"""Training: the paper's recipe as a LightningModule, and one function that runs it from settings to figures."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from mlr import figures
from mlr.balancing import LossBalancer
from mlr.callbacks import (
    BalancingLog,
    EpochReport,
    ModelFiles,
    RebalanceListener,
    StateFiles,
    metrics_logger,
    state_checkpoint,
)
from mlr.config import TrainingConfig
from mlr.criterion import MultiLoss
from mlr.data import DepthData
from mlr.engine import backend_report
from mlr.evaluation import METRICS, DepthMetrics
from mlr.model import DepthModel
from mlr.run import Run

#: Predictions are clamped to this depth for scores, as in the authors' evaluation, metres.
MIN_DEPTH = 1e-4


class DepthTraining(L.LightningModule):
    """A depth network, its losses and their balancer under Adam, eq. (1).

    The balancer sees the losses of every training batch and takes a step after every optimizer step; its state is part
    of this module's, so a run continues in the middle of a period.

    Args:
        model: network from images [B, 3, H, W] in [0, 1] to depth [B, 1, H, W] in metres.
        criterion: the losses.
        balancer: their weights.
        learning_rate: of Adam; the paper's is 1e-4.
        weight_decay: of Adam; the paper has none.
        periods_per_epoch: rebalancings in an epoch; the paper's 4.
        seed: of random layers, which draw from (seed, epoch, batch, rank).
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: MultiLoss,
        balancer: LossBalancer,
        learning_rate: float = 1e-4,
        weight_decay: float = 0.0,
        periods_per_epoch: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model, self.criterion, self.balancer = model, criterion, balancer
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.periods_per_epoch, self.seed = periods_per_epoch, seed
        self.metrics = DepthMetrics()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam without a schedule."""
        return torch.optim.Adam(self.model.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)

    def on_train_start(self) -> None:
        """A quarter epoch in optimizer steps is known only now."""
        batches, accumulate = int(self.trainer.num_training_batches), self.trainer.accumulate_grad_batches
        self.balancer.period = -(-batches // accumulate) / self.periods_per_epoch

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Random layers, such as Swin's, draw the same in a continued run."""
        torch.manual_seed(hash((self.seed, self.current_epoch, batch_idx, self.global_rank)) & 0xFFFF_FFFF)

    def forward(self, image: Tensor) -> Tensor:
        """Depth of images."""
        return self.model(image)

    def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
        """Weighted sum of losses of a batch, eq. (2)."""
        out = self.criterion(self.model(batch["image"]), batch["depth"], self.balancer.weights)
        self.balancer.observe(out.terms)
        self.log("train/loss_step", out.total, prog_bar=True)
        self.log("train/loss_epoch", out.total, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(out.terms))
        return out.total

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The optimizer's step, then the balancer's."""
        super().optimizer_step(*args, **kwargs)
        record = self.balancer.step()
        if record is not None:
            if record.dropped and not record.images:
                self._refuse_divergence("no image of the last period had finite losses")
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, RebalanceListener):
                    callback.on_rebalance(self.trainer, record)

    def on_validation_start(self) -> None:
        """Refuse a network that is beyond help before it replaces the files of the last good one."""
        if self.trainer.state.fn != "fit":
            return
        finite = [x.isfinite().all() for x in self.model.state_dict().values() if x.is_floating_point()]
        if not torch.stack(finite).all():  # the only number that is waited for
            self._refuse_divergence("the network holds numbers that are not finite")

    def _refuse_divergence(self, what: str) -> NoReturn:
        epoch = self.current_epoch
        kept = f"the run keeps its files of epoch {epoch}" if epoch else "nothing of it is worth keeping"
        raise ValueError(
            f"training has diverged in epoch {epoch + 1}, step {self.global_step}: {what}; {kept}. Start a new run "
            "with a lower --learning-rate, with --clip-gradient, or with --precision 32"
        )

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        """Scores at the working size, over measured pixels; a published protocol scores at the camera's size."""
        self.metrics.update(self.model(batch["image"]).float().clamp(min=MIN_DEPTH), batch["depth"], batch["valid"])

    def on_validation_epoch_end(self) -> None:
        """Mean over the images, over all ranks."""
        scores = self.metrics.compute()
        self.metrics.reset()
        self.log_dict({f"val/{name}": scores[name].float() for name in METRICS}, sync_dist=True)


@dataclass(frozen=True)
class TrainingResult:
    """What a run ended with.

    Attributes:
        path: the run's folder.
        constant: scores of the best thing one can do without looking: the median training depth everywhere.
        before: scores before the first step.
        after: scores after the last epoch.
    """

    path: Path
    constant: dict[str, float]
    before: dict[str, float]
    after: dict[str, float]


def constant_prediction(data: DepthData, images: int = 64) -> dict[str, float]:
    """Scores of a prediction that is the median training depth everywhere: what any network has to beat.

    Args:
        data: the data, set up.
        images: how many training images the median is taken of.
    """
    medians: list[Tensor] = []
    for batch in data.train_dataloader():
        medians += [depth[valid].median() for depth, valid in zip(batch["depth"], batch["valid"], strict=True)]
        if len(medians) >= images:
            break
    constant, metric = torch.stack(medians).median(), DepthMetrics()
    for batch in data.val_dataloader():
        metric.update(torch.full_like(batch["depth"], float(constant)), batch["depth"], batch["valid"])
    scores = metric.compute()
    return {name: float(scores[name]) for name in METRICS}


def train(config: TrainingConfig, resume: Path | None = None, console: Console | None = None) -> TrainingResult:
    """Train a network as the settings say, validate it every epoch, and leave a run folder with figures.

    Args:
        config: the settings.
        resume: folder of an earlier run to continue; its settings must be given as ``config``.
        console: where to print.

    Returns:
        Scores before and after, and the folder.

    Raises:
        ValueError, FileNotFoundError, FileExistsError, OSError: for settings, data or folders that do not work, before
            the first step.
    """
    console = Console(quiet=True) if getattr(rank_zero_only, "rank", 0) else console or Console()
    config.validate(resuming=resume is not None)
    _quiet()
    if config.threads:
        torch.set_num_threads(config.threads)
    L.seed_everything(config.seed, verbose=False)
    earlier, steps = (None, 0) if resume is None else _earlier(resume, config)
    data = DepthData.from_config(config)
    data.setup("fit")
    data.require_devices(config.devices)
    _introduce(console, config, data)

    model = DepthModel(config.backbone, config.decoder_channels, False if earlier else config.pretrained_weights)
    model = model.to(memory_format=torch.channels_last)  # convolutions on CPUs and tensor cores are faster by far
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    source = earlier.recorded()["weights_source"] if earlier else model.weights_source
    _say(console, "network", f"{config.backbone}, {size / 4e6:.1f} M parameters, backbone from {source}")
    # Two models and a state: weights with Adam's two moments. A new file lies beside the older one for a while.
    if earlier:
        run = earlier
        run.require_space(3 * size)
        run.write_config(config)
    else:
        run = Run.create(config, space=7 * size)
        run.record(weights_source=source, parameters=size // 4)
    _say(console, "run", str(run.path))
    run.record_environment()

    criterion = MultiLoss(config.space, config.downsample)
    task = DepthTraining(
        model,
        criterion,
        config.make_balancer(),
        config.learning_rate,
        config.weight_decay,
        config.periods_per_epoch,
        config.seed,
    )
    trainer = L.Trainer(
        accelerator=config.device,
        devices=config.devices,
        precision={"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[config.precision],  # type: ignore[arg-type]
        max_epochs=config.epochs,
        limit_train_batches=config.steps_per_epoch,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip_gradient or None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the data shares itself out
        logger=[
            metrics_logger(run.path, steps),
            TensorBoardLogger(run.path, name="", version="", sub_dir="tensorboard"),
        ],
        callbacks=[
            BalancingLog(run.path / "balancing.csv"),
            EpochReport(console),
            *([RichProgressBar(refresh_rate=1)] if console.is_terminal else []),
            ModelFiles(run.path, config.as_dict()),
            state_checkpoint(run.state_file),
        ],
        plugins=[StateFiles()],
        enable_model_summary=False,
        enable_progress_bar=console.is_terminal,
        log_every_n_steps=10,
    )
    with _stopping(run, trainer):
        if earlier:
            constant, before = (run.recorded()[name] for name in ("constant", "before"))
        else:
            constant, before = constant_prediction(data), _validate(trainer, task, data)
            run.record(constant=constant, before=before)
        _score_line(console, "constant depth", constant)
        _score_line(console, "before training", before)
        trainer.fit(task, datamodule=data, ckpt_path=run.state_file if earlier else None)
    after = {name.removeprefix("val/"): float(v) for name, v in trainer.callback_metrics.items() if name[:4] == "val/"}
    run.record(after=after, epochs=trainer.current_epoch, steps=trainer.global_step)

    if trainer.is_global_zero:
        figures.curves(run.path)
        figures.samples(run.path, model, data.val_dataloader())
        figures.contributions(run.path)
        console.print(_summary(constant, before, after))
        console.print(f"figures, checkpoints and logs are in {run.path}", highlight=False)
    return TrainingResult(run.path, constant, before, after)


def _validate(trainer: L.Trainer, task: DepthTraining, data: DepthData) -> dict[str, float]:
    (scores,) = trainer.validate(task, datamodule=data, verbose=False)
    return {name.removeprefix("val/"): value for name, value in scores.items()}


def _earlier(path: Path, config: TrainingConfig) -> tuple[Run, int]:
    """The run to continue, and the optimizer steps that it has taken.

    Raises:
        ValueError: there is nothing left to do, or a file of the run is damaged.
        FileNotFoundError: there is no such run, or nothing to continue.
    """
    run = Run.open(path)
    done, steps = run.progress()
    if done >= config.epochs:
        raise ValueError(f"--resume {path}: this run has finished {done} epochs of {config.epochs}: give more --epochs")
    if missing := {"constant", "before", "weights_source"} - run.recorded().keys():
        raise ValueError(f"{run.record_file} is damaged: it lacks {', '.join(sorted(missing))}")
    return run, steps


@contextmanager
def _stopping(run: Run, trainer: L.Trainer) -> Iterator[None]:
    """Say what a signal leaves: Lightning makes of Ctrl-C a silent exit, and of SIGTERM one that looks like success.

    Raises:
        KeyboardInterrupt: with the text.
        SystemExit: 143 after SIGTERM.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, RuntimeError) as stop:
        terminated = isinstance(stop, SIGTERMException) or trainer.received_sigterm
        if isinstance(stop, RuntimeError) and not terminated:  # otherwise it is a data worker that was ended too
            raise
        if run.state_file.is_file():
            text = f"stopped; --resume {run.path} continues after the last finished epoch"
        else:
            text = f"stopped in the first epoch: there is nothing to continue in {run.path}"
        if terminated:
            Console(stderr=True).print(text, highlight=False, soft_wrap=True)
            raise SystemExit(143) from stop
        raise KeyboardInterrupt(text) from stop


def _say(console: Console, what: str, text: str) -> None:
    console.print(f"{what:<9} {text}", highlight=False, soft_wrap=True)


def _introduce(console: Console, config: TrainingConfig, data: DepthData) -> None:
    """Say what is about to happen, and why where it was not asked for."""
    _say(console, "data", data.describe())
    if config.data == "rooms":
        why = "built-in scenes, because no data set was named: --data nyu --root FOLDER trains on NYU Depth v2"
        _say(console, "", f"({why})")
    _say(console, "losses", f"{len(config.space)} of 78 ({config.losses}), {config.balancer}")
    for line in backend_report().splitlines():
        _say(console, "engine", line)


def _score_line(console: Console, what: str, scores: dict[str, float]) -> None:
    console.print(
        f"{what:<16} delta1 {scores['delta1']:.3f}  rmse {scores['rmse']:.3f} m  ard {scores['ard']:.3f}",
        highlight=False,
    )


def _summary(*columns: dict[str, float]) -> Table:
    table = Table("metric", *(f"[bold]{name}" for name in ("constant depth", "before", "after")))
    for name in columns[0]:
        table.add_row(name, *(f"{scores[name]:.4f}" for scores in columns))
    return table


def _quiet() -> None:
    """Keep Lightning's advertisements and notes on settings chosen on purpose out of the output."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")  # within Lightning
    warnings.filterwarnings("ignore", message=".*Experiment logs directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than the logging interval.*")
