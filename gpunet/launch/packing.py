"""Packs the arguments of a CUDA launch: pointers, then scalars."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.errors import LaunchError

NULL = numpy.uint64(0)
#: Kernels count rows, columns and batches in ints, and step past the end by at most a grid's y extent of 65535.
MAX_EXTENT = 2**31 - 2**16


def pack(kernel: str, arrays: Iterable[Any], scalars: Iterable[Any]) -> tuple[Any, ...]:
    """Return the arguments of a CUDA launch: the arrays (null pointers for None), then the scalars.

    A Python int is an extent, and becomes a C ``int``; other integers are NumPy scalars.

    Args:
        kernel: name of the kernel, for error messages.

    Raises:
        LaunchError: a Python int is more than MAX_EXTENT.
    """
    return (*(NULL if a is None else a for a in arrays), *(_scalar(kernel, value) for value in scalars))


def _scalar(kernel: str, value: Any) -> Any:
    if type(value) is int:
        if value > MAX_EXTENT:
            raise LaunchError(
                f"kernel {kernel}: size {value}; expected at most {MAX_EXTENT}: split the tensor along that dimension"
            )
        return numpy.int32(value)
    return numpy.float64(value) if type(value) is float else value
