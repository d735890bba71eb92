# SPDX-License-Identifier: Apache-2.0
"""The commands: ``python train.py`` and ``mlr <command>``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape

from mlr._version import __version__
from mlr.cli.parser import Parser, function_parser
from mlr.training.settings import TrainingSettings
from mlr.utils.flags import flag
from mlr.utils.suggest import suggest

#: Settings that may differ when a run is continued: they change its length or its place, not what is learned.
RESUMABLE = {"epochs", "workers", "device", "threads"}

EXAMPLES = """examples:
  python train.py                                      built-in scenes, the paper's network and recipe
  python train.py --data nyu --root /data/nyu          NYU Depth v2, labelled set
  python train.py --data folder --root shots --holes nearest --losses depth+gradient
  python train.py --resume runs/pnasnet-nyu-20260101-120000
"""


def training_parser() -> Parser:
    """The flags of ``train.py``: the settings of a run, ``--config`` and ``--resume``."""
    parser = Parser(
        prog="train.py",
        description="Train a monocular depth network with the 78 losses of the paper and their rebalancing.",
        epilog=EXAMPLES,
        exit_on_error=True,
        version=__version__,
    )
    parser.add_argument("--config", action="config", help="YAML file of settings; flags after it take precedence.")
    parser.add_argument("--resume", type=Path | None, default=None, help="Folder of an earlier run to continue.")
    parser.add_class_arguments(TrainingSettings)
    return parser


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
        if resume is not None:
            typed = set(vars(parser.parse_args(argv, defaults=False)))
            values = _continued(parser, values, typed, resume)
        config = TrainingSettings(**values)
        # here, not above: timm, lightning and matplotlib take seconds, and --help needs none of them
        from mlr.training.train import train

        train(config, resume)
    except (ValueError, OSError) as error:
        return _explain(error)
    except KeyboardInterrupt as error:
        Console(stderr=True).print(str(error) or "stopped before training began", highlight=False, soft_wrap=True)
        return 130
    return 0


def _continued(parser: Parser, values: dict, typed: set[str], resume: Path) -> dict:
    """Settings of the run to continue, with those flags that were typed and may differ."""
    from mlr.training.run import Run

    loaded = parser.parse_object(Run.open(resume).config())
    saved = vars(TrainingSettings(**{name: loaded[name] for name in TrainingSettings.names()}))
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


def _explain(error: Exception) -> int:
    Console(stderr=True).print(f"[bold red]error:[/bold red] {escape(str(error))}", highlight=False, soft_wrap=True)
    return 1


class Command(NamedTuple):
    """A command of ``mlr``.

    Attributes:
        function: "module:function"; imported when the command is called. It returns the exit code.
        summary: its line in ``mlr --help``.
        positional: arguments that are given without a flag.
    """

    function: str
    summary: str
    positional: tuple[str, ...] = ()


#: The commands by name. Their flags are their functions' arguments.
COMMANDS: dict[str, Command] = {
    "train": Command(
        "mlr.cli.commands:train_command", "train a depth network with the 78 losses and their rebalancing"
    ),
    "prepare": Command("mlr.data.tools.prepare:prepare", "pack data sets into one file, holes filled", ("datasets",)),
    "check-data": Command("mlr.data.tools.check:check_data", "look for what is wrong with a data set", ("dataset",)),
    "evaluate": Command(
        "mlr.evaluation.command:evaluate",
        "score a network or predictions of another",
        ("predictions_or_checkpoint",),
    ),
    "report": Command("mlr.training.report:report", "draw the figures of a run anew and sum it up on a page", ("run",)),
    "ablate": Command("mlr.experiments.command:ablate", "make the training runs of a plan and its table", ("plan",)),
    "figures": Command("mlr.experiments.command:figures", "the paper's figures from the runs of a plan", ("plan",)),
    "predict": Command("mlr.prediction.command:predict", "depth files of images and videos", ("checkpoint", "inputs")),
    "export": Command("mlr.prediction.export:export", "a network as ONNX or torch.export file", ("checkpoint",)),
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
        Console(stderr=True).print("stopped", highlight=False)
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
    lines = (f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
    return "usage: mlr COMMAND ...; mlr COMMAND --help lists its flags\n\n" + "\n".join(lines)
