# SPDX-License-Identifier: Apache-2.0
"""report.html in a real browser: what it shows is what the run's files hold, and names in it are only text."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import DESKTOP, PHONE, browser, open_page  # noqa: F401 - fixtures
from rich.console import Console

from mlr.cli import main
from mlr.losses.space import KINDS
from mlr.report.samples import read_samples
from mlr.training.settings import TrainingSettings

TINY = TrainingSettings(
    backbone="test_resnet", decoder_channels=32, pretrained="false", size="32x48", train_length=16, val_length=8,
    workers=0, batch_size=4, epochs=3, device="cpu",
)  # fmt: skip
HOSTILE = "<script>window.stolen=1</script><img src=x onerror='window.stolen=1'>\"'&{{data}}</ScRipt >"
SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])


@pytest.fixture(scope="module")
def run(browser, tmp_path_factory) -> Path:  # noqa: F811 - no training without a browser
    from mlr.training.train import train

    out = tmp_path_factory.mktemp("runs") / "run"
    return train(TrainingSettings(**{**TINY.as_dict(), "out": out}), console=Console(quiet=True)).path


def number(text: str) -> float:
    """The first number of a text."""
    found = re.search(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", text)
    assert found, text
    return float(found[0])


@SIZES
def test_the_grid_shows_what_balancing_csv_holds(run, open_page, size):  # noqa: F811
    page = open_page((run / "report.html").as_uri(), size)
    with (run / "balancing.csv").open(newline="") as file:
        rows = {(int(row["period"]), row["term"]): row for row in csv.DictReader(file)}
    slider, field = page.get_by_label("period", exact=True), lambda name: page.text_content(f"[data-field={name}]")
    for period, loss in [(0, "D/0"), (3, "M17/2"), (11, "N/3"), (10, "rc/3")]:
        slider.fill(str(period))
        page.locator(f"[data-loss='{loss}']").hover()
        row, before = rows[period, loss], rows.get((period - 1, loss))
        assert field("loss").startswith(f"{loss} (")
        assert number(field("mean")) == pytest.approx(float(row["mean"]), rel=1e-3)
        assert number(field("weight")) == pytest.approx(float(row["weight"]), rel=1e-3)
        assert number(field("contribution")) == pytest.approx(100 * float(row["contribution"]), rel=1e-3)
        moment = page.text_content(".moment")
        assert f"period {period}, epoch {row['epoch']}, step {row['step']}, λ " in moment
        assert moment.endswith("λ none") if not row["lambda"] else number(moment.split("λ ")[1]) == float(row["lambda"])
        if before is None:
            assert field("change") == "–"
        else:
            grown = float(row["contribution"]) / float(before["contribution"]) - 1
            assert number(field("change")) == pytest.approx(100 * grown, rel=0.01, abs=0.05)
    radii = page.eval_on_selector_all(".bubbles circle", "circles => circles.map(c => Number(c.getAttribute('r')))")
    shares = [float(rows[10, f"{kind}/{k}"]["contribution"]) for k in range(6) for kind in KINDS]
    np.testing.assert_allclose(np.array(radii) / max(radii), np.array(shares) / max(shares), rtol=1e-3)


@SIZES
def test_the_divider_is_dragged_and_depth_is_read(run, open_page, size):  # noqa: F811
    page = open_page((run / "report.html").as_uri(), size)
    page.get_by_role("button", name=re.compile("^sample 3:")).click()
    page.wait_for_selector(".stage[data-sample='2']")
    stage = page.locator(".stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box["height"] / box["width"] == pytest.approx(32 / 48, rel=0.02)
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, middle, steps=3)
    page.mouse.up()
    assert float(page.get_by_role("slider", name="divider").input_value()) == pytest.approx(25, abs=1)
    samples = read_samples(run)
    for row, column in [(0, 0), (31, 47), (17, 30)]:
        page.mouse.move(
            box["x"] + (column + 0.5) / 48 * box["width"], box["y"] + (row + 0.5) / 32 * box["height"], steps=2
        )
        text = page.text_content(".pixel")
        assert text.startswith(f"row {row}, column {column}: ")
        truth, pred = samples.truth[2, row, column], samples.prediction[2, row, column]
        assert number(text.split("truth ")[1]) == pytest.approx(truth, abs=0.001)
        assert number(text.split("prediction ")[1]) == pytest.approx(max(pred, 0), abs=0.001)
    stage.press("ArrowUp")
    stage.press("ArrowRight")
    assert page.text_content(".pixel").startswith("row 16, column 31: ")
    for layer in ("image", "error"):
        page.get_by_label("right of the divider").select_option(layer)
    assert page.locator(".scale").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_a_curve_tells_its_values_by_pointer_and_by_key(run, open_page):  # noqa: F811
    page = open_page((run / "report.html").as_uri())
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    chart = page.locator("figure", has_text="errors in metres")
    value = chart.locator("[data-series=RMSE]")
    picture = chart.locator("svg")
    picture.hover(position={"x": 5, "y": 50})
    assert chart.locator(".place").text_content() == "before training"
    assert number(value.text_content()) == pytest.approx(float(rows[0]["val/rmse"]), rel=1e-3)
    picture.focus()
    for key, epoch in (("ArrowRight", 1), ("End", 3), ("ArrowLeft", 2)):
        picture.press(key)
        assert chart.locator(".place").text_content() == f"epoch {epoch}"
        assert number(value.text_content()) == pytest.approx(float(rows[epoch]["val/rmse"]), rel=1e-3)


def test_play_runs_through_the_periods_and_keys_choose_a_loss(run, open_page):  # noqa: F811
    page = open_page((run / "report.html").as_uri(), color_scheme="dark")
    page.get_by_label("period", exact=True).fill("9")
    page.get_by_role("button", name="Play").click()
    page.locator(".moment", has_text="period 11,").wait_for()
    page.get_by_role("button", name="Play").wait_for()  # it stops at the end
    grid = page.locator(".bubbles")
    grid.focus()
    for key in ("ArrowDown", "ArrowRight"):
        grid.press(key)
    assert page.text_content("[data-field=loss]").startswith("M/1 (")
    shown = page.locator("figure", has_text="by scale").locator("li[data-series]").all_text_contents()
    assert sum(number(text.split()[-2]) for text in shown) == pytest.approx(100, abs=0.5)


def test_names_in_files_are_text(run, open_page, tmp_path):  # noqa: F811
    hostile = tmp_path / "<img src=x onerror=window.stolen=1> & 'run'"
    shutil.copytree(run, hostile)
    record = json.loads((hostile / "run.json").read_text())
    record |= {"weights_source": HOSTILE, "versions": {HOSTILE: HOSTILE}, "machine": {"gpu": HOSTILE}}
    (hostile / "run.json").write_text(json.dumps(record))
    (hostile / "javascript:window.stolen=1; <b>.txt").touch()
    config = (hostile / "config.yaml").read_text().replace("root: null", f"root: {json.dumps(HOSTILE)}")
    (hostile / "config.yaml").write_text(config)
    balancing = (hostile / "balancing.csv").read_text().replace(",D/0,", ",<b onclick=window.stolen=1>/0,")
    (hostile / "balancing.csv").write_text(balancing)
    samples = read_samples(hostile)
    samples._replace(names=np.array([HOSTILE] * 8)).save(hostile)
    assert main(["report", str(hostile), str(run), "--out", str(tmp_path / "both.html")]) == 0
    with pytest.warns(UserWarning, match="damaged rows"):
        assert main(["report", str(hostile)]) == 0
    for file in (hostile / "report.html", tmp_path / "both.html"):
        page = open_page(file.as_uri())
        assert page.evaluate("window.stolen") is None
        assert page.locator("h1").text_content() in (hostile.name, "2 runs")
        assert HOSTILE in page.locator("main").text_content()
        assert not page.locator("main script, main [onerror], main [onclick], main b").count()
        links = page.eval_on_selector_all("a", "links => links.map(link => link.protocol)")
        assert set(links) == {"file:"}


def test_runs_are_compared(run, open_page, tmp_path):  # noqa: F811
    other = Path(shutil.copytree(run, tmp_path / "other"))
    (other / "config.yaml").write_text((other / "config.yaml").read_text().replace("seed: 0", "seed: 7"))
    assert main(["report", str(run), str(other), "--out", str(tmp_path / "both.html")]) == 0
    page = open_page((tmp_path / "both.html").as_uri(), PHONE)
    assert page.locator("section[aria-label='Settings that differ'] tbody tr").all_text_contents() == ["--seed07"]
    record = json.loads((run / "run.json").read_text())
    row = page.locator("section[aria-label=Scores] table").first.locator("tr", has_text="RMSE log")
    assert row.locator("td").all_text_contents() == [f"{record['after']['rmse_log']:.4f}"] * 2
    assert page.locator("section[aria-label='Learning curves'] figure").count() == 9
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    page.get_by_role("link", name="other").click()
    assert page.locator("h1").text_content() == "run"  # the copy holds the page of the run it was copied from
