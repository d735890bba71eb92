# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files: ours, the authors', and everything that is neither."""

import errno
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from test_depth_model import decode, image
from timm.models.pnasnet import PNASNet5Large

from mlr.models.checkpoints import CheckpointError, load_checkpoint, read_state_dict, save_checkpoint
from mlr.models.depth_model import DepthModel


@pytest.fixture(scope="module")
def model() -> DepthModel:
    torch.manual_seed(3)
    return DepthModel("test_resnet", 32, pretrained=False).eval()


# --- ours -------------------------------------------------------------------------------------------------------------


def test_round_trip_is_exact(model, tmp_path):
    path = save_checkpoint(tmp_path / "best.pt", model, config={"epochs": 20}, metrics={"delta1": torch.tensor(0.5)})
    again = DepthModel.from_checkpoint(path)
    with torch.no_grad():
        assert torch.equal(again(image(1, 3, 65, 70)), model(image(1, 3, 65, 70)))
    assert not again.training
    assert again.weights_source == f"checkpoint: {path}"
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_plain_and_complete(model, tmp_path):
    config = {
        "size": (96, 128),
        "out": Path("runs") / "a",
        "lr": np.float64(1e-4),
        "terms": np.arange(2),
        "b": {"a": None},
    }
    save_checkpoint(
        tmp_path / "a.pt", model, config=config, metrics={"rmse": np.float32(0.5), "images": torch.tensor(3)}
    )
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    assert content["format"] == "mlr-checkpoint"
    assert content["version"] == 1
    assert content["config"] == {
        "size": [96, 128],
        "out": "runs/a",
        "lr": 1e-4,
        "terms": [0, 1],
        "b": {"a": None},
        "model": {"backbone": "test_resnet", "decoder_channels": 32},
    }
    assert content["metrics"] == {"rmse": 0.5, "images": 3}
    assert {"mlr", "torch", "timm"} <= content["versions"].keys()
    assert load_checkpoint(tmp_path / "a.pt").metrics["rmse"] == 0.5


def test_values_that_cannot_be_stored_are_named(model, tmp_path):
    with pytest.raises(TypeError, match=r"config\.a\[1\] is object"):
        save_checkpoint(tmp_path / "a.pt", model, config={"a": [1, object()]})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("writing failed")])
def test_full_disk_keeps_the_earlier_file(model, tmp_path, monkeypatch, error):
    path = save_checkpoint(tmp_path / "best.pt", model)
    before = path.read_bytes()

    def full(content, file):
        Path(file).write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"cannot write .*best\.pt: "):
        save_checkpoint(path, model)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folder(model, tmp_path):
    with pytest.raises(OSError, match="Is the folder there"):
        save_checkpoint(tmp_path / "no" / "best.pt", model)


# --- neither ----------------------------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_files_that_are_no_checkpoint(model, tmp_path, capsys):
    path = tmp_path / "x.pt"

    def refused(match, kind=CheckpointError):
        with pytest.raises(kind, match=match):
            DepthModel.from_checkpoint(path)

    refused(r"no weights file .*x\.pt", FileNotFoundError)
    path.write_bytes(b"")
    refused(r"x\.pt")
    path.write_bytes(b"<html>404</html>")
    refused(r"x\.pt")
    whole = save_checkpoint(tmp_path / "y.pt", model).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused("truncated")
    torch.save({"model": Evil()}, path)
    refused("could run code")
    assert "code ran" not in capsys.readouterr().out
    torch.save([1, 2], path)
    refused("no state dict")
    torch.save({"pytorch-lightning_version": "2", "state_dict": {}}, path)
    refused("--resume.*best.pt")
    torch.save({"format": "mlr-checkpoint", "version": 2, "model": {}, "config": {}}, path)
    refused("version 2.*update mlr")
    torch.save({"format": "mlr-checkpoint", "version": 1, "config": {}}, path)
    refused("lacks model")
    torch.save({"format": "mlr-checkpoint", "version": 1, "model": {}, "config": {}}, path)
    refused("does not say which network")
    config = {"model": {"backbone": "test_resnet", "skips": True}}
    torch.save({"format": "mlr-checkpoint", "version": 1, "model": {}, "config": config}, path)
    refused("options this network does not have: skips")
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    refused(r"neither.*pretrained=")
    with pytest.raises(FileNotFoundError, match="it is a folder"):
        load_checkpoint(tmp_path)


def test_state_that_does_not_fit_is_listed(model, tmp_path):
    path = save_checkpoint(tmp_path / "a.pt", model)
    content = torch.load(path, weights_only=True)
    content["model"]["extra.weight"] = torch.zeros(1)
    del content["model"]["up3.convA.bias"]
    content["model"]["conv3.weight"] = torch.zeros(1, 2, 3, 3)
    torch.save(content, path)
    with pytest.raises(CheckpointError) as error:
        DepthModel.from_checkpoint(path)
    text = str(error.value)
    assert "missing: up3.convA.bias" in text
    assert "not in the network: extra.weight" in text
    assert "conv3.weight (1, 2, 3, 3) instead of (1, 1, 3, 3)" in text


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("model", []),
        ("model", {"conv3.weight": 3}),
        ("model", {1: torch.zeros(1)}),
        ("model", {"conv_d32.weight": torch.zeros(1).expand(2**40, 1, 1, 1)}),
        ("model", {"conv_d32.weight": torch.zeros(3, 3).to_sparse()}),
        ("config", [1]),
        ("config", {"model": None}),
        ("config", {"model": {"backbone": 7}}),
        ("config", {"model": {"backbone": "test_resnet", "decoder_channels": 2**40}}),
        ("config", {"model": {"backbone": "test_resnet", "decoder_channels": "many"}}),
        ("config", {"model": {"backbone": "test_resnet", "decoder_channels": 32, "image_size": [10**9, 10**9]}}),
        ("config", {"model": {"backbone": "test_resnet", "decoder_channels": 32, "image_size": "?"}}),
        ("config", {"model": {"backbone": "test_resnet", "decoder_channels": 32}, "size": [True, 2]}),
        ("config", {"model": {"backbone": "test_resnet", "decoder_channels": 32}, "size": "999999x999999"}),
        ("metrics", ["delta1"]),
        ("metrics", {"delta1": "high"}),
        ("versions", {"mlr": 1}),
        ("version", True),
        ("version", 1.0),
    ],
)
def test_a_part_of_another_type_or_size_is_named(part, value, model, tmp_path):
    path = save_checkpoint(tmp_path / "best.pt", model)
    content = torch.load(path, weights_only=True)
    torch.save({**content, part: value}, path)
    with pytest.raises(CheckpointError, match=r"best\.pt (is a damaged|describes|is a checkpoint of|does not say)"):
        DepthModel.from_checkpoint(path)


