"""Work that may take long although nothing is wrong, such as compiling, so that other processes do not take it for a hang."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Called with what this process does, and with None when it has done it.
listeners: list[Callable[[str | None], None]] = []


@contextmanager
def long_work(activity: str) -> Iterator[None]:
    """Tell the listeners that this process does ``activity`` inside the block."""
    told = [*listeners]
    for listener in told:
        listener(activity)
    try:
        yield
    finally:
        for listener in told:
            listener(None)
