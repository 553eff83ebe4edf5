"""Functions that compiled steps call by address: matrix products, and loop forms of twins that are no loop nest.

Each is compiled once for all steps, for a floating type, and kept by Numba on disk.  Arguments are addresses and sizes;
what comes back is 0, or 1 where the input is wrong: then the twin is called, which says what.  Imported by compiled steps
only: Numba is optional.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from numba import boolean, cfunc, float32, float64, int64, uint8, uint64

from gpunet.captured.compiled.jit.elementary import exp, log
from gpunet.captured.compiled.jit.memory import (
    accumulate,
    choose,
    element,
    high_product,
    jit_helper,
    lanes,
    largest,
    load,
    moved,
    pointer,
    store,
    stripe,
    transposed,
)  # fmt: skip

# ---- matrix products ------------------------------------------------------------------------------------------------


def _product(number: Any) -> Any:
    def product(out, a, b, m, n, k, out_row, a_row, a_depth, b_depth):
        """out (m, n) = a (m, k) b (k, n), where columns of out and of b lie next to each other."""
        out, a, b = pointer(out, number), pointer(a, number), pointer(b, number)
        width = lanes(out)
        column = 0
        while n - column >= 2 * width:
            stripe(moved(out, column), a, moved(b, column), m, k, out_row, a_row, a_depth, b_depth, 0, 2)
            column += 2 * width
        # the rest: the last vector covers some columns again, to the same values, or is not full
        while column < n:
            if n >= width:
                column = min(column, n - width)
                stripe(moved(out, column), a, moved(b, column), m, k, out_row, a_row, a_depth, b_depth, 0, 1)
            else:
                stripe(out, a, b, m, k, out_row, a_row, a_depth, b_depth, n, 0)
            column += width
        return 0

    return product


def _dots(number: Any) -> Any:
    def dots(out, a, b, m, n, k, out_row, a_row, b_column):
        """The same where the elements that are multiplied lie next to each other: for few rows or columns."""
        out, a, b = pointer(out, number), pointer(a, number), pointer(b, number)
        for i in range(m):
            for j in range(n):
                total = number(0)
                for d in range(k):
                    total = accumulate(total, load(a, i * a_row + d, 1) * load(b, j * b_column + d, 2))
                store(out, i * out_row + j, total, 0)
        return 0

    return dots


def _transpose(number: Any) -> Any:
    def transpose(out, a, rows, columns, a_row):
        """out (columns, rows), contiguous, = a (rows, columns) transposed, block by block."""
        out, a = pointer(out, number), pointer(a, number)
        width = lanes(out)
        for first in range(0, columns, width):
            for start in range(0, rows, width):
                block = moved(a, start * a_row + first)
                transposed(moved(out, first * rows + start), block, rows, a_row, rows - start, columns - first)
        return 0

    return transpose


# ---- softmax cross-entropy ------------------------------------------------------------------------------------------
# Functions in the closure of one that is kept on disk would make it another one in each process: these are global.


@jit_helper
def row_maximum(x, first, c):
    """Of c elements; in a short row perhaps without its NaN, for which it takes a third of the time."""
    top = load(x, first, 2)
    if c < 32:
        for j in range(1, c):
            value = load(x, first + j, 2)
            top = choose(value > top, value, top)
    else:
        for j in range(1, c):
            top = largest(top, load(x, first + j, 2))
    return top


@jit_helper
def softmax(probabilities, logs, logits, n, c):
    """Of each row, and log sum exp in the first n of 2 n numbers.  A NaN makes its whole row NaN by way of the row's sum."""
    totals = moved(logs, n)
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
            total = accumulate(total, load(probabilities, i * c + j, 0))
        store(totals, i, total, 4)
        share = element(probabilities, 1.0) / total
        for j in range(c):
            store(probabilities, i * c + j, load(probabilities, i * c + j, 0) * share, 0)
    for i in range(n):
        store(logs, i, load(logs, i, 1) + log(load(totals, i, 4)), 1)


@jit_helper
def reduced(value, factor, each, n, reduction, counted):
    """value = each loss (reduction 0), their sum (1), or their mean over those that count (2)."""
    if reduction == 0:
        for i in range(n):
            store(value, i, load(each, i, 1), 0)
        return
    total = float64(0)
    for i in range(n):
        total = accumulate(total, float64(load(each, i, 1)))
    if reduction == 2:
        share = element(value, 1.0 / counted if counted else math.nan)
        store(factor, 0, share, 2)
        store(value, 0, element(value, total) * share, 0)
    else:
        store(value, 0, element(value, total), 0)


