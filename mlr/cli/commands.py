# SPDX-License-Identifier: Apache-2.0
"""The commands: ``python train.py`` and ``mlr <command>``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from mlr._version import __version__
from mlr.cli.parser import Parser, function_parser
from mlr.cli.settings_file import UnknownSettingError, read_settings
from mlr.training.settings import GROUPS, ModelSettings, TrainingSettings
from mlr.utils.console import plain
from mlr.utils.flags import flag
from mlr.utils.suggest import suggest

#: Settings that may differ when a run is continued: they affect its length and where it runs, not its result.
RESUMABLE = {"epochs", "workers", "device", "threads"}

EXAMPLES = """examples:
  python train.py                                      built-in scenes, the paper's network and recipe
  python train.py --data nyu --root /data/nyu          NYU Depth v2, labelled set
  python train.py --data folder --root shots --losses depth+gradient
  python train.py --data kitti --root /data/kitti --downsample area
  python train.py --init runs/mine --data folder --root shots --freeze encoder:2 --backbone-lr-factor 0.1
  python train.py --resume runs/pnasnet-nyu-20260101-120000
"""


def training_parser(source: Path | None = None) -> Parser:
    """The flags of ``train.py``: the settings of a run, ``--config`` and ``--resume``.

    Args:
        source: the file that the flags are from, for errors, which are then raised as ValueError.
    """
    parser = Parser(
        source=source,
        prog="train.py",
        description="Train a monocular depth network with the 78 losses of the paper and their rebalancing.",
        epilog=EXAMPLES,
        exit_on_error=True,
        version=__version__,
    )
    parser.add_argument("--config", type=str, help="YAML file of settings; flags after it take precedence.")
    parser.settings_flag = "--config"
    parser.add_argument("--resume", type=Path | None, default=None, help="Folder of an earlier run to continue.")
    for group in GROUPS.values():
        parser.add_class_arguments(group)
    return parser


def saved_settings(file: Path) -> TrainingSettings:
    """The settings of a run, from its config.yaml.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or of another version.
    """
    try:
        settings = read_settings(file)
    except UnknownSettingError as error:
        raise ValueError(
            f"{error} It does not hold the settings of mlr {__version__}, but of another version"
        ) from error
    typed = [f"{flag(name)}={value}" for name, value in settings.items()]
    args = training_parser(source=file).parse_args(typed)
    return TrainingSettings(**{name: args[name] for name in TrainingSettings.names()})


def train_command(argv: Sequence[str] | None = None) -> int:
    """``train.py``: parse, check everything, train.

    Returns:
        The exit code: 0, or 1 after an error that was explained in one line.
    """
    parser = training_parser()
    args = parser.parse_args(argv)
    values = dict(vars(TrainingSettings(**{name: args[name] for name in TrainingSettings.names()})))
    resume = args.resume
    try:
        if resume is not None or args.init is not None:
            typed = set(vars(parser.parse_args(argv, defaults=False)))
            values = _initialised(values, typed) if resume is None else _continued(values, typed, resume)
        config = TrainingSettings(**values)
        # here, not above: timm, lightning and matplotlib take seconds, and --help needs none of them
        from mlr.training.train import train

        train(config, resume)
    except (ValueError, OSError) as error:
        return _explain(error)
    except KeyboardInterrupt as error:
        plain(Console(stderr=True), str(error) or "stopped before training began")
        return 130
    return 0


def _continued(values: dict, typed: set[str], resume: Path) -> dict:
    """Settings of the run to continue, with those flags that were typed and may differ."""
    from mlr.training.run import Run

    saved = vars(Run.open(resume).training_settings())
    for name in TrainingSettings.names():
        if name in typed and name in RESUMABLE:
            continue
        if name in typed and values[name] != saved[name]:
            raise ValueError(
                f"{flag(name)} {values[name]} differs from the run to continue, which has {saved[name]}; leave it out, "
                "or start a new run with --config " + str(resume / "config.yaml")
            )
        values[name] = saved[name]
    return values


def _initialised(values: dict, typed: set[str]) -> dict:
    """Settings with the network of the checkpoint to start from, where flags do not say otherwise."""
    from mlr.models.checkpoints import checkpoint_file, load_checkpoint

    network = load_checkpoint(checkpoint_file(values["init"])).config.get("model", {})
    names = {setting.name for setting in fields(ModelSettings)} - typed
    return values | {name: value for name, value in dict(network).items() if name in names}


def _explain(error: Exception) -> int:
    plain(Console(stderr=True), str(error), label=("error:", "bold red"))
    return 1


class Command(NamedTuple):
    """A command of ``mlr``.

    Attributes:
        function: "module:function"; imported when the command is called. It returns the exit code.
        summary: its line in ``mlr --help``.
        positional: arguments that are given without a flag.
        group: its heading in ``mlr --help``.
    """

    function: str
    summary: str
    positional: tuple[str, ...] = ()
    group: str = "networks"


#: The commands by name. Their flags are their functions' arguments.
COMMANDS: dict[str, Command] = {
    "train": Command(
        "mlr.cli.commands:train_command",
        "train a depth network with the 78 losses and their rebalancing",
        group="training",
    ),
    "prepare": Command(
        "mlr.data.tools.prepare:prepare", "pack data sets into one file, holes filled", ("datasets",), "data"
    ),
    "check-data": Command(
        "mlr.data.tools.check:check_data", "look for what is wrong with a data set", ("dataset",), "data"
    ),
    "evaluate": Command(
        "mlr.evaluation.command:evaluate",
        "score a network or predictions of another",
        ("predictions_or_checkpoint",),
    ),
    "report": Command(
        "mlr.report.command:report", "a page about a run, or one that compares several", ("runs",), "training"
    ),
    "ablate": Command(
        "mlr.experiments.command:ablate", "make the training runs of a plan and its tables", ("plan",), "training"
    ),
    "figures": Command(
        "mlr.experiments.command:figures", "the paper's figures from the runs of a plan", ("plan",), "training"
    ),
    "predict": Command("mlr.prediction.command:predict", "depth files of images and videos", ("checkpoint", "inputs")),
    "export": Command("mlr.prediction.export:export", "a network as ONNX or torch.export file", ("checkpoint",)),
    "demo": Command("mlr.demo.command:demo", "depth of photos in a page of the browser", ("checkpoint",)),
}


def run_command(function: Callable[..., int], prog: str, positional: Sequence[str], argv: Sequence[str]) -> int:
    """Parse the arguments of a function and call it.

    Returns:
        What it returns; 1 after an error that was explained in one line, 130 when interrupted.
    """
    args = function_parser(function, prog, positional).parse_args(argv)
    try:
        return function(**vars(args))
    except ModuleNotFoundError:
        raise  # mlr.cli explains which package is missing
    except (ValueError, OSError, ImportError) as error:
        return _explain(error)
    except KeyboardInterrupt:
        plain(Console(stderr=True), "stopped")
        return 130


def main(argv: Sequence[str] | None = None) -> int:
    """``mlr``: dispatch to a command.

    Returns:
        The exit code: 0, 1 after an error that was explained in one line, 2 for a command line that is wrong.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    name, rest = (argv[0], argv[1:]) if argv else ("", [])
    if name in ("-h", "--help"):
        print(_usage())
        return 0
    if name == "--version":
        print(f"mlr {__version__}")
        return 0
    if name not in COMMANDS:
        print(
            f"error: unknown command {name!r}{suggest(name, COMMANDS)}\n" if name else "",
            _usage(),
            sep="",
            file=sys.stderr,
        )
        return 2
    command = COMMANDS[name]
    module, _, attribute = command.function.partition(":")
    function = getattr(import_module(module), attribute)
    if function is train_command:
        return train_command(rest)
    return run_command(function, f"mlr {name}", command.positional, rest)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    text = "usage: mlr COMMAND ...; mlr COMMAND --help lists its flags"
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        lines = (f"  {name:<{width}}  {c.summary}" for name, c in COMMANDS.items() if c.group == group)
        text += f"\n\n{group}:\n" + "\n".join(lines)
    return text
