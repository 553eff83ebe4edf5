"""Functions that compiled steps call by address: bodies of NumPy calls and kernel twins that are not loop nests.

Numba compiles each function once per float type for all steps and caches it on disk.  Arguments are addresses (int64),
sizes and numbers.  A function returns 0, or 1 if its input is invalid; then the step calls the twin, which raises.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from numba import boolean, cfunc, float32, float64, int64, uint8, uint64

from gpunet.captured.compiled.jit.arithmetic import multiply_high, reduce_add, reduce_maximum, select
from gpunet.captured.compiled.jit.decorators import jit_helper
from gpunet.captured.compiled.jit.elementary import exp, log
from gpunet.captured.compiled.jit.matmul import make_dots, make_product, make_transpose
from gpunet.captured.compiled.jit.memory import advance, cast_to_element, load, pointer, store

# ---- softmax cross-entropy ------------------------------------------------------------------------------------------
# The helpers are global: Numba's cache key includes the closure, where a helper would differ from process to process.


@jit_helper
def row_maximum(x, first, c):
    """The maximum of c elements from ``first`` on; a short row may ignore NaN, which makes it three times as fast."""
    top = load(x, first, 2)
    if c < 32:
        for j in range(1, c):
            value = load(x, first + j, 2)
            top = select(value > top, value, top)
    else:
        for j in range(1, c):
            top = reduce_maximum(top, load(x, first + j, 2))
    return top


@jit_helper
def softmax(probabilities, logs, logits, n, c):
    """Softmax of logits (n, c), and log-sum-exp of each row.

    ``logs`` holds 2 n elements: the results, then the sums.  A NaN reaches its whole row through the row's sum.
    """
    totals = advance(logs, n)
    for i in range(n):
        top = row_maximum(logits, i * c, c)
        for j in range(c):
            store(probabilities, i * c + j, load(logits, i * c + j, 2) - top, 0)
        store(logs, i, top, 1)
    for i in range(n * c):
        store(probabilities, i, exp(load(probabilities, i, 0)), 0)
    for i in range(n):
        total = load(probabilities, i * c, 0)
        for j in range(1, c):
            total = reduce_add(total, load(probabilities, i * c + j, 0))
        store(totals, i, total, 4)
        inverse = cast_to_element(probabilities, 1.0) / total
        for j in range(c):
            store(probabilities, i * c + j, load(probabilities, i * c + j, 0) * inverse, 0)
    for i in range(n):
        store(logs, i, load(logs, i, 1) + log(load(totals, i, 4)), 1)


@jit_helper
def reduce_losses(value, factor, losses, n, reduction, num_counted):
    """value = the n losses (reduction 0), their sum (1), or the sum times factor = 1 / num_counted (2)."""
    if reduction == 0:
        for i in range(n):
            store(value, i, load(losses, i, 1), 0)
        return
    total = float64(0)
    for i in range(n):
        total = reduce_add(total, float64(load(losses, i, 1)))
    if reduction == 2:
        inverse = cast_to_element(value, 1.0 / num_counted if num_counted else math.nan)
        store(factor, 0, inverse, 2)
        store(value, 0, cast_to_element(value, total) * inverse, 0)
    else:
        store(value, 0, cast_to_element(value, total), 0)


def make_cross_entropy_labels(number: Any) -> Any:
    def cross_entropy_labels(value, dx, factor, logits, labels, scratch, n, c, reduction, ignore_index):
        dx, logits, labels = pointer(dx, number), pointer(logits, number), pointer(labels, int64)
        losses = pointer(scratch, number)
        num_counted = 0
        for i in range(n):
            label = load(labels, i, 3)
            if label != ignore_index:
                num_counted += 1
                if label < 0 or label >= c:
                    return 1
        softmax(dx, losses, logits, n, c)
        for i in range(n):
            label = load(labels, i, 3)
            if label == ignore_index:
                store(losses, i, number(0), 1)
                for j in range(c):
                    store(dx, i * c + j, number(0), 0)
            else:
                store(losses, i, load(losses, i, 1) - load(logits, i * c + label, 2), 1)
                store(dx, i * c + label, load(dx, i * c + label, 0) - number(1), 0)
        reduce_losses(pointer(value, number), pointer(factor, number), losses, n, reduction, num_counted)
        return 0

    return cross_entropy_labels


def make_cross_entropy_soft(number: Any) -> Any:
    def cross_entropy_soft(value, dx, factor, logits, targets, scratch, n, c, reduction):
        dx, logits, targets = pointer(dx, number), pointer(logits, number), pointer(targets, number)
        losses = pointer(scratch, number)
        softmax(dx, losses, logits, n, c)
        for i in range(n):
            mass = product = number(0)
            for j in range(c):
                target = load(targets, i * c + j, 3)
                mass = reduce_add(mass, target)
                product = reduce_add(product, target * load(logits, i * c + j, 2))
            for j in range(c):
                store(dx, i * c + j, load(dx, i * c + j, 0) * mass - load(targets, i * c + j, 3), 0)
            store(losses, i, load(losses, i, 1) * mass - product, 1)
        reduce_losses(pointer(value, number), pointer(factor, number), losses, n, reduction, n)
        return 0

    return cross_entropy_soft


# ---- random numbers: the bits of gpunet.launch.random ---------------------------------------------------------------

_MULTIPLIER_0, _MULTIPLIER_1 = uint64(0xD2E7470EE14C6C93), uint64(0xCA5A826395121157)
_WEYL_0, _WEYL_1 = uint64(0x9E3779B97F4A7C15), uint64(0xBB67AE8584CAA73B)


@jit_helper
def philox(key, counter, block):
    """Philox4x64-10: the four words of block ``block`` (from 0) after ``counter``."""
    a = uint64(uint64(counter + uint64(1)) + uint64(block))
    b = uint64(a <= counter)  # carry into the counter's second word
    c = d = uint64(0)
    key_1 = uint64(0)
    for _ in range(10):
        high_a, low_a = multiply_high(_MULTIPLIER_0, a), uint64(_MULTIPLIER_0 * a)
        high_c, low_c = multiply_high(_MULTIPLIER_1, c), uint64(_MULTIPLIER_1 * c)
        a, b, c, d = high_c ^ b ^ key, low_c, high_a ^ d ^ key_1, low_a
        key = uint64(key + _WEYL_0)
        key_1 = uint64(key_1 + _WEYL_1)
    return a, b, c, d


def make_random_uniform(number: Any) -> Any:
    shift, unit = (uint64(40), 2.0**-24) if number is float32 else (uint64(11), 2.0**-53)

    def random_uniform(out, state, count, low, high):
        out, state = pointer(out, number), pointer(state, uint64)
        key, counter = load(state, 0, 1), load(state, 1, 1)
        is_unit = low == 0.0 and high == 1.0
        for block in range((count + 3) // 4):
            words = philox(key, counter, block)
            for j in range(4):
                if 4 * block + j < count:
                    value = number(float64(words[j] >> shift) * unit)
                    store(out, 4 * block + j, value if is_unit else value * number(high - low) + number(low), 0)
        return 0

    return random_uniform


def make_random_integers(number: Any) -> Any:
    def random_integers(out, state, count, low, high):
        out, state = pointer(out, int64), pointer(state, uint64)
        key, counter = load(state, 0, 1), load(state, 1, 1)
        for block in range((count + 3) // 4):
            words = philox(key, counter, block)
            for j in range(4):
                if 4 * block + j < count:
                    store(out, 4 * block + j, int64(words[j] % uint64(high - low)) + low, 0)
        return 0

    return random_integers


def make_random_bernoulli(number: Any) -> Any:
    def random_bernoulli(mask, state, count, threshold):
        mask, state = pointer(mask, boolean), pointer(state, uint64)
        key, counter = load(state, 0, 1), load(state, 1, 1)
        for block in range((count + 3) // 4):
            words = philox(key, counter, block)
            for j in range(4):
                if 4 * block + j < count:
                    store(mask, 4 * block + j, uint8((words[j] >> uint64(40)) < uint64(threshold)), 0)
        return 0

    return random_bernoulli


# ---- indices --------------------------------------------------------------------------------------------------------


def make_take_rows(number: Any) -> Any:
    def take_rows(out, x, index, count, rows, columns):
        """out (count, columns) = x (rows, columns)[index]."""
        out, x, index = pointer(out, number), pointer(x, number), pointer(index, int64)
        for i in range(count):
            row = load(index, i, 2)
            if row < -rows or row >= rows:
                return 1
        for i in range(count):
            row = load(index, i, 2)
            row = row + rows if row < 0 else row
            for j in range(columns):
                store(out, i * columns + j, load(x, row * columns + j, 1), 0)
        return 0

    return take_rows


#: name -> (maker of the function for a float type, number of int64 arguments, number of float64 arguments after them)
FUNCTIONS: dict[str, tuple[Callable[[Any], Any], int, int]] = {
    "product": (make_product, 10, 0),
    "dots": (make_dots, 9, 0),
    "transpose": (make_transpose, 5, 0),
    "cross_entropy_labels": (make_cross_entropy_labels, 10, 0),
    "cross_entropy_soft": (make_cross_entropy_soft, 9, 0),
    "random_uniform": (make_random_uniform, 3, 2),
    "random_integers": (make_random_integers, 5, 0),
    "random_bernoulli": (make_random_bernoulli, 4, 0),
    "take_rows": (make_take_rows, 6, 0),
}


@functools.cache
def compiled(name: str, dtype: str) -> Any:
    """The library function ``name`` for "float32" or "float64"; steps call its ``address``."""
    make, num_integers, num_floats = FUNCTIONS[name]
    signature = int64(*[int64] * num_integers, *[float64] * num_floats)
    return cfunc(signature, cache=True, error_model="numpy")(make(float32 if dtype == "float32" else float64))
