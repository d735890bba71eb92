# SPDX-License-Identifier: Apache-2.0
"""Runs that start from a trained network: what --init takes, refuses and records, and how such runs continue."""

from __future__ import annotations

import csv
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

import mlr
from mlr.cli import train_command
from mlr.models.checkpoints import save_checkpoint
from mlr.training.module import DepthTraining
from mlr.training.settings import TrainingSettings
from mlr.training.train import train

TINY = TrainingSettings(
    backbone="test_resnet", decoder_channels=32, pretrained="false", size="32x48", train_length=8, val_length=1,
    workers=0, batch_size=2, epochs=3, device="cpu", losses="depth", learning_rate=1e-3,
)  # fmt: skip

#: Settings of fine-tuning; the last ones together.
FEATURES = {
    "schedule": {"schedule": "cosine", "warmup": 0.5},
    "onecycle": {"schedule": "onecycle", "workers": 1},
    "thaw": {"freeze": "encoder:2", "backbone_lr_factor": 0.1},
    "average": {"ema": 0.75},
    "all": {
        "schedule": "poly", "warmup": 1.0, "freeze": "encoder:1", "backbone_lr_factor": 0.1, "ema": 0.9,
        "optimizer": "adamw", "weight_decay": 0.05, "accumulate": 2, "clip_gradient": 1.0,
    },
}  # fmt: skip


def quiet_train(config: TrainingSettings, **kwargs):
    return train(config, console=Console(quiet=True), **kwargs)


def flags(config: TrainingSettings, *left_out: str) -> list[str]:
    return [word for word in config.flags() if word.partition("=")[0].lstrip("-").replace("-", "_") not in left_out]


def weights(path: Path, part: str = "model") -> dict[str, torch.Tensor]:
    return torch.load(path / "last.pt", weights_only=True)[part]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def trained(tmp_path) -> Path:
    """A checkpoint of the tiny network, with weights that no seed gives."""
    torch.manual_seed(12345)
    return save_checkpoint(tmp_path / "trained.pt", mlr.DepthModel("test_resnet", 32, pretrained=False))


# --- the start


@pytest.fixture
def as_begun(monkeypatch) -> dict[str, torch.Tensor]:
    """The weights that a run begins with."""
    begun: dict[str, torch.Tensor] = {}

    def remember(task) -> None:
        begun.update({name: value.clone() for name, value in task.model.state_dict().items()})

    monkeypatch.setattr(DepthTraining, "on_fit_start", remember)
    return begun


