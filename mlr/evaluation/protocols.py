# SPDX-License-Identifier: Apache-2.0
"""Evaluation protocols by name: what is done to a prediction before it is scored.

Numbers of two protocols are not comparable: three different "Eigen crops" of NYUv2 are in circulation, some papers
score filled ground truth and some raw, some cap the prediction. A protocol states each choice, applies them in one
order, and gives the record that is stored with every number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mlr.data.datasets.kitti import KB_CROP
from mlr.data.sample import Region
from mlr.utils import renamed
from mlr.utils.suggest import suggest

Box = tuple[int, int, int, int]
Fractions = tuple[float, float, float, float]


@dataclass(frozen=True)
class Input:
    """What a network is shown of an image.

    Attributes:
        resize: "trained" brings the image to a size as in training, antialiased bilinear, and the depth back to the
            image's size; "bicubic", as the authors' program does, has no antialiasing, and the depth stays as it is.
        size: (height, width); None = left to the network.
        rows: rows of the image, first and last + 1, that the network is shown; None = all.
        image_height: rows that the image must have.
        flip_average: the depth is the mean with that of the mirrored image.
    """

    resize: Literal["trained", "bicubic"] = "trained"
    size: tuple[int, int] | None = None
    rows: tuple[int, int] | None = None
    image_height: int | None = None
    flip_average: bool = False

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the part of an image that is shown.

        Raises:
            ValueError: the image has another height than the rows are defined on.
        """
        if not self.rows:
            return height, width
        if self.image_height and height != self.image_height:
            raise ValueError(f"it is defined on images of {self.image_height} rows, got {height}")
        return self.rows[1] - self.rows[0], width

    def part(self, image: Tensor) -> Tensor:
        """The rows of an image [..., H, W] that are shown; ValueError as of :meth:`shape`."""
        self.shape(*image.shape[-2:])
        return image[..., self.rows[0] : self.rows[1], :] if self.rows else image


