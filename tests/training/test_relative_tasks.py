# SPDX-License-Identifier: Apache-2.0
"""--task relative and --task fusion: whole tiny runs, which continue bit for bit, and their networks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

import mlr
from mlr.balancing import EqualContribution
from mlr.balancing.heads import HeadBalancers
from mlr.cli import main
from mlr.models import CheckpointError, save_checkpoint
from mlr.models.depth_model import INITIAL_DEPTH, DepthModel, open_model
from mlr.models.ordinary_relative import HEADS, OrdinaryRelativeModel
from mlr.training.settings import TrainingSettings
from mlr.training.tables import read_balancing
from mlr.training.train import TrainingResult, train

TINY = TrainingSettings(
    backbone="test_resnet", decoder_channels=32, pretrained="false", size="32x64", train_length=4, val_length=2,
    workers=0, batch_size=2, epochs=2, device="cpu", losses="*/0-1", pairs=50, learning_rate=1e-3,
)  # fmt: skip
TASKS = {
    "relative": replace(TINY, task="relative"),
    "rank": replace(TINY, task="relative", losses="rank"),
    "holes": replace(TINY, task="relative", data_options="hole_share=0.3"),
    "fusion": replace(TINY, task="fusion", losses="D/0+r/0"),
}


def made(settings: TrainingSettings, out: Path, resume: Path | None = None) -> TrainingResult:
    return train(replace(settings, out=out), resume, console=Console(quiet=True))


@pytest.mark.parametrize("name", TASKS)
def test_a_run_that_was_cut_continues_bit_for_bit(name, tmp_path):
    settings = TASKS[name]
    whole = made(settings, tmp_path / "whole")
    made(replace(settings, epochs=1), tmp_path / "cut")
    cut = train(replace(settings, out=tmp_path / "cut"), tmp_path / "cut", console=Console(quiet=True))
    networks = [torch.load(path / "last.pt", weights_only=True)["model"] for path in (whole.path, cut.path)]
    assert all(torch.equal(networks[0][key], networks[1][key]) for key in networks[0])
    assert (whole.path / "balancing.csv").read_bytes() == (cut.path / "balancing.csv").read_bytes()
    assert whole.after == cut.after
    assert whole.after != whole.before


def test_a_relative_run_is_scored_by_order_and_its_balancer_has_the_ranking_loss(tmp_path, capsys):
    run = made(TASKS["relative"], tmp_path / "run")
    assert set(run.after) == {"kendall", "disagreement"}
    assert run.constant == {"kendall": 0.0, "disagreement": 1.0}
    rows = read_balancing(run.path / "balancing.csv")
    assert {row["term"] for row in rows} == {*mlr.LossSpace("*/0-1").names, "rank"}
    first = [row for row in rows if row["period"] == rows[0]["period"]]  # short epochs: quarters without a step merge
    assert len(first) == 27
    assert all(float(row["contribution"]) == pytest.approx(1 / 27) for row in first)
    assert main(["report", str(run.path)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run.path), "--data-options", "length=2", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert set(record["protocols"]) == {"relative"}
    assert record["left_out"]["full"] == "for depth in metres"
    assert main(["evaluate", str(run.path), "--protocol", "full"]) == 1
    assert "scores metres, and the network has none" in " ".join(capsys.readouterr().err.split())
    frames = [str(run.path), "--data-options", "length=2", "--out", str(tmp_path / "depth")]
    assert main(["predict", *frames]) == 1
    assert "--format npy" in " ".join(capsys.readouterr().err.split())
    assert main(["predict", *frames, "--format", "npy"]) == 0
    flags = ["--data", "rooms", "--data-options", "length=2", "--protocol", "relative", "--json"]
    assert main(["evaluate", str(tmp_path / "depth"), *flags]) == 0
    found = json.loads(capsys.readouterr().out)["protocols"]["relative"]["order"]
    for name, scores in record["protocols"]["relative"]["order"].items():
        assert found[name] == pytest.approx(scores, rel=1e-5)


def test_heads_of_a_fusion_run_are_balanced_by_themselves_and_its_network_opens(tmp_path, capsys):
    run = made(TASKS["fusion"], tmp_path / "run")
    rows = read_balancing(run.path / "balancing.csv")
    rows = [row for row in rows if row["period"] == rows[0]["period"]]
    assert {row["term"] for row in rows} == {f"{head}:{loss}" for head in HEADS for loss in ("D/0", "r/0")}
    assert all(float(row["contribution"]) == pytest.approx(1 / 24) for row in rows)
    model = open_model(run.path, "cpu").model
    assert isinstance(model, OrdinaryRelativeModel)
    image = torch.rand(3, 40, 70)
    fused = model.infer(image)
    model.output = "ordinary"
    alone = model.infer(image)
    assert fused.shape == alone.shape == (1, 40, 70)
    assert not torch.equal(fused, alone)
    assert main(["report", str(run.path)]) == 0
    assert main(["evaluate", str(run.path), "--protocol", "full,relative", "--data-options", "length=2"]) == 0
    assert main(["export", str(run.path), "--out", str(tmp_path / "x.onnx")]) == 1
    assert "cannot be exported" in " ".join(capsys.readouterr().err.split())


def test_the_untrained_network_predicts_rooms_depth_and_its_maps_have_the_authors_sizes():
    torch.manual_seed(0)
    model = OrdinaryRelativeModel("test_resnet", 32, pretrained=False).eval()
    maps = model.maps(torch.rand(2, 3, 32, 64))
    assert list(maps) == list(HEADS)
    for name, z in maps.items():
        level = int(name[1:]) - 3
        assert z.shape == (2, 1 if name[0] == "D" else 24, 1 << level, 2 << level)
    depth = model(torch.rand(2, 3, 45, 70))
    assert depth.shape == (2, 1, 45, 70)
    torch.testing.assert_close(depth, torch.full_like(depth, INITIAL_DEPTH), atol=0.3, rtol=0)
    with pytest.raises(ValueError, match="multiples of 32"):
        model.maps(torch.rand(1, 3, 33, 64))
    with pytest.raises(ValueError, match="stride 32"):
        OrdinaryRelativeModel("vit_tiny_patch16_224", 32, pretrained=False)


def test_a_checkpoint_of_an_unknown_network_is_refused(tmp_path):
    model = OrdinaryRelativeModel("test_resnet", 32, pretrained=False)
    save_checkpoint(tmp_path / "x.pt", model)
    assert isinstance(DepthModel.from_checkpoint(tmp_path / "x.pt"), OrdinaryRelativeModel)
    model.config["network"] = "other"
    save_checkpoint(tmp_path / "x.pt", model)
    with pytest.raises(CheckpointError, match="asks for the network 'other'"):
        DepthModel.from_checkpoint(tmp_path / "x.pt")


def test_balancers_of_heads_are_those_of_each_alone():
    generator = torch.Generator().manual_seed(0)
    both = HeadBalancers(["a", "b"], lambda: EqualContribution(["x", "y", "z"]))
    alone = [EqualContribution(["x", "y", "z"]) for _ in range(2)]
    both.period = 2
    for balancer in alone:
        balancer.period = 2
    records = []
    for _ in range(4):
        terms = torch.rand(5, 6, generator=generator)
        both.observe(terms)
        records.append(both.step())
        for balancer, of_head in zip(alone, terms.chunk(2, 1), strict=True):
            balancer.observe(of_head)
            balancer.step()
    assert both.period == 2
    assert both.names == ("a:x", "a:y", "a:z", "b:x", "b:y", "b:z")
    assert torch.equal(both.weights, torch.cat([balancer.weights for balancer in alone]))
    assert [record is None for record in records] == [True, False, True, False]
    assert records[1] is not None
    assert records[1].weights == tuple(both.weights.tolist())
    assert sum(records[1].contributions) == pytest.approx(1)
    restored = HeadBalancers(["a", "b"], lambda: EqualContribution(["x", "y", "z"]))
    restored.load_state_dict(both.state_dict())
    assert torch.equal(restored.weights, both.weights)