def test_a_run_begins_with_the_whole_network_of_a_checkpoint(trained, tmp_path, as_begun, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    given = flags(replace(TINY, epochs=1, init=trained, out=tmp_path / "run"), "backbone", "decoder_channels")
    assert train_command(given) == 0
    content = torch.load(trained, weights_only=True)["model"]
    assert same(as_begun, content)
    assert f"init      {trained} gives all {len(content)} tensors of the network\n" in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["init"] == {
        "checkpoint": str(trained), "origin": "mlr", "matched": len(content), "tensors": len(content),
        "differences": [],
    }  # fmt: skip
    saved = mlr.load_checkpoint(tmp_path / "run" / "last.pt").config
    assert saved["init"] == str(trained)
    assert saved["weights_source"] == record["weights_source"]
    assert record["weights_source"] == f"checkpoint: {trained}"
    trained.unlink()  # a run that continues needs it no more
    assert train_command(["--resume", str(tmp_path / "run"), "--epochs", "2"]) == 0


def test_a_run_s_folder_gives_its_best_network(trained, tmp_path, as_begun):
    quiet_train(replace(TINY, epochs=1, out=tmp_path / "first"))
    quiet_train(replace(TINY, epochs=1, init=tmp_path / "first", out=tmp_path / "second"))
    assert same(as_begun, torch.load(tmp_path / "first" / "best.pt", weights_only=True)["model"])


def test_a_network_that_fits_in_part_is_refused_with_the_list(trained, tmp_path, capsys):
    config = replace(TINY, init=trained, decoder_channels=64, out=tmp_path / "run")
    assert train_command(flags(config)) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "other shape: conv3.weight (1, 1, 3, 3) instead of (1, 2, 3, 3), conv_d32.bias" in error
    assert "take what fits with --init-partial" in error
    assert not (tmp_path / "run").exists()


def test_what_fits_is_taken_on_request_and_the_rest_starts_as_without(trained, tmp_path, as_begun, capsys):
    config = replace(TINY, init=trained, decoder_channels=64, epochs=1, init_partial=True, out=tmp_path / "run")
    assert train_command([*flags(config, "init_partial"), "--init-partial"]) == 0
    content = torch.load(trained, weights_only=True)["model"]
    encoder = {name for name in content if name.startswith("encoder.")}
    assert all(torch.equal(as_begun[name], content[name]) for name in encoder)
    torch.manual_seed(0)
    assert as_begun["conv3.bias"].item() == pytest.approx(2.84)  # as an untrained decoder starts
    record = json.loads((tmp_path / "run" / "run.json").read_text())["init"]
    fitting = {name for name in content if content[name].shape == as_begun[name].shape}
    assert (record["matched"], record["tensors"]) == (len(fitting), len(as_begun))
    assert "other shape: conv3.weight" in record["differences"][0]
    assert "other shape: conv3.weight" in " ".join(capsys.readouterr().out.split())


def test_the_authors_network_is_taken(tmp_path, as_begun, monkeypatch):
    """Their file has another form, and the network its own normalisation."""
    network = mlr.DepthModel("test_resnet", 32, pretrained=False)
    state = {f"module.{name}": value for name, value in network.state_dict().items() if not name.startswith("pixel")}
    state["module.encoder.cell_0.weight"] = torch.zeros(1)  # by which their file is known
    torch.save(state, tmp_path / "PNAS_model.pth")
    config = replace(TINY, epochs=1, init=tmp_path / "PNAS_model.pth", init_partial=True, out=tmp_path / "run")
    assert train_command(flags(config)) == 0
    assert torch.equal(as_begun["pixel_mean"].flatten(), torch.tensor([0.485, 0.456, 0.406]))
    assert torch.equal(as_begun["conv3.weight"], network.conv3.weight)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["init"]["origin"] == "authors"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--init", "nowhere.pt"], "there is no checkpoint nowhere.pt"),
        (["--init", "."], "has no best.pt"),
        (["--init", "encoder.pth"], "neither an mlr checkpoint nor the authors' network"),
        (["--init-partial"], "--init-partial says what to do with --init"),
        (["--init", "trained.pt", "--pretrained", "true"], "--pretrained true has no effect"),
        (["--init", "trained.pt", "--backbone", "test_vit"], "trained.pt gives "),
        (["--freeze", "decoder"], "--freeze must be none, encoder or encoder:N"),
        (["--freeze", "encoder:0"], "--freeze must be none, encoder or encoder:N"),
        (["--backbone-lr-factor", "0"], "--backbone-lr-factor must be a positive number, got 0.0"),
        (["--weight-decay", "-1"], "--weight-decay must be a number from 0, got -1.0"),
        (["--ema", "1"], "--ema must be a number from 0 below 1, got 1.0"),
        (["--warmup", "20"], "--warmup must be shorter than the run of 20 epochs, got 20"),
    ],
)
def test_a_wrong_start_is_explained_before_anything_is_written(
    arguments, message, trained, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": torch.zeros(2)}, "encoder.pth")
    before = sorted(tmp_path.iterdir())
    assert train_command(arguments) == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("flag", "value"), [("--optimizer", "sgd"), ("--schedule", "step"), ("--ema", "much"), ("--warmup", "nan")]
)
def test_a_word_that_is_no_choice_is_refused(flag, value, capsys):
    with pytest.raises(SystemExit, match="2"):
        train_command([flag, value])
    assert flag in capsys.readouterr().err


# --- freezing


def test_an_encoder_is_frozen_for_its_epochs_and_then_learns(tmp_path, monkeypatch):
    seen: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(
        DepthTraining,
        "on_train_epoch_end",
        lambda task: seen.append({name: value.clone() for name, value in task.model.encoder.state_dict().items()}),
    )
    quiet_train(replace(TINY, freeze="encoder:2", out=tmp_path / "run"))
    assert same(seen[0], seen[1])
    assert all(not torch.equal(seen[1][name], seen[2][name]) for name in seen[0] if name.endswith("weight"))
    statistics = next(name for name in seen[0] if name.endswith("running_mean"))
    assert not torch.equal(seen[1][statistics], seen[2][statistics])


