# SPDX-License-Identifier: Apache-2.0
"""Several processes for one run: started here or by another launcher, and all ended when one dies.

On one machine rank 0 starts the others itself. Lightning's own launcher is not used. It kills the whole run without a
word when a process dies, and its handler of SIGTERM broadcasts between the processes. A signal arrives at any moment:
where one rank is in the broadcast and the other in the gradient's all_reduce, both wait for ever, and the main threads,
being inside the library, hear no further signal. Here a thread of each rank hears signals at once and watches the
processes that it can see; where torchrun or srun has started them, :mod:`mlr.training.heartbeat` tells of those on
other machines. The thread may end its process at any moment, because every file of a run is replaced as a whole or
appended to.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from torch import distributed

from mlr.training.launch import RANK_ZERO_FOLDER, Launch

if TYPE_CHECKING:
    from mlr.training.run import Run

#: Seconds between two looks at the other processes.
INTERVAL = 0.5
#: Longest wait in a collective. The longest one is for rank 0 while it writes the files of an epoch.
TIMEOUT = timedelta(minutes=10)
#: Seconds that the others have to end after rank 0 has finished.
PATIENCE = 60.0


@contextlib.contextmanager
def processes(launch: Launch, devices: int, run: Run, arguments: Sequence[str]) -> Iterator[Watch | None]:
    """Train with one process a device: start the others where nobody has (rank 0), and watch them.

    A rank other than 0 ends its process where the block ends.

    Args:
        launch: who started this process.
        devices: how many processes rank 0 is to see to; nothing happens for one.
        run: the run, which says how to continue.
        arguments: of ``mlr train``, for the other ranks.

    Yields:
        The watch; None for one process.
    """
    if max(devices, launch.processes) == 1:
        yield None
        return
    before = dict(os.environ)
    children = [] if launch.external or launch.rank else _start(devices, run, arguments)
    watch = Watch(launch, children, run)
    try:
        watch.start()
        yield watch
    except RuntimeError as error:
        # The others' death shows here as a broken connection. The watch knows which one died, says so and ends this.
        time.sleep(4 * INTERVAL)
        if launch.external and _is_broken_connection(error):
            watch.finish(1, f"error: the connection to another process broke, so this one ends; {run.left()}")
        raise
    else:
        if distributed.is_initialized():
            distributed.destroy_process_group()
        if launch.rank:
            _exit(0)
        _wait(children)
    finally:
        watch.stop()
        _end(children)
        if not launch.rank:
            os.environ.clear()
            os.environ.update(before)


def _is_broken_connection(error: RuntimeError) -> bool:
    return isinstance(error, distributed.DistError) or "gloo" in str(error).lower()


def _start(devices: int, run: Run, arguments: Sequence[str]) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "LOCAL_RANK": "0",
        "WORLD_SIZE": str(devices), RANK_ZERO_FOLDER: str(run.path),
    }  # fmt: skip
    command = [sys.executable, "-m", "mlr.cli", "train", *arguments]
    return [subprocess.Popen(command, env={**os.environ, "LOCAL_RANK": str(rank)}) for rank in range(1, devices)]


class Watch:
    """A thread that ends this process when a signal arrives or another process of this machine dies."""

    def __init__(self, launch: Launch, children: Sequence[subprocess.Popen], run: Run) -> None:
        self.rank, self.launch, self.children, self.run = launch.rank, launch, children, run
        self.parent = os.getppid()
        self._thread = threading.Thread(target=self._watch, name="rank-watch", daemon=True)
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin; in the main thread, as signals ask for."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._earlier = signal.getsignal(signal.SIGTERM)
        # without a handler in Python SIGTERM would end the process before the thread hears of it
        signal.signal(signal.SIGTERM, lambda *_: None)
        # the interpreter writes a signal's number at once, whatever the main thread waits for
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread.start()

    def stop(self) -> None:
        """End the watch and give signals back."""
        self._stop.set()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, self._earlier)
        self._thread.join()
        os.close(self._read)
        os.close(self._write)

    def _watch(self) -> None:
        while not self._stop.is_set():
            ready, _, _ = select.select([self._read], [], [], INTERVAL)
            for number in os.read(self._read, 64) if ready else b"":
                if number in (signal.SIGTERM, signal.SIGINT):
                    self.finish(128 + number, f"stopped; {self.run.left()}")
            if (self.rank or self.launch.external) and os.getppid() != self.parent and not self._stop.is_set():
                dead = self.launch.launcher if self.launch.external else "rank 0"
                self.finish(1, f"{dead} died, so rank {self.rank} ends; {self.run.left()}", always=True)
            for rank, child in enumerate(self.children, start=1):
                code = child.poll()
                if code and not self._stop.is_set():
                    self.finish(*self._verdict(rank, code))

    def _verdict(self, rank: int, code: int) -> tuple[int, str]:
        if code in (-signal.SIGTERM, 128 + signal.SIGTERM):
            return 128 + signal.SIGTERM, f"rank {rank} was stopped by SIGTERM, so the others end; {self.run.left()}"
        if code < 0:
            how = f"died by signal {-code} ({signal.Signals(-code).name})"
            how += ", as a process does when memory runs out" if code == -signal.SIGKILL else ""
        else:
            how = f"ended with exit code {code}, see its message"
        return 1, f"error: rank {rank} {how}, so the others end; {self.run.left()}"

    def give_up(self, why: str) -> None:
        """End because of another rank."""
        self.finish(1, f"error: {why}, so rank {self.rank} ends; {self.run.left()}", always=True)

    def finish(self, code: int, text: str, always: bool = False) -> None:
        """Say why, end the others and this process.

        Args:
            code: of the process.
            text: what rank 0 says.
            always: whether other ranks say it too.
        """
        if not self.rank or always:
            # not rich's console, whose lock the main thread may hold; a live progress bar has hidden the cursor
            cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
            os.write(2, f"{cursor}\n{text}\n".encode())
        _end(self.children)
        _exit(code)


def _wait(children: Sequence[subprocess.Popen]) -> None:
    end = time.monotonic() + PATIENCE
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(end - time.monotonic(), 0.0))


def _end(children: Sequence[subprocess.Popen]) -> None:
    for child in children:
        if child.poll() is None:
            child.kill()
    for child in children:
        child.wait()


def _exit(code: int) -> None:
    """End the process here: threads of gloo sometimes abort a Python that shuts down."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
