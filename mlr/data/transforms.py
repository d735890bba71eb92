# SPDX-License-Identifier: Apache-2.0
"""Augmentation policies by name, of torchvision's v2 transforms: geometry moves image, depth and validity together.

``paper`` is the policy of the paper's authors, after Hu et al. (2019): resize, flip, rotation by up to 5 degrees,
colour noise along ImageNet's principal components, jitter of brightness, contrast and saturation by 0.4. Two faults of
the original are mended: depth is rotated as float metres (not as 16-bit pixels, which garbles it), and the corners that
a rotation uncovers are filled with what lies next to them and marked as not measured (not with white and a wrong mean
depth).

``hu2019`` is the policy of Hu et al. as they run it: the short side is scaled to 240 / 228 of the wanted one, then
flip, rotation, a crop of the centre, which cuts off almost all that a rotation uncovers, colour noise, and a jitter
that is not cut off at black and white. One fault is mended: depth is rotated by nearest neighbour (their splines ring
by up to 5 grey levels at edges). Depth stays at the size of the image, which the losses need; they halve it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from mlr.data.depth_files import DataError
from mlr.data.sample import Sample

#: Principal components of ImageNet's colours: standard deviations and directions (rows: R, G, B).
PCA_VALUES = (0.2175, 0.0188, 0.0045)
PCA_VECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


class Lighting(v2.Transform):
    """Add one colour to all pixels, drawn along ImageNet's principal components (Krizhevsky et al. 2012).

    Args:
        std: standard deviation of the strength along each component.
        clamp: whether values stay in [0, 1].
    """

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, std: float = 0.1, clamp: bool = True) -> None:
        super().__init__()
        self.std, self.clamp = std, clamp

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the colour."""
        strength = torch.randn(3) * self.std * torch.tensor(PCA_VALUES)
        return {"colour": (torch.tensor(PCA_VECTORS) @ strength)[:, None, None]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Add it."""
        image = inpt.as_subclass(Tensor) + params["colour"].to(inpt.dtype)
        return tv_tensors.wrap(image.clamp_(0, 1) if self.clamp else image, like=inpt)


class UnclampedJitter(v2.Transform):
    """Jitter of brightness, contrast and saturation in random order, without a limit to the values.

    Each blends the image with a target, ``(1 - a) image + a target`` with a ~ U(-strength, strength): black, the mean
    grey of the image, the grey of each pixel. A negative ``a`` leads away from the target.

    Args:
        strength: largest share of the target.
    """

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, strength: float = 0.4) -> None:
        super().__init__()
        self.strength = strength

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the order and the shares."""
        shares = (2 * torch.rand(3) - 1) * self.strength
        return {"order": torch.randperm(3).tolist(), "shares": shares.tolist()}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Blend three times."""
        image = inpt.as_subclass(Tensor)
        for kind in params["order"]:
            grey = v2.functional.rgb_to_grayscale(image)
            target = (torch.zeros_like(grey), grey.mean(), grey)[kind]
            image = torch.lerp(image, target.expand_as(image), params["shares"][kind])
        return tv_tensors.wrap(image, like=inpt)


class RandomRotation(torch.nn.Module):
    """Turn a sample about its centre, counter-clockwise by an angle of U(-degrees, degrees).

    The image is interpolated bilinearly; depth and validity take the nearest pixel. Where a pixel comes from beyond the
    picture, the nearest point of the picture's border stands in for it (a rotation keeps distances, so that point is
    the nearest in the turned picture as well), and the pixel is not valid. torchvision's own rotation blends the border
    with black, and moves each map by itself: it takes seven times as long.

    Args:
        degrees: largest angle.
    """

    def __init__(self, degrees: float) -> None:
        super().__init__()
        self.degrees = degrees

    def forward(self, sample: Sample) -> Sample:
        """Turn a sample whose image [3, H, W] holds floats."""
        image, depth, valid = (sample[name].as_subclass(Tensor) for name in ("image", "depth", "valid"))
        height, width = image.shape[-2:]
        angle = math.radians(float(torch.empty(1).uniform_(-self.degrees, self.degrees)))
        cos, sin = math.cos(angle), math.sin(angle)
        # coordinates run from -1 to 1 along both sides, which differ in length; F.affine_grid takes four times as long
        across, down = ((2 * torch.arange(length) + 1) / length - 1 for length in (width, height))
        grid = torch.empty(1, height, width, 2)
        torch.add(cos * across, -sin * height / width * down[:, None], out=grid[0, ..., 0])
        torch.add(sin * width / height * across, cos * down[:, None], out=grid[0, ..., 1])

        def sampled(maps: Tensor, mode: str, beyond: str) -> Tensor:
            return F.grid_sample(maps[None], grid, mode, padding_mode=beyond, align_corners=False)[0]

        out: Sample = {
            **sample,
            "image": tv_tensors.wrap(sampled(image, "bilinear", "border"), like=sample["image"]),
            "depth": tv_tensors.wrap(sampled(depth, "nearest", "border"), like=sample["depth"]),
            "valid": tv_tensors.wrap(sampled(valid.float(), "nearest", "zeros").to(valid), like=sample["valid"]),
        }
        if "points" in sample:  # the grid leads from a turned pixel to its place before; points go the other way
            middle = torch.tensor([width - 1, height - 1]) / 2
            turn = torch.tensor([[cos, -sin], [sin, cos]])
            out["points"] = tv_tensors.wrap((sample["points"] - middle) @ turn + middle, like=sample["points"])
        return out


class Resize(v2.Transform):
    """Bring images to a size antialiased bilinear, masks by the pixel whose centre lies nearest, and points with them.

    torchvision's own takes pixel floor(i s) for a mask, where s is the ratio of the sizes, and not floor((i + 1/2) s).
    That shifts depth against the image by up to half a pixel of the new size.

    Args:
        size: (height, width).
    """

    _transformed_types = (tv_tensors.Image, tv_tensors.Mask, tv_tensors.KeyPoints)

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize one."""
        if isinstance(inpt, tv_tensors.Image):
            return v2.functional.resize(inpt, list(self.size), antialias=True)
        if isinstance(inpt, tv_tensors.KeyPoints):
            height, width = inpt.canvas_size
            scale = inpt.new_tensor([self.size[1] / width, self.size[0] / height])
            return tv_tensors.wrap((inpt + 0.5) * scale - 0.5, like=inpt, canvas_size=self.size)
        mask = inpt.as_subclass(Tensor)[None]
        return tv_tensors.wrap(F.interpolate(mask, self.size, mode="nearest-exact")[0], like=inpt)


