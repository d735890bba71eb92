# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files: our own format, and the file the paper's authors released.

A checkpoint is ``torch.save`` of plain values and tensors, loadable with ``weights_only=True``::

    {"format": "mlr-checkpoint", "version": 1, "model": state dict,
     "config": {...}, "versions": {...}, "metrics": {...}}

A run that averages its weights (``--ema``) stores the average as "model", which every reader takes, and the weights
that the optimizer moved as "unaveraged".
"""

from __future__ import annotations

import pickle
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlr._version import __version__
from mlr.utils.files import atomic_save
from mlr.utils.sizes import parse_size

FORMAT = "mlr-checkpoint"
FORMAT_VERSION = 1

#: Mean and standard deviation of ImageNet's RGB values, which the authors' program subtracts for every encoder.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

#: Longest side in pixels that a network was ever trained at, and more: a damaged file may say anything.
LARGEST_SIDE = 16_384

#: Size the authors train and predict at.
AUTHORS_SIZE = "288x384"


class CheckpointError(ValueError):
    """A file that cannot be used as a checkpoint; the message says what it is and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        model: state dict with the names of :class:`mlr.DepthModel`.
        config: keyword arguments of ``DepthModel`` under "model", and what else the writer recorded.
        versions: programs that wrote the file.
        metrics: scores of the model when it was saved.
        origin: "mlr" or "authors".
        unaveraged: where ``model`` is an average of weights, the weights that the optimizer moved; else empty.
    """

    model: dict[str, Tensor]
    config: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    origin: str = "mlr"
    unaveraged: dict[str, Tensor] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width in pixels that the network was trained at; None if the writer did not record them."""
        size = self.config.get("size")
        if size is None:
            return None
        height, width = parse_size(size) if isinstance(size, str) else size
        return int(height), int(width)


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    *,
    config: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    unaveraged: nn.Module | None = None,
) -> Path:
    """Write a model so that it is either complete on disk or not there at all.

    The file is written beside its place and moved in at the end, so a kill or a full disk never leaves half a file nor
    loses an earlier one.

    Args:
        path: file to write; a file of that name is replaced.
        model: a :class:`mlr.DepthModel` (its ``config`` is stored under "model").
        config: further settings of the run: numbers, texts, lists and dictionaries.
        metrics: scores of this model, by name.
        unaveraged: where ``model`` is an average of weights, the model with the weights that the optimizer moved.

    Returns:
        The path written.

    Raises:
        OSError: the folder is missing, not writable or full.

    Example:
        >>> save_checkpoint("best.pt", model, config={"epochs": 20}, metrics={"delta1": 0.87})  # doctest: +SKIP
    """
    path = Path(path)
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "model": _on_cpu(model),
        "config": {
            **_plain(dict(config or {}), "config"),
            "model": _plain(getattr(model, "config", {}), "config.model"),
        },
        "versions": _versions(),
        "metrics": _plain(dict(metrics or {}), "metrics"),
    }
    if unaveraged is not None:
        content["unaveraged"] = _on_cpu(unaveraged)
    atomic_save(content, path)
    return path


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of ours or of the paper's authors.

    Args:
        path: file written by :func:`save_checkpoint`, or the authors' ``PNAS_model.pth`` (DataParallel names, float16).

    Returns:
        The content, with the state dict in the names of :class:`mlr.DepthModel`.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is truncated, foreign, or of a newer format.
    """
    content = _read(path)
    if isinstance(content, Mapping) and content.get("format") == FORMAT:
        version = content.get("version")
        if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
            raise CheckpointError(
                f"{path} is a checkpoint of format version {version!r}; this is mlr {__version__}, which reads up to "
                f"{FORMAT_VERSION}: update mlr"
            )
        if why := _why_damaged(content):
            raise CheckpointError(f"{path} is a damaged checkpoint: {why}")
        return Checkpoint(
            dict(content["model"]),
            dict(content["config"]),
            dict(content.get("versions", {})),
            dict(content.get("metrics", {})),
            unaveraged=dict(content.get("unaveraged", {})),
        )
    if isinstance(content, Mapping) and "pytorch-lightning_version" in content:
        raise CheckpointError(
            f"{path} is the full state of a training run, for --resume; "
            "to use the model take the run's best.pt or last.pt"
        )
    state = _state_dict(content, path)
    if "conv_d32.weight" in state and any(key.startswith("encoder.cell_") for key in state):
        return _authors(state)
    raise CheckpointError(
        f"{path} is neither an mlr checkpoint nor the authors' network (conv_d32, up1 to up5, conv3, PNASNet encoder); "
        f"it holds {_first(state)}. Backbone weights alone go to DepthModel(pretrained={str(path)!r})"
    )


def _why_damaged(content: Mapping[str, Any]) -> str | None:
    """What of a checkpoint of ours has a type or size that none has; None if nothing."""
    kinds: dict[str, type | tuple[type, ...]] = {
        "model": Tensor, "unaveraged": Tensor, "versions": str, "metrics": (int, float),
    }  # fmt: skip
    for part in ("model", "config", "unaveraged", "versions", "metrics"):
        values = content.get(part, None if part in ("model", "config") else {})
        if not isinstance(values, Mapping):
            return f"it lacks {part}"
        for name, value in values.items():
            if not isinstance(name, str) or (part in kinds and not isinstance(value, kinds[part])):
                return f"{part} holds {name!r}: {type(value).__name__}"
    if why := _why_absurd(content["model"]) or _why_absurd(content.get("unaveraged", {})):
        return why
    config = content["config"]
    network = config.get("model")
    if not isinstance(network, Mapping):
        return None  # DepthModel says what is missing
    if why := _why_unlike_decoder(content["model"], network):
        return why
    for name, size in (("config.model.image_size", network.get("image_size")), ("config.size", config.get("size"))):
        if size is not None and not _is_size(size):
            return f"{name} is {size!r}, not a height and a width in pixels"
    return None


def _why_unlike_decoder(state: Mapping[str, Tensor], network: Mapping[str, Any]) -> str | None:
    """Whether the decoder's channels are those of its layers: a number in a damaged file may ask for any memory."""
    channels = network.get("decoder_channels")
    if channels is None:
        return None
    if network.get("decoder", "paper") == "paper":
        first = state.get("conv_d32.weight")
        if type(channels) is int and first is not None and first.shape[:1] == (channels,):
            return None
        held = "no such layer" if first is None else f"{first.shape[0] if first.ndim else 0}"
        return f"decoder_channels is {channels!r}, and its decoder starts with {held}"
    widest = max((x.shape[0] for name, x in state.items() if x.ndim and not name.startswith("encoder.")), default=0)
    if type(channels) is not int or channels > 4 * widest:
        return f"decoder_channels is {channels!r}, and the widest layer of its decoder has {widest}"
    return None


