# SPDX-License-Identifier: Apache-2.0
"""Decoders: what they compute, the backbones that they read, sizes, checkpoints, export."""

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_depth_model import decode, image

from mlr.cli import main
from mlr.models import depth_model
from mlr.models.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from mlr.models.depth_model import INITIAL_DEPTH, DepthModel, check_decoder
from mlr.models.encoder import Level, LevelsError, choose_levels, encode, find_layout

#: Pairs of small networks, with what is particular: maps of a CNN, channels-last maps, tokens of 16 and of 14 pixels,
#: a backbone that takes one size.
PAIRS = [
    ("unet", "test_resnet"),
    ("unet", "convnext_atto"),
    ("unet", "levit_128s"),
    ("dpt", "test_resnet"),
    ("dpt", "mambaout_femto"),
    ("dpt", "test_vit"),
    ("dpt", "eva02_tiny_patch14_224"),
    ("dpt", "cait_xxs24_224"),
]


def make(decoder: str, backbone: str, channels: int = 64, depth_varies: bool = False) -> DepthModel:
    torch.manual_seed(1)
    model = DepthModel(backbone, channels, pretrained=False, decoder=decoder).eval()
    if depth_varies:
        torch.nn.init.normal_(model.get_submodule(model.decoder_layers[-1]).weight)
    return model


@pytest.fixture(scope="module")
def small() -> dict[str, DepthModel]:
    pairs = {"unet": "test_resnet", "dpt": "test_vit", "dpt of a CNN": "test_resnet"}
    return {name: make(name.partition(" ")[0], backbone, depth_varies=True) for name, backbone in pairs.items()}


# --- what they compute ------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*accepts 224 x 224 pixels only")
@pytest.mark.parametrize(("decoder", "backbone"), PAIRS)
def test_a_pair_trains_and_carries_nothing_idle(decoder, backbone):
    model = make(decoder, backbone)
    depth = model(image(1, 3, 70, 99))
    assert depth.shape == (1, 1, 70, 99)
    assert (depth - INITIAL_DEPTH).abs().max() < 1
    depth.square().mean().backward()
    assert not [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]


def features_of(model: DepthModel, x: torch.Tensor) -> list[torch.Tensor]:
    return encode(model.encoder, model.layout, (x - model.pixel_mean) / model.pixel_std)


def test_unet_without_its_skips_is_the_papers(small):
    model, x = make("unet", "test_resnet", depth_varies=True), image(2, 3, 64, 96)
    for block, up in enumerate(model.unet.ups, 1):
        if model.unet.sources[block - 1] is not None:
            up.convA.weight.data[:, -up.skip.out_channels :] = 0
    state = {name.replace("unet.", ""): value for name, value in model.state_dict().items()}
    for block, up in enumerate(model.unet.ups, 1):
        own = up.convA.in_channels - (0 if model.unet.sources[block - 1] is None else up.skip.out_channels)
        state[f"up{block}.convA.weight"] = up.convA.weight[:, :own]
        state[f"up{block}.convA.bias"] = up.convA.bias
        for kind in ("weight", "bias"):
            state[f"up{block}.convB.{kind}"] = state[f"ups.{block - 1}.convB.{kind}"]
    with torch.no_grad():
        assert torch.allclose(model(x), decode(state, features_of(model, x)[-1]), rtol=1e-4, atol=1e-5)
        full = small["unet"]
        assert not torch.allclose(full(x), decode(state, features_of(full, x)[-1]), atol=1e-2)


def conv(state, name, x, **options):
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)


def residual(state, name, x):
    return x + conv(state, f"{name}.conv2", F.relu(conv(state, f"{name}.conv1", F.relu(x), padding=1)), padding=1)


