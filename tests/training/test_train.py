# SPDX-License-Identifier: Apache-2.0
"""Runs of the trainer on built-in scenes: what they write, how they resume, what they refuse."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
import torch.nn.functional as F
import yaml
from rich.console import Console

import mlr
from mlr.cli.commands import EXAMPLES, train_command
from mlr.training.module import DepthTraining
from mlr.training.run import Run
from mlr.training.settings import TrainingSettings
from mlr.training.train import train

TINY = TrainingSettings(
    backbone="test_resnet",  # timm's smallest convolutional network
    decoder_channels=32,
    pretrained="false",
    size="32x48",
    train_length=8,
    val_length=2,
    workers=0,
    batch_size=2,
    epochs=2,
    learning_rate=1e-3,
    device="cpu",
)


def flags(config: TrainingSettings, **changes) -> list[str]:
    """The command line of some settings."""
    values = config.as_dict() | changes
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value is not None]


def quiet_train(config: TrainingSettings, **kwargs):
    return train(config, console=Console(quiet=True), **kwargs)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two epochs."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return quiet_train(replace(TINY, out=out))


def state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path / "last.pt", weights_only=True)["model"]


def test_a_run_leaves_its_record_its_models_and_its_figures(finished):
    names = {"config.yaml", "run.json", "metrics.csv", "balancing.csv", "best.pt", "last.pt", "resume.ckpt"}
    names |= {"curves.png", "samples.png", "contributions.png", "tensorboard"}
    assert names <= {p.name for p in finished.path.iterdir()}
    record = json.loads((finished.path / "run.json").read_text())
    assert "random" in record["weights_source"]
    assert record["versions"]["torch"] == torch.__version__
    assert record["loss_backend"] == mlr.backend_report().splitlines()
    assert record["after"] == pytest.approx(finished.after)
    assert TrainingSettings(**yaml.safe_load((finished.path / "config.yaml").read_text())) == TINY


def test_all_terms_are_logged_at_every_rebalancing_and_weights_in_force_are_the_ones_logged(finished):
    with (finished.path / "balancing.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 78 * 8  # four periods an epoch, two epochs
    assert {r["term"] for r in rows} == set(mlr.LossSpace("all").names)
    assert [r["lambda"] for r in rows[::78]] == ["", "3.0", "3.0", "3.0", "1.5", "1.5", "1.5", "1.5"]
    for period in range(8):
        total = sum(float(r["contribution"]) for r in rows if int(r["period"]) == period)
        assert total == pytest.approx(1)
    saved = torch.load(finished.path / "resume.ckpt", weights_only=True)["state_dict"]["balancer.weights"]
    assert saved.tolist() == [float(r["weight"]) for r in rows[-78:]]


def test_models_load_without_running_code_and_predict(finished):
    best = torch.load(finished.path / "best.pt", weights_only=True)
    assert best["config"]["losses"] == "all"
    assert set(best["metrics"]) == set(finished.after)
    model = mlr.DepthModel.from_checkpoint(finished.path / "last.pt").eval()
    assert model(torch.rand(1, 3, 50, 70)).shape == (1, 1, 50, 70)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_equals_an_uninterrupted_one(finished, tmp_path, workers):
    quiet_train(replace(TINY, epochs=1, workers=workers, out=tmp_path / "run"))
    assert train_command(["--resume", str(tmp_path / "run"), "--epochs", "2"]) == 0
    whole, resumed = state(finished.path), state(tmp_path / "run")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    for table in ("balancing.csv", "metrics.csv"):
        assert (finished.path / table).read_text() == (tmp_path / "run" / table).read_text()
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["epochs"] == 2


def test_random_layers_draw_the_same_in_a_resumed_run(tmp_path, monkeypatch):
    forward = mlr.DepthModel.forward
    monkeypatch.setattr(
        mlr.DepthModel, "forward", lambda self, x: forward(self, F.dropout(x, 0.2, training=self.training))
    )
    quiet_train(replace(TINY, out=tmp_path / "whole"))
    quiet_train(replace(TINY, epochs=1, out=tmp_path / "run"))
    assert train_command(["--resume", str(tmp_path / "run"), "--epochs", "2"]) == 0
    whole, resumed = state(tmp_path / "whole"), state(tmp_path / "run")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_resumed_run_needs_no_more_the_weights_that_it_started_from(tmp_path):
    file = tmp_path / "encoder.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), file)
    run = quiet_train(replace(TINY, epochs=1, pretrained=str(file), out=tmp_path / "run")).path
    file.unlink()
    assert train_command(["--resume", str(run), "--epochs", "2"]) == 0
    assert json.loads((run / "run.json").read_text())["weights_source"] == f"file: {file}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "2"], "has finished 2 epochs of 2: give more --epochs"),
        (["--epochs", "1"], "has finished 2 epochs of 1"),
        (["--epochs", "3", "--learning-rate", "1e-4"], "--learning-rate 0.0001 differs"),  # the flag's default
        (["--epochs", "3", "--devices", "2"], "--devices 2 differs"),  # would change the batch
        (["--losses", "depth"], "differs from the run to continue"),
    ],
)
def test_what_cannot_be_resumed_is_refused_and_the_run_keeps_its_record(finished, arguments, message, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.path.iterdir()}
    assert train_command(["--resume", str(finished.path), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert before == {p: p.stat().st_mtime_ns for p in finished.path.iterdir()}


@pytest.mark.parametrize("name", ["resume.ckpt", "config.yaml", "run.json"])
def test_a_damaged_run_is_named(finished, name, tmp_path, capsys):
    run = shutil.copytree(finished.path, tmp_path / "run")
    (run / name).write_text({"resume.ckpt": "", "config.yaml": "a: [", "run.json": "{}"}[name])
    assert train_command(["--resume", str(run), "--epochs", "3"]) == 1
    assert f"{name} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("periods", [4, 1])  # found at a rebalancing, or in the network before it is validated
def test_training_that_diverges_stops_and_replaces_nothing(periods, tmp_path, capsys):
    config = replace(TINY, learning_rate=1e12, periods_per_epoch=periods, out=tmp_path / "run")
    assert train_command(flags(config)) == 1
    assert "training has diverged in epoch 1" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("*.pt"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_signal_stops_training_and_says_what_it_leaves(number, code, epoch, tmp_path, monkeypatch, capsys):
    step, handler = DepthTraining.training_step, signal.getsignal(signal.SIGINT)

    def interrupted(self, *args):
        if self.current_epoch == epoch:
            os.kill(os.getpid(), number)
        return step(self, *args)

    monkeypatch.setattr(DepthTraining, "training_step", interrupted)
    with pytest.raises(SystemExit) as stop:
        sys.exit(train_command(flags(TINY, out=tmp_path / "run")))
    signal.signal(signal.SIGINT, handler)
    assert stop.value.code == code
    assert ("continues after the last finished epoch" if epoch else "begins again") in capsys.readouterr().err


def test_an_earlier_run_is_never_overwritten(finished, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.path.iterdir()}
    assert train_command(flags(replace(TINY, out=finished.path))) == 1
    assert "never overwrites" in capsys.readouterr().err
    assert before == {p: p.stat().st_mtime_ns for p in finished.path.iterdir()}


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulate": 3, "clip_gradient": 0.1, "epochs": 1},
        {"precision": "bf16", "losses": "coarse", "epochs": 1},
        {"batch_size": 1, "steps_per_epoch": 2, "balancer": "equal", "epochs": 1},
    ],
)
def test_settings_work_together(changes, tmp_path):
    result = quiet_train(replace(TINY, out=tmp_path / "run", **changes))
    record = json.loads((result.path / "run.json").read_text())
    batches = changes.get("steps_per_epoch") or -(-8 // changes.get("batch_size", 2))
    assert record["steps"] == -(-batches // changes.get("accumulate", 1))
    assert all(value == value for value in result.after.values())


def test_training_lowers_the_loss(tmp_path):
    # a narrower decoder ends in one channel, which may die, and then nothing is learned from some seeds; 48 steps on
    # augmented images are few, and processors round differently: a seed whose first loss leaves room
    wide = {"decoder_channels": 512, "batch_size": 1, "epochs": 6, "learning_rate": 2e-3, "seed": 4}
    result = quiet_train(replace(TINY, out=tmp_path / "run", balancer="fixed", losses="depth", **wide))
    with (result.path / "metrics.csv").open() as file:
        losses = [float(r["train/loss_epoch"]) for r in csv.DictReader(file) if r["train/loss_epoch"]]
    assert losses[-1] < 0.8 * losses[0]


def test_two_ranks_train_together(tmp_path):
    command = [sys.executable, "train.py", *flags(TINY, devices=2, epochs=1, out=tmp_path / "run")]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "balancing.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 78 * 2  # two steps of 2 x 2 images; each of the four quarters that holds no step merges


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mlr.training.run.datetime", SimpleNamespace(now=lambda: datetime(2026, 1, 1)))
    paths = [Run.create(TINY).path.name for _ in range(3)]
    assert paths == [f"test_resnet-rooms-20260101-000000{end}" for end in ("", "-2", "-3")]


@pytest.mark.parametrize("balancer", ["random", "relobralo"])
def test_the_seed_reaches_balancers_that_draw(balancer):
    assert replace(TINY, balancer=balancer, seed=5).make_balancer().seed == 5


def test_options_reach_the_balancer():
    assert replace(TINY, balancer="uncertainty", balancer_options="lr=1e-2").make_balancer().lr == 0.01
    balancer = replace(TINY, balancer_options="equal_start=false, clip=none,form=power").make_balancer()
    assert (balancer.equal_start, balancer.clip, balancer.form) == (False, None, "power")


def test_a_frozen_encoder_keeps_its_weights_and_statistics(tmp_path, finished):
    config = replace(TINY, freeze="encoder", epochs=1)
    quiet_train(replace(config, out=tmp_path / "run"))
    frozen, trained = state(tmp_path / "run"), state(finished.path)
    assert frozen.keys() == trained.keys()
    quiet_train(replace(config, out=tmp_path / "longer", epochs=2))
    longer = state(tmp_path / "longer")
    changed = {name for name in frozen if not torch.equal(frozen[name], longer[name])}
    assert changed
    assert not {name for name in changed if name.startswith("encoder.")}
    statistics = next(name for name in frozen if name.endswith("running_mean"))
    assert not torch.equal(frozen[statistics], trained[statistics])


# --- refusals


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--backbone", "pnasnett"], 1, "did you mean pnasnet"),
        (["--losses", "grad"], 1, "did you mean gradient"),
        (["--bach-size", "3"], 2, "did you mean --batch-size"),
        (["--data", "kitti2"], 1, "unknown data set 'kitti2': did you mean kitti?"),
        (["--epochs", "many"], 2, "--epochs: expected int"),
        (["--epochs", "0"], 1, "--epochs must be at least 1"),
        (["--size", "20x20"], 1, "at least 32x32"),
        (["--seed", str(2**32)], 1, "--seed must be at most"),
        (["--threads", "100000"], 1, "--threads must be at most"),
        (["--precision", "fp16", "--device", "cpu"], 1, "--precision fp16 is for GPUs"),
        (["--devices", "3", "--device", "cpu", "--val-length", "2"], 1, "val has only 2 frames"),
        (["--decoder-channels", "48", "--backbone", "test_resnet", "--pretrained", "false"], 1, "multiple of 32"),
        (["--size", "big"], 1, "HxW"),
        (["--balancer", "gradnorm"], 1, "unknown balancer"),
        (["--balancer-options", "speed=3"], 1, "has no option speed"),
        (["--balancer-options", "equal_start=2"], 1, "--balancer-options equal_start=2: equal_start must be True"),
        (["--lambda-slope", "1"], 1, "descends"),
        (["--learning-rate", "0"], 1, "--learning-rate must be a positive number"),
        (["--pretrained", "missing.pth"], 1, "no such file"),
        (["--resume", "nowhere"], 1, "no run folder"),
        pytest.param(
            ["--device", "gpu"],
            1,
            "sees no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        (["--config", "missing.yaml"], 2, "--config"),
        (["--data", "nyu", "--root", "nowhere"], 1, "nowhere"),
        (["--data", "nyu"], 1, "--root"),
    ],
)
def test_a_wrong_setting_is_explained_in_one_line_before_anything_is_written(
    arguments, code, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if code == 2:
        with pytest.raises(SystemExit, match="2"):
            train_command(arguments)
    else:
        assert train_command(arguments) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_run_folder_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    assert train_command(flags(TINY, out=tmp_path / "file" / "run")) == 1
    assert "cannot write to the run folder" in capsys.readouterr().err


def test_a_full_disk_is_refused_before_the_first_step(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    assert train_command(flags(TINY, out=tmp_path / "run")) == 1
    error = capsys.readouterr().err
    assert "MiB free" in error
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_a_disk_that_fills_up_during_training_loses_nothing(tmp_path, capsys, monkeypatch):
    quiet_train(replace(TINY, epochs=1, out=tmp_path / "run"))
    kept = {name: (tmp_path / "run" / name).read_bytes() for name in ("last.pt", "best.pt", "resume.ckpt")}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert train_command(["--resume", str(tmp_path / "run"), "--epochs", "2"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert kept == {name: (tmp_path / "run" / name).read_bytes() for name in kept}


def test_settings_come_from_yaml_and_flags_take_precedence(tmp_path):
    from mlr.cli.commands import training_parser

    (tmp_path / "settings.yaml").write_text("backbone: resnet50\nbatch_size: 4\n")
    args = training_parser().parse_args(["--config", str(tmp_path / "settings.yaml"), "--batch-size", "6"])
    assert (args.backbone, args.batch_size, args.epochs) == ("resnet50", 6, 20)


def test_help_shows_its_examples_line_by_line(capsys):
    with pytest.raises(SystemExit, match="0"):
        train_command(["--help"])
    assert EXAMPLES in capsys.readouterr().out
