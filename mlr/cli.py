# SPDX-License-Identifier: Apache-2.0
"""The commands: ``python train.py`` and ``mlr <command>``."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser
from rich.console import Console

from mlr._version import __version__
from mlr.config import TrainingConfig, flag

#: Settings that may differ when a run is continued: they change its length or its place, not what is learned.
RESUMABLE = {"epochs", "workers", "device", "devices", "threads"}

EXAMPLES = """examples:
  python train.py                                      built-in scenes, the paper's network and recipe
  python train.py --data nyu --root /data/nyu          NYU Depth v2, labelled set
  python train.py --data folder --root shots --holes nearest --losses depth+gradient
  python train.py --resume runs/pnasnet-nyu-20260101-120000
"""


class Parser(ArgumentParser):
    """A parser whose flags are typed with dashes and whose errors suggest the nearest flag."""

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """Help with flags as they are typed."""
        text = super().format_help(*args, **kwargs)
        for name in sorted(TrainingConfig.names(), key=len, reverse=True):
            text = text.replace(f"--{name}", flag(name)).replace(f"--no_{name}", "--no-" + flag(name)[2:])
        return text

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """One line that names the flag, without the list of all of them."""
        text = " ".join(message.split())
        text = re.sub(r'Parser key "(\w+)":', lambda match: f"{flag(match[1])}:", text)
        text = (
            re.sub(r"<class '(\w+)'>", r"\1", text)
            .replace("typing.Literal", "one of ")
            .replace("Expected a ", "expected ")
        )
        self.exit(2, f"error: {text}. See --help.\n")
        raise AssertionError("exit() does not return")

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Take ``--batch-size`` for ``--batch_size``, and refuse an unknown flag with the nearest known one."""
        known = {option for action in self._actions for option in action.option_strings}
        argv = []
        for word in sys.argv[1:] if args is None else args:
            if word.startswith("--") and len(word) > 2:
                name, equals, value = word.partition("=")
                name = name.replace("-", "_").replace("__", "--", 1)
                if name not in known:
                    near = [flag(n[2:]) for n in difflib.get_close_matches(name, known, n=3)]
                    hint = f"; did you mean {' or '.join(near)}?" if near else ""
                    self.exit(2, f"error: unknown flag {word.partition('=')[0]}{hint} See --help.\n")
                word = name + equals + value
            argv.append(word)
        return super().parse_args(argv, *rest, **kwargs)


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
    parser.add_class_arguments(TrainingConfig)
    return parser


def train_command(argv: Sequence[str] | None = None) -> int:
    """``train.py``: parse, check everything, train.

    Returns:
        The exit code: 0, or 1 after an error that was explained in one line.
    """
    parser = training_parser()
    args = parser.parse_args(argv)
    values = {name: args[name] for name in TrainingConfig.names()}
    resume = args.resume
    try:
        if resume is not None:
            values = _continued(parser, values, resume)
        config = TrainingConfig(**values).validate()
        from mlr.training import train  # timm, lightning and matplotlib take seconds: not for --help or a wrong flag

        train(config, resume)
    except (ValueError, OSError) as error:
        return _explain(error)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; --resume continues after the last finished epoch", highlight=False)
        return 130
    return 0


def _continued(parser: Parser, values: dict, resume: Path) -> dict:
    """Settings of the run to continue, with those flags that may differ."""
    from mlr.run import Run

    saved = parser.parse_object(Run.open(resume).config())
    defaults = parser.get_defaults()
    for name in TrainingConfig.names():
        given = values[name] != defaults[name]
        if given and name in RESUMABLE:
            continue
        if given and values[name] != saved[name]:
            raise ValueError(
                f"{flag(name)} {values[name]} differs from the run to continue, which has {saved[name]}; leave it out, "
                "or start a new run with --config " + str(resume / "config.yaml")
            )
        values[name] = saved[name]
    return values


def _explain(error: Exception) -> int:
    Console(stderr=True).print(f"[bold red]error:[/bold red] {error}", highlight=False, soft_wrap=True)
    return 1


def main(argv: Sequence[str] | None = None) -> int:
    """``mlr``: dispatch to a command."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] == "train":
        return train_command(argv[1:])
    print("usage: mlr train [flags]; `mlr train --help` lists them", file=sys.stderr)
    return 2