def _cross_entropy_labels(number: Any) -> Any:
    def cross_entropy_labels(value, dx, factor, logits, labels, work, n, c, reduction, ignore):
        dx, logits, labels, each = pointer(dx, number), pointer(logits, number), pointer(labels, int64), pointer(work, number)
        counted = 0
        for i in range(n):
            label = load(labels, i, 3)
            if label != ignore:
                counted += 1
                if label < 0 or label >= c:
                    return 1
        softmax(dx, each, logits, n, c)
        for i in range(n):
            label = load(labels, i, 3)
            if label == ignore:
                store(each, i, number(0), 1)
                for j in range(c):
                    store(dx, i * c + j, number(0), 0)
            else:
                store(each, i, load(each, i, 1) - load(logits, i * c + label, 2), 1)
                store(dx, i * c + label, load(dx, i * c + label, 0) - number(1), 0)
        reduced(pointer(value, number), pointer(factor, number), each, n, reduction, counted)
        return 0

    return cross_entropy_labels


def _cross_entropy_soft(number: Any) -> Any:
    def cross_entropy_soft(value, dx, factor, logits, targets, work, n, c, reduction):
        dx, logits, targets, each = pointer(dx, number), pointer(logits, number), pointer(targets, number), pointer(work, number)
        softmax(dx, each, logits, n, c)
        for i in range(n):
            mass = product = number(0)
            for j in range(c):
                target = load(targets, i * c + j, 3)
                mass = accumulate(mass, target)
                product = accumulate(product, target * load(logits, i * c + j, 2))
            for j in range(c):
                store(dx, i * c + j, load(dx, i * c + j, 0) * mass - load(targets, i * c + j, 3), 0)
            store(each, i, load(each, i, 1) * mass - product, 1)
        reduced(pointer(value, number), pointer(factor, number), each, n, reduction, n)
        return 0

    return cross_entropy_soft


# ---- random numbers: the same bits as runtime.random ------------------------------------------------------------------

_MULTIPLIER_0, _MULTIPLIER_1 = uint64(0xD2E7470EE14C6C93), uint64(0xCA5A826395121157)
_WEYL_0, _WEYL_1 = uint64(0x9E3779B97F4A7C15), uint64(0xBB67AE8584CAA73B)


@jit_helper
def philox(key, counter, block):
    """Four words: block number ``block``, from 0, after a counter."""
    a = uint64(uint64(counter + uint64(1)) + uint64(block))
    b = uint64(a <= counter)  # the counter's second word, where the first ran over
    c = d = uint64(0)
    other = uint64(0)
    for _ in range(10):
        high_a, low_a = high_product(_MULTIPLIER_0, a), uint64(_MULTIPLIER_0 * a)
        high_c, low_c = high_product(_MULTIPLIER_1, c), uint64(_MULTIPLIER_1 * c)
        a, b, c, d = high_c ^ b ^ key, low_c, high_a ^ d ^ other, low_a
        key = uint64(key + _WEYL_0)
        other = uint64(other + _WEYL_1)
    return a, b, c, d


def _random_uniform(number: Any) -> Any:
    shift, unit = (uint64(40), 2.0**-24) if number is float32 else (uint64(11), 2.0**-53)

    def random_uniform(out, state, count, low, high):
        out, state = pointer(out, number), pointer(state, uint64)
        key, counter = load(state, 0, 1), load(state, 1, 1)
        plain = low == 0.0 and high == 1.0
        for block in range((count + 3) // 4):
            words = philox(key, counter, block)
            for j in range(4):
                if 4 * block + j < count:
                    value = number(float64(words[j] >> shift) * unit)
                    store(out, 4 * block + j, value if plain else value * number(high - low) + number(low), 0)
        return 0

    return random_uniform


def _random_integers(number: Any) -> Any:
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


def _random_bernoulli(number: Any) -> Any:
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


def _take_rows(number: Any) -> Any:
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


#: name -> (the function for a floating type, how many of its arguments are integers, and how many float64 follow)
FUNCTIONS: dict[str, tuple[Callable[[Any], Any], int, int]] = {
    "product": (_product, 10, 0),
    "dots": (_dots, 9, 0),
    "transpose": (_transpose, 5, 0),
    "cross_entropy_labels": (_cross_entropy_labels, 10, 0),
    "cross_entropy_soft": (_cross_entropy_soft, 9, 0),
    "random_uniform": (_random_uniform, 3, 2),
    "random_integers": (_random_integers, 5, 0),
    "random_bernoulli": (_random_bernoulli, 4, 0),
    "take_rows": (_take_rows, 6, 0),
}


@functools.cache
def compiled(name: str, dtype: str) -> Any:
    """A function for float32 or float64; its ``address`` is what steps call."""
    make, integers, floats = FUNCTIONS[name]
    signature = int64(*[int64] * integers, *[float64] * floats)
    return cfunc(signature, cache=True, error_model="numpy")(make(float32 if dtype == "float32" else float64))
