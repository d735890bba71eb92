# SPDX-License-Identifier: Apache-2.0
"""report.html without a browser: what it is made of, its size, its parts, and runs that lack something."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rich.console import Console

from mlr.cli import main, train_command
from mlr.cli.commands import training_parser
from mlr.losses.space import KINDS, SCALES
from mlr.report.content import EPOCHS, PERIODS, command, run_content
from mlr.report.encoding import PIXELS, encode_sample, pack, sampled_pixels
from mlr.report.page import render
from mlr.report.samples import Samples, read_samples
from mlr.training.run import Run
from mlr.training.settings import TrainingSettings
from mlr.training.tables import BALANCING, Table
from mlr.training.train import train

TINY = TrainingSettings(
    backbone="test_resnet", decoder_channels=32, pretrained="false", size="32x48", train_length=8, val_length=2,
    workers=0, batch_size=2, epochs=1, device="cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    return train(TrainingSettings(**{**TINY.as_dict(), "out": out}), console=Console(quiet=True)).path


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def content(page: Path) -> dict:
    """The data inside a page."""
    (text,) = re.findall(r'<script type="application/json" id="content">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(text)


def unpack(text: str, width: int) -> np.ndarray:
    differences = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u2").reshape(-1, width)
    return np.cumsum(differences, axis=1, dtype=np.uint16)


@settings(max_examples=30)
@given(st.data())
def test_packed_depth_comes_back(data):
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    values = data.draw(arrays(np.uint16, shape))
    np.testing.assert_array_equal(unpack(pack(values), shape[1]), values)


@settings(max_examples=30)
@given(height=st.integers(1, 700), width=st.integers(1, 700), largest=st.floats(1e-3, 1e4))
def test_depth_in_a_page_is_that_of_real_pixels_within_half_a_step(height, width, largest):
    rng = np.random.default_rng(height)
    truth = (rng.random((height, width)) * largest).astype(np.float32)
    pred = truth[::-1].copy()
    truth[rng.random(truth.shape) < 0.3] = np.nan
    sample = encode_sample("x", np.zeros((height, width, 3), np.uint8), truth, pred)
    rows, columns = sampled_pixels(height, width)
    assert len(rows) * len(columns) <= PIXELS
    assert (sample["rows"], sample["columns"]) == (rows.tolist(), columns.tolist())
    kept, step = truth[np.ix_(rows, columns)], sample["step"]
    stored = unpack(sample["truth"], len(columns))
    np.testing.assert_array_equal(stored == 0, np.isnan(kept) | (kept < step / 2))
    np.testing.assert_allclose(stored[stored > 0] * step, kept[stored > 0], atol=0.5001 * step)
    shown = unpack(sample["prediction"], len(columns))
    np.testing.assert_allclose(shown * step, pred[np.ix_(rows, columns)], atol=0.5001 * step)


def test_a_prediction_that_is_not_finite_is_unknown():
    truth, pred = np.full((4, 5), 2.0, np.float32), np.full((4, 5), np.nan, np.float32)
    pred[0, 0], pred[1, 1], pred[2, 2] = np.inf, -3.0, 4.0
    sample = encode_sample("x", np.zeros((4, 5, 3), np.uint8), truth, pred)
    assert np.flatnonzero(unpack(sample["prediction"], 5)).tolist() == [2 * 5 + 2]
    nothing = encode_sample("x", np.zeros((4, 5, 3), np.uint8), np.full((4, 5), np.nan), np.full((4, 5), np.nan))
    assert not unpack(nothing["truth"], 5).any()


def test_eight_samples_of_noise_and_a_long_run_stay_below_three_megabytes(run):
    rng = np.random.default_rng(0)
    shape = (8, 480, 640)
    noise = rng.random(shape, np.float32) * 10
    Samples(np.array(["x"] * 8), rng.integers(0, 255, (*shape, 3), np.uint8), noise, noise[::-1].copy()).save(run)
    names = [f"{kind}/{scale}" for scale in range(SCALES) for kind in KINDS]
    periods = 3 * PERIODS
    Table(run / "balancing.csv", BALANCING).start(
        {"period": p, "step": 10 * p, "epoch": 1 + p // 4, "lambda": repr(rng.normal()), "term": name}
        | {column: repr(rng.random()) for column in ("mean", "weight", "contribution")}
        for p in range(periods)
        for name in names
    )
    opened = Run.open(run)
    data = run_content(opened, opened.training_settings(), run / "report.html")
    assert data["balancing"]["periods"] == periods
    shown = data["balancing"]["period"]
    assert (len(shown), shown[0], shown[-1]) == (PERIODS, 0, periods - 1)
    assert len(data["samples"]) == 8
    assert len(data["curves"]["epoch"]) <= EPOCHS
    assert len(render("run", data).encode()) < 3_000_000


def test_the_page_fetches_nothing_and_lets_only_its_own_script_run(finished):
    text = (finished / "report.html").read_text()
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy"\s+content="([^"]*)"', text)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert len(scripts) == 1
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    outside = re.sub(r"http://www\.w3\.org/2000/svg", "", text)  # the name of SVG, which is no address
    assert not re.search(r"https?:|src=\"(?!data:)|@import|url\(", outside)


def test_a_training_leaves_the_page_and_names_it_last(finished, tmp_path, capsys):
    data = content(finished / "report.html")
    record = json.loads((finished / "run.json").read_text())
    assert data["scores"]["last epoch"] == pytest.approx(record["after"])
    assert data["facts"]["epochs finished"] == "1 of 1"
    assert len(data["samples"]) == 2
    assert {"balancing.csv", "last.pt", "samples.npz"} <= {file["name"] for file in data["files"]}
    out = tmp_path / "other"
    assert train_command([*TINY.flags(), f"--out={out}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"to look at in a browser: {out}/report.html"


def test_samples_are_what_the_last_network_predicts(run):
    before = read_samples(run)
    (run / "samples.npz").unlink()
    assert main(["report", str(run)]) == 0
    after = read_samples(run)
    np.testing.assert_array_equal(before.images, after.images)
    np.testing.assert_allclose(before.prediction, after.prediction, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spoil", [b"", b"PK\x03\x04 not an archive"])
def test_damaged_samples_are_no_samples(run, spoil):
    (run / "samples.npz").write_bytes(spoil)
    assert read_samples(run) is None


def test_a_run_without_tables_data_and_samples_has_a_page(run):
    for name in ("balancing.csv", "metrics.csv", "samples.npz", "run.json", "best.pt"):
        (run / name).unlink()
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("data: rooms", "data: nyu"))
    assert main(["report", str(run)]) == 0
    data = content(run / "report.html")
    assert data["balancing"] is None
    assert data["samples"] == []
    assert data["curves"]["epoch"] == []
    assert "delta1" in data["scores"]["last epoch"]


@pytest.mark.parametrize("balancer", ["fixed", "uncertainty", "random"])
def test_other_balancers_and_few_losses(balancer, tmp_path):
    config = TrainingSettings(**{**TINY.as_dict(), "out": tmp_path / "run", "balancer": balancer, "losses": "depth"})
    train(config, console=Console(quiet=True))
    data = content(tmp_path / "run" / "report.html")
    assert data["balancing"]["losses"] == [f"D/{k}" for k in range(6)]
    assert set(data["balancing"]["lambda"]) == {None}


@given(
    seed=st.integers(0, 99),
    rate=st.floats(1e-6, 1),
    freeze=st.sampled_from(["none", "encoder", "encoder:3"]),
    options=st.text("a='\"$ `\\é", max_size=9),
)
def test_the_command_repeats_the_settings(seed, rate, freeze, options):
    config = TrainingSettings(seed=seed, learning_rate=rate, freeze=freeze, data_options=options)
    words = shlex.split(command(config))
    assert words[:2] == ["mlr", "train"]
    parsed = training_parser().parse_args(words[2:])
    assert TrainingSettings(**{name: parsed[name] for name in TrainingSettings.names()}) == config


def test_a_file_that_is_no_page_is_never_replaced(run, tmp_path, capsys):
    mine = tmp_path / "mine.html"
    mine.write_text("<!doctype html>\nmy own work")
    for runs in ([run], [run, Path(shutil.copytree(run, tmp_path / "other"))]):
        assert main(["report", *map(str, runs), "--out", str(mine)]) == 1
        assert f"{mine} is there already and is no page of mlr report" in capsys.readouterr().err
    assert mine.read_text().endswith("my own work")
    page = tmp_path / "page.html"
    for _ in range(2):
        assert main(["report", str(run), "--out", str(page)]) == 0
    links = {file["name"]: file["link"] for file in content(page)["files"]}
    assert links["last.pt"] == "./run/last.pt"


def test_runs_of_one_name_are_told_apart(finished, tmp_path):
    runs = [shutil.copytree(finished, tmp_path / parent / "run") for parent in "ab"]
    assert main(["report", *map(str, runs), "--out", str(tmp_path / "both.html")]) == 0
    assert [run["name"] for run in content(tmp_path / "both.html")["runs"]] == ["a/run", "b/run"]
