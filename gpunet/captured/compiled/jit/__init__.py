"""The names that the source of a compiled step uses.  Imported by compiled steps only: Numba is optional."""

from __future__ import annotations

import functools
import math

from numba import boolean as b1
from numba import float32 as f4
from numba import float64 as f8
from numba import int8 as i1
from numba import int16 as i2
from numba import int32 as i4
from numba import int64 as i8
from numba import njit
from numba import uint8 as u1
from numba import uint16 as u2
from numba import uint32 as u4
from numba import uint64 as u8

from gpunet.captured.compiled.jit.atomics import fetch_add, pause, read, write
from gpunet.captured.compiled.jit.elementary import (
    exp_f4,
    exp_f8,
    expm1_f4,
    expm1_f8,
    log1p_f4,
    log1p_f8,
    log_f4,
    log_f8,
    tanh_f4,
    tanh_f8,
)  # fmt: skip
from gpunet.captured.compiled.jit.memory import (
    accumulate,
    apart,
    call,
    choose,
    copy,
    hidden,
    jit_helper,
    largest,
    lend,
    load,
    maximum,
    minimum,
    pointer,
    smallest,
    store,
    whole,
)  # fmt: skip

#: A loop nest, called by parts of the step.
nest = jit_helper


def part(arguments, **options):
    """A part of the step, called with the address of its table of addresses, and the first one with those of arrays.

    It is compiled at once, or loaded from Numba's cache.
    """
    signature = f"int64({', '.join(['int64'] * arguments)})"
    return njit(signature, error_model="numpy", no_cfunc_wrapper=True, cache=True, **options)


#: The same for a step with regions: other threads run meanwhile.
threaded_part = functools.partial(part, nogil=True)
#: What such parts call, and what helpers do.
threaded = jit_helper
helping = njit("int64(int64, int64, int64, int64)", error_model="numpy", no_cfunc_wrapper=True, cache=True, nogil=True)
