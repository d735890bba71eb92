# SPDX-License-Identifier: Apache-2.0
"""The settings of a training run, which the command line, YAML files and the run's record share.

They come in groups, the headings of ``--help``; names are unique over all of them, so that flags and files need no
group.
"""

from __future__ import annotations

import ast
import math
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from mlr.balancing import LossBalancer, lambda_staircase, make_balancer
from mlr.balancing.heads import HeadBalancers
from mlr.losses.criterion import MultiLoss
from mlr.losses.space import LossSpace
from mlr.models.checkpoints import checkpoint_file
from mlr.utils import renamed
from mlr.utils.flags import flag
from mlr.utils.sizes import MIN_SIDE, parse_size

if TYPE_CHECKING:  # readers of data sets take a second to import, and --help needs none
    from mlr.data.named_sets import NamedSet


def _at_least(least: int, default: Any, most: int | None = None) -> Any:
    """A whole number within bounds that :meth:`TrainingSettings.validate` checks."""

    def must(value: int) -> str | None:
        if value < least:
            return f"at least {least}"
        return f"at most {most}" if most is not None and value > most else None

    return field(default=default, metadata={"must": must})


def _number(default: float, positive: bool = False, below: float = math.inf) -> Any:
    """A finite number, positive or not negative, that :meth:`TrainingSettings.validate` checks."""

    def must(value: float) -> str | None:
        right = math.isfinite(value) and (value > 0 if positive else value >= 0) and value < below
        limit = f" below {below:g}" if math.isfinite(below) else ""
        return None if right else f"{'a positive number' if positive else 'a number from 0'}{limit}"

    return field(default=default, metadata={"must": must})


@dataclass(frozen=True)
class DataSettings:
    """Data: where images and depth come from.

    Args:
        data: where images and depth come from: "rooms" are built-in scenes that need no files, "folder" your own pairs
            of images and depth files, "packed" the file that mlr prepare wrote; also nyu (labelled set), nyu-zip,
            nyu-h5, nyu-sync, nyu-parquet, sunrgbd, matterport3d, kitti, make3d. NAME:PATH says its root too, and
            NAME:PATH+NAME:PATH trains on several; a list in a settings file says what is particular to each.
            docs/data.md describes them.
        root: folder (or file) of the data set; not used by "rooms".
        data_options: options of the data set, e.g. "kb_crop=true,list_file=mine.txt"; "max_depth=300" says that depth
            beyond 100 m is true.
        depth_unit: unit of integer depth files of "folder": mm, m, 256 (KITTI) or any number of units per metre.
        holes: what to do with pixels without depth: "mask" leaves them out of the losses, "colorize" fills along the
            image (0.1 s a frame: better once, by mlr prepare), "nearest" takes the nearest depth, "error" stops and
            names the frame.
        size: HxW in pixels that the network and the losses work at.
        augment: "paper" is the paper's policy (flip, rotation, colour), "hu2019" that of Hu et al. (with a crop,
            colour not cut off at black and white), "none" only resizes.
        train_length: scenes in an epoch of "rooms".
        val_length: scenes to validate on of "rooms".
        workers: processes that load data; -1 chooses by the number of cores.
    """

    data: str = "rooms"
    root: Path | None = None
    data_options: str = ""
    depth_unit: str | None = None
    holes: Literal["mask", "colorize", "nearest", "error"] = "mask"
    size: str = "288x384"
    augment: Literal["paper", "hu2019", "none"] = "paper"
    train_length: int = _at_least(1, 800)
    val_length: int = _at_least(1, 100)
    workers: int = _at_least(-1, -1)


@dataclass(frozen=True)
class ModelSettings:
    """Model: the network.

    Args:
        backbone: any timm model name, or pnasnet, densenet161, vgg16, resnet50, senet154 of the paper.
        decoder: "paper" is the paper's, "unet" adds skip connections to it (for CNNs and other networks with maps at
            several strides), "dpt" fuses four levels of any transformer or CNN.
        decoder_channels: channels the decoder starts with; "dpt" takes a quarter of them throughout.
        pretrained: ImageNet weights of the backbone: "auto" uses them where they can be had and says so otherwise,
            "true" insists, "false" starts from random weights, anything else is a weights file.
        init: start from a trained network: a checkpoint, a run's folder (its best.pt) or the authors' file. Backbone
            and decoder are its own where flags do not say otherwise.
        init_partial: take from --init what fits; the rest starts as without it.
        freeze: "encoder" trains the decoder alone: the backbone keeps its weights and its normalisation statistics;
            "encoder:3" does so for three epochs; "none" trains both.
    """

    backbone: str = "pnasnet"
    decoder: str = "paper"
    decoder_channels: int = _at_least(32, 1024)
    pretrained: str = "auto"
    init: Path | None = None
    init_partial: bool = False
    freeze: str = "none"


