# SPDX-License-Identifier: Apache-2.0
"""Signs of life between the processes of a run, which tell of a process that no connection tells of.

A process that dies closes its connections, which gloo notices at once and NCCL does not. A machine that loses power
closes nothing. Then the others would wait in a collective until its time is over.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback
from torch.distributed import Store, TCPStore

#: Seconds between two signs of life.
INTERVAL = 5.0
#: Seconds without a sign after which a process counts as dead.
SILENCE = 60.0

#: What a rank says last.
FINISHED, FAILED = b"finished", b"failed"


class Heartbeat:
    """A thread that gives signs of life of this rank and looks for those of the others.

    Args:
        store: what the ranks share.
        rank: of this process.
        ranks: how many there are.
        report: called once, with a sentence, when another rank has failed or is silent.
        interval: seconds between two signs.
        silence: seconds after which a rank without a sign counts as dead.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        ranks: int,
        report: Callable[[str], None],
        interval: float = INTERVAL,
        silence: float = SILENCE,
    ) -> None:
        self.store, self.rank, self.report, self.interval, self.silence = store, rank, report, interval, silence
        self._keys = [f"rank{number}" for number in range(ranks)]
        self._signs: dict[int, tuple[bytes, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._say(b"0")

    def start(self) -> None:
        """Begin, once all ranks have made theirs."""
        self._thread.start()

    def stop(self, last: bytes = FINISHED) -> None:
        """End the thread, with a last sign."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(RuntimeError):  # the store may be gone with rank 0
            self._say(last)

    def _say(self, sign: bytes) -> None:
        self.store.set(self._keys[self.rank], sign.decode())

    def _beat(self) -> None:
        count = 0
        while not self._stop.wait(self.interval):
            try:
                self._say(str(count := count + 1).encode())
                trouble = self._look(self.store.multi_get(self._keys))
            except RuntimeError:  # torch.distributed.DistError, of a store that is gone
                trouble = "rank 0, which keeps the signs of life, cannot be reached"
            if trouble and not self._stop.is_set():
                self.report(trouble)
                return

    def _look(self, signs: list[bytes]) -> str | None:
        """What the signs of the ranks tell, if it is bad."""
        now = time.monotonic()
        for rank, sign in enumerate(signs):
            if self._signs.get(rank, (None, 0.0))[0] != sign:
                self._signs[rank] = sign, now
            if sign == FAILED:
                return f"rank {rank} failed, see its message"
            if sign != FINISHED and now - self._signs[rank][1] > self.silence:
                return f"rank {rank} has given no sign of life for {self.silence:.0f} s"
        return None


class SignsOfLife(Callback):
    """A :class:`Heartbeat` for as long as the ranks are connected.

    Args:
        report: called when another rank has failed or is silent.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report
        self._heartbeat: Heartbeat | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Begin as soon as the ranks are connected."""
        if self._heartbeat is not None:
            return
        rank, ranks = trainer.global_rank, trainer.world_size
        host, wait = trainer.strategy.cluster_environment.main_address, timedelta(seconds=SILENCE)  # type: ignore[attr-defined]
        own = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=wait) if rank == 0 else None
        port = trainer.strategy.broadcast(0 if own is None else own.port)
        store = own or TCPStore(host, port, is_master=False, timeout=wait)
        self._heartbeat = Heartbeat(store, rank, ranks, self.report)
        trainer.strategy.barrier()
        self._heartbeat.start()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """End together after training, as the store ends with rank 0."""
        if stage == "fit" and self._heartbeat is not None:
            self._heartbeat.stop()
            trainer.strategy.barrier()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> Any:
        """Let the others know."""
        if self._heartbeat is not None:
            self._heartbeat.stop(FAILED)
