"""The threads of OpenBLAS, the library behind NumPy's products in its wheels for Linux."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from pathlib import Path

import numpy

_VARIABLE = "OPENBLAS_THREAD_TIMEOUT"
#: Its binary logarithm of the cycles for which a thread that has finished looks for more work.  By default it is 26, some 20 ms,
#: in which the thread takes a core from the threads of another library: eager steps of LeNet on two cores take 1.6 times as long.
#: From 10 to 16 there is no difference that exceeds the noise.
_TIMEOUT = "16"


def shorten_waiting() -> None:
    """Let NumPy's threads sleep soon after a product: to be called when another library with threads of its own is loaded.

    The number of threads, and so the bits of products, stay.  Nothing happens if the environment sets the time, if there are other
    Python threads, which may be in a product, or if NumPy uses another library.
    """
    folder = Path(numpy.__file__).resolve().parents[1] / "numpy.libs"
    path = next(folder.glob("libscipy_openblas*.so"), None)
    if path is None or _VARIABLE in os.environ or threading.active_count() > 1:
        return
    with contextlib.suppress(OSError, AttributeError):  # it exports other functions
        library = ctypes.CDLL(str(path))
        read_environment, stop, start = library.openblas_read_env, library.blas_thread_shutdown_, library.blas_thread_init
        os.environ[_VARIABLE] = _TIMEOUT
        read_environment()
        del os.environ[_VARIABLE]
        stop()
        start()
