"""Numba code that compiled steps call, and the names that generated source imports: those of ``gpunet.launch.loops``, too.

Numba is optional, so only generated source imports this package.
"""

from __future__ import annotations

import math

from numba import boolean as b1
from numba import float32, float64, int64, uint8, uint64
from numba import float32 as f4
from numba import float64 as f8
from numba import int8 as i1
from numba import int16 as i2
from numba import int32 as i4
from numba import int64 as i8
from numba import uint8 as u1
from numba import uint16 as bf2
from numba import uint16 as f2
from numba import uint16 as u2
from numba import uint32 as u4
from numba import uint64 as u8

from gpunet.captured.compiled.jit.arithmetic import (
    call_address,
    float_to_int,
    maximum,
    minimum,
    multiply_high,
    reduce_add,
    reduce_maximum,
    reduce_minimum,
    select,
)  # fmt: skip
from gpunet.captured.compiled.jit.decorators import c_function, helper_entry, jit_helper, part, threaded_part
from gpunet.captured.compiled.jit.elementary import (
    exp,
    exp_f4,
    exp_f8,
    expm1_f4,
    expm1_f8,
    log,
    log1p_f4,
    log1p_f8,
    log_f4,
    log_f8,
    sqrt,
    tanh,
    tanh_f4,
    tanh_f8,
)  # fmt: skip
from gpunet.captured.compiled.jit.halves import round_bf2, round_f2, widen_bf2, widen_f2
from gpunet.captured.compiled.jit.matmul import product_columns, transpose_block, vector_width
from gpunet.captured.compiled.jit.memory import (
    advance,
    atomic_add,
    atomic_load,
    atomic_store,
    borrow_array,
    like,
    load,
    pause,
    pointer,
    real_at,
    set_word_at,
    stack_words,
    store,
    word_at,
)  # fmt: skip
