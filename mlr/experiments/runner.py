# SPDX-License-Identifier: Apache-2.0
"""Runs a plan: every run once, resumed where it was cut, shared between processes, failures listed."""

from __future__ import annotations

import json
import math
import platform
import shutil
import statistics
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader

from mlr._version import __version__
from mlr.evaluation.scoring import Scores, predict
from mlr.experiments.frames import open_evaluation, packed_training
from mlr.experiments.plan import Plan, PlannedRun
from mlr.experiments.records import add_results, claimed, read_results
from mlr.training.run import Run
from mlr.utils.files import atomic_write
from mlr.utils.progress import duration
from mlr.utils.sizes import parse_size

#: Record of a finished run in its folder.
RECORD = "result.json"


class Experiment:
    """The folder in which the runs of one or more plans live.

    ::

        <out>/<run>/            an ordinary run folder with result.json once it has been scored
        <out>/<run>.lock        held by the process that works on the run
        <out>/<run>.failed      the error of a run that failed
        <out>/frames-*.h5       packed frames

    Args:
        plan: the plan.
        out: the folder.
        console: where to print.
    """

    def __init__(self, plan: Plan, out: Path, console: Console) -> None:
        self.plan, self.out, self.console = plan, out, console

    def folder(self, run: PlannedRun) -> Path:
        """The folder of a run."""
        return self.out / run.name

    def collect(self) -> dict[str, dict[str, Any]]:
        """All records of the plan's runs that are known, from the results file and from run folders."""
        known, records = read_results(self.plan.results), {}
        for run in self.plan.runs():
            file = self.folder(run) / RECORD
            if run.digest in known:
                records[run.digest] = known[run.digest]
            elif file.is_file():
                records[run.digest] = json.loads(file.read_text())
        return records

    def missing(self) -> list[PlannedRun]:
        """Runs without a record, in the order in which they are to be made."""
        records = self.collect()
        return [run for run in self.plan.runs() if run.digest not in records]

    def seconds(self) -> float | None:
        """How long a run takes: the median of those in the folder, or what the plan says; None if neither knows."""
        files = [file for run in self.plan.runs() if (file := self.folder(run) / "seconds.json").is_file()]
        measured = [float(json.loads(file.read_text())) for file in files]
        return statistics.median(measured) if measured else self.plan.seconds

    def work(self, retry: bool = False) -> list[str]:
        """Make every missing run that no other process holds.

        Args:
            retry: try failed runs again.

        Returns:
            Names of the runs that failed, in this process or before.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        if retry:
            for run in self.plan.runs():
                self._failure(run).unlink(missing_ok=True)
        begun, made = time.monotonic(), 0
        while True:
            missing = self.missing()
            waiting = [run for run in missing if not self._failure(run).is_file()]
            progress = False
            for run in waiting:
                with claimed(self.out / f"{run.name}.lock") as mine:
                    if not mine or (self.folder(run) / RECORD).is_file() or self._failure(run).is_file():
                        continue
                    progress = True
                    self._announce(run)
                    self._attempt(run)
                made += 1
                self._report(run, (time.monotonic() - begun) / made)
                break  # another process may have finished runs meanwhile: look again from the start
            if not progress:
                break
        add_results(self.plan.results, self.collect())
        return [run.name for run in self.plan.runs() if self._failure(run).is_file()]

    def _failure(self, run: PlannedRun) -> Path:
        return self.out / f"{run.name}.failed"

    def _announce(self, run: PlannedRun) -> None:
        """A run takes minutes or hours and prints nothing itself."""
        seconds = self.seconds()
        takes = "" if seconds is None else f", about {duration(seconds)}"
        self.console.print(f"[{time.strftime('%H:%M:%S')}] {run.name} begins{takes}", style="dim", soft_wrap=True)

    def _report(self, run: PlannedRun, seconds: float) -> None:
        records, total = self.collect(), len(self.plan.runs())
        record = records.get(run.digest)
        what = "failed" if record is None else f"delta1 {record['scores']['delta1']:.4f}"
        left = duration(seconds * (total - len(records)))
        self.console.print(
            f"[{time.strftime('%H:%M:%S')}] {len(records)}/{total} {run.name}: {what}; about {left} left with one "
            "process",
            highlight=False,
            soft_wrap=True,
        )

    def _attempt(self, run: PlannedRun) -> None:
        """Make a run; an error in it is written down and does not stop the others."""
        begun = time.monotonic()
        try:
            record = self._make(run)
        except Exception:  # whatever a run dies of, the others go on
            with atomic_write(self._failure(run)) as partial:
                partial.write_text(traceback.format_exc())
            return
        (self.folder(run) / "seconds.json").write_text(json.dumps(time.monotonic() - begun))
        with atomic_write(self.folder(run) / RECORD) as partial:
            partial.write_text(json.dumps(record, indent=1) + "\n")
        add_results(self.plan.results, {run.digest: record})

    def _make(self, run: PlannedRun) -> dict[str, Any]:
        from mlr.training.train import train  # timm, lightning and matplotlib take seconds: not for --dry-run

        folder, config = self.folder(run), run.config
        if self.plan.pack:
            config = packed_training(config, self.out, self.console)
        frames = open_evaluation(run, self.out, self.plan.pack, self.console)
        config = replace(config, out=folder)
        if not self._trained(folder):
            begun = (folder / "config.yaml").is_file()
            if not begun:
                shutil.rmtree(folder, ignore_errors=True)
            train(config, resume=folder if begun else None, console=Console(quiet=True))
        recorded = Run.open(folder).recorded()
        scores = score(folder / "last.pt", frames, run)
        (folder / "resume.ckpt").unlink(missing_ok=True)  # the largest file; nothing is left to resume
        return {
            **run.described,
            "scores": scores,
            "before": recorded["before"]["rmse"],
            "steps": recorded["steps"],
            "versions": {"mlr": __version__, "torch": torch.__version__, "python": platform.python_version()},
        }

    @staticmethod
    def _trained(folder: Path) -> bool:
        """Whether the training of a run has ended, whatever became of its scoring."""
        return (folder / "config.yaml").is_file() and "after" in Run(folder).recorded()


def score(checkpoint: Path, frames: Any, run: PlannedRun, batch: int = 8) -> dict[str, float | None]:
    """Mean scores of a network over the evaluation frames, under the plan's protocol.

    Args:
        checkpoint: the network's file.
        frames: the frames.
        run: names the protocol and the size of the network's input.
        batch: frames that are predicted together; they must have one size.

    Returns:
        Metric -> mean; None where no frame has such a score.
    """
    from mlr.evaluation.protocols import get_protocol
    from mlr.models.depth_model import open_model

    trained = open_model(checkpoint, run.config.device)
    model = trained.model.to(memory_format=torch.channels_last)  # as in training
    protocol = get_protocol(run.evaluation.protocol)
    size = parse_size(run.evaluation.size) if run.evaluation.size else run.config.height_width
    scores = Scores(protocol)
    for samples in DataLoader(frames, batch_size=batch, collate_fn=list):
        image, target, valid = (
            torch.stack([sample[name].as_subclass(Tensor) for sample in samples])
            for name in ("image", "depth", "valid")
        )
        depth = predict(model, image, protocol, size, device=trained.device).cpu()
        scores.add([sample["id"] for sample in samples], depth, target, None if protocol.needs_full else valid)
    means = scores.means() | scores.structure_means()
    return {name: None if math.isnan(value) else value for name, value in means.items()}
