# SPDX-License-Identifier: Apache-2.0
"""The encoder: any timm backbone without its classifier, as a map of features.

timm's networks differ in what they return (maps, channels-last maps, tokens), in the sizes they accept and in the
unused heads they carry. :class:`Layout` says what a backbone does; it is found by running the backbone on the meta
device, where shapes cost nothing, so no table of names has to be kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import timm
import torch
from timm.models import PretrainedCfg
from timm.models.pnasnet import Cell, PNASNet5Large
from torch import Tensor, nn

from mlr.utils.suggest import did_you_mean, nearest

#: Networks under the paper's names that timm does not have under that name.
PAPER_NAMES = {"pnasnet": "pnasnet5large"}

#: Ways to ask timm for a transformer that accepts any size; each knows one of them or none.
FREE_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False})

#: What helps where a backbone, or its weights, are tied to one size.
LEAVE_SIZE_OUT = "leave image_size out: images are then resized to the size the backbone is made for"


#: What a decoder reads of an encoder: its last map, four levels, or the last map at every stride.
Reads = Literal["last", "four", "pyramid"]


@dataclass(frozen=True)
class Level:
    """A map within a backbone.

    Attributes:
        index: its number among those that timm gives.
        channels: its channels.
        stride: pixels of the image per pixel of the map.
    """

    index: int
    channels: int
    stride: int


@dataclass(frozen=True)
class Layout:
    """What a backbone makes of an image.

    Attributes:
        channels: channels of the feature map.
        stride: pixels of the image per pixel of the feature map.
        step: sides of the image must be multiples of this.
        fixed_size: the only (height, width) the backbone accepts; None = any multiple of ``step``.
        output: which of timm's methods gives the map: "features" ([B, C, h, w]), "features-last" ([B, h, w, C]), or
            "intermediates" (tokens put back on the grid by timm, normalised; "-raw": not normalised).
        levels: maps that a decoder reads instead of the last one, from fine to coarse; "intermediates" gives them.
    """

    channels: int
    stride: int
    step: int
    fixed_size: tuple[int, int] | None
    output: str
    levels: tuple[Level, ...] = ()


def check_backbone(name: str) -> str:
    """Check the name of a backbone without building it.

    Args:
        name: "pnasnet" (the paper's), or any timm model, with or without the tag of its weights
            ("densenet161", "resnet50.tv_in1k", "vit_small_patch14_dinov2").

    Returns:
        timm's name for it.

    Raises:
        ValueError: there is no such backbone or tag; the message lists the nearest names.

    Example:
        >>> check_backbone("pnasnet")
        'pnasnet5large'
    """
    if not isinstance(name, str):
        raise TypeError(f"backbone must be a name, got {type(name).__name__}")
    if name in PAPER_NAMES:
        return PAPER_NAMES[name]
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = nearest(architecture.lower(), [*PAPER_NAMES, *timm.list_models()], 5, cutoff=0.5)
        raise ValueError(f"unknown backbone {name!r}{did_you_mean(near)} timm.list_models() has all names")
    if tag:
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
        if tag not in tags:
            raise ValueError(
                f"unknown weights tag {tag!r} of backbone {architecture!r}: it has {', '.join(tags) or 'none'}"
            )
    return name


def pretrained_config(name: str) -> PretrainedCfg:
    """What timm knows of a backbone's weights: normalisation, size, places to download from."""
    return timm.models.get_pretrained_cfg(name) or PretrainedCfg()


def build_encoder(
    backbone: str,
    image_size: tuple[int, int] | None = None,
    state_dict: Mapping[str, Tensor] | None = None,
    reads: Reads = "last",
) -> tuple[nn.Module, Layout]:
    """Build a backbone without its classifier.

    Args:
        backbone: a name that :func:`check_backbone` accepts.
        image_size: (height, width) for backbones that are built for one size; others ignore it.
        state_dict: weights with timm's names, with or without those of the classifier.
        reads: which of its maps are wanted.

    Returns:
        The module, with the parameters its features use and no others, and its layout.

    Raises:
        ValueError: the backbone gives no feature map, or the weights do not fit.
    """
    name = check_backbone(backbone)
    if backbone == "pnasnet":
        encoder: nn.Module = authors_pnasnet()
        if state_dict is not None:
            state = {key: value for key, value in state_dict.items() if not key.startswith("last_linear.")}
            _strict(lambda: encoder.load_state_dict(state), name)
        return encoder, find_layout(backbone, image_size, reads)

    meta_model, options, layout = _probe(name, image_size, reads)
    if state_dict is None:
        encoder = timm.create_model(name, **options)
    else:
        state = _with_classifier(dict(state_dict), meta_model)
        encoder = _strict(
            lambda: timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": state}, **options),
            name,
            resized="img_size" in options,
        )
    _prune(encoder, *_unused(meta_model, layout))
    return encoder, layout


def find_layout(backbone: str, image_size: tuple[int, int] | None = None, reads: Reads = "last") -> Layout:
    """What a backbone makes of an image, without memory for the backbone.

    Args:
        backbone, image_size, reads: as for :func:`build_encoder`.

    Raises:
        ValueError: the backbone does not have the maps that are wanted.
    """
    name = check_backbone(backbone)
    if backbone != "pnasnet":
        return _probe(name, image_size, reads)[2]
    layout = Layout(4320, 32, 32, None, "features")
    if reads == "last":
        return layout
    with torch.device("meta"):
        return _with_levels(name, authors_pnasnet().eval(), layout, reads)


def encode(encoder: nn.Module, layout: Layout, image: Tensor) -> Any:
    """Features of images whose size the layout accepts: [B, channels, h, w], or a list of them if it has levels."""
    if layout.levels:
        return _intermediates(encoder, layout.output, image, [level.index for level in layout.levels])
    return _features(encoder, layout.output, image)


def authors_pnasnet() -> nn.Module:
    """PNASNet-5-Large as the paper's authors use it: timm's names, other padding, no final activation.

    timm follows TensorFlow's "same" padding. The authors' port pads symmetrically, pads the stem, keeps "same" padding
    in the cell that reduces to 1/16, and hands the output of the last cell on without a ReLU.
    """
    encoder = PNASNet5Large(num_classes=0, pad_type="")
    encoder.conv_0.conv.padding = (1, 1)
    encoder.cell_4 = Cell(1080, 432, 1080, 432, pad_type="same", is_reduction=True)
    encoder.act = nn.Identity()  # type: ignore[assignment]
    return encoder


# --- finding out ------------------------------------------------------------------------------------------------------


def _intermediates(encoder: nn.Module, output: str, image: Tensor, indices: int | list[int] | None) -> list[Tensor]:
    """Maps within a backbone: those of the indices, so many of the last, or all."""
    options = {"norm": True} if output == "intermediates" else {}
    return encoder.forward_intermediates(  # type: ignore[operator]
        image, indices=indices, output_fmt="NCHW", intermediates_only=True, **options
    )


def _features(encoder: nn.Module, output: str, image: Tensor) -> Tensor:
    if output.startswith("intermediates"):
        return _intermediates(encoder, output, image, 1)[-1]
    features = encoder.forward_features(image)  # type: ignore[operator]
    return features.permute(0, 3, 1, 2) if output == "features-last" else features


def _probe(name: str, image_size: tuple[int, int] | None, reads: Reads) -> tuple[nn.Module, dict[str, Any], Layout]:
    """The backbone on the meta device, the options that free its size, and its layout with them."""
    meta_model, options, layout = _probe_size(name, image_size)
    return meta_model, options, layout if reads == "last" else _with_levels(name, meta_model, layout, reads)


def _probe_size(name: str, image_size: tuple[int, int] | None) -> tuple[nn.Module, dict[str, Any], Layout]:
    sized: list[dict[str, Any]] = [{"img_size": image_size}] if image_size else []
    found, reasons = [], []
    for options in (*FREE_SIZE, *sized, {}):
        try:
            with torch.device("meta"):
                meta_model = timm.create_model(name, **options).eval()
            layout = _layout(meta_model, image_size or pretrained_config(name).input_size[1:])
        except Exception as error:  # each backbone refuses an option or a size in its own way
            reasons.append(str(error))
            continue
        if layout.fixed_size is None:
            return meta_model, options, layout
        found.append((meta_model, options, layout))
    if found:
        # built for the size asked for, if it can be
        return next((entry for entry in found if entry[1] in sized), found[-1])
    raise ValueError(
        f"backbone {name!r} gives no feature map, so no depth can be decoded from it: "
        f"{LEAVE_SIZE_OUT if image_size else 'take another one'} ({reasons[-1]})"
    )


def _layout(meta_model: nn.Module, size: tuple[int, ...]) -> Layout:
    """Run a backbone on the meta device at several sizes, or at ``size`` where it takes one only."""
    refusals: list[str] = []

    def run(output: str, height: int, width: int) -> torch.Size | None:
        try:
            shape = _features(meta_model, output, torch.zeros(1, 3, height, width, device="meta")).shape
        except Exception as error:  # each backbone refuses a size in its own way
            refusals.append(str(error))
            return None
        # a map lies like its image, borders apart; anything else is tokens or channels taken for a side
        return shape if len(shape) == 4 and 0.5 < shape[3] * height / (shape[2] * width) < 2 else None

    last = "features-last" if getattr(meta_model, "output_fmt", "NCHW") == "NHWC" else "features"
    outputs = (last, "intermediates", "intermediates-raw")
    with torch.no_grad():
        for output in outputs:
            # 448 = 14 * 32 = 16 * 28 divides by every patch size in use
            small, large = run(output, 224, 448), run(output, 448, 896)
            if small and large:
                stride = round(448 / (large[-1] - small[-1]))
                for step in (stride, 2 * stride, 4 * stride):
                    few = math.ceil(32 / step)
                    if run(output, few * step, few * step) and run(output, few * step, (few + 1) * step):
                        return Layout(small[1], stride, step, None, output)
        height, width = size
        for output in outputs:
            shape = run(output, height, width)
            if shape:
                return Layout(shape[1], round(height / shape[-2]), 1, (height, width), output)
    raise ValueError(f"at {height} x {width} pixels: {refusals[-1] if refusals else 'it returns something else'}")


def _with_levels(name: str, meta_model: nn.Module, layout: Layout, reads: Reads) -> Layout:
    """The layout with the levels that a decoder wants, found on the meta device.

    Raises:
        ValueError: the backbone has none, or not enough of them.
    """
    reason = ""
    for output in ("intermediates", "intermediates-raw"):
        try:
            return replace(layout, output=output, levels=choose_levels(_all_levels(meta_model, layout, output), reads))
        except LevelsError as error:
            raise ValueError(f"backbone {name!r} does not suit this decoder: {error}") from error
        except Exception as error:  # each backbone refuses an option in its own way
            reason = str(error)
    raise ValueError(
        f"backbone {name!r} gives only its last map, of which the decoder paper alone makes depth: choose that, or "
        f"another backbone ({reason} with timm {timm.__version__})"
    )


def _all_levels(meta_model: nn.Module, layout: Layout, output: str) -> list[Level]:
    height, width = layout.fixed_size or (448, 896)

    def run(height: int, width: int) -> list[torch.Size]:
        with torch.no_grad():
            maps = _intermediates(meta_model, output, torch.zeros(1, 3, height, width, device="meta"), None)
        return [x.shape for x in maps]

    shapes = run(height, width)
    if layout.fixed_size:
        strides = [round(height / shape[-2]) for shape in shapes]
    else:  # of two sizes, since borders may take pixels away
        strides = [
            round(height / (large[-2] - small[-2]))
            for small, large in zip(shapes, run(2 * height, 2 * width), strict=True)
        ]
    return [Level(i, shape[1], stride) for i, (shape, stride) in enumerate(zip(shapes, strides, strict=True))]


class LevelsError(ValueError):
    """A backbone does not have the maps that a decoder reads."""


def choose_levels(maps: Sequence[Level], reads: Reads) -> tuple[Level, ...]:
    """The maps that a decoder reads, from fine to coarse.

    Args:
        maps: all that a backbone has, in the order of computation.
        reads: "pyramid" takes the last map at every stride. "four" takes the four coarsest of them, or, where all maps
            have one stride as in a plain transformer, four evenly spread over the depth (3, 6, 9, 12 of 12).

    Raises:
        LevelsError: there are not so many.
    """
    pyramid = tuple({level.stride: level for level in maps}.values())
    strides = ", ".join(str(level.stride) for level in pyramid)
    if reads == "pyramid":
        if len(pyramid) == 1:
            raise LevelsError(
                f"all its maps have stride {strides}, as in a plain transformer, so there is nothing to skip from; "
                "choose --decoder dpt or paper, or a CNN"
            )
        return pyramid
    if len(pyramid) >= 4:
        return pyramid[-4:]
    if len(pyramid) > 1 or len(maps) < 4:
        raise LevelsError(
            f"it has {len(maps)} maps at strides {strides}, and four strides, or four maps at one, are needed; choose "
            "--decoder paper"
        )
    return tuple(maps[(k + 1) * len(maps) // 4 - 1] for k in range(4))


def _unused(meta_model: nn.Module, layout: Layout) -> tuple[set[str], set[str]]:
    """Names of the parameters that the features do not depend on, and of the modules that run nevertheless."""
    running: set[str] = set()
    for name, module in meta_model.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: running.add(name))
    height, width = layout.fixed_size or (224, 448)
    with torch.enable_grad():
        features = encode(meta_model, layout, torch.zeros(1, 3, height, width, device="meta"))
    used: set[int] = set()
    seen, waiting = set(), [x.grad_fn for x in (features if layout.levels else [features])]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            used.add(id(node.variable))
        waiting.extend(following for following, _ in node.next_functions)
    return {name for name, parameter in meta_model.named_parameters() if id(parameter) not in used}, running


def _prune(module: nn.Module, unused: set[str], running: set[str], prefix: str = "") -> None:
    """Remove idle submodules (classifiers, heads behind the pooling): no optimiser, DDP check or file should meet them.

    What runs although nothing depends on it, such as the second branch of a fusion, stays but is not trained.
    """
    for name, parameter in module.named_parameters(recurse=False):
        if prefix + name in unused:
            parameter.requires_grad_(False)
    for name, child in module.named_children():
        inside = [f"{prefix}{name}.{key}" for key, _ in child.named_parameters()]
        if inside and unused.issuperset(inside) and prefix + name not in running:
            setattr(module, name, nn.Identity())
        else:
            _prune(child, unused, running, f"{prefix}{name}.")


# --- weights ----------------------------------------------------------------------------------------------------------


def _with_classifier(state: dict[str, Tensor], meta_model: nn.Module) -> dict[str, Tensor]:
    """Give the state dict a classifier of the expected shape: files come without one, or with one for other classes.

    The classifier is pruned afterwards; with it in place every other name can be checked strictly.
    """
    config: dict[str, Any] = meta_model.pretrained_cfg  # type: ignore[assignment]
    classifiers = config.get("classifier") or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
    for name, tensor in meta_model.state_dict().items():
        if name.rpartition(".")[0] in classifiers:
            shape = [tensor.shape[0] + (config.get("label_offset") or 0), *tensor.shape[1:]]
            if name not in state or list(state[name].shape) != shape:
                state[name] = torch.zeros(shape)
    return state


def _strict(load: Callable[[], Any], name: str, resized: bool = False) -> Any:
    try:
        return load()
    except (RuntimeError, KeyError) as error:
        differences = " ".join(str(error).split())
        differences = differences if len(differences) < 1000 else differences[:1000] + " ..."
        advice = f". {LEAVE_SIZE_OUT}" if resized else ""
        raise ValueError(f"the weights do not fit backbone {name!r}: {differences}{advice}") from error
