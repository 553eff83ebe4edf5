"""Helper threads for captured steps on the CPU: their number, and the queue they take work from.

Work is only offered to helpers.  The offering thread does everything that no helper has taken, and never waits for a helper
that has not started.  So a late, busy or missing helper (for example after a fork) costs time and nothing else.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
from collections.abc import Callable

from gpunet.errors import ArgumentError

__all__ = ["get_num_interop_threads", "get_num_threads", "set_num_interop_threads", "set_num_threads"]

_log = logging.getLogger(__name__)


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _parse_count(count: object, source: str) -> int:
    try:
        number = int(str(count))
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentError(f"{source}: {count!r} threads; expected a positive whole number")
    return number


class _Helpers:
    """Daemon threads that wait for work; they are started when work is first offered."""

    def __init__(self) -> None:
        self.count: int | None = None  # threads that may work at once, including the one that runs the step
        self.reset()

    def reset(self) -> None:
        """Forget all threads: they do not survive a fork."""
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()

    def offer(self, work: Callable[[], None], times: int) -> None:
        if len(self._threads) < times:
            with self._starting:
                self._start(times)
        for _ in range(min(times, len(self._threads))):
            self._work.put(work)

    def _start(self, count: int) -> None:
        """Start threads until there are ``count`` of them, or the system refuses more."""
        while len(self._threads) < count:
            name = f"gpunet helper {len(self._threads) + 1}"
            thread = threading.Thread(target=_serve, args=(self._work,), name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # a limit was reached, or the interpreter is shutting down
                _log.info("cannot start thread %r: %s", name, error)
                return
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop all threads and wait for them, so that none runs while the interpreter shuts down."""
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
            _log.exception("a helper thread failed; the other threads do its work")
        del offered  # or its closure would live until the next work arrives


_helpers = _Helpers()
atexit.register(lambda: _helpers.stop())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.reset)


def get_num_threads() -> int:
    """Return the number of threads that a captured step on the CPU may use.

    This is the number passed to :func:`set_num_threads`, else ``GPUNET_NUM_THREADS``, else ``OMP_NUM_THREADS``, which other
    libraries follow and joblib sets in its workers, else the number of cores that this process may use.

    Raises:
        ArgumentError: ``GPUNET_NUM_THREADS`` is not a positive whole number.
    """
    if _helpers.count is None:
        setting = os.environ.get("GPUNET_NUM_THREADS", "")
        of_openmp = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # a list is of nested levels
        if setting:
            _helpers.count = _parse_count(setting, "GPUNET_NUM_THREADS")
        elif of_openmp.isdigit() and int(of_openmp):
            _helpers.count = min(int(of_openmp), available_cores())
        else:
            _helpers.count = available_cores()
    return _helpers.count


def set_num_threads(count: int) -> None:
    """Set the number of threads of captured steps on the CPU.  Results do not depend on it, to the last bit.

    The library of NumPy's products has threads of its own, on whose number the last bits of products depend: set
    ``OPENBLAS_NUM_THREADS`` before Python starts, or use ``threadpoolctl.threadpool_limits``.  One is fastest for small networks on
    a machine with other work, since the threads of a product wait for each other.

    Raises:
        ArgumentError: ``count`` is not a positive whole number.
    """
    _helpers.count = _parse_count(count, "set_num_threads")


_interop = [0]  # the number that was set; 0 if none was


def get_num_interop_threads() -> int:
    """Return the number of :func:`set_num_interop_threads`, 1 at first: ops run one after the other."""
    return _interop[0] or 1


def set_num_interop_threads(num: int) -> None:
    """Set what :func:`get_num_interop_threads` returns; it has no effect, since ops run one after the other.

    Raises:
        ArgumentError: ``num`` is not a positive whole number.
    """
    _interop[0] = _parse_count(num, "set_num_interop_threads")


def offer(work: Callable[[], None], times: int) -> None:
    """Queue ``work`` for up to ``times`` helper threads; each calls it when it is free."""
    _helpers.offer(work, times)
