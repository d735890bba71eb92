# SPDX-License-Identifier: Apache-2.0
"""TensorBoard's log of a run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread


class RunLogger(TensorBoardLogger):
    """TensorBoard's logger with errors that name its folder.

    Lightning's own makes "you tried to log 0.0, which is not supported" of a full disk, or an error without a name.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(threading.excepthook, _WithoutWriters):
            threading.excepthook = _WithoutWriters(threading.excepthook)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Add scalars.

        Raises:
            OSError: they cannot be written.
        """
        with self._named():
            super().log_metrics(metrics, step)

    def save(self) -> None:
        """Write what is held back.

        Raises:
            OSError: it cannot be written.
        """
        with self._named():
            super().save()

    def finalize(self, status: str) -> None:
        """Close the log. After a failure nothing is raised, which would hide what failed first.

        Raises:
            OSError: the rest cannot be written.
        """
        try:
            with self._named():
                super().finalize(status)
        except OSError:
            if status == "success":
                raise

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(cause, OSError):
                raise
            raise OSError(f"cannot write {self.log_dir}: {cause.strerror or cause}. Is the disk full?") from error


class _WithoutWriters:
    """What is printed of errors in threads, but those of TensorBoard's writer, which the logger raises itself."""

    def __init__(self, before: Callable[[threading.ExceptHookArgs], Any]) -> None:
        self.before = before

    def __call__(self, args: threading.ExceptHookArgs) -> None:
        if not (isinstance(args.thread, _AsyncWriterThread) and isinstance(args.exc_value, OSError)):
            self.before(args)
