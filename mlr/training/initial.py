# SPDX-License-Identifier: Apache-2.0
"""The network that a run starts with: ImageNet weights, random ones, or those of a trained network."""

from __future__ import annotations

from dataclasses import dataclass

from mlr.models import DepthModel, load_checkpoint
from mlr.models.checkpoints import CheckpointError, checkpoint_file, compare, load_matching
from mlr.training.settings import TrainingSettings
from mlr.training.tasks import task_network


@dataclass(frozen=True)
class Start:
    """What a trained network gave to the network of a run.

    Attributes:
        checkpoint: the file.
        origin: "mlr" or "authors".
        matched: how many of the network's tensors it gave.
        tensors: how many the network has.
        differences: what did not fit, in words.
    """

    checkpoint: str
    origin: str
    matched: int
    tensors: int
    differences: tuple[str, ...] = ()

    def __str__(self) -> str:
        count = f"all {self.tensors}" if self.matched == self.tensors else f"{self.matched} of {self.tensors}"
        return "; ".join([f"{self.checkpoint} gives {count} tensors of the network", *self.differences])


def build_network(config: TrainingSettings, trained: bool = False) -> tuple[DepthModel, Start | None]:
    """The network of a run, as the run begins.

    Args:
        config: names the network and what it starts from.
        trained: a state is going to replace all weights, so none are looked for.

    Returns:
        The network, and what ``config.init`` gave to it; None if it is not set.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: weights do not fit; what differs is listed.
    """
    init = None if trained else config.init
    weights = False if trained or (init is not None and not config.init_partial) else config.pretrained_weights
    model = task_network(config.task)(config.backbone, config.decoder_channels, weights, decoder=config.decoder)
    if init is None:
        return model, None
    file = checkpoint_file(init)
    checkpoint = load_checkpoint(file)
    fit, tensors = compare(model, checkpoint.model), len(model.state_dict())
    if fit.differences and not config.init_partial:
        raise CheckpointError(
            f"--init {file} gives {len(fit.matched)} of {tensors} tensors of the network; "
            + "; ".join(fit.differences)
            + ". Choose the checkpoint's --backbone and --decoder-channels, or take what fits with --init-partial"
        )
    load_matching(model, checkpoint.model, file)
    start = Start(str(file), checkpoint.origin, len(fit.matched), tensors, fit.differences)
    rest = f", {len(fit.matched)} of {tensors} tensors; the rest: {model.weights_source}" if fit.differences else ""
    model.weights_source = f"checkpoint: {file}{rest}"
    return model, start
