# SPDX-License-Identifier: Apache-2.0
"""Reading ahead and writing behind: files are decoded and encoded in threads while the network runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], count: int = 2) -> Iterator[T]:
    """The same items in the same order, of which up to ``count`` are made ahead of time in another thread.

    Args:
        items: one thread at a time asks for the next one. What that raises is raised here, in its turn.
        count: items that may wait.

    Example:
        >>> list(ahead(range(3)))
        [0, 1, 2]
    """
    iterator, end = iter(items), object()
    pool = ThreadPoolExecutor(1, "ahead")
    try:
        waiting: deque[Future[Any]] = deque(pool.submit(next, iterator, end) for _ in range(count))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, iterator, end))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


class Behind:
    """Calls that are made one after the other in another thread; leaving the block waits for all.

    Args:
        count: calls that may wait; one more waits for the first of them.

    Example:
        >>> done = []
        >>> with Behind() as behind:
        ...     behind(done.append, 1)
        ...     behind(done.append, 2)
        >>> done
        [1, 2]
    """

    def __init__(self, count: int = 8) -> None:
        self.count = count
        self._waiting: deque[Future[Any]] = deque()
        self._pool = ThreadPoolExecutor(1, "behind")

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Make a call later. What an earlier one raised is raised here, or at the end of the block."""
        if len(self._waiting) >= self.count:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(function, *arguments))

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        while kind is None and self._waiting:
            self._waiting.popleft().result()
