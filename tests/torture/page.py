# SPDX-License-Identifier: Apache-2.0
"""The page on reliability, written from the figures of ``make torture``: no number on it is typed by hand."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlr.experiments.page import check_page, write_page
from mlr.experiments.tables import markdown

FIGURES = Path("docs/results/torture.json")
PAGE = Path("docs/reliability.md")
#: The page with a place for the figures.
TEMPLATE = Path(__file__).with_name("reliability.md")


def page(record: dict[str, Any]) -> str:
    """The text of docs/reliability.md.

    Args:
        record: what ``make torture`` wrote.
    """
    return TEMPLATE.read_text().replace("{figures}", "\n".join(_figures(record)))


def _figures(record: dict[str, Any]) -> Iterator[str]:
    campaigns = record["campaigns"]
    seconds = sum(campaign["seconds"] for campaign in campaigns.values())
    failures = [failure for campaign in campaigns.values() for failure in campaign["failures"]]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    yield (
        "`make torture` breaks things at random, each trial in a process of its own, and says how to repeat what "
        f"fails. Last run: {record['date']}, seed {record['seed']}, {versions}, {record['cores']} cores, "
        f"{seconds / 60:.0f} minutes, {len(failures)} failures.\n"
    )
    rows = []
    for name, campaign in campaigns.items():
        counts = "; ".join(f"{count:,} {what}" for what, count in campaign["counts"].items())
        if campaign["skipped"]:
            counts = f"skipped: {campaign['skipped']}"
        rows.append([name, f"{campaign['trials']:,}", counts, f"{campaign['seconds']}", f"{len(campaign['failures'])}"])
    yield markdown(["campaign", "trials", "what was done", "seconds", "failures"], rows) + "\n"
    for name, campaign in campaigns.items():
        yield f"* **{name}**: {campaign['summary']}"
    if failures:
        yield "\n### Failures of the last run\n"
        for failure in failures:
            yield f"* {failure['what']}: `{failure['repeat']}`"


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m torture.page``: write docs/reliability.md; ``--check`` compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="say whether the page agrees with the figures")
    options = parser.parse_args(argv)
    text = page(json.loads(FIGURES.read_text()))
    if options.check:
        return check_page(PAGE, text)
    write_page(PAGE, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
