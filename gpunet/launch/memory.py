"""Memory of launches: destinations, the scratch buffers of NumPy twins, and cached constants."""

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
from gpunet.backend.heap import keep_freed_memory
from gpunet.launch.tape import active, constant, graph_break

ndarray, _numpy_empty = numpy.ndarray, numpy.empty
keep_freed_memory()


def empty(shape: tuple[int, ...], dtype: Any, like: Array) -> Array:
    """Allocate an uninitialised C-contiguous array on the device of ``like``, as the destination of a launch."""
    if active.tape is not None:
        return active.tape.empty(shape, dtype, devices.of(like))
    return _numpy_empty(shape, dtype) if type(like) is ndarray else devices.empty(shape, dtype, devices.of(like))


def move_to_device(array: Array, where: devices.Device, guarded: bool = False) -> Array:
    """Return ``array`` if it is on the device ``where``, else a copy of it there.

    Args:
        guarded: let a recorded step copy a NumPy array from outside the step, too.  Before each replay a guard compares its
            values with the recorded ones, so this is for small arrays such as an index.

    Raises:
        CaptureError: a recorded step would need the copy, which replays do not repeat.  Arrays made from Python numbers
            are constants and may be copied.
    """
    if devices.of(array) == where:
        return array
    if active.tape is not None:
        if any(array is number for number in active.tape.constants):
            return constant(devices.move(array, where))
        if guarded and active.tape.strict and type(array) is ndarray and not active.tape.is_own(array):
            active.tape.guard_values(array)
            return constant(devices.move(array, where))
        action = f"moving an array from {devices.of(array)} to {where}"
        graph_break(action, "move it outside the step, or pass it as an argument")
    return devices.move(array, where)


class JoinedArrays(list[Any]):
    """A list of arrays that are consecutive views of the vector ``flat``, which a twin may process in one pass.

    ``flat`` is None if the arrays must be processed one by one.
    """

    def __init__(self, arrays: Sequence[Array], flat: Array | None) -> None:
        super().__init__(arrays)
        self.flat: Any = flat


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[tuple[numpy.dtype[Any], int], numpy.ndarray] = {}
        #: views of the buffers, cached by (shape, dtype as requested, slot): every step requests the same ones
        self.views: dict[tuple[Any, ...], Any] = {}
        #: called with each new scratch array while a twin is traced (see gpunet.captured.trace)
        self.wrap: Callable[[numpy.ndarray], numpy.ndarray] | None = None
        self.unchunked = False  # do not split vectors into chunks
        #: called with the arguments of :func:`call_library` while a twin is traced
        self.record: Callable[..., None] | None = None


_scratch = _Scratch()
_MAX_VIEWS = 256
MAX_ZEROS = 1 << 16  # elements of the vector of zeros that zeros_like() takes its views from


@contextmanager
def traced_twins(
    wrap: Callable[[numpy.ndarray], numpy.ndarray], record: Callable[..., None], unchunked: bool = False
) -> Iterator[None]:
    """Inside the block, this thread traces twins instead of running them.

    Args:
        wrap: takes a new scratch array and returns the array that the twin works on.
        record: called instead of a library, with the arguments of :func:`call_library`.
        unchunked: make :func:`chunks` return whole vectors.
    """
    _scratch.wrap, _scratch.record, _scratch.unchunked = wrap, record, unchunked
    try:
        yield
    finally:
        _scratch.wrap, _scratch.record, _scratch.unchunked = None, None, False


def call_library(function: Callable[..., None], outputs: tuple[Any, ...], inputs: tuple[Any, ...], **options: Any) -> None:
    """Call ``function(*outputs, *inputs, **options)``, which is no function of NumPy, on the arrays of a twin.

    A traced twin records it as one call.
    """
    if _scratch.record is not None:
        _scratch.record(function, outputs, inputs, options)
    else:
        function(*outputs, *inputs, **options)


#: Bytes of a chunk of one vector.  The five chunks of an Adam step take 1.3 MB, about the size of an L2 cache.  With
#: 1 MB of L2, the step takes 8 % less time than with half this size and 19 % less than with a quarter, because larger
#: chunks need fewer NumPy calls.  Twice the size saves 2 % more (6 % for SGD) but may be slower with a slow L3 or DRAM.
CHUNK_BYTES = 1 << 18


def chunks(vectors: list[Any]) -> list[list[Any]]:
    """Split vectors of equal length into chunks that stay in the L2 cache between the NumPy calls of a twin.

    Args:
        vectors: 1-d arrays of one length, or None; the first is an array.

    Returns:
        For each chunk the list of its views, None where the vector is None.
    """
    length, chunk = vectors[0].size, CHUNK_BYTES // vectors[0].itemsize
    if length <= chunk or _scratch.unchunked:
        return [vectors]
    return [[None if a is None else a[start : start + chunk] for a in vectors] for start in range(0, length, chunk)]


