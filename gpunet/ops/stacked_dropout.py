"""Dropout of many nets at once, each with its own probability and its own stream of random numbers."""

from __future__ import annotations

from typing import Any

import numpy
from numpy import float64, uint64

from gpunet.autograd import fused, make_tensor
from gpunet.launch import parts
from gpunet.launch.kernel import Geometry, ceil_div, kernel
from gpunet.launch.loops import Loops, like, load, loop_body, select, store
from gpunet.launch.memory import empty
from gpunet.launch.random import philox_at, philox_loop
from gpunet.ops.creation import ones


def _scale(kept: Any) -> float:
    return 2.0**32 / float(kept) if kept else 0.0


@kernel(
    "stacked.cu", outputs=3, types={"start": "uint64", "state": "uint64", "kept": "int64"}, optional="start", reads_values=True,
    updates="state",
)  # fmt: skip
def stacked_dropout(y, start, state, x, kept, *, advances):
    """y[s] = x[s] * 2^32 / kept[s] where a number of 32 bits is below kept[s], else x[s] * 0; x (nets, ...), kept (nets,).

    Net s draws at state[s], key and counter of its stream (see :mod:`gpunet.launch.random`).  ``start`` becomes a copy of the
    states, unless it is None.  Then, if it ``advances``, the counters pass the used blocks.
    """
    if start is not None:
        numpy.copyto(start, state)
    count = y.size // max(1, len(y))
    for net in range(len(y)):
        halves = philox_at(state[net]).random_raw(ceil_div(count, 2)).view(numpy.uint32)[:count]
        scale = (halves < kept[net]).astype(y.dtype) * y.dtype.type(_scale(kept[net]))
        numpy.multiply(x[net], scale.reshape(x[net].shape), out=y[net])
    if advances:
        state[:, 1] += numpy.uint64(ceil_div(count, 8))


@stacked_dropout.computes
def _(y, start, state, x, kept, *, advances):
    return parts.StackedDropout(y, x, state, start, kept, advances)


@stacked_dropout.geometry
def _(y, start, state, x, kept, *, advances):
    return Geometry(len(y), 256, (y.size // max(1, len(y)), numpy.bool_(advances)))


@stacked_dropout.loops
def _(y, start, state, x, kept, *, advances):
    nets, count = y.shape[0], y.size // y.shape[0]
    arrays = (y, state if start is None else start, state, x, kept)
    numbers = (0, nets, count, int(start is not None), int(advances))
    return Loops(_dropout_loop, arrays, numbers, work=16 * y.size * y.dtype.itemsize)


@loop_body
def _dropout_loop(y, start, state, x, kept, first, stop, count, has_start, advances):
    for net in range(first, stop):
        key, counter = load(state, 2 * net, 1), load(state, 2 * net + 1, 1)
        if has_start != 0:
            store(start, 2 * net, key, 3)
            store(start, 2 * net + 1, counter, 3)
        number = load(kept, net, 4)
        limit, scale = uint64(number), like(y, 4294967296.0 / float64(number) if number > 0 else 0.0)
        end = net * count + count
        for block in range((count + 7) // 8):
            words = philox_loop(key, counter, block)
            for j in range(4):
                word = words[j]
                i = net * count + 8 * block + 2 * j
                if i < end:
                    store(y, i, load(x, i, 2) * select(word & uint64(0xFFFFFFFF) < limit, scale, like(y, 0.0)), 0)
                if i + 1 < end:
                    store(y, i + 1, load(x, i + 1, 2) * select(word >> uint64(32) < limit, scale, like(y, 0.0)), 0)
        if advances != 0:
            store(state, 2 * net + 1, uint64(counter + uint64((count + 7) // 8)), 1)
    return 0


def _composed(x, state, kept, *, advances):
    factors = empty(x.shape, x.dtype, x.array)
    given = ones(*x.shape, dtype=x.dtype, device=x.device)
    stacked_dropout(factors, None, state.array, given.array, kept.array, advances=False)
    return x * make_tensor(factors)


@fused(name="dropout", composed=_composed)
def stacked_drop(x, state, kept, *, advances, need):
    """Dropout of x (nets, ...) by the streams at ``state`` uint64 (nets, 2); of 2^32 numbers ``kept`` (nets,) keep an element.

    Args:
        advances: let the streams pass the used numbers.
    """
    y = empty(x.shape, x.dtype, x)
    start = empty(state.shape, state.dtype, x) if need[0] and advances else None
    stacked_dropout(y, start, state, x, kept, advances=advances)
    return y, (state if start is None else start, kept)


@stacked_drop.backward
def _(saved, dy, *, advances, need):
    start, kept = saved
    dx = empty(dy.array.shape, dy.array.dtype, dy.array)
    stacked_dropout(dx, None, start, dy.array, kept, advances=False)
    return dx, None, None


@stacked_drop.composed_backward
def _(saved, dy, *, advances, need):
    start, kept = saved
    return stacked_drop(dy, start, kept, advances=False), None, None
