"""Functions of NVIDIA's driver that CuPy does not wrap, called through ctypes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

from gpunet.errors import DeviceError


@functools.cache
def driver_function(name: str, users: str, since: str) -> Callable[..., int]:
    """Return a function of the driver; it takes ctypes' objects and returns a CUresult.

    Args:
        users: the feature that needs it, for the message, such as "tensor maps".
        since: the first version of the driver that has it.

    Raises:
        DeviceError: there is no driver, or it is too old.
    """
    import ctypes

    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        function = getattr(ctypes.CDLL(library), name)
    except (OSError, AttributeError) as error:
        raise DeviceError(f"{users} need NVIDIA's driver {since} or newer ({library}): {error}") from None
    function.restype = ctypes.c_int
    return function
