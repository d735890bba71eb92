# SPDX-License-Identifier: Apache-2.0
"""TensorBoard's log of a run: a full disk is named with the folder, and never hides what failed first."""

from __future__ import annotations

import errno
import os
import threading

import pytest
from torch.utils.tensorboard import SummaryWriter

from mlr.training.logs import RunLogger


@pytest.fixture
def log(tmp_path, monkeypatch) -> RunLogger:
    logger = RunLogger(tmp_path, name="", version="", sub_dir="tensorboard")
    logger.log_metrics({"loss": 1.0}, 0)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("add_scalar", "flush", "close"):
        monkeypatch.setattr(SummaryWriter, name, full)
    return logger


def test_a_full_disk_is_named_with_the_folder(log):
    for write in (lambda: log.log_metrics({"loss": 1.0}, 1), log.save, lambda: log.finalize("success")):
        with pytest.raises(OSError, match=r"cannot write .*tensorboard: No space left on device"):
            write()


def test_the_writers_thread_prints_no_traceback_of_a_full_disk(tmp_path, monkeypatch):
    printed = []
    monkeypatch.setattr(threading, "excepthook", printed.append)
    log = RunLogger(tmp_path, name="", version="", sub_dir="tensorboard")
    writer = log.experiment.file_writer.event_writer._async_writer
    writer._writer.write = lambda *_: os.write(2**20, b"")  # there is no such file

    def fill() -> None:
        for step in range(100):
            log.log_metrics({"loss": 1.0}, step)
            log.save()

    with pytest.raises(OSError, match="cannot write"):
        fill()
    writer._worker.join()
    assert printed == []
    other = threading.Thread(target=lambda: 1 / 0)
    other.start()
    other.join()
    assert [args.exc_type for args in printed] == [ZeroDivisionError]


def test_the_end_of_a_run_that_failed_hides_nothing(log):
    log.finalize("failed")


def test_what_is_no_scalar_is_refused_as_ever(tmp_path):
    with pytest.raises(ValueError, match="currently not supported"):
        RunLogger(tmp_path, name="", version="").log_metrics({"loss": [1, "a"]}, 0)