def _why_absurd(state: Mapping[str, Tensor]) -> str | None:
    """A tensor that takes less room in the file than in memory: a few bytes can stand for terabytes."""
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            return f"{name} is no plain tensor of numbers"
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            return f"{name} repeats its numbers to {list(tensor.shape)}"
    return None


def _is_size(size: Any) -> bool:
    try:
        sides = parse_size(size) if isinstance(size, str) else tuple(size)
    except (TypeError, ValueError):
        return False
    return len(sides) == 2 and all(type(side) is int and 1 <= side <= LARGEST_SIDE for side in sides)


def _authors(state: dict[str, Tensor]) -> Checkpoint:
    # The released network feeds ImageNet statistics to an encoder whose own weights expect mean and std 0.5.
    model = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    for name in ("last_linear.weight", "last_linear.bias"):
        model.pop(f"encoder.{name}", None)  # the classifier, never used
    model["pixel_mean"] = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    model["pixel_std"] = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    config = {"backbone": "pnasnet", "decoder_channels": state["conv_d32.weight"].shape[0]}
    return Checkpoint(model, {"model": config, "size": AUTHORS_SIZE}, origin="authors")


def checkpoint_file(source: str | Path) -> Path:
    """The file that holds a network: a checkpoint itself, or the best one of a run's folder.

    Raises:
        FileNotFoundError: there is nothing of that name, or the folder has no best.pt.
    """
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}: give best.pt or last.pt of a run, or the run's folder")
    if path.is_dir():
        path /= "best.pt"
        if not path.is_file():
            raise FileNotFoundError(
                f"{source} has no best.pt: it is no run's folder, or the run was stopped before its first validation"
            )
    return path


