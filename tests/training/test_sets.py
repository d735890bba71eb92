# SPDX-License-Identifier: Apache-2.0
"""Training on several data sets: losses and scores by set, resume to the bit."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from data_files import write_kitti
from rich.console import Console

from mlr.balancing import Rebalancing
from mlr.cli import main, train_command
from mlr.data.named_sets import NamedSet
from mlr.evaluation import METRICS
from mlr.losses import LossSpace, MultiLoss
from mlr.training.module import DepthTraining
from mlr.training.scores import score_names
from mlr.training.sets import MixedTraining, SetScores
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
        assert list(record[part]) == list(score_names("metric", ["rooms", "lidar"]).names)
    printed = (finished.parent / "printed").read_text()
    for words in ("rooms: 6 frames an epoch", "lidar: 2 frames an epoch", "lidar: 30 (depth+mean)", "lidar: delta1"):
        assert words in printed
    assert {"curves.png", "samples.png", "contributions.png"} <= {p.name for p in finished.iterdir()}
    names = np.load(finished / "samples.npz")["names"].tolist()
    assert [name.partition(": ")[0] for name in names] == ["rooms", "rooms", "lidar"]


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


class Given(torch.nn.Module):
    """A network whose prediction is given."""

    def __init__(self) -> None:
        super().__init__()
        self.pred = 2 * torch.rand(4, 1, 32, 48)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.pred


def batch(seed: int = 0) -> dict:
    torch.manual_seed(seed)
    known = torch.rand(4, 1, 32, 48) > 0.3
    return {
        "image": torch.rand(4, 3, 32, 48), "depth": 1 + torch.rand(4, 1, 32, 48), "set": torch.tensor([0, 1, 1, 0]),
        "valid": known, "mask": known, "id": list("abcd"),
    }  # fmt: skip


def mixed(masked: bool = True) -> MixedTraining:
    sets = (NamedSet("rooms", name="dense"), NamedSet("kitti", name="lidar", losses="D/0+M/1", loss_weight=0.5))
    balancer = Rebalancing(SPACE.names, period=1)
    balancer.weights.copy_(torch.tensor([0.2, 0.5, 0.3]))
    return MixedTraining(sets, Given(), MultiLoss(SPACE, "area"), balancer, masked=masked)


@pytest.mark.parametrize("masked", [True, False])
def test_the_total_is_that_of_each_image_under_its_own_losses(masked):
    data, task = batch(), mixed(masked)
    out = task.losses(data)
    total = 0.0
    for i, number in enumerate(data["set"].tolist()):
        own = ["D/0", "r/0", "M/1"] if number == 0 else ["D/0", "M/1"]
        factor = 1.0 if number == 0 else 0.5
        maps = (task.model.pred[i : i + 1], data["depth"][i : i + 1])
        terms = MultiLoss("+".join(own), "area")(*maps, mask=data["mask"][i : i + 1] if masked else None).named()
        weights = dict(zip(SPACE.names, task.balancer.weights.tolist(), strict=True))
        total += sum(factor * weights[name] * float(value) for name, value in terms.items()) / 4
        assert [name for name, count in zip(SPACE.names, out.counts[i], strict=True) if count > 0] == own
    assert float(out.total) == pytest.approx(total, rel=1e-5)


def test_the_balancer_means_a_loss_over_the_images_that_have_it():
    data, task = batch(), mixed()
    out = task.losses(data)
    task.balancer.observe(out.terms, out.counts)
    means = dict(zip(SPACE.names, task.balancer.step().means, strict=True))
    plain = DepthTraining(task.model, task.criterion, task.balancer, masked=True)
    column = dict(zip(SPACE.names, plain.losses(data).terms.double().T, strict=True))
    assert means["D/0"] == pytest.approx(float(column["D/0"].mean()))
    assert means["r/0"] == pytest.approx(float(column["r/0"][[0, 3]].mean()))


def test_scores_of_sets_and_their_mean():
    data, scores = batch(), SetScores(["dense", "lidar"])
    scores.update(1.1 * data["depth"], data | {"set": torch.tensor([0, 0, 0, 1])})
    scores.update(1.3 * data["depth"], data | {"set": torch.tensor([1, 1, 1, 1])})
    found = scores.compute()
    assert float(found["dense/abs_rel"]) == pytest.approx(0.1, rel=1e-5)
    assert float(found["lidar/abs_rel"]) == pytest.approx((0.1 + 4 * 0.3) / 5, rel=1e-5)
    assert float(found["abs_rel"]) == pytest.approx((0.1 + 0.26) / 2, rel=1e-5)
    assert not mixed().state_dict().keys() & {"factors"}


def test_a_sparse_set_under_the_bicubic_pyramid_is_named(config, tmp_path):
    bicubic = replace(config, downsample="bicubic", epochs=1, out=tmp_path / "run")
    with pytest.warns(UserWarning, match="in data set lidar: --downsample area"):
        train(bicubic, console=Console(quiet=True))
