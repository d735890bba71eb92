# SPDX-License-Identifier: Apache-2.0
"""What `make docs` does beyond mkdocs: links that lead out of docs/, and formulas."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

import latex2mathml.converter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]

#: Where the site has the repository's files that lie outside docs/.
OUTSIDE = "repository"

#: Pages outside docs/ that the site has even if no page links to them.
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "recipes/README.md")

FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(\]\()([^)\s#:]+)")
MATH = re.compile(r"^```math\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside docs/ that pages link to, so that the links work on the site too."""
    waiting = [f"docs/{page.src_uri}" for page in files.documentation_pages()] + list(PAGES)
    seen: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        if not path.startswith("docs/"):
            files.append(File.generated(config, f"{OUTSIDE}/{path}", abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            waiting += [target for target in links(ROOT / path) if (ROOT / target).is_file()]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point relative links to the site's places of their files, and write formulas as MathML."""
    uri = page.file.src_uri
    path = uri.removeprefix(f"{OUTSIDE}/") if uri.startswith(f"{OUTSIDE}/") else f"docs/{uri}"

    def moved(link: re.Match[str]) -> str:
        target = joined(path, link[2])
        place = target.removeprefix("docs/") if target.startswith("docs/") else f"{OUTSIDE}/{target}"
        return link[1] + posixpath.relpath(place, posixpath.dirname(uri) or ".")

    return MATH.sub(formula, outside_fences(markdown, lambda text: LINK.sub(moved, text)))


def links(file: Path) -> list[str]:
    """Files that a page links to, as paths in the repository."""
    path = file.relative_to(ROOT).as_posix()
    text = FENCE.sub("", file.read_text())
    return [joined(path, link[2]) for link in LINK.finditer(text)]


def joined(path: str, link: str) -> str:
    """The file of the repository that a relative link of a page leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    """A page whose text is changed and whose blocks of code are not."""
    return "".join(part if part.startswith("```") else change(part) for part in FENCE.split(markdown))


def formula(block: re.Match[str]) -> str:
    """A block of LaTeX as MathML, which browsers draw themselves."""
    return latex2mathml.converter.convert(block[1].strip(), display="block")
