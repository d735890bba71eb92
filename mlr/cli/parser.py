# SPDX-License-Identifier: Apache-2.0
"""Command lines from typed signatures: flags with dashes, errors in one line that name the nearest flag."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentParser, DefaultHelpFormatter

from mlr._version import __version__
from mlr.utils.flags import flag
from mlr.utils.suggest import did_you_mean, nearest


class Help(DefaultHelpFormatter):
    """Help whose paragraphs stay apart and whose indented lines, such as examples, stay lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled = super()._fill_text
        return "\n\n".join(p if "\n  " in p else filled(p, width, indent) for p in text.strip().split("\n\n"))


class Parser(ArgumentParser):
    """A parser whose flags are typed with dashes and whose errors suggest the nearest flag."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=Help, **kwargs)

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """Help with flags as they are typed."""
        text = super().format_help(*args, **kwargs)
        names = {option.lstrip("-") for action in self._actions for option in action.option_strings}
        for name in sorted(filter(lambda name: "_" in name, names), key=len, reverse=True):
            text = text.replace(f"--{name}", flag(name))
        return _plain_types(text)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """One line that names the flag, without the list of all of them."""
        text = " ".join(message.split())
        text = re.sub(r'Parser key "(\w+)":', lambda match: f"{self._typed(match[1])}:", text)
        text = re.sub(
            r"(arguments are required: )(.+)",
            lambda match: match[1] + ", ".join(map(self._typed, match[2].split(", "))),
            text,
        )
        text = _plain_types(text).replace("Expected a ", "expected ")
        self.exit(2, f"error: {text}. See --help.\n")
        raise AssertionError("exit() does not return")

    def _typed(self, name: str) -> str:
        """A setting as it is typed: a flag, or the word that stands for a positional argument in the usage line."""
        positional = any(action.dest == name and not action.option_strings for action in self._actions)
        return name.upper() if positional else flag(name)

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Take ``--batch-size`` for ``--batch_size``, and refuse an unknown flag with the nearest known one."""
        known = {option for action in self._actions for option in action.option_strings}
        argv = []
        for word in sys.argv[1:] if args is None else args:
            if word.startswith("--") and len(word) > 2:
                name, equals, value = word.partition("=")
                name = name.replace("-", "_").replace("__", "--", 1)
                if name not in known:
                    hint = did_you_mean([flag(near[2:]) for near in nearest(name, known, 3)])
                    self.exit(2, f"error: unknown flag {word.partition('=')[0]}{hint} See --help.\n")
                word = name + equals + value
            argv.append(word)
        return super().parse_args(argv, *rest, **kwargs)


def _plain_types(text: str) -> str:
    """A text with types as people write them; a line may end inside one."""
    text = re.sub(r"<class\s+'(\w+)'>", r"\1", text)
    return re.sub(r"(typing\.)?\bLiteral(?=\[)", "one of ", text)


def function_parser(function: Callable[..., int], prog: str, positional: Sequence[str] = ()) -> Parser:
    """The command line of a function: its arguments, their types, defaults and descriptions.

    An argument whose default is False becomes a switch without a value.

    Args:
        function: the command; its docstring has the Google form.
        prog: how the command is called.
        positional: arguments that are given without a flag, in this order; one of type ``list`` takes several words.

    Returns:
        The parser; its result has the function's arguments as attributes.
    """
    documented = parse_docstring(inspect.getdoc(function) or "")
    parser = Parser(
        prog=prog,
        description="\n\n".join(filter(None, (documented.short_description, documented.long_description))),
        version=__version__,
    )
    hints = get_type_hints(function)
    texts = {argument.arg_name: argument.description for argument in documented.params}
    for name in positional:
        several = get_origin(hints[name]) is list
        kind = get_args(hints[name])[0] if several else hints[name]
        options: dict[str, Any] = {"nargs": "+"} if several else {}
        parser.add_argument(name, type=kind, help=texts.get(name), metavar=name.upper(), **options)
    switches = [name for name, argument in inspect.signature(function).parameters.items() if argument.default is False]
    parser.add_function_arguments(function, skip={*positional, *switches}, as_group=False)
    for name in switches:
        parser.add_argument(f"--{name}", action="store_true", help=texts.get(name))
    return parser
