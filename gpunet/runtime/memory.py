"""Memory of launches: destinations, and the scratch space that NumPy twins work in."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy

from gpunet import device
from gpunet.device import Array


def empty(shape: tuple[int, ...], dtype: Any, like: Array) -> Array:
    """An uninitialised C-contiguous array on the device of ``like``: the destination of a launch."""
    if type(like) is numpy.ndarray:
        return numpy.empty(shape, dtype)
    return device.empty(shape, dtype, device.of(like))


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[tuple[numpy.dtype[Any], int], numpy.ndarray] = {}


_scratch = _Scratch()


def scratch(shape: tuple[int, ...], dtype: Any, slot: int = 0) -> numpy.ndarray:
    """Work space of a twin: uninitialised, valid until the next call with the same ``slot`` in this thread.

    A launch never allocates, so a twin that needs a temporary takes it here; the space is reused by all twins.
    """
    dtype = numpy.dtype(dtype)
    count = math.prod(shape)
    buffer = _scratch.buffers.get((dtype, slot))
    if buffer is None or buffer.size < count:
        buffer = _scratch.buffers[dtype, slot] = numpy.empty(max(count, 1024), dtype)
    return buffer[:count].reshape(shape)


_tickets: dict[tuple[str, int], Array] = {}


def ticket(like: Array) -> Array | None:
    """The counter by which the last block of a grid knows that it is the last; ``None`` on the CPU, where nobody counts.

    One uint32 for each device and stream, zero between launches: the last block sets it back.
    """
    if type(like) is numpy.ndarray:
        return None
    where = device.of(like)
    key = (str(where), device.stream_pointer(where))
    if key not in _tickets:
        counter = device.empty((1,), numpy.uint32, where)
        with device.current(counter):
            counter.fill(0)
        _tickets[key] = counter
    return _tickets[key]
