# SPDX-License-Identifier: Apache-2.0
"""Flags: one spelling of the settings of data in every command, and the older ones."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

from mlr.cli import main
from mlr.cli.commands import COMMANDS, training_parser
from mlr.cli.parser import function_parser
from mlr.utils.flags import spelled


def check(dataset: str, options: str = "", quiet: bool = False) -> int:
    """Check.

    Args:
        dataset: what.
        options: of the reader.
        quiet: say less.
    """
    return 0


@pytest.mark.parametrize("typed", ["--options", "--data-options", "--data_options"])
def test_options_of_a_data_set_are_typed_alike_everywhere(typed):
    assert function_parser(check, "mlr check", ["dataset"]).parse_args(["x", typed, "a=1"]).options == "a=1"
    assert training_parser().parse_args([typed, "a=1"]).data_options == "a=1"


@pytest.mark.parametrize("typed", ["--unit", "--depth-unit"])
def test_the_unit_too(typed):
    assert training_parser().parse_args([typed, "mm"]).depth_unit == "mm"


def test_a_setting_that_a_command_has_keeps_its_meaning():
    assert spelled("unit", {"unit", "depth_unit"}) == "unit"
    assert spelled("unit", {"size"}) == "unit"


def test_an_unknown_flag_is_refused_with_the_nearest(capsys):
    with pytest.raises(SystemExit, match="2"):
        training_parser().parse_args(["--data-optoins", "a=1"])
    assert "unknown flag --data-optoins: did you mean --data-options" in capsys.readouterr().err


def test_switches_stay_switches():
    assert function_parser(check, "mlr check", ["dataset"]).parse_args(["x", "--quiet"]).quiet is True
    assert {"train", "report", "evaluate", "predict", "prepare", "check-data", "export"} <= set(COMMANDS)


def test_help_has_headings(capsys):
    assert main(["--help"]) == 0
    usage = capsys.readouterr().out
    listed = [line.split()[0] for line in usage.splitlines() if line.startswith("  ")]
    assert sorted(listed) == sorted(COMMANDS)
    assert all(f"\n{command.group}:\n" in usage for command in COMMANDS.values())
    with pytest.raises(SystemExit, match="0"):
        main(["predict", "--help"])
    help_ = capsys.readouterr().out
    assert help_.index("\ndata:\n") < help_.index("  --root") < help_.index("\nnetwork:\n") < help_.index("  --flip")
    assert help_.index("\noutput:\n") < help_.index("  --format")


@pytest.mark.parametrize(
    "name", [name for name, command in COMMANDS.items() if "train_command" not in command.function]
)
def test_flags_are_the_arguments_of_the_function(name):
    command = COMMANDS[name]
    module, _, attribute = command.function.partition(":")
    function = getattr(import_module(module), attribute)
    parser = function_parser(function, name, command.positional)
    found = {action.dest: action.default for action in parser._actions if action.dest not in ("help", "version")}
    assert set(found) == set(inspect.signature(function).parameters)
    for flag, argument in inspect.signature(function).parameters.items():
        if argument.default is not inspect.Parameter.empty and flag not in command.positional:
            assert found[flag] == argument.default


def test_data_is_said_in_the_same_words_to_every_command():
    """One spelling of data options, unit and holes, and the older ones."""
    for name in ("prepare", "check-data", "evaluate", "predict"):
        command = COMMANDS[name]
        module, _, function = command.function.partition(":")
        parser = function_parser(getattr(import_module(module), function), name, command.positional)
        known = {option for action in parser._actions for option in action.option_strings}
        assert {"--data_options", "--depth_unit"} <= known, name
    prepare = function_parser(import_module("mlr.data.tools.prepare").prepare, "prepare", ("datasets",))
    args = ["rooms", "--out=x", "--options", "a=1", "--unit=mm"]
    for holes in (["--holes=keep"], ["--holes", "keep"], ["--holes", "mask"]):
        given = prepare.parse_args([*args, *holes])
        assert (given.data_options, given.depth_unit, given.holes) == ("a=1", "mm", "mask")
    train = training_parser()
    for words in (["--augment=eccv2020"], ["--augment", "eccv2020"]):
        assert train.parse_args(words).augment == "paper"
    assert "eccv2020" not in train.format_help()
