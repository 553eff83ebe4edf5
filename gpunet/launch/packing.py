"""Packs the arguments of a CUDA launch: pointers, then scalars."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.errors import LaunchError

NULL = numpy.uint64(0)


def pack(kernel: str, arrays: Iterable[Any], scalars: Iterable[Any]) -> tuple[Any, ...]:
    """Return the arguments of a CUDA launch: the arrays (null pointers for None), then the scalars.

    Args:
        kernel: name of the kernel, for error messages.

    Raises:
        LaunchError: a Python int does not fit into 32 bits.
    """
    return (*(NULL if a is None else a for a in arrays), *(_scalar(kernel, value) for value in scalars))


def _scalar(kernel: str, value: Any) -> Any:
    if type(value) is int:
        if not -(2**31) <= value < 2**31:
            raise LaunchError(
                f"kernel {kernel}: size {value} does not fit into 32 bits; split the tensor along its first dimension"
            )
        return numpy.int32(value)
    return numpy.float64(value) if type(value) is float else value
