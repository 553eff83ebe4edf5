"""Memory of launches: destinations, and the scratch space that NumPy twins work in."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy

from gpunet import device
from gpunet.device import Array
from gpunet.runtime.tape import active


def empty(shape: tuple[int, ...], dtype: Any, like: Array) -> Array:
    """An uninitialised C-contiguous array on the device of ``like``: the destination of a launch."""
    array = numpy.empty(shape, dtype) if type(like) is numpy.ndarray else device.empty(shape, dtype, device.of(like))
    if active.tape is not None:
        active.tape.allocated.append(array)
    return array


class JoinedArrays(list[Any]):
    """Arrays whose memory lies one after the other in ``flat``: a twin may walk them as one, unless that is None."""

    def __init__(self, arrays: Sequence[Array], flat: Array | None) -> None:
        super().__init__(arrays)
        self.flat = flat


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[tuple[numpy.dtype[Any], int], numpy.ndarray] = {}
        #: makes the scratch of a twin that is traced, see runtime.lower
        self.temporary: Callable[[numpy.ndarray], numpy.ndarray] | None = None


_scratch = _Scratch()


@contextmanager
def scratch_from(temporary: Callable[[numpy.ndarray], numpy.ndarray]) -> Iterator[None]:
    """Let ``temporary(new array)`` give this thread its scratch meanwhile."""
    _scratch.temporary = temporary
    try:
        yield
    finally:
        _scratch.temporary = None


def scratch(shape: tuple[int, ...], dtype: Any, slot: int = 0) -> numpy.ndarray:
    """Work space of a twin: uninitialised, valid until the next call with the same ``slot`` in this thread.

    A launch never allocates, so a twin that needs a temporary takes it here; the space is reused by all twins.
    """
    if _scratch.temporary is not None:
        return _scratch.temporary(numpy.empty(shape, dtype))
    dtype = numpy.dtype(dtype)
    count = math.prod(shape)
    buffer = _scratch.buffers.get((dtype, slot))
    if buffer is None or buffer.size < count:
        buffer = _scratch.buffers[dtype, slot] = numpy.empty(max(count, 1024), dtype)
    return buffer[:count].reshape(shape)


def as_scalar(value: numpy.ndarray, dtype: Any, slot: int) -> numpy.ndarray:
    """A float64 of a buffer in the dtype of what it scales, in scratch memory: NumPy would compute in float64 otherwise."""
    result = scratch(value.shape, dtype, slot)
    numpy.copyto(result, value, casting="same_kind")
    return result


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
