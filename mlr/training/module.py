# SPDX-License-Identifier: Apache-2.0
"""The paper's recipe as a LightningModule."""

from __future__ import annotations

import math
import warnings
from typing import Any, NoReturn

import lightning.pytorch as L
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics import SumMetric

from mlr.balancing import LossBalancer
from mlr.data import DepthData
from mlr.data.mixture import MixedData
from mlr.evaluation import DepthMetrics
from mlr.losses.criterion import MultiLossOutput
from mlr.training.callbacks import RebalanceListener
from mlr.training.constant import constant_prediction
from mlr.training.optimization import make_optimizer, make_schedule
from mlr.training.scores import DEPTH_SCORES, ScoreNames
from mlr.training.settings import OptimizerSettings
from mlr.training.watch import AbsentLosses, ImageMean, NonFiniteLosses

#: Predictions are clamped to this depth for scores, as in the authors' evaluation, metres.
MIN_DEPTH = 1e-4


class DepthTraining(L.LightningModule):
    """A depth network, its losses and their balancer under an optimizer, eq. (1); the paper's is Adam.

    The balancer sees the losses of every training batch and takes a step after every optimizer step; its state is part
    of this module's, so a run continues in the middle of a period.

    Args:
        model: network from images [B, 3, H, W] in [0, 1] to depth [B, 1, H, W] in metres.
        criterion: the losses, a :class:`mlr.MultiLoss`.
        balancer: their weights.
        optimization: optimizer, learning rates, their schedule, and the average of the weights.
        periods_per_epoch: rebalancings in an epoch; the paper's 4.
        seed: of random layers, which draw from (seed, epoch, batch, rank).
        masked: whether "valid" of a batch is the losses' mask. Otherwise its depth has no holes.
        frozen_epochs: epochs in which ``model.encoder`` keeps its weights and normalisation statistics.

    Attributes:
        scores: what validation scores by.
        average: exponential moving average of the network's weights and statistics; None without one.
    """

    scores: ScoreNames = DEPTH_SCORES

    def __init__(
        self,
        model: nn.Module,
        criterion: Any,
        balancer: LossBalancer,
        optimization: OptimizerSettings = OptimizerSettings(),  # noqa: B008 - frozen
        periods_per_epoch: int = 4,
        seed: int = 0,
        masked: bool = False,
        frozen_epochs: float = 0,
    ) -> None:
        super().__init__()
        self.model, self.criterion, self.balancer = model, criterion, balancer
        self.optimization = optimization
        self.periods_per_epoch, self.seed, self.masked = periods_per_epoch, seed, masked
        self.started = False
        self.metrics = DepthMetrics()
        self.loss, self.equal_loss = ImageMean(), ImageMean()
        self.unknown = SumMetric(nan_strategy="disable")  # a look for NaN at every step would wait for the device
        self.nonfinite, self.absent = NonFiniteLosses(balancer.names), AbsentLosses()
        self.frozen_epochs = frozen_epochs
        self._thawing = []
        if frozen_epochs == math.inf:
            model.encoder.requires_grad_(False)
        elif frozen_epochs:
            # still to be trained, so that the optimizer, and DDP where it shares gradients, know them from the start
            self._thawing = [p for p in model.encoder.parameters() if p.requires_grad]  # type: ignore[union-attr]
        self.average: AveragedModel | None = None
        if optimization.ema:
            decay = get_ema_multi_avg_fn(optimization.ema)
            self.average = AveragedModel(model, multi_avg_fn=decay, use_buffers=True).requires_grad_(False)
        if frozen_epochs or self.average is not None:
            self.train()

    @property
    def network(self) -> nn.Module:
        """The network that is validated and used: the average where there is one."""
        return self.model if self.average is None else self.average.module

    @property
    def encoder_is_frozen(self) -> bool:
        """Whether the current epoch leaves the encoder as it is."""
        return self.current_epoch < self.frozen_epochs

    def train(self, mode: bool = True) -> DepthTraining:
        """A frozen encoder and the average stay in evaluation mode."""
        super().train(mode)
        if self.encoder_is_frozen:
            self.model.encoder.eval()  # type: ignore[union-attr]
        if self.average is not None:
            self.average.eval()
        return self

    def configure_optimizers(self) -> Any:
        """The optimizer, and the schedule if the rates are not constant."""
        optimizer = make_optimizer(self.model, self.optimization)
        if self.optimization.rate_is_constant:
            return optimizer
        # not Lightning's estimated_stepping_batches: it makes the loader before a run that continues knows its epoch
        batches = len(self.trainer.datamodule.train_dataloader())  # type: ignore[attr-defined]
        schedule = make_schedule(optimizer, self.optimization, self.optimization.steps(batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """A quarter epoch in optimizer steps is known only now."""
        batches, accumulate = int(self.trainer.num_training_batches), self.trainer.accumulate_grad_batches
        self.balancer.period = -(-batches // accumulate) / self.periods_per_epoch
        self.started = True
        if self.average is not None:
            # torch reads this number at every step, which must not wait for the device
            self.average.n_averaged = self.average.n_averaged.cpu()

    def on_train_epoch_start(self) -> None:
        """Freeze or thaw the encoder, which follows from the number of the epoch alone."""
        for parameter in self._thawing:
            parameter.requires_grad_(not self.encoder_is_frozen)
        if self._thawing:
            self.train()

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Random layers, such as Swin's, draw the same in a continued run."""
        torch.manual_seed(hash((self.seed, self.current_epoch, batch_idx, self.global_rank)) & 0xFFFF_FFFF)

    def forward(self, image: Tensor) -> Tensor:
        """Depth of images."""
        return self.model(image)

    def losses(self, batch: dict[str, Any]) -> MultiLossOutput:
        """Losses of a batch, and their weighted sum, eq. (2)."""
        mask = batch["valid"] if self.masked else None
        return self.criterion(self.model(batch["image"]), batch["depth"], self.balancer.weights, mask)

    def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
        """Weighted sum of losses of a batch: the mean over the images that have a known depth."""
        out = self.losses(batch)
        self.balancer.observe(out.terms, out.counts)
        self.nonfinite.observe(out.terms, batch["id"], self.global_step)
        total, images = out.total, out.terms.new_full((), len(out.terms))
        if out.counts is not None:
            # an image without any known depth has a total of 0 and would count as perfect
            images = (out.counts > 0).any(1).sum()
            total = total * (len(out.terms) / images.clamp(min=1))
            self.unknown.update(len(out.terms) - images)
            self.log("train/images_without_depth", self.unknown, on_step=False, on_epoch=True)
            self._warn_of_absent_losses(out.counts)
        self.loss.update(total.detach(), images)
        self.equal_loss.update(out.terms.mean(1).sum() / images.clamp(min=1), images)
        self.log("train/loss_step", total, prog_bar=True)
        self.log("train/loss_epoch", self.loss, on_step=False, on_epoch=True)
        self.log("train/equal_loss_epoch", self.equal_loss, on_step=False, on_epoch=True)
        return total

    def _warn_of_absent_losses(self, counts: Tensor) -> None:
        share = self.absent.observe(counts)
        if share is not None and share > 0.5:
            advice = (
                "" if self.criterion.downsample == "area" else ": --downsample area keeps sparse depth, as of a LiDAR"
            )
            warnings.warn(
                f"{100 * share:.0f} % of the losses find no position with known depth in the first batches{advice}",
                stacklevel=2,
            )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The optimizer's step, then the average's and the balancer's."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update_parameters(self.model)
        record = self.balancer.step()
        if record is not None:
            found = self.nonfinite.read() if record.dropped else None
            if record.dropped and not record.images:
                self._refuse_divergence(
                    "no image of the last period had finite losses" + (f": {found}" if found else "")
                )
            if found:
                warnings.warn(
                    f"{found}, the first of {record.dropped} images left out of period {record.period}: check its "
                    "depth and image (mlr check-data)",
                    stacklevel=1,  # not Lightning's, whose warnings are not shown
                )
            self.nonfinite.reset()
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, RebalanceListener):
                    callback.on_rebalance(self.trainer, record)

    def on_validation_start(self) -> None:
        """Refuse a network with numbers that are not finite before it replaces the files of the last good one."""
        if self.trainer.state.fn != "fit":
            return
        finite = [x.isfinite().all() for x in self.model.state_dict().values() if x.is_floating_point()]
        if not torch.stack(finite).all():  # the single synchronisation
            found = self.nonfinite.read()
            self._refuse_divergence("the network holds numbers that are not finite" + (f": {found}" if found else ""))

    def _refuse_divergence(self, what: str) -> NoReturn:
        epoch = self.current_epoch
        kept = f"the run keeps its files of epoch {epoch}" if epoch else "nothing of it is worth keeping"
        raise ValueError(
            f"training has diverged in epoch {epoch + 1}, step {self.global_step}: {what}; {kept}. Start a new run "
            "with a lower --learning-rate, with --clip-gradient, or with --precision 32"
        )

    def constant_scores(self, data: DepthData | MixedData, console: Console) -> dict[str, float]:
        """Scores of the best thing one can do without looking."""
        return constant_prediction(data, console)

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        """Scores at the working size, over measured pixels; a published protocol scores at the camera's size."""
        self.metrics.update(self.network(batch["image"]).float().clamp(min=MIN_DEPTH), batch["depth"], batch["valid"])

    def on_validation_epoch_end(self) -> None:
        """Mean over the images, over all ranks."""
        scores = self.metrics.compute()
        self.metrics.reset()
        self.log_dict({f"val/{name}": scores[name].float() for name in self.scores.names}, sync_dist=True)
