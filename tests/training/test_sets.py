# SPDX-License-Identifier: Apache-2.0
"""Training on several data sets: losses and scores by set, resume to the bit."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from data_files import write_kitti
from rich.console import Console

from mlr.balancing import Rebalancing
from mlr.cli import main, train_command
from mlr.evaluation import METRICS
from mlr.losses import LossSpace, MultiLoss
from mlr.training.sets import TrainedSets, score_names
from mlr.training.settings import TrainingSettings
from mlr.training.train import train


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainingSettings:
    """Dense scenes with all losses of the training, and frames of a LiDAR with a part of them."""
    root = tmp_path_factory.mktemp("data") / "kitti"
    write_kitti(root)
    data = json.dumps(
        [
            {"data": "rooms", "weight": 3},
            {"data": f"kitti:{root}", "name": "lidar", "losses": "depth+mean", "crop": "370x600", "weight": 1},
        ]
    )
    return TrainingSettings(
        data=data, backbone="test_resnet", decoder="unet", decoder_channels=32, pretrained="false", size="32x48",
        train_length=7, val_length=2, workers=0, batch_size=4, epochs=2, device="cpu", losses="depth+mean+gradient",
        downsample="area",
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    console = Console(record=True, width=200, quiet=False, file=open(out.parent / "printed", "w"))  # noqa: SIM115
    return train(replace(config, out=out), console=console).path


def test_scores_name_their_set(finished):
    with (finished / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    for row in rows:
        for metric in METRICS:
            parts = [float(row[f"val/{name}/{metric}"]) for name in ("rooms", "lidar")]
            assert float(row[f"val/{metric}"]) == pytest.approx(sum(parts) / 2, rel=1e-5)
    record = json.loads((finished / "run.json").read_text())
    for part in ("constant", "before", "after"):
        assert list(record[part]) == score_names(["rooms", "lidar"])
    printed = (finished.parent / "printed").read_text()
    for words in ("rooms: 6 frames an epoch", "lidar: 2 frames an epoch", "lidar: 30 (depth+mean)", "lidar: delta1"):
        assert words in printed
    assert {"curves.png", "samples.png", "contributions.png"} <= {p.name for p in finished.iterdir()}


def test_settings_of_a_run_start_another_like_it(finished, config):
    content = yaml.safe_load((finished / "config.yaml").read_text())
    assert [entry["data"] for entry in content["data"]] == ["rooms", "kitti"]
    assert content["data"][1]["losses"] == "depth+mean"
    from mlr.cli.commands import saved_settings

    assert saved_settings(finished / "config.yaml").sets == config.sets


def test_a_run_that_is_continued_is_the_same_to_the_bit(config, finished, tmp_path):
    half = train(replace(config, epochs=1, out=tmp_path / "half"), console=Console(quiet=True)).path
    assert train_command(["--resume", str(half), "--epochs", "2"]) == 0
    networks = [torch.load(path / "last.pt", weights_only=True)["model"] for path in (finished, half)]
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])
    for name in ("metrics.csv", "balancing.csv"):
        assert (half / name).read_bytes() == (finished / name).read_bytes()


def test_report_and_evaluate_know_the_sets(finished, capsys):
    assert main(["report", str(finished)]) == 0
    assert "lidar/rmse" in (finished / "report.md").read_text()
    capsys.readouterr()
    assert main(["evaluate", str(finished), "--protocol", "full"]) == 1
    assert "several data sets, choose one of rooms, lidar" in capsys.readouterr().err
    assert main(["evaluate", str(finished), "--data", "lidar", "--protocol", "full", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["name"] == "kitti"


# --- losses by set ----------------------------------------------------------------------------------------------------

SPACE = LossSpace("D/0+r/0+M/1")


@pytest.fixture
def sets() -> TrainedSets:
    return TrainedSets(["dense", "lidar"], [[1, 1, 1], [0.5, 0, 0.5]])


def batch(seed: int = 0) -> dict:
    torch.manual_seed(seed)
    return {
        "image": torch.rand(4, 3, 32, 48), "depth": 1 + torch.rand(4, 1, 32, 48), "set": torch.tensor([0, 1, 1, 0]),
        "valid": torch.rand(4, 1, 32, 48) > 0.3, "id": list("abcd"),
    }  # fmt: skip


@pytest.mark.parametrize("masked", [True, False])
def test_the_total_is_that_of_each_image_under_its_own_losses(sets, masked):
    data, criterion = batch(), MultiLoss(SPACE, "area")
    pred, common = 2 * torch.rand(4, 1, 32, 48), torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    mask = data["valid"] if masked else None
    out = criterion(pred, data["depth"], sets.weights(common, data["set"]), mask)
    counts = sets.present(out.terms, out.counts, data["set"])
    total = 0.0
    for i, number in enumerate(data["set"].tolist()):
        own = ["D/0", "r/0", "M/1"] if number == 0 else ["D/0", "M/1"]
        factor = 1.0 if number == 0 else 0.5
        rows = (pred[i : i + 1], data["depth"][i : i + 1])
        terms = MultiLoss("+".join(own), "area")(*rows, mask=None if mask is None else mask[i : i + 1]).named()
        weights = dict(zip(SPACE.names, common.tolist(), strict=True))
        total += sum(factor * weights[name] * float(value) for name, value in terms.items()) / 4
        assert [name for name, count in zip(SPACE.names, counts[i], strict=True) if count > 0] == own
    assert float(out.total) == pytest.approx(total, rel=1e-5)


def test_the_balancer_means_a_loss_over_the_images_that_have_it(sets):
    data, criterion = batch(), MultiLoss(SPACE, "area")
    balancer = Rebalancing(SPACE.names, period=1)
    weights = sets.weights(balancer.weights, data["set"])
    out = criterion(2 * torch.rand(4, 1, 32, 48), data["depth"], weights, data["valid"])
    balancer.observe(out.terms, sets.present(out.terms, out.counts, data["set"]))
    means = dict(zip(SPACE.names, balancer.step().means, strict=True))
    column = dict(zip(SPACE.names, out.terms.double().T, strict=True))
    assert means["D/0"] == pytest.approx(float(column["D/0"].mean()))
    assert means["r/0"] == pytest.approx(float(column["r/0"][[0, 3]].mean()))


def test_scores_of_sets_and_their_mean(sets):
    data = batch()
    sets.score(1.1 * data["depth"], data["depth"], data["valid"], torch.tensor([0, 0, 0, 1]))
    sets.score(1.3 * data["depth"], data["depth"], data["valid"], torch.tensor([1, 1, 1, 1]))
    scores = sets.scores()
    assert float(scores["dense/abs_rel"]) == pytest.approx(0.1, rel=1e-5)
    assert float(scores["lidar/abs_rel"]) == pytest.approx((0.1 + 4 * 0.3) / 5, rel=1e-5)
    assert float(scores["abs_rel"]) == pytest.approx((0.1 + 0.26) / 2, rel=1e-5)
    assert not sets.state_dict()
