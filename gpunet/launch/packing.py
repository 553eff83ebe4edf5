"""The arguments of a CUDA launch: pointers, then scalars."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gpunet.errors import LaunchError

NULL = numpy.uint64(0)


def pack(kernel: str, arrays: Iterable[Any], scalars: Iterable[Any]) -> tuple[Any, ...]:
    """The arguments for arrays (or None) and scalars; ``kernel`` is the kernel's name, for messages.

    Raises:
        LaunchError: a Python int that does not fit 32 bits.
    """
    return (*(NULL if a is None else a for a in arrays), *(_scalar(kernel, value) for value in scalars))


def _scalar(kernel: str, value: Any) -> Any:
    if type(value) is int:
        if not -(2**31) <= value < 2**31:
            raise LaunchError(
                f"launch of {kernel}: size {value} does not fit 32 bits; split the tensor along its first dimension"
            )
        return numpy.int32(value)
    return numpy.float64(value) if type(value) is float else value
