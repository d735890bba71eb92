# SPDX-License-Identifier: Apache-2.0
"""Training from settings to figures: one function that runs it all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from torch import Tensor

from mlr.data import DepthData
from mlr.evaluation import METRICS, DepthMetrics
from mlr.losses import MultiLoss
from mlr.models import DepthModel
from mlr.training import figures
from mlr.training.callbacks import BalancingLog, EpochReport, ModelFiles, StateFiles, metrics_logger, state_checkpoint
from mlr.training.console import introduce, quiet, say, score_line, summary
from mlr.training.module import DepthTraining
from mlr.training.run import Run
from mlr.training.settings import TrainingConfig


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
    quiet()
    if config.threads:
        torch.set_num_threads(config.threads)
    L.seed_everything(config.seed, verbose=False)
    earlier, steps = (None, 0) if resume is None else _earlier(resume, config)
    data = DepthData.from_config(config)
    data.setup("fit")
    data.require_devices(config.devices)
    introduce(console, config, data)

    model = DepthModel(config.backbone, config.decoder_channels, False if earlier else config.pretrained_weights)
    model = model.to(memory_format=torch.channels_last)  # convolutions on CPUs and tensor cores are faster by far
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    source = earlier.recorded()["weights_source"] if earlier else model.weights_source
    say(console, "network", f"{config.backbone}, {size / 4e6:.1f} M parameters, backbone from {source}")
    # Two models and a state: weights with Adam's two moments. A new file lies beside the older one for a while.
    if earlier:
        run = earlier
        run.require_space(3 * size)
        run.write_config(config)
    else:
        run = Run.create(config, space=7 * size)
        run.record(weights_source=source, parameters=size // 4)
    say(console, "run", str(run.path))
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
        config.freeze_encoder,
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
        score_line(console, "constant depth", constant)
        score_line(console, "before training", before)
        trainer.fit(task, datamodule=data, ckpt_path=run.state_file if earlier else None)
    after = {name.removeprefix("val/"): float(v) for name, v in trainer.callback_metrics.items() if name[:4] == "val/"}
    run.record(after=after, epochs=trainer.current_epoch, steps=trainer.global_step)

    if trainer.is_global_zero:
        figures.curves(run.path)
        figures.samples(run.path, model, data.val_dataloader())
        figures.contributions(run.path)
        console.print(summary(constant, before, after))
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
