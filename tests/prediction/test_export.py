# SPDX-License-Identifier: Apache-2.0
"""mlr export: files that other programs run, equal to PyTorch, or no file."""

import errno
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mlr.prediction.export
from mlr._version import __version__
from mlr.cli import main
from mlr.models.checkpoints import save_checkpoint
from mlr.models.depth_model import DepthModel
from mlr.prediction.export import METADATA_FILE, compare


@pytest.fixture
def onnx_runtime():
    pytest.importorskip("onnx", reason="needs the extra export")
    pytest.importorskip("onnxscript", reason="needs the extra export")
    return pytest.importorskip("onnxruntime", reason="needs the extra export")


def run(*arguments: object) -> int:
    return main(["export", *map(str, arguments)])


def depth_of(network: DepthModel, image: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return network(image).numpy()


def test_onnx_of_any_batch(checkpoint, network, onnx_runtime, tmp_path, capsys):
    out = tmp_path / "model.onnx"
    assert run(checkpoint, "--out", out, "--dynamic-batch") == 0
    session = onnx_runtime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("image", ["batch", 3, 64, 96])]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("depth", ["batch", 1, 64, 96])]
    image = torch.rand(5, 3, 64, 96)
    (depth,) = session.run(None, {"image": image.numpy()})
    expected = depth_of(network, image)
    assert expected.std() > 0.01
    np.testing.assert_allclose(depth, expected, rtol=1e-4, atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["input"] == "image [batch, 3, 64, 96] float32, RGB in [0, 1]"
    assert metadata["depth_unit"] == "m"
    assert metadata["normalization"] == "inside the network"
    assert metadata["mlr_version"] == __version__
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "model.onnx"]
    printed = capsys.readouterr().err
    assert "1 x 64 x 96: depth differs from PyTorch's by" in printed
    assert "3 x 64 x 96: depth differs" in printed


def test_onnx_opset_and_size(checkpoint, onnx_runtime, tmp_path):
    import onnx

    assert run(checkpoint, "--out", tmp_path / "a.onnx", "--opset", 18, "--size", "40x70") == 0
    model = onnx.load(tmp_path / "a.onnx")
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]
    shape = model.graph.input[0].type.tensor_type.shape
    assert [d.dim_value for d in shape.dim] == [1, 3, 40, 70]


def test_torch_export(checkpoint, network, tmp_path):
    out = tmp_path / "model.pt2"
    assert run(checkpoint, "--out", out, "--dynamic-batch", "--size", "40x70") == 0
    texts = {METADATA_FILE: ""}
    exported = torch.export.load(out, extra_files=texts).module()
    image = torch.rand(4, 3, 40, 70)
    np.testing.assert_allclose(exported(image).detach().numpy(), depth_of(network, image), rtol=1e-4, atol=1e-5)
    assert json.loads(texts[METADATA_FILE])["input"] == "image [batch, 3, 40, 70] float32, RGB in [0, 1]"


def test_torch_export_needs_no_extra(checkpoint, tmp_path, monkeypatch, capsys):
    for module in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, module, None)
    assert run(checkpoint, "--out", tmp_path / "model.pt2") == 0
    assert run(checkpoint, "--out", tmp_path / "model.onnx") == 1
    assert 'ONNX files need onnx: pip install "mlr-depth[export]"' in capsys.readouterr().err
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("wrong", [lambda depth: depth + 0.01, lambda depth: depth * float("nan"), lambda d: d[:, 0]])
def test_file_that_computes_something_else_is_not_left(checkpoint, tmp_path, monkeypatch, capsys, wrong):
    load = mlr.prediction.export._load_pt2

    def load_wrongly(path):
        exported = load(path)
        return lambda image: wrong(exported(image))

    monkeypatch.setattr(mlr.prediction.export, "_load_pt2", load_wrongly)
    assert run(checkpoint, "--out", tmp_path / "model.pt2") == 1
    assert "no file was written" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["best.pt"]


def test_full_disk(checkpoint, tmp_path, monkeypatch, capsys):
    def full(path, content):
        with path.open("wb") as file:
            file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run(checkpoint, "--out", tmp_path / "model.pt2") == 1
    assert "model.pt2: No space left on device" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["best.pt"]


def test_tolerance_follows_the_range_of_the_depth():
    def depth(image):
        return 2 + image[:, :1]  # 2 to 3 m on random images

    (line,) = compare(depth, lambda image: depth(image) + 5e-5, (64, 64), (2,))
    assert line.startswith("2 x 64 x 64: depth differs from PyTorch's by 5e-05 m at most")
    assert line.endswith("tolerance 0.00011 m")  # 1e-4 of 1 m + 2e-6 of 3 m
    with pytest.raises(ValueError, match=r"by 0\.0002 m at most .* is wrong"):
        compare(depth, lambda image: depth(image) + 2e-4, (64, 64), (2,))
    with pytest.raises(ValueError, match=r"gives depth \[2, 64, 64\] where PyTorch gives \[2, 1, 64, 64\]"):
        compare(depth, lambda image: depth(image)[:, 0], (64, 64), (2,))


@pytest.mark.parametrize(
    ("out", "arguments", "message"),
    [
        ("model.pth", [], "--out must end in .onnx or .pt2"),
        ("best.pt2", [], "best.pt2 exists"),
        ("no/model.pt2", [], "there is no folder"),
        ("model.pt2", ["--opset", "18"], "--opset is for ONNX"),
        ("model.pt2", ["--size", "16x64"], "--size must be at least 32x32"),
        ("model.pt2", ["--size", "big"], "--size must be HxW"),
    ],
)
def test_wrong_settings(checkpoint, tmp_path, out, arguments, message, capsys):
    (tmp_path / "best.pt2").write_text("mine")
    assert run(checkpoint, "--out", tmp_path / out, *arguments) == 1
    assert message in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "best.pt2"]
    assert (tmp_path / "best.pt2").read_text() == "mine"


def test_checkpoint_without_a_size_and_none_at_all(network, tmp_path, capsys):
    path = save_checkpoint(tmp_path / "best.pt", network)
    assert run(path, "--out", tmp_path / "model.pt2") == 1
    assert "does not say at which size the network was trained: give --size HxW" in capsys.readouterr().err
    assert run(tmp_path / "no.pt", "--out", tmp_path / "model.pt2") == 1
    assert "there is no checkpoint" in capsys.readouterr().err


def test_opset_that_pytorch_cannot_write(checkpoint, onnx_runtime, tmp_path, capsys):
    assert run(checkpoint, "--out", tmp_path / "model.onnx", "--opset", 999) == 1
    assert re.search(r"error: --opset 999: PyTorch could write opset \d\d only", capsys.readouterr().err)
    assert [p.name for p in tmp_path.iterdir()] == ["best.pt"]


def test_weights_beyond_what_an_onnx_file_holds(checkpoint, onnx_runtime, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mlr.prediction.export, "ONNX_LIMIT", 1000)
    assert run(checkpoint, "--out", tmp_path / "model.onnx") == 1
    assert "one ONNX file holds 2 GB: export to .pt2" in capsys.readouterr().err
