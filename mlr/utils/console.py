# SPDX-License-Identifier: Apache-2.0
"""Text for people: names as they are, without rich's markup; our warnings as lines, and none of other packages."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

#: Packages whose warnings and notes tell users of the commands nothing that they could change.
THIRD_PARTIES = (
    "lightning", "lightning_utilities", "torchmetrics", "timm", "huggingface_hub", "onnxscript", "onnx_ir",
    "torch.onnx", "torch.export",
)  # fmt: skip
#: The folder of this package.
OWN = Path(__file__).parents[1]


def shown(text: str) -> str:
    """A text with its control characters as escapes, so that a file's name cannot steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def plain(console: Console, text: str, style: str = "", label: tuple[str, str] | None = None) -> None:
    """Print a text on lines as long as they are: ``[bold]`` in a file's name is part of the name.

    Args:
        console: where.
        text: what.
        style: of the text, such as "yellow".
        label: a word before it, and its style.
    """
    before = [(f"{label[0]} ", label[1])] if label else []
    console.print(Text.assemble(*before, (shown(text), style)), soft_wrap=True, highlight=False)


def quiet_third_parties() -> None:
    """Leave warnings and notes of other packages out, unless ``python -W`` or PYTHONWARNINGS says what to show."""
    if sys.warnoptions:
        return
    for package in THIRD_PARTIES:
        warnings.filterwarnings("ignore", module=package.replace(".", r"\.") + r"(\.|$)")
        logging.getLogger(package).setLevel(logging.ERROR)


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Inside the block, warnings of this package are printed as a line: ``warning: what is wrong``."""
    usual = warnings.formatwarning

    def one_line(message: Warning | str, category: type[Warning], filename: str, *rest: object) -> str:
        if Path(filename).is_relative_to(OWN):
            return f"warning: {shown(str(message))}\n"
        return usual(message, category, filename, *rest)  # type: ignore[arg-type]

    warnings.formatwarning = one_line  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.formatwarning = usual
