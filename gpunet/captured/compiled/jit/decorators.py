"""njit decorators for helpers and for the functions of generated source.

All use NumPy's error model: a division by zero gives an infinity or NaN instead of raising.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from numba import cfunc, njit, types

#: njit for helpers called only from jitted code.
jit_helper = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)


def part(num_addresses: int, *arrays: tuple[Any, int], **options: Any) -> Callable[..., Any]:
    """A compiled part of a step: a function of addresses (int64), then of arrays, that returns an int64.

    Its explicit signature makes Numba compile it, or load it from the disk cache, at import.

    Args:
        num_addresses: number of addresses.
        arrays: dtype and number of dimensions of each array; it may be strided, unaligned and read-only.
    """
    kinds = [types.Array(dtype, ndim, "A", readonly=True, aligned=False) for dtype, ndim in arrays]
    signature = types.int64(*[types.int64] * num_addresses, *kinds)
    return njit(signature, error_model="numpy", no_cfunc_wrapper=True, cache=True, **options)


#: A part with parallel regions: it releases the GIL, so that helper threads can enter theirs.
threaded_part = functools.partial(part, nogil=True)
#: The function that helper threads call, of four addresses and counts.
helper_entry = threaded_part(4)
#: A function that programs call: of the address of its arguments.
c_function = cfunc("int64(int64)", cache=True, error_model="numpy")