@dataclass(frozen=True)
class LossSettings:
    """Losses: what is learned, by which losses, and how they are balanced.

    Args:
        task: what the network learns: "metric" depth (the paper's); "relative" depth, the order of points alone, by
            a ranking loss on pairs beside the losses on aligned maps; or "fusion", metric depth fused from six maps of
            depth and six of its ratios to neighbours, each by its own balanced losses. docs/relative.md describes both.
        pairs: of "relative": pairs of points that are drawn in an image, where the data set has none of its own.
        pair_tolerance: of "relative": pairs whose depths differ by at most this share of the nearer one are equal.
        losses: selection from the 78 losses, e.g. "all", "depth+gradient", "*/3-5", "D/0+r/0+c/0"; with --task
            relative also "rank", the ranking loss alone.
        downsample: how depth is brought to coarser scales: "bicubic" (the authors' program) or "area" (2x2 means, for
            sparse depth such as a LiDAR's).
        balancer: "rebalancing" is the paper's algorithm, "equal" only its initialisation, "fixed" equal weights; its
            rivals are uncertainty, cov, random, dwa and relobralo.
        balancer_options: further options of the balancer, e.g. "equal_start=false,clip=none" or "lr=0.01".
        lambda_start: of "rebalancing", its parameter in the first epoch.
        lambda_slope: its change per epoch.
        lambda_floor: its last value.
        periods_per_epoch: rebalancings in an epoch.
    """

    task: Literal["metric", "relative", "fusion"] = "metric"
    pairs: int = _at_least(1, 1000)
    pair_tolerance: float = _number(0.03)
    losses: str = "all"
    downsample: Literal["bicubic", "area"] = "bicubic"
    balancer: str = "rebalancing"
    balancer_options: str = ""
    lambda_start: float = 3.0
    lambda_slope: float = -1.5
    lambda_floor: float = -3.0
    periods_per_epoch: int = _at_least(1, 4)


