# SPDX-License-Identifier: Apache-2.0
"""The depth network: structure of the paper's decoder, any size, any backbone."""

import copy
import warnings

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mlr.models.depth_model import INITIAL_DEPTH, DepthModel
from mlr.models.encoder import build_encoder, check_backbone, encode

#: Small backbones of every kind: plain maps, channels-last maps, tokens, strides 32, 16 and 14, sizes free and fixed.
KINDS = {
    "test_resnet": 32,
    "resnet18": 32,
    "mobilenetv3_small_050": 32,
    "tf_efficientnet_lite0": 32,
    "convnext_atto": 32,
    "mambaout_femto": 32,
    "swin_tiny_patch4_window7_224": 32,
    "test_vit": 16,
    "deit_tiny_patch16_224": 16,
    "test_vit4": 16,
    "eva02_tiny_patch14_224": 14,
}
FIXED = {"levit_128s": (224, 224), "cait_xxs24_224": (224, 224)}


@pytest.fixture(scope="module")
def small() -> dict[str, DepthModel]:
    return {name: DepthModel(name, 32, pretrained=False).eval() for name in ("test_resnet", "test_vit")}


def image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# --- names ------------------------------------------------------------------------------------------------------------


def test_known_names():
    assert check_backbone("pnasnet") == "pnasnet5large"
    for name in ("densenet161", "vgg16", "resnet50", "senet154", "resnet50.tv_in1k", "vit_small_patch14_dinov2"):
        assert check_backbone(name) == name


@pytest.mark.parametrize(
    ("name", "near"), [("resnet5O", "resnet50"), ("PNASNet", "pnasnet"), ("vit_tiny_patch16", "vit_tiny_patch16_224")]
)
def test_unknown_name_gets_the_nearest(name, near):
    with pytest.raises(ValueError, match=rf"unknown backbone '{name}'.*{near}\b"):
        DepthModel(name)


def test_unknown_tag_and_wrong_type():
    with pytest.raises(ValueError, match=r"unknown weights tag 'nope'.*tv_in1k"):
        check_backbone("resnet50.nope")
    with pytest.raises(ValueError, match=r"timm\.list_models"):
        check_backbone("qqqqqqqqq")
    with pytest.raises(TypeError, match="must be a name"):
        check_backbone(50)


@pytest.mark.parametrize("channels", [0, -32, 31, 48])
def test_channels_that_cannot_be_halved_five_times(channels):
    with pytest.raises(ValueError, match=r"multiple of 32, got"):
        DepthModel("test_resnet", channels, pretrained=False)


# --- structure --------------------------------------------------------------------------------------------------------


def decode(state: dict[str, torch.Tensor], x: torch.Tensor, blocks: int = 5) -> torch.Tensor:
    """The decoder as the paper's authors describe it, from a state dict."""
    x = F.conv2d(x, state["conv_d32.weight"], state["conv_d32.bias"])
    for block in range(1, blocks + 1):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        for conv in ("convA", "convB"):
            name = f"up{block}.{conv}"
            x = F.relu(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1))
    return F.conv2d(x, state["conv3.weight"], state["conv3.bias"], padding=1)


def test_decoder_is_the_papers():
    model = DepthModel("resnet18", pretrained=False).eval()
    sizes = {name: list(p.shape) for name, p in model.named_parameters() if not name.startswith("encoder.")}
    assert sizes["conv_d32.weight"] == [1024, 512, 1, 1]
    for block, (before, after) in enumerate([(1024, 512), (512, 256), (256, 128), (128, 64), (64, 32)], 1):
        assert sizes[f"up{block}.convA.weight"] == [after, before, 3, 3]
        assert sizes[f"up{block}.convB.weight"] == [after, after, 3, 3]
    assert sizes["conv3.weight"] == [1, 32, 3, 3]
    assert len(sizes) == 24
    twin = timm.create_model("resnet18", num_classes=0).eval()
    twin.load_state_dict({k[8:]: v for k, v in model.state_dict().items() if k.startswith("encoder.")})
    x = image(2, 3, 64, 96)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        assert torch.equal(model(x), decode(model.state_dict(), twin.forward_features((x - mean) / std)))


@pytest.mark.parametrize("name", KINDS)
def test_any_kind_of_backbone(name):
    model = DepthModel(name, 64, pretrained=False)
    assert model.layout.stride == KINDS[name]
    assert model.layout.fixed_size is None
    depth = model(image(1, 3, 70, 99))
    assert depth.shape == (1, 1, 70, 99)
    # the network starts near a typical depth, whatever the size of the encoder's features
    assert (depth - INITIAL_DEPTH).abs().max() < 1
    depth.square().mean().backward()
    # nothing is carried that the depth does not depend on: classifiers, unused heads
    idle = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle


