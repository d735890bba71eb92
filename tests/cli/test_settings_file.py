# SPDX-License-Identifier: Apache-2.0
"""Settings in YAML files: the natural way of writing them works, and what is none is refused."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from mlr.cli import train_command, training_parser
from mlr.cli.commands import saved_settings
from mlr.cli.settings_file import read_settings
from mlr.training.settings import GROUPS, TrainingSettings


def parsed(file: Path, *flags: str) -> TrainingSettings:
    args = training_parser().parse_args(["--config", str(file), *flags])
    return TrainingSettings(**{name: args[name] for name in TrainingSettings.names()})


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("precision: 32", "precision", "32"),
        ("pretrained: false", "pretrained", "false"),
        ("pretrained: True", "pretrained", "True"),
        ("depth_unit: 256", "depth_unit", "256"),
        ("depth-unit: 256", "depth_unit", "256"),
        ("batch-size: 3", "batch_size", 3),
        ("batch_size: '3'", "batch_size", 3),
        ("root: 2011_09_26", "root", Path("2011_09_26")),
        ("root: 1e3", "root", Path("1e3")),
        ("learning_rate: 1e-3", "learning_rate", 1e-3),
        ("steps_per_epoch: null", "steps_per_epoch", None),
        ("steps_per_epoch:", "steps_per_epoch", None),
        ("size: [96, 128]", "size", "96x128"),
        ("losses: [depth, r/0]", "losses", "depth+r/0"),
        ("data_options: {kb_crop: true, list_file: a.txt}", "data_options", "kb_crop=true,list_file=a.txt"),
        ("optimizer:\n  batch-size: 3", "batch_size", 3),
        ("losses:\n  losses: depth\n  balancer: equal", "balancer", "equal"),
        ("data: {data: kitti, holes: mask}", "data", "kitti"),
        ("augment: eccv2020", "augment", "paper"),
        ("holes: error", "holes", "error"),
    ],
)
def test_a_setting_means_what_it_means_on_the_command_line(text, name, value, tmp_path):
    (tmp_path / "s.yaml").write_text(text + "\n")
    assert getattr(parsed(tmp_path / "s.yaml"), name) == value


def test_flags_before_the_file_yield_to_it_and_flags_after_it_do_not(tmp_path):
    (tmp_path / "s.yaml").write_text("batch_size: 4\nepochs: 5\n")
    args = training_parser().parse_args(["--epochs=6", f"--config={tmp_path / 's.yaml'}", "--batch-size", "7"])
    assert (args.batch_size, args.epochs) == (7, 5)


def test_a_runs_settings_come_back(tmp_path):
    settings = TrainingSettings(
        root=Path("a[b]"), data="folder", steps_per_epoch=3, learning_rate=1e-5, pretrained="false", depth_unit="256"
    )
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings.as_dict(), sort_keys=False))
    assert saved_settings(tmp_path / "config.yaml") == settings


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "no aliases"),
        ("data: " + "[" * 50_000, "at most within their group"),
        ("data: " + "{a: " * 5_000, "at most within their group"),
        ("x: " + "a" * 100_000, "settings take 65,536 at most"),
        ("bach_size: 3", "unknown setting 'bach_size': did you mean batch_size?"),
        ("depth: 3", "unknown setting 'depth'"),
        ("a: [", "is damaged"),
        ("- batch_size", "holds no settings"),
        ("", "holds no settings"),
        ("\x00", "is damaged"),
        ("batch_size: [1, 2]", "batch_size must be a single value"),
        ("!!python/object/apply:os.system ['false']", "holds no settings"),
        ("batch_size: many", "--batch-size: expected int"),
        ("precision: 64", "--precision"),
    ],
)
def test_what_is_no_settings_file_is_refused_at_once(content, message, tmp_path, capsys):
    file = tmp_path / "s.yaml"
    file.write_text(content)
    with pytest.raises(SystemExit, match="2"):
        train_command(["--config", str(file)])
    error = " ".join(capsys.readouterr().err.split())
    assert message in error
    assert "Traceback" not in error
    (tmp_path / "run").mkdir()
    file.rename(tmp_path / "run" / "config.yaml")
    assert train_command(["--resume", str(tmp_path / "run")]) == 1
    assert "config.yaml" in capsys.readouterr().err


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "s.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match="is damaged"):
        read_settings(tmp_path / "s.yaml")


def test_every_setting_stands_in_one_group_and_help_has_their_headings(capsys):
    assert sorted(TrainingSettings.names()) == sorted(field.name for field in fields(TrainingSettings))
    with pytest.raises(SystemExit, match="0"):
        train_command(["--help"])
    text = capsys.readouterr().out
    for group in GROUPS.values():
        assert f"\n{group.__doc__.splitlines()[0].rstrip('.')}:\n" in text
    assert "null" not in text
    assert "type:" not in text
    assert "--batch-size BATCH_SIZE" in text
    assert "batch_size" not in text