@dataclass(frozen=True)
class Fit:
    """How the tensors of a state dict fit a network.

    Attributes:
        matched: names of the tensors that fit.
        differences: what does not fit, in words.
    """

    matched: tuple[str, ...]
    differences: tuple[str, ...]


def compare(model: nn.Module, state: Mapping[str, Tensor]) -> Fit:
    """Compare names, shapes and kinds of numbers of a state dict with those of a network."""
    own = model.state_dict()
    both = sorted(own.keys() & state.keys())
    shapes = [name for name in both if own[name].shape != state[name].shape]
    types = [name for name in both if own[name].is_floating_point() != state[name].is_floating_point()]
    listed = {
        "missing": own.keys() - state.keys(),
        "not in the network": state.keys() - own.keys(),
        "other shape": [f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}" for key in shapes],
        "other type": [f"{key} {state[key].dtype} instead of {own[key].dtype}" for key in types],
    }
    differences = tuple(f"{what}: {_first(names)}" for what, names in listed.items() if names)
    return Fit(tuple(name for name in both if name not in {*shapes, *types}), differences)


def require_fit(model: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse a state dict unless names, shapes and kinds of numbers agree with a network, also one on the meta device.

    Raises:
        CheckpointError: listing what differs.
    """
    if differences := compare(model, state).differences:
        raise CheckpointError(f"{path} does not fit the network; " + "; ".join(differences))


def load_matching(model: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> Fit:
    """Load the tensors of a state dict that fit the network; the others of the network stay as they are.

    Raises:
        CheckpointError: not one tensor fits.
    """
    fit = compare(model, state)
    if not fit.matched:
        raise CheckpointError(f"{path} has nothing in common with the network; " + "; ".join(fit.differences))
    model.load_state_dict({name: state[name] for name in fit.matched}, strict=False)
    return fit


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read named tensors from a .pth, .pt, .bin or .safetensors file, unwrapped and without DataParallel's prefix."""
    return _state_dict(_read(path), path)


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(path: str | Path) -> Any:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}" + (": it is a folder" if path.is_dir() else ""))
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a file of plain tensors: it is damaged, foreign, or holds Python objects, which are not "
            f"loaded because they could run code ({str(error).splitlines()[0]})"
        ) from error
    except Exception as error:  # zip, safetensors and end-of-file errors have no common base
        raise CheckpointError(f"cannot read {path}: truncated or not a PyTorch file ({error})") from error


def _state_dict(content: Any, path: str | Path) -> dict[str, Tensor]:
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    ):
        raise CheckpointError(
            f"{path} holds no state dict (a mapping of names to tensors), but {type(content).__name__}"
        )
    if why := _why_absurd(content):
        raise CheckpointError(f"{path} is damaged: {why}")
    return {re.sub(r"^module\.", "", key): value for key, value in content.items()}


def _first(names: Iterable[str], limit: int = 8) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


# --- writing ----------------------------------------------------------------------------------------------------------


def _on_cpu(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}


def _plain(value: Any, place: str) -> Any:
    """The same value made of what ``weights_only=True`` reads, or an error that names the place."""
    if value is None or isinstance(value, (bool, int, float, str)):
        # numpy's float64 is a float too, and would not be read back
        return value if value is None or type(value) in (bool, int, float, str) else _base(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Tensor) or hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{place}[{i}]") for i, item in enumerate(value)]
    raise TypeError(f"{place} is {type(value).__name__}: a checkpoint stores numbers, texts, lists and dictionaries")


def _base(value: Any) -> Any:
    return next(kind(value) for kind in (bool, int, float, str) if isinstance(value, kind))


def _versions() -> dict[str, str]:
    import timm

    return {
        "mlr": __version__,
        "torch": str(torch.__version__),
        "timm": timm.__version__,
        "python": platform.python_version(),
    }