def grown(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def dpt(state: dict[str, torch.Tensor], maps: list[torch.Tensor], plain: bool) -> torch.Tensor:
    """Section 3 of Ranftl et al. (2021), from a state dict, for sizes that divide."""
    levels = []
    for i, x in enumerate(maps):
        x = conv(state, f"dpt.reassemble.{i}.0", x)
        if plain and i < 2:
            weight, bias = state[f"dpt.reassemble.{i}.1.weight"], state[f"dpt.reassemble.{i}.1.bias"]
            x = F.conv_transpose2d(x, weight, bias, stride=4 >> i)
        elif plain and i == 3:
            x = conv(state, f"dpt.reassemble.{i}.1", x, stride=2, padding=1)
        levels.append(x)
    result = levels[3]
    for i in (3, 2, 1, 0):
        if i < 3:
            result = result + residual(state, f"dpt.fuse.{i}.level", levels[i])
        result = residual(state, f"dpt.fuse.{i}.sum", result)
        height, width = result.shape[-2:]
        result = conv(state, f"dpt.fuse.{i}.project", grown(result, (2 * height, 2 * width)))
    x = conv(state, "dpt.head1", result, padding=1)
    x = F.relu(conv(state, "dpt.head2", grown(x, (2 * x.shape[-2], 2 * x.shape[-1])), padding=1))
    return conv(state, "conv1", x)


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_dpt_is_the_published_one(backbone):
    model, x = make("dpt", backbone, depth_varies=True), image(2, 3, 64, 96)
    for module in model.dpt.modules():
        if hasattr(module, "start"):  # residual units start as the identity: make them count
            torch.nn.init.normal_(module.conv2.weight, std=0.1)
    maps = [level.double() for level in features_of(model, x)]
    state = {name: value.double() for name, value in model.state_dict().items() if value.is_floating_point()}
    with torch.no_grad():
        expected = dpt(state, maps, backbone == "test_vit")
        assert expected.std() > 0.01
        assert torch.allclose(model(x).double(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


# --- what they read ---------------------------------------------------------------------------------------------------


def plain(count: int) -> list[Level]:
    return [Level(i, 8, 16) for i in range(count)]


def test_levels_that_are_read():
    assert [level.index for level in choose_levels(plain(12), "four")] == [2, 5, 8, 11]
    assert [level.index for level in choose_levels(plain(24), "four")] == [5, 11, 17, 23]
    pyramid = [Level(i, 8, stride) for i, stride in enumerate((2, 4, 4, 8, 16, 32, 32))]
    assert [level.index for level in choose_levels(pyramid, "pyramid")] == [0, 2, 3, 4, 6]
    assert [level.stride for level in choose_levels(pyramid, "four")] == [4, 8, 16, 32]
    for maps, reads in ((plain(12), "pyramid"), (plain(3), "four"), (pyramid[:4], "four")):
        with pytest.raises(LevelsError, match="choose --decoder"):
            choose_levels(maps, reads)


def test_patches_of_dinov2_and_dinov3():
    for name, stride in (("vit_small_patch14_dinov2", 14), ("vit_small_patch16_dinov3", 16)):
        layout = find_layout(name, reads="four")
        assert layout.fixed_size is None  # positional embeddings follow the size of the image
        assert [(level.index, level.channels, level.stride) for level in layout.levels] == [
            (i, 384, stride) for i in (2, 5, 8, 11)
        ]


def test_the_papers_network_has_five_strides():
    if not hasattr(timm.models.PNASNet5Large, "forward_intermediates"):
        pytest.skip(f"timm {timm.__version__} gives only PNASNet's last map")
    levels = find_layout("pnasnet", reads="pyramid").levels
    assert [level.stride for level in levels] == [2, 4, 8, 16, 32]
    assert levels[-1].channels == 4320


@pytest.mark.parametrize(
    ("decoder", "backbone", "message"),
    [
        ("unet", "test_vit", r"'test_vit' does not suit.*stride 16, as in a plain transformer.*--decoder dpt or paper"),
        ("dpt", "levit_128s", r"'levit_128s' does not suit.*3 maps at strides.*choose --decoder paper"),
        ("dtp", "test_vit", r"unknown decoder 'dtp'.*dpt.*There are paper, unet, dpt"),
        ("dpt", "resnet5O", r"unknown backbone 'resnet5O'"),
        (["dpt"], "test_vit", r"unknown decoder"),
    ],
)
def test_pairs_that_do_not_work_are_refused_before_any_weights_are_sought(decoder, backbone, message, monkeypatch):
    def sought(*_):
        raise AssertionError("weights were sought")

    monkeypatch.setattr(depth_model, "find_pretrained_weights", sought)
    monkeypatch.setattr(depth_model, "build_encoder", sought)
    with pytest.raises(ValueError, match=message):
        DepthModel(backbone, 64, decoder=decoder)
    with pytest.raises(ValueError, match=message):
        check_decoder(decoder, backbone)


def test_train_refuses_a_pair_before_it_makes_a_folder(tmp_path, capsys):
    arguments = ["--decoder", "unet", "--backbone", "test_vit", "--out", str(tmp_path / "run")]
    assert main(["train", *arguments]) == 1
    assert "choose --decoder dpt or paper" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# --- sizes ------------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.sampled_from(["unet", "dpt", "dpt of a CNN"]), st.integers(32, 131), st.integers(32, 131), st.integers(1, 2))
def test_output_has_the_inputs_size(small, name, height, width, batch):
    with torch.no_grad():
        depth = small[name](image(batch, 3, height, width))
    assert depth.shape == (batch, 1, height, width)
    assert depth.isfinite().all()


# --- files ------------------------------------------------------------------------------------------------------------


def test_checkpoint_stores_the_decoder(small, tmp_path):
    for name, model in small.items():
        path = save_checkpoint(tmp_path / "best.pt", model)
        assert load_checkpoint(path).config["model"]["decoder"] == name.partition(" ")[0]
        again = DepthModel.from_checkpoint(path)
        with torch.no_grad():
            assert torch.equal(again(image(1, 3, 65, 70)), model(image(1, 3, 65, 70)))


def test_checkpoint_without_a_decoder_is_the_papers(tmp_path):
    model = make("paper", "test_resnet")
    assert "decoder" not in model.config  # as in every file from before there was a choice
    path = save_checkpoint(tmp_path / "best.pt", model)
    assert DepthModel.from_checkpoint(path).decoder_layers == ("conv_d32", "up1", "up2", "up3", "up4", "up5", "conv3")


@pytest.mark.parametrize(
    "change", [{"decoder": "dtp"}, {"decoder": ["dpt"]}, {"decoder": "unet"}, {"decoder_channels": 2**30}, {"width": 1}]
)
def test_a_damaged_decoder_is_named(small, change, tmp_path):
    path = save_checkpoint(tmp_path / "best.pt", small["dpt"])
    content = torch.load(path, weights_only=True)
    content["config"]["model"] |= change
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"best\.pt (is a damaged|describes|asks for)"):
        DepthModel.from_checkpoint(path)


def test_a_whole_network_is_no_backbone(small, tmp_path):
    path = save_checkpoint(tmp_path / "best.pt", small["dpt"])
    with pytest.raises(CheckpointError, match="a whole depth network, not a backbone"):
        DepthModel("test_vit", 64, pretrained=path, decoder="dpt")


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("unet", "pt2"),
        ("dpt", "onnx"),
        *(pytest.param(*p, marks=pytest.mark.long) for p in (("unet", "onnx"), ("dpt", "pt2"))),
    ],
)
def test_export(small, name, suffix, tmp_path):
    if suffix == "onnx":
        for module in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(module, reason="needs the extra export")
    path = save_checkpoint(tmp_path / "best.pt", small[name], config={"size": "48x80"})
    assert main(["export", str(path), "--out", str(tmp_path / f"m.{suffix}"), "--dynamic-batch"]) == 0  # it compares