class Crop(torch.nn.Module):
    """Cut a part out of a sample.

    Args:
        size: (height, width) in pixels of the frame.
        anywhere: whether its place is drawn; otherwise it is the middle.
    """

    def __init__(self, size: tuple[int, int], anywhere: bool = False) -> None:
        super().__init__()
        self.size, self.anywhere = size, anywhere

    def forward(self, sample: Sample) -> Sample:
        """Cut image, depth and validity at the same place.

        Raises:
            DataError: the frame is smaller, or its depth has another size than its image.
        """
        whole = sample["image"].shape[-2:]
        if sample["depth"].shape[-2:] != whole:
            raise DataError(f"{sample['id']}: depth has another size than the image, so no crop can be cut out of both")
        room = [have - want for have, want in zip(whole, self.size, strict=True)]
        if min(room) < 0:
            have, want = (f"{height} x {width}" for height, width in (whole, self.size))
            raise DataError(f"{sample['id']} has {have} pixels, fewer than the crop of {want}")
        top, left = (int(torch.randint(n + 1, ())) if self.anywhere else n // 2 for n in room)
        rows, columns = slice(top, top + self.size[0]), slice(left, left + self.size[1])
        cut: dict[str, Any] = {
            name: tv_tensors.wrap(sample[name][:, rows, columns], like=sample[name])
            for name in ("image", "depth", "valid")
        }
        return {"image": cut["image"], "depth": cut["depth"], "valid": cut["valid"], "id": sample["id"]}


def _to_size(size: tuple[int, int]) -> list[torch.nn.Module]:
    """Image in [0, 1]."""
    return [Resize(size), v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)]


def paper(size: tuple[int, int]) -> v2.Transform:
    """The paper's policy."""
    return v2.Compose(
        [
            *_to_size(size),
            v2.RandomHorizontalFlip(0.5),
            RandomRotation(5),
            Lighting(0.1),
            v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
        ]
    )


def hu2019(size: tuple[int, int]) -> v2.Transform:
    """The policy of Hu et al. (2019): 320 x 240 to 304 x 228, in proportion to the wanted size."""
    larger = round(size[0] * 240 / 228), round(size[1] * 320 / 304)
    return v2.Compose(
        [
            *_to_size(larger),
            v2.RandomHorizontalFlip(0.5),
            RandomRotation(5),
            v2.CenterCrop(size),
            Lighting(0.1, clamp=False),
            UnclampedJitter(0.4),
        ]
    )


def resize_only(size: tuple[int, int]) -> v2.Transform:
    """No augmentation; also what validation uses."""
    return v2.Compose(_to_size(size))


#: What --augment offers.
POLICIES = {"paper": paper, "hu2019": hu2019, "none": resize_only}


def resize_sample(sample: Sample, size: tuple[int, int]) -> Sample:
    """A frame at another size: the image antialiased bilinear, depth and validity nearest, types as they were."""
    return Resize(size)(sample)


def finish(sample: Sample, masked: bool = False) -> dict[str, Tensor | str]:
    """Plain tensors for a batch: image float32 in [0, 1], depth float32 metres, valid bool.

    Args:
        sample: the frame.
        masked: whether depth is set to 0 wherever it is not valid.
    """
    depth, valid = sample["depth"].as_subclass(Tensor), sample["valid"].as_subclass(Tensor).bool()
    pairs: dict[str, Tensor | str] = {"pairs": sample["pairs"]} if "pairs" in sample else {}
    return pairs | {
        "image": sample["image"].as_subclass(Tensor),
        "depth": torch.where(valid, depth, 0) if masked else depth,
        "valid": valid,
        "id": sample["id"],
    }