def test_a_network_that_the_file_does_not_hold_is_refused_before_it_takes_memory(model, tmp_path, monkeypatch):
    built = []
    real = DepthModel.reset_decoder
    monkeypatch.setattr(
        DepthModel, "reset_decoder", lambda self: (built.append(self.conv3.weight.device.type), real(self))
    )
    path = save_checkpoint(tmp_path / "x.pt", model)
    DepthModel.from_checkpoint(path)
    assert built == ["meta", "cpu"]
    built.clear()
    content = torch.load(path, weights_only=True)
    content["config"]["model"]["backbone"] = "vit_base_patch16_224"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="does not fit the network; missing: encoder"):
        DepthModel.from_checkpoint(path)
    assert built == ["meta"]


def test_a_few_bytes_that_stand_for_terabytes_are_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1, dtype=torch.half).expand(2**40)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="repeats its numbers"):
        read_state_dict(tmp_path / "weights.pth")


# --- the authors' -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authors() -> dict[str, torch.Tensor]:
    """A state dict as in the authors' file: DataParallel's prefix, float16, classifier included; random weights."""
    torch.manual_seed(5)
    encoder = PNASNet5Large(num_classes=1000, pad_type="")
    assert len(encoder.state_dict()) == 1380
    state = {f"module.encoder.{key}": value for key, value in encoder.state_dict().items()}
    shapes = {"conv_d32": (64, 4320, 1, 1), "conv3": (1, 2, 3, 3)}
    for block in range(1, 6):
        before, after = 64 >> (block - 1), 64 >> block
        shapes |= {f"up{block}.convA": (after, before, 3, 3), f"up{block}.convB": (after, after, 3, 3)}
    for name, shape in shapes.items():
        fan_in = shape[1] * shape[2] * shape[3]
        state[f"module.{name}.weight"] = torch.randn(shape) * (2 / fan_in) ** 0.5
        state[f"module.{name}.bias"] = 0.1 * torch.randn(shape[0])
    for key, value in state.items():  # statistics that a trained network could have
        if key.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 2)
    return {key: value.half() if value.is_floating_point() else value for key, value in state.items()}


def authors_features(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The authors' encoder, cell by cell."""
    with torch.device("meta"):  # no time is spent on weights that are replaced at once
        net, same = (PNASNet5Large(num_classes=1000, pad_type=pad).eval() for pad in ("", "same"))
    for network in (net, same):
        network.load_state_dict({k[8:]: v for k, v in state.items() if k.startswith("encoder.")}, assign=True)
    stem = net.conv_0.bn(torch.nn.functional.conv2d(x, net.conv_0.conv.weight, stride=2, padding=1))
    first = net.cell_stem_0(stem)
    second = net.cell_stem_1(stem, first)
    left, right = second, net.cell_0(first, second)
    for number in range(1, 12):
        cell = (same if number == 4 else net).get_submodule(f"cell_{number}")
        left, right = right, cell(left, right)
    return right


def test_authors_file_is_recognised_and_exact(authors, tmp_path):
    path = tmp_path / "PNAS_model.pth"
    torch.save(authors, path)
    model = DepthModel.from_checkpoint(path)
    assert model.config == {"backbone": "pnasnet", "decoder_channels": 64}
    assert not model.training
    assert all(p.dtype == torch.float32 for p in model.parameters())
    state = {key.removeprefix("module."): v.float() if v.is_floating_point() else v for key, v in authors.items()}
    x = image(1, 3, 64, 96)
    # they normalise by ImageNet's statistics, although the encoder's weights were trained with mean and std 0.5
    normal = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        features = authors_features(state, normal)
        depth = model(x)
        assert features.shape == (1, 4320, 2, 3)
        assert features.min() < 0  # no final ReLU
        assert torch.equal(model.encoder.forward_features(normal), features)
        assert torch.equal(depth, decode(state, features))
    assert depth.std() > 0


def test_authors_file_that_fits_in_part_is_refused_with_the_differences(authors, tmp_path):
    state = dict(authors)
    del state["module.encoder.cell_7.conv_1x1.conv.weight"], state["module.up2.convB.bias"]
    state["module.conv3.weight"] = torch.zeros(1, 4, 3, 3)
    state["module.refine.weight"] = torch.zeros(1)
    path = tmp_path / "PNAS_model.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError) as error:
        DepthModel.from_checkpoint(path)
    text = str(error.value)
    assert "missing: encoder.cell_7.conv_1x1.conv.weight, up2.convB.bias" in text
    assert "not in the network: refine.weight" in text
    assert "conv3.weight (1, 4, 3, 3) instead of (1, 2, 3, 3)" in text
