# SPDX-License-Identifier: Apache-2.0
"""Command lines from typed signatures: flags with dashes, errors in one line that name the nearest flag."""

from __future__ import annotations

import inspect
import re
import sys
from argparse import SUPPRESS
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentParser, DefaultHelpFormatter

from mlr._version import __version__
from mlr.utils import renamed
from mlr.utils.console import shown
from mlr.utils.flags import flag, spelled
from mlr.utils.suggest import did_you_mean, nearest

#: Headings of ``--help`` and the flags below them, in every command; other flags stand before them.
FLAG_GROUPS = {
    "data": (
        "data", "root", "data_options", "depth_unit", "holes", "split", "splits", "options", "sample", "size",
        "evaluation_root",
    ),
    "network": ("batch_size", "flip", "no_flip", "half", "device", "opset", "dynamic_batch"),
    "output": ("out", "format", "intrinsics", "max_depth", "compression", "json", "quiet"),
}  # fmt: skip


class Help(DefaultHelpFormatter):
    """Help whose paragraphs stay apart and whose indented lines, such as examples, stay lines."""

    def _get_help_string(self, action: Any) -> str:
        """The description with its default; a type says little beside it."""
        if action.required and action.option_strings:
            return f"{action.help} (required)"
        plain_default = action.default is None or isinstance(action.default, bool) or action.default in ("", SUPPRESS)
        return action.help if plain_default else f"{action.help} (default: %(default)s)"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled = super()._fill_text
        return "\n\n".join(p if "\n  " in p else filled(p, width, indent) for p in text.strip().split("\n\n"))


class Parser(ArgumentParser):
    """A parser whose flags are typed with dashes and whose errors suggest the nearest flag."""

    #: The flag whose value is a file of settings, which stand in its place.
    settings_flag: str | None = None

    def __init__(self, source: Path | None = None, **kwargs: Any) -> None:
        super().__init__(formatter_class=Help, **kwargs)
        self.source = source

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """Help with flags as they are typed."""
        text = super().format_help(*args, **kwargs)
        names = {option.lstrip("-") for action in self._actions for option in action.option_strings}
        for name in sorted(filter(lambda name: "_" in name, names), key=len, reverse=True):
            text = text.replace(f"--{name}", flag(name))
        return text

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
        if self.source is not None:
            raise ValueError(
                f"{self.source} does not hold the settings of mlr {__version__}: {text}; it is damaged or of another "
                "version"
            )
        self.exit(2, f"error: {shown(text)}. See --help.\n")
        raise AssertionError("exit() does not return")

    def _typed(self, name: str) -> str:
        """A setting as it is typed: a flag, or the word that stands for a positional argument in the usage line."""
        positional = any(action.dest == name and not action.option_strings for action in self._actions)
        return name.upper() if positional else flag(name)

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Take ``--batch-size`` for ``--batch_size``, and refuse an unknown flag with the nearest known one.

        A flag of type bool without a value is true.
        """
        known = {option for action in self._actions for option in action.option_strings}
        typed_bool = [action for action in self._actions if getattr(action, "_typehint", None) is bool]
        switches = {option for action in typed_bool for option in action.option_strings}
        argv, words = [], self._with_settings(list(sys.argv[1:] if args is None else args))
        old: dict[str, str] = {}
        while words:
            word = words.pop(0)
            if word.startswith("--") and len(word) > 2:
                name, equals, value = word.partition("=")
                name = "--" + spelled(name[2:].replace("-", "_"), {option.lstrip("-") for option in known})
                if name not in known and name[2:] in renamed.SETTINGS:
                    new, value = renamed.current_setting(name[2:], value if equals or not words else words.pop(0))
                    name, equals = f"--{new}", "="
                if name not in known:
                    hint = did_you_mean([flag(near[2:]) for near in nearest(name, known, 3)])
                    self.exit(2, f"error: unknown flag {word.partition('=')[0]}{hint} See --help.\n")
                if name in switches and not equals and (not words or words[0].startswith("--")):
                    equals, value = "=", "true"
                old = renamed.VALUES.get(name[2:], {})
                word = name + equals + old.get(value, value)
            else:
                word, old = old.get(word, word), {}
            argv.append(word)
        return super().parse_args(argv, *rest, **kwargs)

    def _with_settings(self, words: list[str]) -> list[str]:
        """The command line with the settings of a file in the file's place."""
        from mlr.cli.settings_file import read_settings

        out: list[str] = []
        files = iter(words)
        for word in files:
            name, _, file = word.partition("=")
            if self.settings_flag is None or name != self.settings_flag:
                out.append(word)
                continue
            try:
                settings = read_settings(Path(file or next(files, "")))
            except (ValueError, OSError) as error:
                self.exit(2, shown(f"error: {self.settings_flag}: {error}\n"))
            out += [f"{flag(key)}={value}" for key, value in settings.items()]
        return out


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
        positional: arguments that are given without a flag, in this order; one of type ``list`` takes several words,
            or none if it has a default.

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
        if several and inspect.signature(function).parameters[name].default is not inspect.Parameter.empty:
            options = {"nargs": "*", "default": []}
        parser.add_argument(name, type=kind, help=texts.get(name), metavar=name.upper(), **options)
    flags = {name: flag for name, flag in inspect.signature(function).parameters.items() if name not in positional}
    grouped = {title: [name for name in names if name in flags] for title, names in FLAG_GROUPS.items()}
    others = [name for name in flags if name not in chain(*grouped.values())]
    for title, names in {"": others, **grouped}.items():
        group = parser.add_argument_group(title) if title and names else parser
        for name in names:
            default, text = flags[name].default, texts.get(name)
            if default is False:
                group.add_argument(f"--{name}", action="store_true", help=text)
            elif default is inspect.Parameter.empty:
                group.add_argument(f"--{name}", type=hints[name], required=True, help=text)
            else:
                group.add_argument(f"--{name}", type=hints[name], default=default, help=text)
    return parser
