"""One thread in each worker of joblib, whose workers share the cores already."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from joblib.parallel import get_active_backend
from threadpoolctl import threadpool_limits

from gpunet.backend.threads import get_num_threads, set_num_threads

#: One training at a time uses the global random numbers, which dropout and the user's modules draw from.
training_lock = threading.RLock()

_lock = threading.Lock()
_entered = 0  # blocks that limit the threads now
_outer: tuple[int, Any] | None = None  # what the last of them restores: gpunet's threads, and those of BLAS


@contextlib.contextmanager
def one_thread_in_workers() -> Iterator[None]:
    """Inside the block, gpunet, BLAS and OpenMP use one thread if the caller is a worker of ``joblib.Parallel``.

    The numbers of threads are those of a process, so of several blocks at once the first one sets and the last one restores them.
    """
    global _entered, _outer
    if not is_worker():
        yield
        return
    with _lock:
        if not _entered:
            _outer = get_num_threads(), threadpool_limits(1)
            set_num_threads(1)
        _entered += 1
    try:
        yield
    finally:
        with _lock:
            _entered -= 1
            if not _entered and _outer is not None:
                count, limits = _outer
                set_num_threads(count)
                limits.restore_original_limits()
                _outer = None


def is_worker() -> bool:
    """Whether the caller runs inside ``joblib.Parallel``, whatever its backend."""
    backend, _ = get_active_backend()
    return bool(getattr(backend, "nesting_level", 0))
