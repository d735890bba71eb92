# SPDX-License-Identifier: Apache-2.0
"""Groups of parameters and schedules of the learning rate, against their formulas."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mlr.models import DepthModel
from mlr.training.module import DepthTraining
from mlr.training.optimization import RISE, make_optimizer, make_schedule, parameter_groups
from mlr.training.settings import OptimizerSettings


class Network(nn.Module):
    """An encoder with a normalisation, a position embedding and a branch that is not trained; a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1))
        self.encoder.position = nn.Parameter(torch.zeros(1, 4, 4))
        self.encoder.no_weight_decay = lambda: {"position"}
        self.encoder[2].requires_grad_(False)
        self.conv3 = nn.Conv2d(4, 1, 3)


def named_groups(model: nn.Module, settings: OptimizerSettings) -> dict[str, tuple[float, float]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in parameter_groups(model, settings)
        for parameter in group["params"]
    }


def test_weight_decay_is_for_matrices_and_the_factor_for_the_backbone():
    settings = OptimizerSettings(learning_rate=1.0, weight_decay=0.5, backbone_lr_factor=0.25)
    assert named_groups(Network(), settings) == {
        "encoder.position": (0.25, 0),
        "encoder.0.weight": (0.25, 0.5),
        "encoder.0.bias": (0.25, 0),
        "encoder.1.weight": (0.25, 0),
        "encoder.1.bias": (0.25, 0),
        "conv3.weight": (1, 0.5),
        "conv3.bias": (1, 0),
    }


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_the_paper_s_recipe_is_one_group_in_the_network_s_order(backbone):
    model = DepthModel(backbone, 32, pretrained=False)
    (group,) = parameter_groups(model, OptimizerSettings())
    assert group["params"] == [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert (group["lr"], group["weight_decay"]) == (1e-4, 0)
    assert type(make_optimizer(model, OptimizerSettings())) is torch.optim.Adam
    assert type(make_optimizer(model, OptimizerSettings(optimizer="adamw"))) is torch.optim.AdamW


def test_a_transformer_names_embeddings_that_do_not_decay():
    decays = named_groups(DepthModel("test_vit", 32, pretrained=False), OptimizerSettings(weight_decay=0.1))
    assert decays["encoder.pos_embed"][1] == 0
    assert decays["encoder.blocks.0.attn.qkv.weight"][1] == 0.1
    assert decays["encoder.blocks.0.attn.qkv.bias"][1] == 0


def rates(settings: OptimizerSettings, steps: int) -> list[float]:
    """The decoder's learning rate in every step."""
    optimizer = make_optimizer(Network(), settings)
    schedule, out = make_schedule(optimizer, settings, steps), []
    for _ in range(steps):
        out.append(optimizer.param_groups[-1]["lr"])
        optimizer.step()
        schedule.step()
    return out


@given(st.integers(1, 60), st.sampled_from(["constant", "cosine", "poly"]), st.floats(0, 0.99))
def test_the_rate_rises_linearly_and_falls_as_its_formula_says(steps, schedule, share):
    settings = OptimizerSettings(learning_rate=0.5, schedule=schedule, warmup=4 * share, epochs=4)
    rise = min(round(share * steps), steps - 1)
    fall = {
        "constant": lambda _: 1.0,
        "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
        "poly": lambda done: (1 - done) ** 0.9,
    }[schedule]
    expected = [(k + 1) / (rise + 1) if k < rise else fall((k - rise) / (steps - rise)) for k in range(steps)]
    assert rates(settings, steps) == pytest.approx([0.5 * rate for rate in expected], rel=1e-6, abs=1e-12)


@given(st.integers(4, 60), st.sampled_from([0.0, 0.01, 0.5, 0.99]))
def test_one_cycle_rises_to_the_rate_and_falls_to_nearly_nothing(steps, share):
    cycle = rates(OptimizerSettings(learning_rate=0.5, schedule="onecycle", warmup=4 * share, epochs=4), steps)
    top = max(min(round(share * steps), steps - 1) or RISE * steps, 2) - 1
    assert max(cycle) <= 0.5
    assert cycle[0] == pytest.approx(0.5 / 25)
    assert cycle[-1] < 1e-4
    assert cycle[: int(top) + 1] == sorted(cycle[: int(top) + 1])
    assert cycle[math.ceil(top) :] == sorted(cycle[math.ceil(top) :], reverse=True)


def test_one_cycle_needs_a_few_steps():
    with pytest.raises(ValueError, match="needs 4 optimizer steps, and the run has 3"):
        rates(OptimizerSettings(schedule="onecycle"), 3)


def test_the_average_follows_the_weights_by_its_formula():
    torch.manual_seed(0)
    model = DepthModel("test_resnet", 32, pretrained=False)
    balancer = SimpleNamespace(names=("D/0",))
    task = DepthTraining(model, nn.Identity(), balancer, OptimizerSettings(ema=0.75))
    expected: dict[str, torch.Tensor] = {}
    for _ in range(3):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(1) if value.is_floating_point() else value.add_(4)
        task.average.update_parameters(model)
        for name, value in model.state_dict().items():
            expected[name] = 0.75 * expected[name] + 0.25 * value if name in expected else value.clone()
    average = task.network.state_dict()
    assert average.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(average[name], value.to(average[name].dtype))
    assert not any(parameter.requires_grad for parameter in task.average.parameters())
    assert not task.train().network.training
    assert task.model.training
