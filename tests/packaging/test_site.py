# SPDX-License-Identifier: Apache-2.0
"""The documentation builds as a site without a warning, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

for module in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
    pytest.importorskip(module, reason="needs the extra docs")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_links_that_leave_docs_lead_to_pages(site: Path) -> None:
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        for link in re.findall(r'(?:href|src)="?([^"#:\s>]+)(?=[#"\s>])', page.read_text()):
            assert (page.parent / link).exists(), f"{page.relative_to(site)} leads to {link}"
    assert (site / "repository" / "CONTRIBUTING.html").is_file()


def test_formulas_and_docstrings_are_shown(site: Path) -> None:
    balancing, api = (site / "balancing.html").read_text(), (site / "api.html").read_text()
    assert balancing.count("<math") == 3
    assert 'id="mlr.MultiLoss.forward"' in api
    assert not re.search(r":(?:class|func|meth|data):", api)
    assert "Could not find" not in api


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link|iframe)[^>]*?(?:src|href)="?((?:https?:)?//[^"\s>]+)', page.read_text()
        )
        assert loaded == [], page.name


def test_every_page_is_in_the_navigation_and_every_picture_is_shown() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = sorted((ROOT / "docs").glob("*.md"))
    assert [page.name for page in pages if f": {page.name}" not in navigation] == []
    text = "".join(page.read_text() for page in [*pages, ROOT / "README.md"])
    stems = {picture.stem for picture in (ROOT / "docs" / "images").iterdir()}
    assert {stem for stem in stems if f"images/{stem}." not in text} == set()
