# SPDX-License-Identifier: Apache-2.0
"""Runs that were killed or damaged: --resume finishes them or says in a sentence why it cannot."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from mlr.cli import train_command
from mlr.training.run import Run
from mlr.training.settings import TrainingSettings
from mlr.training.train import train

TINY = TrainingSettings(
    backbone="test_resnet", decoder_channels=32, pretrained="false", size="32x48", train_length=4, val_length=1,
    workers=0, batch_size=2, epochs=1, device="cpu", losses="depth",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    return train(replace(TINY, out=out), console=Console(quiet=True)).path


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def contents(run: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}


def test_a_run_killed_before_its_figures_finishes(finished, run, capsys):
    record = json.loads((run / "run.json").read_text())
    after = {name: record.pop(name) for name in ("after", "epochs", "steps")}
    (run / "run.json").write_text(json.dumps(record))
    for name in ("curves", "samples", "contributions"):
        (run / f"{name}.png").unlink()
    (run / ".curves.png.123.part").write_text("half")
    (run / ".last.pt.124.part").mkdir()
    state = (run / "resume.ckpt").read_bytes()
    assert train_command(["--resume", str(run)]) == 0
    again = json.loads((run / "run.json").read_text())
    assert {name: again[name] for name in after} == after
    assert contents(run).keys() == contents(finished).keys()
    assert not list(run.glob(".*"))
    assert (run / "resume.ckpt").read_bytes() == state
    assert train_command(["--resume", str(run)]) == 1
    assert "has finished 1 epoch of 1: give more --epochs" in capsys.readouterr().err


def test_a_run_killed_in_its_first_epoch_begins_again(finished, run):
    for name in ("resume.ckpt", "best.pt", "last.pt"):
        (run / name).unlink()
    with (run / "metrics.csv").open("a") as table:
        table.write("1,1,0.5")
    assert train_command(["--resume", str(run)]) == 0
    for name in ("metrics.csv", "balancing.csv", "config.yaml"):
        assert (run / name).read_bytes() == (finished / name).read_bytes()
    networks = [torch.load(path / "last.pt", weights_only=True)["model"] for path in (finished, run)]
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])
    assert len(list((run / "tensorboard").iterdir())) == len(list((finished / "tensorboard").iterdir()))


def test_a_run_killed_between_the_row_of_an_epoch_and_its_state_has_the_row_once(run, tmp_path):
    whole = train(replace(TINY, epochs=2, out=tmp_path / "whole"), console=Console(quiet=True)).path
    for name in ("metrics.csv", "balancing.csv", "last.pt", "best.pt"):
        shutil.copy(whole / name, run / name)
    assert train_command(["--resume", str(run), "--epochs", "2"]) == 0
    for name in ("metrics.csv", "balancing.csv"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    with (run / "metrics.csv").open(newline="") as table:
        assert [row["epoch"] for row in csv.DictReader(table) if row["train/loss_epoch"]] == ["1", "2"]


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["state_dict"], None),
        (["state_dict"], {}),
        (["state_dict", "model.conv3.weight"], torch.zeros(1)),
        (["state_dict", "model.conv3.weight"], torch.zeros(1).expand(2**40)),
        (["state_dict", "balancer.weights"], torch.full((6,), float("nan"))),
        (["state_dict", "balancer._extra_state"], None),
        (["state_dict", "balancer._extra_state", "sums"], torch.zeros(3)),
        (["optimizer_states"], []),
        (["optimizer_states", 0], None),
        (["optimizer_states", 0, "state", 0, "exp_avg"], torch.zeros(2)),
        (["optimizer_states", 0, "param_groups"], []),
        (["loops"], {}),
        (["loops", "fit_loop", "epoch_loop.batch_progress"], None),
        (["loops", "fit_loop", "epoch_progress", "current", "processed"], "one"),
        (["global_step"], -1),
        (["callbacks"], []),
        (["lr_schedulers"], 3),
        (["pytorch-lightning_version"], ["2"]),
    ],
)
def test_a_state_with_a_wrong_part_is_refused_in_a_sentence(keys, value, run, capsys):
    state = torch.load(run / "resume.ckpt", weights_only=True)
    place = state
    for key in keys[:-1]:
        place = place[key]
    if value is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    torch.save(state, run / "resume.ckpt")
    before = contents(run)
    assert train_command(["--resume", str(run), "--epochs", "2"]) == 1
    error = capsys.readouterr().err
    assert "resume.ckpt is damaged" in " ".join(error.split())
    assert "Traceback" not in error
    assert contents(run) == before


@pytest.mark.parametrize(
    "content",
    ["[]", "3", "{", "{}", '{"constant": 3}', '{"versions": []}', '{"parameters": "many"}', "[" * 100_000, "\x00"],
)
def test_a_record_of_something_else_is_refused_in_a_sentence(content, run, capsys):
    (run / "run.json").write_text(content)
    before = contents(run)
    assert train_command(["--resume", str(run), "--epochs", "2"]) == 1
    assert "run.json is damaged" in capsys.readouterr().err
    assert contents(run) == before


def test_an_out_that_is_taken_is_refused_before_the_network_is_built(run, capsys, monkeypatch):
    monkeypatch.setattr("mlr.training.train.build_network", None)
    assert train_command([*replace(TINY, out=run).flags()]) == 1
    assert "never overwrites another" in capsys.readouterr().err


def test_a_run_that_is_killed_as_it_begins_does_not_occupy_its_folder(tmp_path):
    (tmp_path / ".config.yaml.9.part").write_text("half")
    run = Run.create(replace(TINY, out=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    assert replace(run.training_settings(), out=tmp_path) == replace(TINY, out=tmp_path)
    with pytest.raises(FileExistsError, match="never overwrites another"):
        Run.create(replace(TINY, out=tmp_path))


def test_a_link_among_what_was_not_finished_is_removed_and_not_followed(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").write_text("x")
    (run / ".x.1.part").symlink_to(tmp_path / "elsewhere")
    Run(run).clean()
    assert not (run / ".x.1.part").is_symlink()
    assert (tmp_path / "elsewhere/precious").exists()
