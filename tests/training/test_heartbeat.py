# SPDX-License-Identifier: Apache-2.0
"""Signs of life: ranks that fail, fall silent or lose their store are told of; those that finish are not."""

from __future__ import annotations

import queue
from contextlib import contextmanager

import pytest
from torch.distributed import HashStore

from mlr.training.heartbeat import FAILED, Heartbeat


@contextmanager
def hearts(store, count: int, silence: float, beating: int):
    """Ranks that share a store, of which the first ones beat; and what they report."""
    reports: queue.Queue[tuple[int, str]] = queue.Queue()
    ranks = [
        Heartbeat(store, rank, count, lambda text, rank=rank: reports.put((rank, text)), 0.02, silence)
        for rank in range(count)
    ]
    for rank in ranks[:beating]:
        rank.start()
    yield ranks, reports
    for rank in ranks[:beating]:
        rank._stop.set()


def test_a_silent_rank_is_named_by_all_others():
    with hearts(HashStore(), 3, silence=0.3, beating=2) as (_, reports):
        told = {reports.get(timeout=60) for _ in range(2)}
    assert told == {(rank, "rank 2 has given no sign of life for 0 s") for rank in (0, 1)}


def test_a_rank_that_fails_is_named_at_once():
    with hearts(HashStore(), 2, silence=600, beating=2) as (ranks, reports):
        ranks[1].stop(FAILED)
        assert reports.get(timeout=60) == (0, "rank 1 failed, see its message")


def test_a_rank_that_has_finished_may_be_silent():
    with hearts(HashStore(), 2, silence=0.2, beating=2) as (ranks, reports):
        ranks[1].stop()
        with pytest.raises(queue.Empty):
            reports.get(timeout=1)


def test_a_store_that_is_gone_means_rank_0():
    class Gone(HashStore):
        gone = False

        def multi_get(self, keys):
            if Gone.gone:
                raise RuntimeError("connection reset")
            return super().multi_get(keys)

    with hearts(Gone(), 2, silence=600, beating=2) as (_, reports):
        Gone.gone = True
        assert reports.get(timeout=60)[1] == "rank 0, which keeps the signs of life, cannot be reached"
