# SPDX-License-Identifier: Apache-2.0
"""The settings of a training run: one flat, typed list that the command line, YAML files and the run's record share."""

from __future__ import annotations

import ast
import math
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch

from mlr.balancing import LossBalancer, lambda_staircase, make_balancer
from mlr.losses.reference import DOWNSAMPLE
from mlr.losses.space import LossSpace
from mlr.utils import renamed
from mlr.utils.flags import flag
from mlr.utils.sizes import MIN_SIDE, parse_size


@dataclass(frozen=True)
class TrainingSettings:
    """Train a monocular depth network with the 78 losses of the paper and their rebalancing.

    Args:
        data: where images and depth come from: "rooms" are built-in scenes that need no files, "folder" your own pairs
            of images and depth files, "packed" the file that mlr prepare wrote; also nyu (labelled set), nyu-zip,
            nyu-h5, nyu-sync, nyu-parquet, kitti, make3d. docs/data.md describes them.
        root: folder (or file) of the data set; not used by "rooms".
        data_options: options of the data set, e.g. "kb_crop=true,list_file=mine.txt".
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
        backbone: any timm model name, or pnasnet, densenet161, vgg16, resnet50, senet154 of the paper.
        decoder_channels: channels the decoder starts with.
        pretrained: ImageNet weights of the backbone: "auto" uses them where they can be had and says so otherwise,
            "true" insists, "false" starts from random weights, anything else is a weights file.
        freeze_encoder: train the decoder alone: the backbone keeps its weights and its normalisation statistics.
        losses: selection from the 78 losses, e.g. "all", "depth+gradient", "*/3-5", "D/0+r/0+c/0".
        downsample: how depth is brought to coarser scales: "bicubic" (the authors' program) or "area" (2x2 means, for
            sparse depth such as a LiDAR's).
        balancer: "rebalancing" is the paper's algorithm, "equal" only its initialisation, "fixed" equal weights; its
            rivals are uncertainty, cov, random, dwa and relobralo.
        balancer_options: further options of the balancer, e.g. "equal_start=false,clip=none" or "lr=0.01".
        lambda_start: of "rebalancing", its parameter in the first epoch.
        lambda_slope: its change per epoch.
        lambda_floor: its last value.
        periods_per_epoch: rebalancings in an epoch.
        batch_size: images in a batch.
        epochs: passes over the training data.
        steps_per_epoch: cut an epoch after so many batches.
        learning_rate: of Adam.
        weight_decay: of Adam.
        precision: "32", or mixed precision "bf16" or "fp16".
        accumulate: batches whose gradients are added up for one optimizer step.
        clip_gradient: largest norm of the gradient; 0 does not clip.
        seed: of the network's weights, the order of the data, the augmentation and balancers that draw.
        device: "auto", "cpu" or "gpu".
        devices: how many of them.
        threads: CPU threads; 0 leaves PyTorch's choice.
        out: folder of the run; by default runs/<backbone>-<data>-<date>. An earlier run is never overwritten.
    """

    data: str = "rooms"
    root: Path | None = None
    data_options: str = ""
    depth_unit: str | None = None
    holes: Literal["mask", "colorize", "nearest", "error"] = "mask"
    size: str = "288x384"
    augment: Literal["paper", "hu2019", "none", "eccv2020"] = "paper"
    train_length: int = 800
    val_length: int = 100
    workers: int = -1
    backbone: str = "pnasnet"
    decoder_channels: int = 1024
    pretrained: str = "auto"
    freeze_encoder: bool = False
    losses: str = "all"
    downsample: str = "bicubic"
    balancer: str = "rebalancing"
    balancer_options: str = ""
    lambda_start: float = 3.0
    lambda_slope: float = -1.5
    lambda_floor: float = -3.0
    periods_per_epoch: int = 4
    batch_size: int = 8
    epochs: int = 20
    steps_per_epoch: int | None = None
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    precision: Literal["32", "bf16", "fp16"] = "32"
    accumulate: int = 1
    clip_gradient: float = 0.0
    seed: int = 0
    device: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    threads: int = 0
    out: Path | None = None

    def __post_init__(self) -> None:
        # older runs and command lines have older names
        object.__setattr__(self, "augment", renamed.AUGMENTATIONS.get(self.augment, self.augment))
        if self.depth_unit is not None:
            object.__setattr__(self, "depth_unit", renamed.UNITS.get(self.depth_unit, self.depth_unit))

    @property
    def height_width(self) -> tuple[int, int]:
        """The size as numbers."""
        return parse_size(self.size, MIN_SIDE)

    @property
    def space(self) -> LossSpace:
        """The losses."""
        return LossSpace(self.losses)

    @property
    def pretrained_weights(self) -> bool | str:
        """The flag in the form that the model takes."""
        return {"true": True, "false": False}.get(self.pretrained.lower(), self.pretrained)

    def make_balancer(self) -> LossBalancer:
        """The balancer, without its period, which follows from the length of an epoch."""
        options: dict[str, Any] = {}
        if self.balancer == "rebalancing":
            options["lam"] = lambda_staircase(
                self.lambda_start, self.lambda_slope, self.lambda_floor, self.periods_per_epoch
            )
        if self.balancer in ("random", "relobralo"):
            options["seed"] = self.seed
        options |= _typed_options(self.balancer_options)
        try:
            return make_balancer(self.balancer, self.space.names, **options)
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
        from mlr.data.datasets.registry import check_options, parse_options
        from mlr.models.depth_model import check_backbone

        positive = {
            "train_length": 1, "val_length": 1, "batch_size": 1, "epochs": 1, "accumulate": 1, "devices": 1,
            "decoder_channels": 32, "periods_per_epoch": 1, "threads": 0, "workers": -1, "seed": 0,
        }  # fmt: skip
        for name, least in positive.items():
            if getattr(self, name) < least:
                raise ValueError(f"{flag(name)} must be at least {least}, got {getattr(self, name)}")
        for name, most in {"seed": 2**32 - 1, "threads": os.cpu_count() or 1}.items():
            if getattr(self, name) > most:
                raise ValueError(f"{flag(name)} must be at most {most} here, got {getattr(self, name)}")
        if self.steps_per_epoch is not None and self.steps_per_epoch < 1:
            raise ValueError(f"--steps-per-epoch must be at least 1, got {self.steps_per_epoch}")
        for name in ("learning_rate", "weight_decay", "clip_gradient"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0 or (value == 0 and name == "learning_rate"):
                raise ValueError(f"{flag(name)} must be a positive number, got {value}")
        if self.downsample not in DOWNSAMPLE:
            raise ValueError(f"--downsample must be one of {', '.join(DOWNSAMPLE)}, got {self.downsample!r}")
        has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
        if self.precision == "fp16" and (self.device == "cpu" or not has_gpu):
            raise ValueError("--precision fp16 is for GPUs; choose bf16, or 32")
        if self.device == "gpu" and not has_gpu:
            raise ValueError("--device gpu: PyTorch sees no GPU here; choose --device cpu, or auto")
        if self.device == "gpu" and self.devices > max(torch.cuda.device_count(), 1):
            raise ValueError(f"--devices {self.devices}: there are {torch.cuda.device_count()} GPUs here")
        _ = self.height_width
        self.make_balancer()
        check_options(self.data, parse_options(self.data_options))
        check_backbone(self.backbone)
        weights = self.pretrained_weights
        if isinstance(weights, str) and weights != "auto" and not resuming and not Path(weights).is_file():
            raise FileNotFoundError(
                f"--pretrained {weights}: there is no such file; give a weights file, auto, true or false"
            )
        return self

    def as_dict(self) -> dict[str, Any]:
        """Plain values for YAML and for checkpoints."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}

    def flags(self) -> list[str]:
        """The command line that gives these settings."""
        return [f"{flag(name)}={value}" for name, value in self.as_dict().items() if value is not None]

    @classmethod
    def names(cls) -> list[str]:
        """Names of the settings."""
        return [f.name for f in fields(cls)]


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
