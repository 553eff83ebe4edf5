"""Checks the arguments of a CUDA launch against the sizes of the kernel's parameters.

A launch gives the driver one address for each argument, and the driver reads as many bytes there as the kernel declares.  So CUDA
does not notice an argument that is too small or missing: the kernel computes with the host memory behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from gpunet.backend.driver_calls import driver_function
from gpunet.errors import DeviceError, LaunchError


def parameter_sizes(function: int) -> list[int] | None:
    """Return the bytes of each parameter of a loaded kernel; None if the driver cannot report them.

    Args:
        function: the CUfunction.
    """
    import ctypes

    try:
        get_info = driver_function("cuFuncGetParamInfo", "checks of argument sizes", "550")
    except DeviceError:
        return None
    offset, size = ctypes.c_size_t(), ctypes.c_size_t()
    sizes: list[int] = []
    while True:
        status = get_info(
            ctypes.c_void_p(function), ctypes.c_size_t(len(sizes)), ctypes.byref(offset), ctypes.byref(size)
        )
        if status:
            return sizes if status == _INVALID_VALUE else None
        sizes.append(size.value)


_INVALID_VALUE = 1  # CUDA_ERROR_INVALID_VALUE: there is no such parameter


def check_sizes(expression: str, sizes: Sequence[int], arguments: Sequence[Any]) -> None:
    """Check number and sizes of the arguments of one launch.

    Args:
        expression: the kernel in messages.
        sizes: the bytes of each parameter.
        arguments: CuPy arrays for pointers, NumPy scalars, and structured NumPy arrays of one element.

    Raises:
        LaunchError: there are more or fewer arguments than parameters, or one has another size.
    """
    if len(arguments) != len(sizes):
        raise LaunchError(f"launch of {expression}: {len(arguments)} arguments for {len(sizes)} parameters")
    for number, (argument, size) in enumerate(zip(arguments, sizes)):
        is_value = isinstance(argument, (numpy.generic, numpy.ndarray))
        found = argument.nbytes if is_value else _POINTER
        if found != size:
            kind = argument.dtype.name if is_value else f"an array of {argument.dtype}"
            raise LaunchError(
                f"launch of {expression}: argument {number} is {kind}, which is passed as {found} bytes, where the "
                f"kernel's parameter has {size}"
            )


_POINTER = 8
