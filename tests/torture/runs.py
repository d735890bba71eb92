# SPDX-License-Identifier: Apache-2.0
"""Small training runs in forked processes: whole ones, and ones that end at a chosen operation on files."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torture.trials import check, command, in_child

TINY = (
    "--backbone=test_resnet", "--decoder-channels=32", "--pretrained=false", "--size=32x48", "--train-length=6",
    "--val-length=2", "--workers=0", "--batch-size=2", "--epochs=2", "--device=cpu", "--threads=1",
)  # fmt: skip

#: Runs of unlike kinds. Each takes a second or two.
KINDS: dict[str, tuple[str, ...]] = {
    "rebalancing": ("--losses=depth", "--balancer=rebalancing"),
    "all losses, masked": ("--losses=all", "--data-options=hole_share=0.2,seed=0", "--augment=none"),
    "relobralo": ("--losses=D/0-1+r/0+c/0", "--balancer=relobralo"),
    "uncertainty": ("--losses=depth+gradient", "--balancer=uncertainty", "--accumulate=2"),
}

#: Events of Python's audit that change or open files.
FILE_EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.fsync"}

#: Files that two runs of the same settings have in common to the byte.
EQUAL_BYTES = ("metrics.csv", "balancing.csv")


def load() -> None:
    """Import what a run needs, so that a forked one starts at once."""
    import matplotlib.pyplot  # noqa: F401
    import tensorboard.summary.writer.event_file_writer  # noqa: F401

    import mlr.training.train  # noqa: F401

    torch.set_num_threads(1)
    logging.disable(logging.INFO)  # Lightning's advertisements


def start(kind: str, out: Path) -> tuple[object, ...]:
    """The command that starts a run, or continues it if it has left its settings."""
    return (
        ("train", "--resume", out) if (out / "config.yaml").exists() else ("train", *TINY, *KINDS[kind], f"--out={out}")
    )


def watched(words: tuple[object, ...], at: Callable[[int, str], None], folder: Path) -> tuple[int, str]:
    """Run a command that calls ``at(number, event)`` before every operation on the files of a folder."""
    number = [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FILE_EVENTS and arguments and str(arguments[0]).startswith(str(folder)):
            number[0] += 1
            at(number[0], event)

    sys.addaudithook(hook)
    return command(*words)


def killed(words: tuple[object, ...], folder: Path, operation: int | None, seconds: float) -> bool:
    """Run a command in a process that is killed at an operation on files, or after some seconds.

    Returns:
        Whether it was killed before its end.
    """
    child = os.fork()
    if child == 0:
        os.setsid()
        try:
            if operation is None:
                code, said = command(*words)
            else:

                def at(number: int, event: str) -> None:
                    if number == operation:
                        os.kill(os.getpid(), signal.SIGKILL)

                code, said = watched(words, at, folder)
            code *= not is_finished(said)
        except BaseException:
            code = 99
        os._exit(code)
    if operation is None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.005)
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    check(os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"{words} ended with {status}")
    return os.WIFSIGNALED(status)


def reference(kind: str, out: Path) -> None:
    """An uninterrupted run; operations.json beside its files says how long it is."""

    def whole() -> tuple[int, str, int, float]:
        begin, count = time.monotonic(), [0]

        def at(number: int, event: str) -> None:
            count[0] = number

        code, said = watched(start(kind, out), at, out)
        return code, said, count[0], time.monotonic() - begin

    answer, failure, _ = in_child(whole, 300)
    check(not failure and answer[0] == 0, failure or answer[1])
    (out / "operations.json").write_text(json.dumps({"operations": answer[2], "seconds": answer[3]}))


def is_finished(said: str) -> bool:
    """Whether a command refused to continue a run that is at its end."""
    return "this run has finished" in said


def finish(kind: str, out: Path) -> None:
    """Continue a run to its end."""
    code, said = command(*start(kind, out))
    check(code == 0 or is_finished(said), f"exit code {code}:", said)


def check_equal(whole: Path, other: Path) -> None:
    """Fail unless two runs of the same settings are equal: tables, networks, optimizer, balancer, scores, files."""
    for name in EQUAL_BYTES:
        check((whole / name).read_bytes() == (other / name).read_bytes(), f"{name} differs")
    for name in ("best.pt", "last.pt"):
        one, two = (torch.load(run / name, weights_only=True) for run in (whole, other))
        check_same(one["model"], two["model"], name)
        check_same(one["metrics"], two["metrics"], name)
    one, two = (torch.load(run / "resume.ckpt", weights_only=True) for run in (whole, other))
    for part in ("state_dict", "optimizer_states", "epoch", "global_step"):
        check_same(one[part], two[part], part)
    one, two = (json.loads((run / "run.json").read_text()) for run in (whole, other))
    for part in ("constant", "before", "after", "epochs", "steps", "parameters"):
        check(one[part] == two[part], f"run.json: {part} differs")
    names = [sorted(p.name for p in run.iterdir() if p.name != "operations.json") for run in (whole, other)]
    check(names[0] == names[1], "other files:", *set(names[0]) ^ set(names[1]))
    with (other / "metrics.csv").open(newline="") as table:
        check([row["epoch"] for row in csv.DictReader(table)] == ["0", "1", "2"], "epochs of metrics.csv")


def check_same(one: Any, two: Any, place: str) -> None:
    """Fail unless two nested values are equal to the bit."""
    if isinstance(one, torch.Tensor):
        check(torch.equal(one.nan_to_num(7e7), two.nan_to_num(7e7)), f"{place} differs")
    elif isinstance(one, dict):
        check(one.keys() == two.keys(), f"{place} has other keys")
        for key in one:
            check_same(one[key], two[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        check(len(one) == len(two), f"{place} has another length")
        for index, pair in enumerate(zip(one, two, strict=True)):
            check_same(*pair, f"{place}.{index}")
    else:
        check(one == two or (one != one and two != two), f"{place} differs: {one} and {two}")
