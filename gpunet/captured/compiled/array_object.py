"""The layout of an array object, as compiled code reads it: NumPy's C ABI, after CPython's object header."""

from __future__ import annotations

import ctypes
import functools
import sys

import numpy

#: Byte offsets of the data address and of the flags.
DATA, FLAGS = 16, 64
CONTIGUOUS, ALIGNED = 0x1, 0x100  # flag bits


@functools.cache
def is_layout_known() -> bool:
    """Whether the offsets hold for this Python and this NumPy."""
    if sys.implementation.name != "cpython" or object.__basicsize__ != DATA:
        return False
    array = numpy.zeros((2, 3))
    return all(
        ctypes.c_int64.from_address(id(a) + DATA).value == a.ctypes.data
        and ctypes.c_int32.from_address(id(a) + FLAGS).value == a.flags.num
        for a in (array, array[1:], array.T)
    )
