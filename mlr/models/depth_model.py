# SPDX-License-Identifier: Apache-2.0
"""The depth network: any timm encoder, the decoder of the paper's section 4.1 or another one."""

from __future__ import annotations

import math
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlr.models.checkpoints import Checkpoint, CheckpointError, checkpoint_file, load_checkpoint, require_fit
from mlr.models.decoders import Decoder, find_decoder
from mlr.models.encoder import build_encoder, check_backbone, encode, find_layout, pretrained_config
from mlr.models.inference import infer
from mlr.models.pretrained import PretrainedWeights, WeightsNotFoundError, file_weights, find_pretrained_weights
from mlr.utils.sizes import MIN_SIDE

#: Mean depth of NYUv2 in metres: where an untrained network starts.
INITIAL_DEPTH = 2.84


class DepthModel(nn.Module):
    """Depth in metres from one image: the encoder-decoder of the paper's section 4.1 around any timm backbone.

    The paper's decoder is a 1 x 1 convolution, then one :class:`mlr.models.decoders.paper.UpBlock` per factor of 2 that
    the encoder takes away (five for 1/32; channels 1024, 512, 256, 128, 64, 32), then a 3 x 3 convolution to one
    channel. There are no skip connections, no normalisation and no activation at the output: an untrained or confused
    network may predict a depth below 0, which the losses see as it is. The evaluation protocols clamp; so should you
    before taking logarithms.

    Args:
        backbone: "pnasnet" (the authors' variant of PNASNet-5-Large), "densenet161", "vgg16", "resnet50", "senet154",
            or any other timm model by name, convolutional or transformer.
        decoder_channels: channels after the 1 x 1 convolution; a multiple of 32.
        pretrained: "auto" takes ImageNet weights from timm's cache, an installed package or the network, and warns when
            none can be had; True fails then; False starts from random weights; a path reads a .pth or .safetensors file
            of the backbone.
        image_size: (height, width) the encoder is built for, for the few backbones that accept one size only. Images of
            another size are resized to it and the depth back. Ignored by all others, which accept any size.
        decoder: "paper"; "unet" adds skip connections, for backbones with maps at several strides; "dpt" fuses four
            levels of any transformer or CNN. See :data:`mlr.models.decoders.DECODERS`.

    Attributes:
        config: keyword arguments that build this network again (without its weights).
        weights_source: one line for the run's record: where the encoder's weights came from.
        pixel_mean, pixel_std: normalisation of the input, from the backbone's own configuration.
        trained_size: (height, width) that a checkpoint was trained at, where :meth:`infer` works; None if it is new.

    Raises:
        ValueError: unknown backbone or decoder (the nearest names are listed), a backbone without the maps that the
            decoder reads, or channels that cannot be halved often enough.
        WeightsNotFoundError: ``pretrained=True`` and no ImageNet weights could be had.

    Example:
        >>> model = DepthModel("resnet18", decoder_channels=64, pretrained=False)
        >>> model(torch.rand(2, 3, 97, 131)).shape
        torch.Size([2, 1, 97, 131])
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: str = "pnasnet",
        decoder_channels: int = 1024,
        pretrained: bool | str | Path = "auto",
        image_size: tuple[int, int] | None = None,
        decoder: str = "paper",
    ) -> None:
        super().__init__()
        name = check_backbone(backbone)
        if decoder_channels < 32 or decoder_channels % 32:
            raise ValueError(f"decoder_channels must be a positive multiple of 32, got {decoder_channels}")
        size = None if image_size is None else (int(image_size[0]), int(image_size[1]))
        make_layers, reads, _ = check_decoder(decoder, backbone, size)
        weights, self.weights_source = _choose_weights(name, backbone, pretrained)
        self.encoder, self.layout = build_encoder(backbone, size, weights and weights.state_dict, reads)
        if self.layout.fixed_size and self.layout.fixed_size != size:
            height, width = self.layout.fixed_size
            warnings.warn(
                f"{backbone} accepts {height} x {width} pixels only: every image is resized to that, and its depth "
                "back. Pass image_size=(height, width) to build it for another size",
                stacklevel=2,
            )

        self.trained_size: tuple[int, int] | None = None
        self.config: dict[str, Any] = {"backbone": backbone, "decoder_channels": decoder_channels}
        if size:
            self.config["image_size"] = list(size)
        if decoder != "paper":  # files of the paper's decoder are those of earlier versions
            self.config["decoder"] = decoder
        statistics = pretrained_config(name)
        self.register_buffer("pixel_mean", torch.tensor(statistics.mean).view(3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(statistics.std).view(3, 1, 1))

        # Layers are the network's own, beside its encoder: the paper's have the names of the authors' checkpoint.
        layers = make_layers(self.layout, decoder_channels)
        for layer_name, layer in layers.items():
            self.add_module(layer_name, layer)
        self.decoder_layers = tuple(layers)
        self.reset_decoder()

    def reset_decoder(self, depth: float = INITIAL_DEPTH) -> None:
        """Draw the decoder's weights so that the untrained network predicts about ``depth`` metres everywhere.

        He initialisation keeps the size of signal and gradient through the ten ReLU layers, which have no
        normalisation; PyTorch's default would shrink both by a factor of 2.4 a layer.
        """
        layers = self._decoder()
        for layer in layers:
            layer.apply(_draw)
        last = layers[-1]
        nn.init.normal_(last.weight, std=0.01 / math.sqrt(last.weight[0].numel()))  # type: ignore[arg-type, index]
        nn.init.constant_(last.bias, depth)  # type: ignore[arg-type]

    def _decoder(self) -> list[nn.Module]:
        return [self.get_submodule(name) for name in self.decoder_layers]

    def forward(self, image: Tensor) -> Tensor:
        """Predict depth.

        Args:
            image: [B, 3, H, W] in [0, 1], floating point, H and W at least 32.

        Returns:
            Depth in metres, [B, 1, H, W], not clamped.

        Raises:
            ValueError: the shape, type or size is not as above.
        """
        _check_image(image)
        height, width = image.shape[-2:]
        layers = self._decoder()
        x = ((image - self.pixel_mean) / self.pixel_std).to(layers[-1].weight.dtype)  # type: ignore[arg-type]
        if self.layout.fixed_size:
            padded = height, width
            x = F.interpolate(x, size=self.layout.fixed_size, mode="bilinear", antialias=True)
        else:
            # Repeating the border keeps the geometry of a size that the encoder divides; the surplus is cut off below.
            step = self.layout.step
            padded = -(-height // step) * step, -(-width // step) * step
            if padded != (height, width):
                x = F.pad(x, (0, padded[1] - width, 0, padded[0] - height), mode="replicate")
        depth = self._decode(encode(self.encoder, self.layout, x))
        if depth.shape[-2:] != padded:  # the encoder's stride is not a power of 2, or it takes one size only
            depth = F.interpolate(depth, size=padded, mode="bilinear", align_corners=True)
        return depth[..., :height, :width]

    def _decode(self, features: Any) -> Tensor:
        """Depth of the encoder's maps."""
        for layer in self._decoder():
            features = layer(features)
        return features

    @torch.no_grad()
    def infer(self, images: Any, size: tuple[int, int] | None = None, flip: bool = False) -> Any:
        """Depth of images of any kind and size, at their own size, in evaluation mode and without gradient.

        The network sees the images antialiased bilinear at one size, as in training; the depth is brought back
        bilinearly. It is not clamped.

        Args:
            images: a batch [B, 3, H, W]; or one image: a tensor [3, H, W], an array [H, W, 3] or a Pillow image; or a
                list of images of any sizes. Bytes, or floats in [0, 1].
            size: (height, width) that the network sees; by default ``trained_size``, or else the images' own.
            flip: average with the depth of the mirrored image.

        Returns:
            Depth in metres, float32, where the images are: [B, 1, H, W] of a batch, [1, H, W] of one image, a list of
            those of a list.

        Raises:
            TypeError, ValueError: the images are of another type, shape or range.

        Example:
            >>> DepthModel("resnet18", 64, pretrained=False).infer(torch.rand(3, 60, 80), size=(64, 96)).shape
            torch.Size([1, 60, 80])
        """
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            return infer(self, images, size or self.trained_size, flip, self.pixel_mean.device)
        finally:
            for module, training in modes.items():
                module.training = training

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> DepthModel:
        """Load a network from a checkpoint of ours or from the file the paper's authors released.

        The authors' file (DataParallel names, float16) becomes a float32 "pnasnet" that normalises its input by
        ImageNet's statistics, as their program does; ``.half()`` gives their evaluation's precision.

        Args:
            path: file written by :func:`mlr.save_checkpoint`, or ``PNAS_model.pth``.

        Returns:
            The network in evaluation mode, on the CPU.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: the file is foreign or damaged, or does not fit; what differs is listed.

        Example:
            >>> model = DepthModel.from_checkpoint("PNAS_model.pth")  # doctest: +SKIP
        """
        return cls._restored(load_checkpoint(path), path)

    @classmethod
    def _restored(cls, checkpoint: Checkpoint, path: str | Path) -> DepthModel:
        config = checkpoint.config.get("model")
        config = dict(config) if isinstance(config, dict) else {}
        network = network_class(config.pop("network", "depth"), path)
        if "backbone" not in config:
            raise CheckpointError(f"{path} does not say which network it holds: its config has no model.backbone")
        if unknown := config.keys() - {"backbone", "decoder_channels", "image_size", "decoder"}:
            raise CheckpointError(f"{path} asks for options this network does not have: {', '.join(sorted(unknown))}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the user of a trained network chose its size when training it
            try:
                with torch.device("meta"):  # a file may name a network that does not fit into memory
                    require_fit(network(**config, pretrained=False), checkpoint.model, path)
                model = network(**config, pretrained=False)
            except CheckpointError:
                raise
            except (ValueError, TypeError, RuntimeError, AssertionError) as error:
                raise CheckpointError(f"{path} describes a network that cannot be built: {error}") from error
        model.load_state_dict(checkpoint.model, strict=True)
        model.weights_source = f"checkpoint: {path}"
        model.trained_size = checkpoint.size
        return model.eval()


#: Networks by the name in a checkpoint, "module:class".
NETWORKS = {
    "depth": f"{__name__}:DepthModel",
    "ordinary-relative": "mlr.models.ordinary_relative:OrdinaryRelativeModel",
}


def network_class(name: str, path: str | Path | None = None) -> type[DepthModel]:
    """A kind of network by name.

    Raises:
        CheckpointError: there is none of that name; ``path`` is the file that asks for it.
    """
    if name not in NETWORKS:
        raise CheckpointError(f"{path or 'this'} asks for the network {name!r}; there are {', '.join(NETWORKS)}")
    module, _, attribute = NETWORKS[name].partition(":")
    return getattr(import_module(module), attribute)


class TrainedModel(NamedTuple):
    """A network that was trained, and where it comes from.

    Attributes:
        model: the network in evaluation mode, on its device.
        path: its file.
        checkpoint: what else the file holds; ``checkpoint.size`` is the size the network was trained at.
        device: where the network is.
    """

    model: DepthModel
    path: Path
    checkpoint: Checkpoint
    device: torch.device

    @property
    def relative(self) -> bool:
        """Whether its depth has no unit: it was trained for the order of points alone."""
        return self.checkpoint.config.get("task") == "relative"

    def infer(self, images: Any, size: tuple[int, int] | None = None, flip: bool = False) -> Any:
        """Depth of images at their own size, see :meth:`DepthModel.infer`."""
        return self.model.infer(images, size, flip)


def open_model(source: str | Path, device: str = "auto") -> TrainedModel:
    """Open a trained network for use.

    Args:
        source: a checkpoint of ours (best.pt, last.pt), a run's folder (its best.pt) or the authors' PNAS_model.pth.
        device: "auto" (a GPU if there is one), "cpu" or "gpu".

    Raises:
        FileNotFoundError: there is no checkpoint of that name.
        CheckpointError: the file is foreign or damaged.
        ValueError: there is no such device.

    Example:
        >>> depth = open_model("runs/mine").infer(Image.open("photo.jpg"))  # doctest: +SKIP
    """
    place, path = choose_device(device), checkpoint_file(source)
    checkpoint = load_checkpoint(path)
    model = DepthModel._restored(checkpoint, path).to(place)
    model = model.to(memory_format=torch.channels_last)  # convolutions on CPUs and tensor cores are faster by far
    return TrainedModel(model, path, checkpoint, place)


def choose_device(name: str) -> torch.device:
    """The device that "auto", "cpu" or "gpu" means on this machine.

    Raises:
        ValueError: "gpu" where PyTorch sees none, or another name.
    """
    if name not in ("auto", "cpu", "gpu"):
        raise ValueError(f"--device must be auto, cpu or gpu, got {name!r}")
    if name != "cpu":
        for kind, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
            if there:
                return torch.device(kind)
    if name == "gpu":
        raise ValueError("--device gpu: PyTorch sees no GPU here; choose --device cpu, or auto")
    return torch.device("cpu")


def check_decoder(decoder: str, backbone: str, image_size: tuple[int, int] | None = None) -> Decoder:
    """Check that a decoder can read a backbone, without building or downloading anything.

    Args:
        decoder: a key of :data:`mlr.models.decoders.DECODERS`.
        backbone: as of :class:`DepthModel`.
        image_size: as of :class:`DepthModel`.

    Raises:
        ValueError: there is no such decoder, or the backbone lacks the maps that it reads.
    """
    found = find_decoder(decoder)
    if found.reads != "last":
        find_layout(backbone, image_size, found.reads)
    return found


def _draw(module: nn.Module) -> None:
    """He initialisation of a decoder's convolutions; a block with a start of its own has a method for it."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    elif isinstance(module, nn.ConvTranspose2d):  # kernels that do not overlap: a pixel is a sum over the channels
        nn.init.normal_(module.weight, std=math.sqrt(2 / module.in_channels))
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    elif callable(start := getattr(module, "start", None)):
        start()


def _choose_weights(name: str, backbone: str, pretrained: bool | str | Path) -> tuple[PretrainedWeights | None, str]:
    if pretrained is False:
        return None, "random: pretrained=False"
    if pretrained is True or pretrained == "auto":
        try:
            weights = find_pretrained_weights(name)
        except WeightsNotFoundError as error:
            if pretrained is True:
                raise WeightsNotFoundError(
                    f"{error}. Give the path of a weights file, or pretrained='auto' to start from random weights"
                ) from error
            warnings.warn(
                f"THE ENCODER STARTS FROM RANDOM WEIGHTS: {error}. Training will take far longer and end worse; "
                "give the path of a weights file as pretrained to avoid it",
                stacklevel=3,
            )
            return None, f"random: {error}"
        return weights, weights.source
    if not isinstance(pretrained, (str, Path)):
        raise TypeError(f"pretrained must be 'auto', True, False or a path, got {pretrained!r}")
    weights = file_weights(pretrained)
    return weights, weights.source


def _check_image(image: Tensor) -> None:
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"image must be [B, 3, H, W], got {list(image.shape)}")
    if not image.is_floating_point():
        raise ValueError(f"image must be floating point in [0, 1], got {image.dtype}: divide 8-bit images by 255")
    if min(image.shape[-2:]) < MIN_SIDE:
        raise ValueError(
            f"image must be at least {MIN_SIDE} x {MIN_SIDE} pixels, got {image.shape[-2]} x {image.shape[-1]}: "
            "enlarge it, e.g. with torch.nn.functional.interpolate"
        )
