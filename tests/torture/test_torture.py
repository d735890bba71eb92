# SPDX-License-Identifier: Apache-2.0
"""The campaigns of ``make torture``: that they find what is wrong, and a few trials of those that take no time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torture import balancers, engine, page
from torture.__main__ import CAMPAIGNS, entry, last_line
from torture.trials import Campaign, check, in_child, run, run_trial

ROOT = Path(__file__).parents[2]


def sleep() -> None:
    time.sleep(60)


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda: check(False, "one", 2), "AssertionError: one 2"),
        (lambda: os.kill(os.getpid(), 11), "died by signal"),
        (lambda: os._exit(0), "died by signal"),
        (sleep, "more than 1 s"),
    ],
)
def test_what_goes_wrong_in_a_process_is_told(function, what):
    answer, failure, _ = in_child(function, 1)
    assert answer is None
    assert what in failure


def test_what_a_process_returns_comes_back():
    assert in_child(lambda: {"a": 1}, 60)[:2] == ({"a": 1}, "")


def test_a_failure_can_be_repeated_by_its_number():
    def trial(given):
        drawn = float(given.random.random())
        check(given.number != 2, f"drawn {drawn}")
        return {"done": 1}

    campaign = Campaign("toy", "toys", trial, share=1)
    outcome = run(campaign, 2, seed=5)
    assert outcome.counts["done"] == outcome.trials - 1 > 1
    ((number, failure),) = outcome.failures
    assert number == 2
    again = run_trial(campaign, 5, 2, Path())[1]
    assert last_line(again) == last_line(failure)
    assert "--campaign toy --seed 5 --trial 2" in entry(campaign, outcome, 5)["failures"][0]["repeat"]


def test_a_campaign_that_cannot_run_says_why():
    campaign = Campaign("toy", "toys", lambda given: 1 / 0, share=1, missing=lambda: "no root")
    assert run(campaign, 1, seed=0).skipped == "no root"


@pytest.mark.parametrize("campaign", [balancers.CAMPAIGN, engine.CAMPAIGN], ids=lambda c: c.name)
def test_a_trial(campaign):
    if campaign.missing():
        pytest.skip(campaign.missing())
    # in a process of its own: one that has run threads, as this one, cannot be forked into ones that do
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "torture",
        "--campaign",
        campaign.name,
        "--seed",
        "1",
        "--trial",
        "0",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize("campaign", list(CAMPAIGNS.values()), ids=lambda c: c.name)
def test_a_minute_of_each(campaign):
    outcome = run(campaign, 60, seed=int(time.time()))
    assert not outcome.failures


def test_the_committed_page_agrees_with_the_committed_figures(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert page.main(["--check"]) == 0, capsys.readouterr().out