def scratch(shape: tuple[int, ...], dtype: Any, slot: int = 0) -> numpy.ndarray:
    """Return uninitialised scratch memory for a twin, valid until the next call with the same ``slot`` in this thread.

    A launch never allocates, so twins take their temporaries from here; all twins share the buffers.

    Args:
        slot: number of the buffer; a twin that needs several temporaries at once uses several slots.
    """
    if _scratch.wrap is not None:
        return _scratch.wrap(numpy.empty(shape, dtype))
    view = _scratch.views.get((shape, dtype, slot))
    if view is None:
        count, key = math.prod(shape), (numpy.dtype(dtype), slot)
        buffer = _scratch.buffers.get(key)
        if buffer is None or buffer.size < count:
            buffer = _scratch.buffers[key] = numpy.empty(max(count, 1024), dtype)
            _scratch.views.clear()  # views of the replaced buffer would keep it alive
        elif len(_scratch.views) >= _MAX_VIEWS:
            _scratch.views.clear()
        view = _scratch.views[shape, dtype, slot] = buffer[:count].reshape(shape)
    return view


def release_scratch() -> None:
    """Release the scratch memory of this thread; arrays that are in use stay valid."""
    _scratch.buffers.clear()
    _scratch.views.clear()


def scratch_joined(shapes: tuple[tuple[int, ...], ...], dtype: Any, slot: int = 0) -> JoinedArrays:
    """Return consecutive scratch arrays (see :func:`scratch`) of these shapes, as views of one vector."""
    joined: JoinedArrays | None = None if _scratch.wrap is not None else _scratch.views.get((shapes, dtype, slot))
    if joined is None:
        ends = [*itertools.accumulate(map(math.prod, shapes))]
        flat = scratch((ends[-1],), dtype, slot)
        parts = [flat[end - math.prod(shape) : end].reshape(shape) for shape, end in zip(shapes, ends)]
        joined = JoinedArrays(parts, flat)
        if _scratch.wrap is None:
            _scratch.views[shapes, dtype, slot] = joined
    return joined


@functools.lru_cache(maxsize=1024)
def _constant_arrays(dtype: Any, values: tuple[float, ...]) -> tuple[numpy.ndarray, ...]:
    arrays = tuple(numpy.array(value, dtype) for value in values)
    for array in arrays:
        array.flags.writeable = False
    return arrays


def as_0d_arrays(dtype: Any, *values: float) -> Any:
    """Return the values as 0-d arrays, which NumPy need not convert at each call.

    While a twin is traced, return the Python numbers.
    """
    return _constant_arrays(dtype, values) if _scratch.wrap is None else values


@functools.cache
def _zeros(dtype: Any) -> numpy.ndarray:
    vector = numpy.zeros(MAX_ZEROS, dtype)
    vector.flags.writeable = False
    return vector


@functools.lru_cache(maxsize=256)
def _zeros_of(shape: tuple[int, ...], dtype: Any) -> numpy.ndarray:
    zeros = _zeros(dtype)
    first = next((d for d in range(len(shape)) if math.prod(shape[d:]) <= zeros.size), len(shape))
    inner = shape[first:]  # as many dimensions as fit, for long inner loops
    return numpy.broadcast_to(zeros[: math.prod(inner)].reshape(inner), shape)


def zeros_like(array: numpy.ndarray) -> Any:
    """Return read-only zeros of the shape of ``array``.

    ``numpy.maximum(x, zeros)`` takes a third to a sixth of the time of ``numpy.maximum(x, 0)``.
    While a twin is traced, return the number 0.
    """
    return _zeros_of(array.shape, array.dtype) if _scratch.wrap is None else 0


def cast_scalar(value: numpy.ndarray, dtype: Any, slot: int) -> numpy.ndarray:
    """Copy a float64 array into scratch memory of ``dtype``, so that NumPy does not promote the result to float64."""
    result = scratch(value.shape, dtype, slot)
    numpy.copyto(result, value, casting="same_kind")
    return result


#: Of launches that no tape records.
_tickets: dict[tuple[devices.LaunchTarget, int], Array] = {}


def ticket(like: Array, count: int = 1) -> Array | None:
    """Return counters by which the last of several blocks to finish recognises itself; None on the CPU.

    A uint32 array of ``count`` elements or more, which are 0 between launches: the last block resets its counter.  Launches that
    may run at the same time must not share them, so each stream has its own, and each recording, since it may be replayed on
    any stream.
    """
    if type(like) is ndarray:
        return None
    size = 1 if count == 1 else max(256, 1 << (count - 1).bit_length())
    key = devices.launch_target(devices.of(like)), size
    tickets = _tickets if active.tape is None else active.tape.tickets
    if key not in tickets:
        tickets[key] = constant(devices.zeros((size,), numpy.uint32, key[0].device))
    return tickets[key]