@pytest.mark.parametrize("typed", [["--freeze-encoder", "true"], ["--freeze-encoder=True"], ["--config", "old.yaml"]])
def test_the_older_spelling_freezes_for_ever(typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("old.yaml").write_text("model: {freeze-encoder: true}\n")
    monkeypatch.setattr("mlr.training.train.train", lambda config, resume: configs.append(config))
    configs: list[TrainingSettings] = []
    assert train_command(typed) == 0
    assert configs == [TrainingSettings(freeze="encoder")]


# --- the average


def test_the_average_is_validated_and_saved_beside_the_weights(tmp_path, monkeypatch):
    run = quiet_train(replace(TINY, epochs=2, ema=0.75, out=tmp_path / "run"))
    plain = quiet_train(replace(TINY, epochs=2, out=tmp_path / "plain"))
    assert same(weights(run.path, "unaveraged"), weights(plain.path))  # an average changes nothing in the training
    checkpoint = mlr.load_checkpoint(run.path / "last.pt")
    assert same(checkpoint.unaveraged, weights(plain.path))
    assert not same(checkpoint.model, checkpoint.unaveraged)
    assert run.before == plain.before
    assert run.after != plain.after
    assert same(mlr.open_model(run.path / "last.pt", "cpu").model.state_dict(), checkpoint.model)
    assert not mlr.load_checkpoint(plain.path / "last.pt").unaveraged


# --- going on


@pytest.mark.parametrize("name", FEATURES)
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(name, trained, tmp_path, monkeypatch):
    config = replace(TINY, init=trained, **FEATURES[name])
    whole = quiet_train(replace(config, out=tmp_path / "whole")).path
    step, handler = DepthTraining.training_step, signal.getsignal(signal.SIGINT)

    def interrupted(task, *args):
        if task.current_epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(task, *args)

    with monkeypatch.context() as patch:
        patch.setattr(DepthTraining, "training_step", interrupted)
        assert train_command(flags(replace(config, out=tmp_path / "run"))) == 130
    signal.signal(signal.SIGINT, handler)
    assert train_command(["--resume", str(tmp_path / "run")]) == 0
    for part in ("model", *(["unaveraged"] if config.ema else [])):
        assert same(weights(whole, part), weights(tmp_path / "run", part))
    for table in ("metrics.csv", "balancing.csv"):
        assert (whole / table).read_bytes() == (tmp_path / "run" / table).read_bytes()
    states = [torch.load(path / "resume.ckpt", weights_only=True) for path in (whole, tmp_path / "run")]
    assert states[0]["lr_schedulers"] == states[1]["lr_schedulers"]
    assert bool(states[0]["lr_schedulers"]) == (config.schedule != "constant")


def test_a_schedule_ends_with_its_run(trained, tmp_path, capsys):
    quiet_train(replace(TINY, epochs=1, schedule="cosine", out=tmp_path / "run"))
    assert train_command(["--resume", str(tmp_path / "run"), "--epochs", "2"]) == 1
    assert "the cosine schedule of" in " ".join(capsys.readouterr().err.split())
    assert train_command(["--resume", str(tmp_path / "run")]) == 1
    assert f"start another with --init {tmp_path / 'run'}" in " ".join(capsys.readouterr().err.split())


def test_few_images_are_learned_by_heart(tmp_path):
    """The use of fine-tuning: the loss falls from where a trained network starts."""
    vit = replace(TINY, backbone="test_vit", decoder_channels=128)
    start = quiet_train(replace(vit, out=tmp_path / "first"))
    config = replace(vit, init=start.path, train_length=2, epochs=16, augment="none", schedule="cosine",
                     balancer="fixed", losses="D/0", out=tmp_path / "second")  # fmt: skip
    with (quiet_train(config).path / "metrics.csv").open(newline="") as file:
        losses = [float(row["train/loss_epoch"]) for row in csv.DictReader(file) if row["train/loss_epoch"]]
    assert losses[-1] < 0.8 * losses[0]
