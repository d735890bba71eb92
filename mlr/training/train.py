# SPDX-License-Identifier: Apache-2.0
"""Training from settings to figures: one function that runs it all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import LambdaCallback, LearningRateMonitor, RichProgressBar
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console

from mlr.data import DepthData
from mlr.data.mixture import MixedData, training_data
from mlr.models import DepthModel, load_checkpoint
from mlr.report.command import draw
from mlr.report.page import write_run_page
from mlr.report.samples import take_samples
from mlr.training.callbacks import (
    BalancingLog,
    EpochReport,
    MetricsTable,
    ModelFiles,
    ProgressLines,
    StateFiles,
    state_checkpoint,
)
from mlr.training.console import introduce, quiet, say, score_line, summary
from mlr.training.heartbeat import SignsOfLife
from mlr.training.initial import build_network
from mlr.training.launch import Launch
from mlr.training.logs import RunLogger
from mlr.training.module import DepthTraining
from mlr.training.optimization import parameter_groups
from mlr.training.processes import TIMEOUT, processes
from mlr.training.run import Run
from mlr.training.scores import ScoreNames
from mlr.training.sets import MixedTraining
from mlr.training.settings import TrainingSettings
from mlr.training.state import State, check_state, restoring
from mlr.training.tasks import training_class
from mlr.training.threads import choose_threads, yielding_when_busy
from mlr.utils.console import plain
from mlr.utils.counted import counted
from mlr.utils.renamed import current_metrics


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


def train(config: TrainingSettings, resume: Path | None = None, console: Console | None = None) -> TrainingResult:
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
    run = None if resume is None else Run.open(resume)
    state = None if run is None else run.state()
    config.validate(resuming=state is not None)
    launch = Launch.of()
    launch.check(config.devices, config.nodes, named=config.out is not None or resume is not None)
    quiet()
    choose_threads(config.threads, config.devices)
    L.seed_everything(config.seed, verbose=False)
    if run is None:
        Run.check_place(config)
    elif state is not None:
        _check_continues(config, run, state)
    data = training_data(config)
    data.setup("fit")
    data.require_devices(config.devices * config.nodes)
    introduce(console, config, data)
    if run is not None and state is not None and state.epochs >= config.epochs:
        return _finish(run, config, state, data, console)

    model, start = build_network(config, trained=state is not None)
    model = model.to(memory_format=torch.channels_last)  # convolutions on CPUs and tensor cores are faster by far
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    training: Callable[..., DepthTraining] = (
        partial(MixedTraining, config.sets) if config.sets else training_class(config.task)
    )
    task = training(
        model,
        config.make_criterion(),
        config.make_balancer(),
        config,
        config.periods_per_epoch,
        config.seed,
        data.masked,
        config.frozen_epochs,
    )
    # Two models and a state: weights with Adam's two moments. A new file lies beside the older one for a while.
    # An average of the weights is one more in each of them.
    new, more = (11, 4) if config.ema else (7, 3)
    if run is None:
        run = Run.create(config, space=new * size)
    else:
        run.require_space((more if state else new) * size)
        run.clean(everything=state is None)
    if state is None:
        run.record(weights_source=model.weights_source, parameters=size // 4)
        if start is not None:
            run.record(init=asdict(start))
        run.record_environment()
    else:
        check_state(state, task, parameter_groups(model, config))
    source = run.recorded()["weights_source"] if state else model.weights_source
    if start is not None:
        say(console, "init", str(start))
    say(console, "network", f"{config.backbone}, {size / 4e6:.1f} M parameters, backbone from {source}")
    say(console, "run", str(run.path))

    trainer = _trainer(config, run, launch, console, task.scores, source)
    arguments = [*config.flags(), *([] if resume is None else ["--resume", str(resume)])]
    with _stopping(run, trainer), processes(launch, config.devices, run, arguments) as watch, yielding_when_busy():
        if watch is not None and launch.external:
            trainer.callbacks.append(SignsOfLife(watch.give_up))  # type: ignore[attr-defined]
        if state:
            constant, before = (run.recorded()[name] for name in ("constant", "before"))
        else:
            constant, before = task.constant_scores(data, console), _validate(trainer, task, data)
            run.record(constant=constant, before=before)
        score_line(console, "constant depth", task.scores.line(constant))
        score_line(console, "before training", task.scores.line(before))
        with restoring(state, lambda: task.started):
            trainer.fit(task, datamodule=data, ckpt_path=state.file if state else None)
    after = {name.removeprefix("val/"): float(v) for name, v in trainer.callback_metrics.items() if name[:4] == "val/"}
    result = TrainingResult(run.path, constant, before, after)
    if trainer.is_global_zero:
        _conclude(run, config, result, trainer.current_epoch, trainer.global_step, task.network, data, console)  # type: ignore[arg-type]
    return result


def _check_continues(config: TrainingSettings, run: Run, state: State) -> None:
    """Refuse to continue a run that lacks a part of its record or has nothing left to do."""
    run.check_record("constant", "before", "weights_source")
    planned, ends = run.training_settings().epochs, config.schedule != "constant"
    if ends and config.epochs != planned:
        raise ValueError(
            f"--epochs {config.epochs}: the {config.schedule} schedule of {run.path} ends after its {planned} epochs; "
            f"leave --epochs out, or start another run with --init {run.path}"
        )
    if state.epochs >= config.epochs and run.is_finished(state.epochs):
        raise ValueError(
            f"--resume {run.path}: this run has finished {counted(state.epochs, 'epoch')} of {config.epochs}: "
            + (f"start another with --init {run.path}" if ends else "give more --epochs")
        )


def _trainer(
    config: TrainingSettings, run: Run, launch: Launch, console: Console, scores: ScoreNames, source: str
) -> L.Trainer:
    def begin(*_: Any) -> None:  # only now has a state been taken over, so that the run goes on
        run.write_config(config)
        run.record_environment()

    return L.Trainer(
        accelerator=config.device,
        devices=config.devices,
        num_nodes=config.nodes,
        strategy="auto" if config.devices * config.nodes == 1 else _ddp(config),
        precision={"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[config.precision],  # type: ignore[arg-type]
        max_epochs=config.epochs,
        limit_train_batches=config.steps_per_epoch,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip_gradient or None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # EpochSampler already splits by rank
        logger=RunLogger(run.path, name="", version="", sub_dir="tensorboard"),
        callbacks=[
            LambdaCallback(on_train_start=begin),
            MetricsTable(run.path / "metrics.csv", scores.names),
            BalancingLog(run.path / "balancing.csv"),
            EpochReport(console, scores),
            RichProgressBar(refresh_rate=1) if console.is_terminal else ProgressLines(console),
            *([] if config.rate_is_constant else [LearningRateMonitor()]),
            ModelFiles(run.path, config.as_dict() | {"weights_source": source}, scores.best),
            state_checkpoint(run.state_file),
        ],
        plugins=[StateFiles(), launch.cluster()],
        enable_model_summary=False,
        enable_progress_bar=console.is_terminal,
        log_every_n_steps=10,
    )


def _ddp(config: TrainingSettings) -> DDPStrategy:
    # an encoder that is to be thawed has no gradient until then, which DDP must expect
    return DDPStrategy(timeout=TIMEOUT, find_unused_parameters=0 < config.frozen_epochs < math.inf)


def _validate(trainer: L.Trainer, task: DepthTraining, data: DepthData | MixedData) -> dict[str, float]:
    (scores,) = trainer.validate(task, datamodule=data, verbose=False)
    return {name.removeprefix("val/"): value for name, value in scores.items()}


def _finish(
    run: Run, config: TrainingSettings, state: State, data: DepthData | MixedData, console: Console
) -> TrainingResult:
    """Scores and figures of a run that was stopped between its last state and them."""
    file = run.path / "last.pt"
    model, scores = DepthModel.from_checkpoint(file), current_metrics(load_checkpoint(file).metrics)
    record = run.recorded()
    result = TrainingResult(run.path, record["constant"], record["before"], scores)
    run.clean()
    _conclude(run, config, result, state.epochs, state.steps, model, data, console)
    return result


def _conclude(
    run: Run,
    config: TrainingSettings,
    result: TrainingResult,
    epochs: int,
    steps: int,
    model: DepthModel,
    data: DepthData | MixedData,
    console: Console,
) -> None:
    draw(run, config, take_samples(model, data.val_dataloader(), sets=config.set_names))
    page = write_run_page(run, config)
    run.record(after=result.after, epochs=epochs, steps=steps)  # last: it says that the run is finished
    console.print(summary(result.constant, result.before, result.after))
    plain(console, f"figures, checkpoints and logs are in {run.path}")
    plain(console, f"to look at in a browser: {page}")


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
        text = f"stopped; {run.left()}"
        if terminated:
            plain(Console(stderr=True), text)
            raise SystemExit(143) from stop
        raise KeyboardInterrupt(text) from stop
