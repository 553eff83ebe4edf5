"""Threads that help the one that runs a captured step: how many there may be, and where they wait.

Work is offered, never handed over: whoever offers it does all that no helper has taken yet, and waits for nobody who has
not begun.  So a helper that is late, busy or missing (as after a fork) costs time and nothing else.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
from collections.abc import Callable

from gpunet.errors import ArgumentError

__all__ = ["get_num_threads", "set_num_threads"]

_log = logging.getLogger(__name__)


def available_cores() -> int:
    """How many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _checked(count: object, source: str) -> int:
    try:
        number = int(str(count))
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentError(f"{source}: {count!r} threads; expected a whole number from 1 on")
    return number


class _Helpers:
    """Daemon threads that wait for work; made when some is offered first."""

    def __init__(self) -> None:
        self.count: int | None = None  # threads that may work at once, the one that asks included
        self.reset()

    def reset(self) -> None:
        """Forget all threads: a fork has none."""
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._making = threading.Lock()

    def offer(self, work: Callable[[], None], times: int) -> None:
        if len(self._threads) < times:
            with self._making:
                self._make(times)
        for _ in range(min(times, len(self._threads))):
            self._work.put(work)

    def _make(self, count: int) -> None:
        """Let there be so many threads, or as many as the system allows."""
        while len(self._threads) < count:
            name = f"gpunet helper {len(self._threads) + 1}"
            thread = threading.Thread(target=_serve, args=(self._work,), name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no more of them, or none at the end of the process
                _log.info("%s cannot be started: %s", name, error)
                return
            self._threads.append(thread)

    def stop(self) -> None:
        """Let all threads end, and wait for them: none shall run when the interpreter is taken down."""
        threads = self._threads
        for _ in threads:
            self._work.put(None)
        for thread in threads:
            thread.join(1.0)
        self.reset()


def _serve(work: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (offered := work.get()) is not None:
        try:
            offered()
        except Exception:
            _log.exception("a helping thread failed; the others do its work")
        del offered  # what it holds must not wait for the next one


_helpers = _Helpers()
atexit.register(lambda: _helpers.stop())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.reset)


def get_num_threads() -> int:
    """How many threads a captured step on the CPU may use outside of NumPy's BLAS, which has a number of its own.

    It is what :func:`set_num_threads` was given, else ``GPUNET_NUM_THREADS``, else the number of cores that this process may
    use.

    Raises:
        ArgumentError: ``GPUNET_NUM_THREADS`` is no whole number from 1 on.
    """
    if _helpers.count is None:
        given = os.environ.get("GPUNET_NUM_THREADS", "")
        _helpers.count = _checked(given, "GPUNET_NUM_THREADS") if given else available_cores()
    return _helpers.count


def set_num_threads(count: int) -> None:
    """Let captured steps on the CPU use so many threads, from 1 on.  Results don't depend on it, to the bit.

    Raises:
        ArgumentError: another number.
    """
    _helpers.count = _checked(count, "set_num_threads")


def offer(work: Callable[[], None], times: int) -> None:
    """Let up to ``times`` threads call ``work``, at once or later."""
    _helpers.offer(work, times)