@pytest.mark.parametrize("name", FIXED)
def test_backbone_of_one_size_says_so_and_works(name):
    with pytest.warns(UserWarning, match=r"accepts 224 x 224 pixels only.*image_size"):
        model = DepthModel(name, 32, pretrained=False).eval()
    assert model.layout.fixed_size == FIXED[name]
    with torch.no_grad():
        assert model(image(1, 3, 70, 99)).shape == (1, 1, 70, 99)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = DepthModel(name, 32, pretrained=False, image_size=(64, 96)).eval()
    assert again.layout.fixed_size == (64, 96)
    assert again.config == {"backbone": name, "decoder_channels": 32, "image_size": [64, 96]}
    with torch.no_grad():
        assert again(image(1, 3, 64, 96)).shape == (1, 1, 64, 96)


def test_size_that_a_backbone_or_its_weights_cannot_take():
    with pytest.raises(ValueError, match=r"no feature map.*leave image_size out.*96 x 128"):
        build_encoder("efficientformer_l1", (96, 128))
    state = timm.create_model("levit_128s").state_dict()
    with pytest.raises(ValueError, match=r"do not fit backbone 'levit_128s'.*leave image_size out"):
        build_encoder("levit_128s", (64, 96), state)
    build_encoder("levit_128s", None, state)


def test_backbone_without_a_map_is_refused(monkeypatch):
    class Pooled(torch.nn.Module):
        def forward_features(self, x):
            return x.mean((2, 3))

    monkeypatch.setattr(timm, "create_model", lambda *args, **options: Pooled())
    with pytest.raises(ValueError, match=r"'resnet18' gives no feature map.*take another one.*224 x 224"):
        DepthModel("resnet18", pretrained=False)


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "densenet161"])
def test_papers_backbones(name):
    encoder, layout = build_encoder(name)
    assert layout.stride == 32
    with torch.no_grad():
        assert encode(encoder.eval(), layout, image(1, 3, 64, 96)).shape == (1, layout.channels, 2, 3)


@pytest.mark.long
@pytest.mark.parametrize("name", ["senet154", "densenet161", "vgg16", "pnasnet"])
def test_papers_backbones_train(name):
    model = DepthModel(name, 64, pretrained=False)
    model(image(2, 3, 65, 97)).mean().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


# --- sizes ------------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["test_resnet", "test_vit"]), st.integers(32, 131), st.integers(32, 131), st.integers(1, 2))
def test_output_has_the_inputs_size(small, name, height, width, batch):
    with torch.no_grad():
        depth = small[name](image(batch, 3, height, width))
    assert depth.shape == (batch, 1, height, width)
    assert depth.isfinite().all()


def test_other_sizes_keep_the_geometry_of_whole_ones(small):
    model, x = small["test_resnet"], image(1, 3, 65, 90)
    with torch.no_grad():
        whole = model(F.pad(x, (0, 6, 0, 31), mode="replicate"))
        assert torch.equal(model(x), whole[..., :65, :90])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.rand(1, 3, 31, 64), r"at least 32 x 32 pixels, got 31 x 64: enlarge"),
        (torch.rand(1, 1, 64, 64), r"\[B, 3, H, W\], got \[1, 1, 64, 64\]"),
        (torch.rand(3, 64, 64), r"\[B, 3, H, W\]"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), r"torch.uint8: divide 8-bit images by 255"),
    ],
)
def test_wrong_images_are_refused(small, bad, message):
    with pytest.raises(ValueError, match=message):
        small["test_resnet"](bad)


# --- behaviour --------------------------------------------------------------------------------------------------------


def test_input_is_normalised_as_the_backbone_expects(small):
    for model in small.values():
        statistics = timm.get_pretrained_cfg(model.config["backbone"])
        assert model.pixel_mean.flatten().tolist() == pytest.approx(list(statistics.mean))
        assert model.pixel_std.flatten().tolist() == pytest.approx(list(statistics.std))
    assert DepthModel("tf_efficientnet_lite0", 32, pretrained=False).pixel_mean.flatten().tolist() == [0.5] * 3


def test_output_is_not_clamped(small):
    model = copy.deepcopy(small["test_resnet"])
    model.conv3.bias.data.fill_(-5)
    with torch.no_grad():
        assert (model(image(1, 3, 32, 32)) < 0).all()


def test_one_image_trains():
    torch.manual_seed(0)
    model = DepthModel("test_resnet", 128, pretrained=False).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    x, target = image(1, 3, 64, 64), torch.linspace(2, 6, 64).expand(1, 1, 64, 64)
    losses = []
    for _ in range(25):
        loss = (model(x) - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_half_precision_and_autocast(small):
    model, x = small["test_resnet"], image(1, 3, 64, 96)
    with torch.no_grad():
        full = model(x)
        half = copy.deepcopy(model).bfloat16()(x)
        assert half.dtype == torch.bfloat16
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = model(x)
    assert (half.float() - full).abs().max() < 0.1
    assert (mixed.float() - full).abs().max() < 0.1


def test_exports(small):
    model, x = small["test_resnet"], image(1, 3, 65, 97)
    with torch.no_grad():
        program = torch.export.export(model, (x,))
        assert torch.allclose(program.module()(x), model(x), atol=1e-5)
