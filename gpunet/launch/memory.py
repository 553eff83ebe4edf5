"""Memory of launches: destinations, and the scratch space that NumPy twins work in."""

from __future__ import annotations

import functools
import itertools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy

from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.launch.tape import active, constant, graph_break

ndarray, _numpy_empty = numpy.ndarray, numpy.empty


def empty(shape: tuple[int, ...], dtype: Any, like: Array) -> Array:
    """An uninitialised C-contiguous array on the device of ``like``: the destination of a launch."""
    if active.tape is not None:
        return active.tape.empty(shape, dtype, devices.of(like))
    return _numpy_empty(shape, dtype) if type(like) is ndarray else devices.empty(shape, dtype, devices.of(like))


def move_to_device(array: Array, where: devices.Device) -> Array:
    """``array`` on a device: itself where it is there already, else a copy.

    Raises:
        CaptureError: a step is being recorded, and it is a copy of more than Python numbers: a replay copies nothing.
    """
    if devices.of(array) == where:
        return array
    if active.tape is not None:
        if any(array is number for number in active.tape.constants):
            return constant(devices.move(array, where))
        graph_break(f"moving an array from {devices.of(array)} to {where}", "move it outside the step, or pass it to it", array)
    return devices.move(array, where)


class JoinedArrays(list[Any]):
    """Arrays whose memory lies one after the other in ``flat``: a twin may walk them as one, unless that is None."""

    def __init__(self, arrays: Sequence[Array], flat: Array | None) -> None:
        super().__init__(arrays)
        self.flat: Any = flat


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[tuple[numpy.dtype[Any], int], numpy.ndarray] = {}
        #: of the buffers, by (shape, dtype as it was asked for, slot): a step asks for the same ones again and again
        self.views: dict[tuple[Any, ...], Any] = {}
        #: makes the scratch of a twin that is traced, see runtime.lower
        self.temporary: Callable[[numpy.ndarray], numpy.ndarray] | None = None
        self.whole = False


_scratch = _Scratch()
_MOST_VIEWS = 256
MOST_ZEROS = 1 << 16  # elements of a constant vector


@contextmanager
def scratch_allocator(temporary: Callable[[numpy.ndarray], numpy.ndarray], whole: bool = False) -> Iterator[None]:
    """Let ``temporary(new array)`` give this thread its scratch meanwhile; ``whole``: nothing is walked in chunks."""
    _scratch.temporary, _scratch.whole = temporary, whole
    try:
        yield
    finally:
        _scratch.temporary, _scratch.whole = None, False


#: Bytes of a chunk of one vector.  The five of an Adam step are 1.3 MB, about an L2 cache; where they are a little more, the
#: half as many calls still outweigh it: 8 % less time than with half of it, 19 % less than with a quarter, beside 1 MB of L2.
#: Twice as much saves 2 % more there (6 % of SGD's), and may cost where what lies behind the L2 cache is slower.
CHUNK_BYTES = 1 << 18


def chunks(vectors: list[Any]) -> list[list[Any]]:
    """Vectors of one length (or None) in pieces: a twin takes each through several calls, so it stays in the cache between them."""
    length, chunk = vectors[0].size, CHUNK_BYTES // vectors[0].itemsize
    if length <= chunk or _scratch.whole:
        return [vectors]
    return [[None if a is None else a[start : start + chunk] for a in vectors] for start in range(0, length, chunk)]


def scratch(shape: tuple[int, ...], dtype: Any, slot: int = 0) -> numpy.ndarray:
    """Work space of a twin: uninitialised, valid until the next call with the same ``slot`` in this thread.

    A launch never allocates, so a twin that needs a temporary takes it here; the space is reused by all twins.
    """
    if _scratch.temporary is not None:
        return _scratch.temporary(numpy.empty(shape, dtype))
    view = _scratch.views.get((shape, dtype, slot))
    if view is None:
        count, key = math.prod(shape), (numpy.dtype(dtype), slot)
        buffer = _scratch.buffers.get(key)
        if buffer is None or buffer.size < count:
            buffer = _scratch.buffers[key] = numpy.empty(max(count, 1024), dtype)
            _scratch.views.clear()  # some are of the buffer before, and would keep it
        elif len(_scratch.views) >= _MOST_VIEWS:
            _scratch.views.clear()
        view = _scratch.views[shape, dtype, slot] = buffer[:count].reshape(shape)
    return view


def scratch_joined(shapes: tuple[tuple[int, ...], ...], dtype: Any, slot: int = 0) -> JoinedArrays:
    """Work space of a twin, see :func:`scratch`, for arrays of these shapes, one after the other."""
    joined: JoinedArrays | None = None if _scratch.temporary is not None else _scratch.views.get((shapes, dtype, slot))
    if joined is None:
        ends = [*itertools.accumulate(map(math.prod, shapes))]
        flat = scratch((ends[-1],), dtype, slot)
        parts = [flat[end - math.prod(shape) : end].reshape(shape) for shape, end in zip(shapes, ends)]
        joined = JoinedArrays(parts, flat)
        if _scratch.temporary is None:
            _scratch.views[shapes, dtype, slot] = joined
    return joined


@functools.lru_cache(maxsize=1024)
def _as_arrays(dtype: Any, values: tuple[float, ...]) -> tuple[numpy.ndarray, ...]:
    arrays = tuple(numpy.array(value, dtype) for value in values)
    for array in arrays:
        array.flags.writeable = False
    return arrays


def as_0d_arrays(dtype: Any, *values: float) -> Any:
    """Python numbers as NumPy's functions take them soonest: arrays without dimensions spare them the conversion.

    A twin that is traced gets the numbers themselves.
    """
    return _as_arrays(dtype, values) if _scratch.temporary is None else values


@functools.cache
def _zeros(dtype: Any) -> numpy.ndarray:
    vector = numpy.zeros(MOST_ZEROS, dtype)
    vector.flags.writeable = False
    return vector


@functools.lru_cache(maxsize=256)
def _zeros_of(shape: tuple[int, ...], dtype: Any) -> numpy.ndarray:
    zeros, count = _zeros(dtype), math.prod(shape)
    if count <= zeros.size:
        return zeros[:count].reshape(shape)
    return numpy.broadcast_to(zeros[: shape[-1]] if shape[-1] <= zeros.size else zeros[0], shape)


def zeros_like(array: numpy.ndarray) -> Any:
    """0 for each element: NumPy's maximum of an array and one number takes three to six times as long.

    A twin that is traced gets the number.
    """
    return _zeros_of(array.shape, array.dtype) if _scratch.temporary is None else 0


def cast_scalar(value: numpy.ndarray, dtype: Any, slot: int) -> numpy.ndarray:
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
    where = devices.of(like)
    key = (str(where), devices.stream_pointer(where))
    if key not in _tickets:
        counter = devices.empty((1,), numpy.uint32, where)
        with devices.on_device_of(counter):
            counter.fill(0)
        _tickets[key] = counter
    return _tickets[key]