@dataclass(frozen=True)
class OptimizerSettings:
    """Optimizer: Adam, its learning rate and its batches.

    Args:
        batch_size: images in a batch of one process.
        epochs: passes over the training data.
        steps_per_epoch: cut an epoch after so many batches.
        optimizer: "adam" adds the weight decay to the gradient, "adamw" takes it off the weights.
        learning_rate: of the optimizer; with a schedule the largest.
        backbone_lr_factor: the backbone's learning rate is the decoder's times this.
        weight_decay: of the optimizer; biases and the parameters of normalisations have none.
        schedule: of the learning rate after the warm-up: "constant", "cosine" and "poly" (power 0.9) fall to 0 at the
            end of the run, "onecycle" rises and falls (its rise is the warm-up, or 0.3 of the run).
        warmup: epochs in which the learning rate rises linearly, e.g. 0.5.
        ema: decay of an exponential moving average of the weights, e.g. 0.999; it is validated, and evaluate and
            predict take it. 0 makes none.
        precision: "32", or mixed precision "bf16" or "fp16".
        accumulate: batches whose gradients are added up for one optimizer step.
        clip_gradient: largest norm of the gradient; 0 does not clip.
    """

    batch_size: int = _at_least(1, 8)
    epochs: int = _at_least(1, 20)
    steps_per_epoch: int | None = _at_least(1, None)
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = _number(1e-4, positive=True)
    backbone_lr_factor: float = _number(1.0, positive=True)
    weight_decay: float = _number(0.0)
    schedule: Literal["constant", "cosine", "poly", "onecycle"] = "constant"
    warmup: float = _number(0.0)
    ema: float = _number(0.0, below=1.0)
    precision: Literal["32", "bf16", "fp16"] = "32"
    accumulate: int = _at_least(1, 1)
    clip_gradient: float = _number(0.0)

    def steps(self, batches: int) -> int:
        """Optimizer steps of the whole run.

        Args:
            batches: batches of a process in an uncut epoch.
        """
        return -(-min(batches, self.steps_per_epoch or batches) // self.accumulate) * self.epochs

    @property
    def rate_is_constant(self) -> bool:
        """Whether the learning rate never changes."""
        return self.schedule == "constant" and not self.warmup


@dataclass(frozen=True)
class RunSettings:
    """Run: seed, machine and folder.

    Args:
        seed: of the network's weights, the order of the data, the augmentation and balancers that draw.
        device: "auto", "cpu" or "gpu".
        devices: how many of them on a machine, each with a process.
        nodes: machines; torchrun or srun starts the command on each, see docs/scaling.md.
        threads: CPU threads of a process; 0 takes its share of the CPUs that affinity and quota allow.
        out: folder of the run; by default runs/<backbone>-<data>-<date>. An earlier run is never overwritten.
    """

    seed: int = _at_least(0, 0, most=2**32 - 1)
    device: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = _at_least(1, 1)
    nodes: int = _at_least(1, 1)
    threads: int = _at_least(0, 0)
    out: Path | None = None


#: The groups by the names that settings files may use.
GROUPS: dict[str, type] = {
    "data": DataSettings, "model": ModelSettings, "losses": LossSettings, "optimizer": OptimizerSettings,
    "run": RunSettings,
}  # fmt: skip


@dataclass(frozen=True)
class TrainingSettings(RunSettings, OptimizerSettings, LossSettings, ModelSettings, DataSettings):
    """Train a monocular depth network with the 78 losses of the paper and their rebalancing.

    All groups in one, by the names of their settings.
    """

    def __post_init__(self) -> None:
        # older runs and command lines have older names
        object.__setattr__(self, "augment", renamed.AUGMENTATIONS.get(self.augment, self.augment))
        if self.depth_unit is not None:
            object.__setattr__(self, "depth_unit", renamed.UNITS.get(self.depth_unit, self.depth_unit))
        if ":" in self.data and self.root is None and not self.sets:
            name, _, root = self.data.partition(":")
            object.__setattr__(self, "data", name)
            object.__setattr__(self, "root", Path(root) if root else None)

    @property
    def height_width(self) -> tuple[int, int]:
        """The size as numbers."""
        return parse_size(self.size, MIN_SIDE)

    @property
    def sets(self) -> tuple[NamedSet, ...]:
        """The data sets, where there are several or one with particulars; none where ``data`` and ``root`` say all."""
        from mlr.data.named_sets import is_mixture, parse_sets

        return parse_sets(self.data) if is_mixture(self.data) else ()

    @property
    def set_names(self) -> tuple[str, ...]:
        """Names of the sets of :attr:`sets`."""
        return tuple(entry.name for entry in self.sets)

    @property
    def data_names(self) -> str:
        """Names of the data sets, without their paths."""
        return "+".join(self.set_names) or self.data

    @property
    def space(self) -> LossSpace:
        """The losses."""
        return LossSpace(self.losses)

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Names of the losses that are balanced; the ranking loss of relative depth is the last."""
        if self.task != "relative":
            return self.space.names
        return (*(() if self._ranking_alone else self.space.names), "rank")

    @property
    def _ranking_alone(self) -> bool:
        """Whether pairs alone are learned: by choice, or because the data has nothing else."""
        from mlr.data.datasets.registry import dataset_truth

        return self.task == "relative" and (self.losses == "rank" or dataset_truth(self.data) == "pairs")

    def make_criterion(self) -> MultiLoss | None:
        """The losses on maps; None where pairs alone are learned."""
        return None if self._ranking_alone else MultiLoss(self.space, self.downsample)

    @property
    def pretrained_weights(self) -> bool | str:
        """The flag in the form that the model takes."""
        return {"true": True, "false": False}.get(self.pretrained.lower(), self.pretrained)

    @property
    def frozen_epochs(self) -> float:
        """Epochs in which the encoder is frozen; infinite for all.

        Raises:
            ValueError: ``freeze`` is of another form.
        """
        what, colon, epochs = self.freeze.partition(":")
        if self.freeze == "none":
            return 0
        if what == "encoder" and not colon:
            return math.inf
        if what == "encoder" and epochs.isdecimal() and int(epochs) > 0:
            return int(epochs)
        raise ValueError(f"--freeze must be none, encoder or encoder:N with N epochs, got {self.freeze!r}")

    def make_balancer(self) -> LossBalancer | HeadBalancers:
        """The balancer, or one a head, without its period, which follows from the length of an epoch."""
        if self.task == "fusion":
            from mlr.models.ordinary_relative import HEADS  # timm takes seconds, and --help needs it not

            return HeadBalancers(HEADS, self._make_balancer)
        return self._make_balancer()

    def _make_balancer(self) -> LossBalancer:
        options: dict[str, Any] = {}
        if self.balancer == "rebalancing":
            options["lam"] = lambda_staircase(
                self.lambda_start, self.lambda_slope, self.lambda_floor, self.periods_per_epoch
            )
        if self.balancer in ("random", "relobralo"):
            options["seed"] = self.seed
        options |= _typed_options(self.balancer_options)
        try:
            return make_balancer(self.balancer, self.loss_names, **options)
        except TypeError as error:
            raise ValueError(f"--balancer-options {self.balancer_options}: {error}") from error

    def validate(self, resuming: bool = False) -> TrainingSettings:
        """Check every setting that can be checked without loading anything.

        Args:
            resuming: a run is continued, so the weights that it started from are not needed again.

        Raises:
            ValueError, FileNotFoundError: naming the flag, what it was given and what it takes.
        """
        # here, not above: timm and torchvision take seconds, and --help needs neither
        from mlr.models.depth_model import check_backbone, check_decoder

        for setting in fields(self):
            value, must = getattr(self, setting.name), setting.metadata.get("must")
            if value is not None and must is not None and (bound := must(value)):
                raise ValueError(f"{flag(setting.name)} must be {bound}, got {value}")
        if self.threads > (os.cpu_count() or 1):
            raise ValueError(f"--threads must be at most {os.cpu_count()} here, got {self.threads}")
        _ = self.frozen_epochs
        if self.warmup >= self.epochs:
            raise ValueError(f"--warmup must be shorter than the run of {self.epochs} epochs, got {self.warmup:g}")
        has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
        if self.precision == "fp16" and (self.device == "cpu" or not has_gpu):
            raise ValueError("--precision fp16 is for GPUs; choose bf16, or 32")
        if self.device == "gpu" and not has_gpu:
            raise ValueError("--device gpu: PyTorch sees no GPU here; choose --device cpu, or auto")
        if self.device == "gpu" and self.devices > max(torch.cuda.device_count(), 1):
            raise ValueError(f"--devices {self.devices}: there are {torch.cuda.device_count()} GPUs here")
        _ = self.height_width
        if self.sets:
            self._validate_sets()
        else:
            self._validate_data()
        self.make_balancer()
        check_backbone(self.backbone)
        check_decoder(self.decoder, self.backbone)
        if not resuming:
            self._check_start()
        return self

    def _check_start(self) -> None:
        """Check the settings that name what the network starts from."""
        weights = self.pretrained_weights
        if self.init_partial and self.init is None:
            raise ValueError("--init-partial says what to do with --init CHECKPOINT, which is not given")
        if self.init is not None:
            checkpoint_file(self.init)
            if weights not in ("auto", False) and not self.init_partial:
                raise ValueError(
                    f"--pretrained {self.pretrained} has no effect: --init takes the whole network from "
                    f"{self.init}; leave one of them out"
                )
        if isinstance(weights, str) and weights != "auto" and not Path(weights).is_file():
            raise FileNotFoundError(
                f"--pretrained {weights}: there is no such file; give a weights file, auto, true or false"
            )

    def _validate_data(self) -> None:
        """Check the data set of a training on one."""
        from mlr.data.datasets.registry import check_metric, check_options, dataset_truth, parse_options

        if ":" in self.data:
            raise ValueError(f"--data {self.data} says its path, and --root {self.root} too: leave one out")
        check_options(self.data, parse_options(self.data_options))
        if self.task != "relative":
            check_metric(self.data)
        elif dataset_truth(self.data) == "pairs" and self.holes != "mask":
            raise ValueError(f"--holes {self.holes} fills depth, and {self.data} has none: leave it out")

    def _validate_sets(self) -> None:
        """Check the data sets of a training on several."""
        from mlr.data.named_sets import check_sets

        if self.task != "metric":
            raise ValueError(f"--task {self.task} trains on one data set, got {self.data_names}")
        for name in ("root", "data_options", "depth_unit"):
            if getattr(self, name):
                raise ValueError(
                    f"{flag(name)} is for a training on one data set; with several write it to its set: "
                    f"a path as NAME:PATH, other settings in a list, see docs/data.md"
                )
        check_sets(self.sets, self.space)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for YAML and for checkpoints."""
        values = asdict(self)
        return {name: str(values[name]) if isinstance(values[name], Path) else values[name] for name in self.names()}

    def flags(self) -> list[str]:
        """The command line that gives these settings."""
        return [f"{flag(name)}={value}" for name, value in self.as_dict().items() if value is not None]

    @classmethod
    def names(cls) -> list[str]:
        """Names of the settings, group by group."""
        return [setting.name for group in GROUPS.values() for setting in fields(group)]


def _typed_options(text: str) -> dict[str, Any]:
    """Options "a=1,b=false" with the values that Python reads, in any case: numbers, true, false, none; or words."""
    from mlr.data.datasets.registry import parse_options

    out: dict[str, Any] = {}
    for name, value in parse_options(text).items():
        try:
            out[name] = ast.literal_eval(value.title() if value.lower() in ("true", "false", "none") else value)
        except (ValueError, SyntaxError):
            out[name] = value
    return out
