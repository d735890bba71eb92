# SPDX-License-Identifier: Apache-2.0
"""The page of mlr demo in a real browser: its numbers are those of DepthModel.infer."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import DESKTOP, PHONE, browser, open_page  # noqa: F401 - fixtures
from PIL import Image

from mlr.data.depth_files import read_depth, read_image
from mlr.demo.folder import write_page
from mlr.demo.runtime import runtime_files
from mlr.demo.server import PageServer
from mlr.models.checkpoints import save_checkpoint
from mlr.models.depth_model import DepthModel, open_model
from mlr.prediction.point_cloud import Intrinsics

pytest.importorskip("onnxscript", reason="needs the extra export")

SIZE = (64, 96)


@pytest.fixture(scope="module")
def runtime() -> list[Path]:
    try:
        return runtime_files()
    except OSError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def trained(network: DepthModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose depth is that of a scene: some metres, with a range of its own."""
    with torch.no_grad():
        depth = network(torch.rand(1, 3, *SIZE))
        network.conv3.weight /= depth.std()
        network.conv3.bias.fill_(4)
    return save_checkpoint(tmp_path_factory.mktemp("run") / "best.pt", network, config={"size": "64x96"})


@pytest.fixture(scope="module")
def folder(trained: Path, runtime: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hosted") / "page"
    write_page(open_model(trained, "cpu"), out, SIZE, runtime)
    return out


@pytest.fixture(scope="module")
def hosted(folder: Path) -> Iterator[str]:
    """Address of the folder on a plain web server, which sends no headers of ours."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout
    found = re.search(r"\((http://\S+)\)", server.stdout.readline())
    assert found
    yield found[1]
    server.terminate()
    server.wait()


@pytest.fixture
def opened(open_page: Callable[..., Any]) -> Callable[..., Any]:  # noqa: F811
    """Opens a page whose network is ready. What it would load from elsewhere, its own policy blocks with an error."""

    def open_(url: str, size: tuple[int, int] = DESKTOP, **options: Any) -> Any:
        page = open_page(url, size, permissions=["camera"], **options)
        page.get_by_text("ready after").wait_for()
        return page

    return open_


def photo(path: Path, height: int, width: int, **options: Any) -> Path:
    random = np.random.default_rng(height)
    coarse = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((width, height))
    noisy = np.asarray(coarse) + random.normal(0, 20, (height, width, 3))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, **options)
    return path


def show(page: Any, file: Path) -> None:
    page.set_input_files("#file", file)
    page.get_by_text(f"{file.name}: depth after").wait_for()


def saved(page: Any, kind: str) -> bytes:
    with page.expect_download() as download:
        page.click(f"#save-{kind}")
    return Path(download.value.path()).read_bytes()


def require_equal_depth(page: Any, network: Any, file: Path) -> np.ndarray:
    """See that the page's depth is within 1 % of the range of the network's own."""
    expected = network.infer(read_image(file))[0].numpy()
    depth = np.load(io.BytesIO(saved(page, "npy")))
    assert depth.dtype == np.float32
    assert depth.shape == expected.shape
    span = expected.max() - expected.min()
    assert span > 0.5
    assert np.abs(depth - np.maximum(expected, 0)).max() < 0.01 * span
    return depth


def test_depth_equals_predict_from_the_server(opened, folder, trained, tmp_path):
    network = open_model(trained, "cpu")
    with PageServer(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = opened(server.url)
        turned = Image.Exif()
        turned[0x0112] = 6
        for file in (
            photo(tmp_path / "large.png", 301, 417),
            photo(tmp_path / "small.png", 40, 57),
            photo(tmp_path / "photo.jpg", 240, 320, quality=90, exif=turned),
        ):
            show(page, file)
            require_equal_depth(page, network, file)
        assert page.evaluate("crossOriginIsolated")
        server.shutdown()


def test_what_a_hosted_page_measures_and_saves(opened, hosted, trained, tmp_path):
    page = opened(hosted)
    file = photo(tmp_path / "room.png", 120, 160)
    show(page, file)
    depth = require_equal_depth(page, open_model(trained, "cpu"), file)

    box = page.locator("#depth").bounding_box()
    page.hover("#depth", position={"x": box["width"] * 30.5 / 160, "y": box["height"] * 90.5 / 120})
    assert page.inner_text("#reading") == f"{depth[90, 30]:.3f} m at x = 30, y = 90"
    page.focus("#depth")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#reading") == f"{depth[90, 33]:.3f} m at x = 33, y = 90"
    assert page.inner_text("#near") == f"{depth[depth > 0].min():.3f} m"

    (tmp_path / "depth.png").write_bytes(saved(page, "png"))
    assert Image.open(tmp_path / "depth.png").info["depth_unit"] == "mm"
    np.testing.assert_allclose(read_depth(tmp_path / "depth.png", "mm"), depth, atol=5.1e-4)

    header, _, body = saved(page, "ply").partition(b"end_header\n")
    points = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    assert f"element vertex {len(points)}\n" in header.decode()
    focal = 80 / np.tan(np.radians(63 / 2))
    known = depth > 0
    np.testing.assert_allclose(
        points["xyz"], Intrinsics(focal, focal, 79.5, 59.5).points(depth)[known], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(points["rgb"], read_image(file)[known])


def test_colours_are_those_of_the_files(opened, hosted, tmp_path):
    import matplotlib

    page = opened(hosted)
    show(page, photo(tmp_path / "a.png", *SIZE))
    depth = np.load(io.BytesIO(saved(page, "npy")))
    pixels = page.evaluate(
        "() => { const c = document.getElementById('depth');"
        " return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; }"
    )
    low, high = depth[depth > 0].min(), depth.max()
    expected = matplotlib.colormaps["jet"]((depth - low) / (high - low), bytes=True)[..., :3].astype(int)
    expected[depth <= 0] = 0
    assert np.abs(np.reshape(pixels, (*SIZE, 4))[..., :3] - expected).max() <= 5


def relief(page: Any) -> str:
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page.evaluate("document.getElementById('relief').toDataURL()")


def test_the_relief_turns(opened, hosted, tmp_path):
    page = opened(hosted)
    show(page, photo(tmp_path / "a.png", 90, 120))
    views = [relief(page)]
    page.locator("#relief").scroll_into_view_if_needed()
    box = page.locator("#relief").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 80, middle[1] - 40, steps=4)
    page.mouse.up()
    assert page.inner_text("#turn") == "turned 20°, -10°, zoom 1.00"
    views.append(relief(page))
    page.mouse.wheel(0, -250)
    views.append(relief(page))
    page.focus("#relief")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("-")
    views.append(relief(page))
    page.select_option("#paint", "depth")
    views.append(relief(page))
    assert len(set(views)) == 5
    page.select_option("#paint", "photo")
    page.click("#home")
    assert page.inner_text("#turn") == "turned 0°, 0°, zoom 1.00"
    assert relief(page) == views[0]


def test_what_is_no_photo_gets_a_sentence(opened, hosted, tmp_path):
    page = opened(hosted)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(photo(tmp_path / "a.png", 50, 60).read_bytes()[:60])
    for name in ("notes.txt", "cut.png"):
        page.set_input_files("#file", tmp_path / name)
        page.get_by_text(
            f"{name} is not a picture that this browser can read: choose a PNG, JPEG or WebP file."
        ).wait_for()
        assert not page.is_visible("#result")
    show(page, tmp_path / "a.png")
    page.set_input_files("#file", tmp_path / "notes.txt")
    page.get_by_text("notes.txt is not a picture").wait_for()


def test_dropped_files_and_the_camera(opened, hosted, tmp_path):
    page = opened(hosted)
    page.evaluate(
        """async () => {
            const blob = await new Promise((done) => Object.assign(document.createElement("canvas"),
              { width: 50, height: 40 }).toBlob(done));
            const files = new DataTransfer();
            files.items.add(new File([blob], "dropped.png"));
            window.dispatchEvent(new DragEvent("drop", { dataTransfer: files, cancelable: true }));
        }"""
    )
    page.get_by_text("dropped.png: depth after").wait_for()
    assert "transparent parts count as black" in page.inner_text("#status")
    page.click("#camera")
    page.click("#shoot")
    page.get_by_text("camera: depth after").wait_for()
    assert not page.is_visible("#video")


def test_a_phone_sees_the_whole_width(opened, hosted, tmp_path):
    page = opened(hosted, PHONE, device_scale_factor=2, color_scheme="dark", has_touch=True)
    show(page, photo(tmp_path / "a.png", 90, 120))
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    box = page.locator("#depth").bounding_box()
    page.touchscreen.tap(box["x"] + 20, box["y"] + 20)
    assert re.match(r"\d\.\d{3} m at", page.inner_text("#reading"))
    red, green, blue = map(
        int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
    )
    assert max(red, green, blue) < 64


def test_the_command_serves_examples_until_it_is_stopped(opened, trained, runtime, tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "mlr.cli", "demo", str(trained), "--port", "0", "--examples"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    served = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert served.stderr
        lines = []
        for line in served.stderr:
            lines.append(line)
            if found := re.match(r"page\s+(http://127\.0\.0\.1:\d+/)", line):
                break
        assert found, lines
        page = opened(found[1])
        page.get_by_text("a real frame").click()
        page.get_by_text("bookshelf.png: depth after").wait_for()
        assert page.get_by_role("button", name="built-in scene").count() == 3
        with page.context.expect_page() as notice:
            page.get_by_text("source and licence").click(modifiers=["Control"])
        assert "BSD-3-Clause" in notice.value.inner_text("body")
        assert any(tmp_path.glob("mlr-demo-*"))
        served.send_signal(signal.SIGTERM)
        assert served.wait(30) == 0
        assert not any(tmp_path.glob("mlr-demo-*"))
    finally:
        served.kill()
        served.wait()