@dataclass(frozen=True)
class Protocol:
    """One way to score depth maps, and the input that it prescribes.

    Order: paste, clamp (if early), resize, crop, mask, align, clamp, score.

    Attributes:
        name: key in :data:`PROTOCOLS`.
        version: raised whenever the numbers it gives change.
        summary: where it comes from.
        ground_truth: which depth the numbers are defined on.
        frame: (height, width) the target must have; None = any.
        crop: rows and columns that count, (top, bottom, left, right) in pixels; bottom and right are excluded.
        crop_fractions: the same as fractions of the target's size, for sources of varying size; truncated to pixels.
        paste: size that frames are usually cropped to. A prediction of such a region is put into a frame of zeros;
            targets of that size are refused.
        min_depth, max_depth: only pixels with min_depth < target < max_depth (metres) count; None = open.
        needs_full: every pixel of the crop must have a depth: no mask is applied.
        clamp_min, clamp_max: predictions are clamped to this range (metres).
        nan_is_min: a NaN prediction becomes clamp_min; otherwise it stays, and shows as a NaN score.
        clamp_early: clamp before resizing as well.
        resize: how the prediction is brought to the target's size.
        align: "median" multiplies the prediction by median(target) / median(prediction) per image.
        aggregation: "images" = mean of per-image scores, "pixels" = every pixel counts once.
        inclusive: delta compares by <= instead of <.
        relative: the order of depth alone is scored, see :mod:`mlr.evaluation.order`; predictions may be any numbers
            that grow with depth.
        input: what a network is shown; the target is cropped to the same part where ``input.rows`` are given.
        data: data sets that hold this ground truth, by the names of ``--data``, each with the reader's options that
            choose it; empty = any.
    """

    name: str
    version: int
    summary: str
    ground_truth: str
    frame: tuple[int, int] | None = None
    crop: Box | None = None
    crop_fractions: Fractions | None = None
    paste: tuple[int, int] | None = None
    min_depth: float | None = 0.0
    max_depth: float | None = None
    needs_full: bool = False
    clamp_min: float = 1e-3
    clamp_max: float | None = None
    nan_is_min: bool = False
    clamp_early: bool = False
    resize: Literal["bicubic", "bilinear", "bilinear-corners", "nearest"] = "bilinear-corners"
    align: Literal["none", "median"] = "none"
    aggregation: Literal["images", "pixels"] = "images"
    inclusive: bool = False
    relative: bool = False
    input: Input = Input()
    data: Mapping[str, Mapping[str, str]] = field(default_factory=dict, hash=False)

    def record(self) -> dict[str, Any]:
        """Every choice as plain values, to be stored with the numbers."""
        return {**asdict(self), "comparison": "<=" if self.inclusive else "<"}

    def prepare(
        self, pred: Tensor, target: Tensor, mask: Tensor | None = None, region: Region | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Bring predictions and targets to the maps that are scored.

        Args:
            pred: predicted depth in metres, [B, h, w] or [B, 1, h, w].
            target: true depth in metres, [B, H, W] or [B, 1, H, W].
            mask: True where the target counts, shape of the target; narrows the protocol's own mask.
            region: what the predictions cover of the target's frame; None = all of it.

        Returns:
            Prediction, target and mask, [B, 1, rows, columns] each, in the target's crop.

        Raises:
            ValueError: the target has another size than the protocol is defined on, or lacks depths it must have, or
                the numbers of maps differ.

        Example:
            >>> pred, truth = torch.rand(1, 1, 288, 384) + 1, torch.rand(1, 1, 480, 640) + 1
            >>> get_protocol("paper").prepare(pred, truth)[0].shape
            torch.Size([1, 1, 440, 592])
        """
        pred, target = _maps(pred, "pred").float(), _maps(target, "target").float()
        if len(pred) != len(target):
            raise ValueError(f"{len(pred)} predictions for {len(target)} targets")
        mask = torch.ones_like(target, dtype=torch.bool) if mask is None else _maps(mask, "mask") != 0
        if mask.shape != target.shape:
            raise ValueError(f"mask {list(mask.shape)} must have the target's shape {list(target.shape)}")
        height, width = target.shape[-2:]
        if self.frame and (height, width) != self.frame:
            raise ValueError(
                f"protocol {self.name!r} is defined on ground truth of {self.frame[0]} x {self.frame[1]} pixels, got "
                f"{height} x {width}: its numbers would not be comparable. Use protocol 'full' for other sizes"
            )
        if (height, width) == self.paste:
            raise ValueError(
                f"protocol {self.name!r} is defined on whole frames, and targets of {height} x {width} pixels are the "
                "usual crop of them"
            )
        if self.input.rows:
            # the network has seen these rows alone: its prediction covers them, and only them
            top, bottom, left, right = self.box(height, width)
            target, mask = target[..., top:bottom, left:right], mask[..., top:bottom, left:right]
            pred = self._resize(self._early(pred), target.shape[-2:])
        else:
            pred = self._resize(self._early(self._paste(pred, (height, width), region)), (height, width))
            top, bottom, left, right = self.box(height, width)
            pred, target, mask = (x[..., top:bottom, left:right] for x in (pred, target, mask))

        known = (target > 0) & target.isfinite()
        if self.needs_full:
            holes = int((~known & mask).sum())
            if holes:
                raise ValueError(
                    f"protocol {self.name!r} scores every pixel of hole-filled depth, but {holes} pixels of the "
                    "targets have none: fill them (mlr prepare) or choose one that masks, such as 'bts' or 'full'"
                )
        valid = mask & known
        if self.min_depth is not None:
            valid &= target > self.min_depth
        if self.max_depth is not None:
            valid &= target < self.max_depth
        if self.align == "median":
            pred = pred * _median_ratio(pred, target, valid)
        return self._clamp(pred), target, valid

    def box(self, height: int, width: int) -> Box:
        """Rows and columns of the crop, (top, bottom, left, right), in a target of that size."""
        if self.crop:
            return self.crop
        if self.crop_fractions:
            top, bottom, left, right = self.crop_fractions
            return int(top * height), int(bottom * height), int(left * width), int(right * width)
        return 0, height, 0, width

    def _early(self, pred: Tensor) -> Tensor:
        return self._clamp(pred) if self.clamp_early else pred

    def _clamp(self, pred: Tensor) -> Tensor:
        pred = pred.clamp(min=self.clamp_min, max=self.clamp_max)
        return torch.where(pred.isnan(), self.clamp_min, pred) if self.nan_is_min else pred

    def _paste(self, pred: Tensor, frame: tuple[int, int], region: Region | None) -> Tensor:
        if region is None:
            if self.paste and tuple(pred.shape[-2:]) == self.paste:
                raise ValueError(
                    f"predictions of {self.paste[0]} x {self.paste[1]} pixels may cover whole frames or the usual crop "
                    "of them: say which by region"
                )
            return pred
        if not self.paste or region.frame != frame:
            raise ValueError(
                f"protocol {self.name!r} scores {frame[0]} x {frame[1]} pixels, and the prediction covers "
                f"{region.height} x {region.width} of {region.frame[0]} x {region.frame[1]}"
            )
        return region.paste(self._resize(pred, (region.height, region.width)))

    def _resize(self, pred: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
        if tuple(pred.shape[-2:]) == tuple(size):
            return pred
        if self.resize == "nearest":
            return F.interpolate(pred, size=tuple(size), mode="nearest")
        mode, _, corners = self.resize.partition("-")
        return F.interpolate(pred, size=tuple(size), mode=mode, align_corners=bool(corners))


def _maps(x: Tensor, what: str) -> Tensor:
    x = x.detach()
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4 or x.shape[1] != 1:
        raise ValueError(f"{what} must be [B, H, W] or [B, 1, H, W], got {list(x.shape)}")
    return x


def _median(x: Tensor) -> Tensor:
    """Median as numpy defines it: the mean of the two middle values of an even number."""
    x = x.sort().values
    return (x[(len(x) - 1) // 2] + x[len(x) // 2]) / 2


def _median_ratio(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    ratios = [
        _median(t[v]) / _median(p[v]) if v.any() else t.new_ones(())
        for p, t, v in zip(pred, target, valid, strict=True)
    ]
    return torch.stack(ratios).view(-1, 1, 1, 1)


_NYU = (480, 640)
_NYU_FILLED: dict[str, dict[str, str]] = {"nyu": {"depth": "depths"}, "nyu-zip": {}, "nyu-h5": {}}
_MAKE3D: dict[str, Any] = {
    "ground_truth": "Make3D Test134, channel 3 of Position3DGrid (ray distance)",
    "frame": (55, 305),  # the laser's grid
    "data": {"make3d": {"channel": "3"}},
}
_KITTI: dict[str, Any] = {
    "data": {"kitti": {"kb_crop": "false"}},
    "ground_truth": "projected LiDAR, 0 = unknown; say whether raw (697 images) or improved (652)",
    "paste": KB_CROP,
    "min_depth": 1e-3,
    "max_depth": 80.0,
    "clamp_max": 80.0,
    "nan_is_min": True,
}

#: Protocols by name.
PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "full",
            3,
            "every pixel with a known depth, at the target's size; for any data",
            "any; 0 or not finite = unknown",
            resize="bilinear",  # of pixels' centres, as the network's input is
        ),
        Protocol(
            "paper",
            1,
            "NYUv2 as the paper's authors and DORN score it: every pixel of the 440 x 592 crop, no cap",
            "NYUv2 labelled, hole-filled",
            frame=_NYU,
            crop=(20, 460, 24, 616),
            needs_full=True,
            clamp_min=1e-4,
            clamp_early=True,
            resize="bicubic",
            inclusive=True,
            input=Input("bicubic", (288, 384)),
            data=_NYU_FILLED,
        ),
        Protocol(
            "nyu-toolbox",
            1,
            "NYUv2 in the toolbox's 427 x 561 crop, pooled over pixels, as in the authors' CVPR 2019 numbers",
            "NYUv2 labelled, hole-filled",
            frame=_NYU,
            crop=(44, 471, 40, 601),
            needs_full=True,
            clamp_min=1e-4,
            resize="bicubic",
            aggregation="pixels",
            input=Input("bicubic"),
            data=_NYU_FILLED,
        ),
        Protocol(
            "bts",
            2,
            "NYUv2 as BTS, AdaBins and ZoeDepth score it: 426 x 560 crop, raw depth up to 10 m. Flip average as the "
            "last two have it; BTS itself has none (--no-flip)",
            "NYUv2 labelled, raw; 0 = unknown",
            frame=_NYU,
            crop=(45, 471, 41, 601),
            min_depth=1e-3,
            max_depth=10.0,
            clamp_max=10.0,
            nan_is_min=True,
            input=Input(flip_average=True),
            data={"nyu": {"depth": "rawDepths"}, "nyu-sync": {}},
        ),
        Protocol(
            "kitti-garg",
            2,
            "KITTI in Garg's crop, up to 80 m, no alignment",
            crop_fractions=(0.40810811, 0.99189189, 0.03594771, 0.96405229),
            **_KITTI,
        ),
        Protocol(
            "kitti-eigen",
            2,
            "KITTI in Eigen's crop, up to 80 m, no alignment",
            crop_fractions=(0.3324324, 0.91351351, 0.0359477, 0.96405229),
            **_KITTI,
        ),
        Protocol(
            "make3d-c1",
            2,
            "Make3D, supervised, pixels nearer than 70 m, at the laser's 55 x 305 grid",
            **_MAKE3D,
            max_depth=70.0,
        ),
        Protocol(
            "make3d-c2",
            2,
            "Make3D, supervised, all pixels, at the laser's 55 x 305 grid",
            **_MAKE3D,
        ),
        Protocol(
            "make3d-md2",
            2,
            "Make3D, self-supervised as monodepth2 scores it: 2:1 centre crop, median scaling, up to 70 m. The number "
            "its authors print as rmse_log is in log10, that is, ours divided by ln 10",
            **_MAKE3D,
            crop=(17, 38, 0, 305),
            input=Input(rows=(710, 1562), image_height=2272),
            max_depth=70.0,
            clamp_max=70.0,
            resize="nearest",
            align="median",
        ),
        Protocol(
            "relative",
            1,
            "the order of depth: labelled pairs of points where the data set has them, otherwise 5,000 drawn pairs of "
            "known pixels a frame, equal where their depths differ by at most 3 %",
            "any; 0 or not finite = unknown",
            clamp_min=-math.inf,
            resize="bilinear",
            relative=True,
        ),
    )
}


def get_protocol(protocol: str | Protocol) -> Protocol:
    """Look a protocol up by name.

    Raises:
        ValueError: there is none of that name; the message lists the names.
    """
    if isinstance(protocol, Protocol):
        return protocol
    protocol = renamed.PROTOCOLS.get(protocol, protocol)
    if protocol not in PROTOCOLS:
        hint = suggest(str(protocol), PROTOCOLS)
        raise ValueError(f"unknown protocol {protocol!r}{hint} There are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol]
