"""One training at a time in a process, and one thread in each worker of joblib, whose workers share the cores already."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from joblib.parallel import get_active_backend
from threadpoolctl import threadpool_limits

from gpunet.backend.threads import get_num_threads, set_num_threads

_lock = threading.RLock()


@contextlib.contextmanager
def training() -> Iterator[None]:
    """Inside the block, no other thread trains, and a worker of ``joblib.Parallel`` has one thread for gpunet, BLAS and OpenMP.

    Trainings in threads take turns because dropout, and the user's modules, draw from generators that a process has once.
    """
    with _lock:
        if not is_worker():
            yield
            return
        count = get_num_threads()
        set_num_threads(1)
        try:
            with threadpool_limits(1):
                yield
        finally:
            set_num_threads(count)


def is_worker() -> bool:
    """Whether the caller runs inside ``joblib.Parallel``, whatever its backend."""
    backend, _ = get_active_backend()
    return bool(getattr(backend, "nesting_level", 0))
