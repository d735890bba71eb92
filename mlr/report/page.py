# SPDX-License-Identifier: Apache-2.0
"""A page in one file, report.html: template, style, script and data in one, so that it opens from any folder.

The data is JSON in an element that no browser runs, and the script writes it into the page as text. A policy in the
page lets no other script run and nothing be fetched, whatever a name in the data may hold.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from mlr.report.content import comparison_content, run_content
from mlr.training.run import Run
from mlr.training.settings import TrainingSettings
from mlr.utils.files import atomic_write

#: How a page begins: only such a file is replaced by another page.
MARK = "<!doctype html>\n<!-- a page of mlr report -->\n"
SCRIPTS = ("elements.js", "charts.js", "balancing.js", "samples.js", "report.js")


def write_run_page(run: Run, config: TrainingSettings, page: Path | None = None) -> Path:
    """Write the page of a run; returns its path, by default report.html in the run's folder."""
    page = page or run.path / "report.html"
    content = run_content(run, config, page)
    return _write(page, content["name"], content)


def write_comparison_page(runs: Sequence[tuple[Run, TrainingSettings]], page: Path) -> Path:
    """Write the page that compares runs; returns its path."""
    return _write(page, f"{len(runs)} runs", comparison_content(runs, page))


def check_place(page: Path) -> None:
    """Refuse to replace a file that is no page.

    Raises:
        FileExistsError: saying what to do.
    """
    if page.is_dir() or (page.is_file() and page.read_bytes()[: len(MARK)] != MARK.encode()):
        raise FileExistsError(f"{page} is there already and is no page of mlr report: choose another --out")


def render(title: str, content: dict[str, Any]) -> str:
    """The page as text."""
    assets = files("mlr.report") / "assets"
    script = "\n".join((assets / name).read_text("utf-8") for name in SCRIPTS)
    parts = {
        "title": html.escape(title),
        "style": (assets / "report.css").read_text("utf-8"),
        "script": script,
        "hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "data": _inert(content),
    }
    template = (assets / "report.html").read_text("utf-8")
    return MARK + re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _inert(content: dict[str, Any]) -> str:
    """JSON that no parser of HTML takes for markup."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))  # ASCII
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _write(page: Path, title: str, content: dict[str, Any]) -> Path:
    with atomic_write(page) as partial:
        partial.write_text(render(title, content), "utf-8")
    return page
