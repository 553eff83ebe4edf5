"""A thread that reads the next batches while the caller uses the last one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

#: Batches that are read ahead.
DEPTH = 4


def read_ahead(read: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Yield ``read(item)`` of each item, which a thread computes up to :data:`DEPTH` items ahead; it ends with the iterator."""
    pending: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(1, "read ahead") as thread:
        try:
            for item in items:
                pending.append(thread.submit(read, item))
                if len(pending) > DEPTH:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
