# SPDX-License-Identifier: Apache-2.0
"""Pictures of the demo page for the documentation: ``python docs/make_screenshots.py PAGE``.

PAGE is a folder that ``mlr demo RUN --examples --out PAGE`` wrote. Needs playwright and Chromium.
"""

from __future__ import annotations

import io
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from mlr.demo.server import PageServer

WINDOWS: dict[str, dict[str, Any]] = {
    "demo-desktop": {"viewport": {"width": 800, "height": 1090}, "color_scheme": "light"},
    "demo-phone": {"viewport": {"width": 390, "height": 1390}, "color_scheme": "dark"},
}
EXAMPLE = "built-in scene 3"


def screenshot(page: Page, url: str) -> Image.Image:
    """The page with an example computed, a place measured and the relief turned."""
    page.goto(url)
    page.get_by_text(EXAMPLE).click()
    page.get_by_text(": depth after").wait_for()
    box = page.locator("#depth").bounding_box()
    assert box
    page.hover("#depth", position={"x": 0.42 * box["width"], "y": 0.6 * box["height"]})
    page.focus("#relief")
    for key in ["ArrowRight"] * 4 + ["ArrowDown"] * 2 + ["-"]:
        page.keyboard.press(key)
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.wait_for_timeout(500)  # the relief is drawn in the next frame
    return Image.open(io.BytesIO(page.screenshot()))


def main(folder: Path, out: Path) -> None:
    """Write a picture for each size of the window."""
    with PageServer(folder) as server, sync_playwright() as driver:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for name, window in WINDOWS.items():
            picture = screenshot(browser.new_page(**window), server.url)
            picture = picture.convert("RGB")
            picture.quantize(palette=picture.quantize(256)).save(out / f"{name}.png", optimize=True)  # dithered
        browser.close()
        server.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent / "images")
