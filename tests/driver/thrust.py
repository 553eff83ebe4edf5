"""In place of ``cupy.cuda.thrust``, which is machine code: sorts with NumPy, in host functions of the stream."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy

available = True
_captured: list[Any] = []  # functions of graphs, which may be launched again


def get_build_version() -> int:
    return 300000


def _enqueue(work: Callable[[], None]) -> None:
    import cupy

    stream = cupy.cuda.get_current_stream()
    if stream.is_capturing():
        _captured.append((lambda _: work(), 0))
        cupy.cuda.runtime._launchHostFuncUnmanaged(stream.ptr, _captured[-1])
    else:
        cupy.cuda.runtime.launchHostFunc(stream.ptr, lambda _: work(), 0)


def _memory(address: int, dtype: Any, shape: tuple[int, ...]) -> numpy.ndarray:
    room = (ctypes.c_char * (math.prod(shape) * numpy.dtype(dtype).itemsize)).from_address(address)
    return numpy.frombuffer(room, dtype).reshape(shape)


def sort(dtype: Any, data: int, keys: int, shape: tuple[int, ...]) -> None:
    _enqueue(lambda: _memory(data, dtype, shape).sort(axis=-1, kind="stable"))


def argsort(dtype: Any, indices: int, data: int, keys: int, shape: tuple[int, ...]) -> None:
    def work() -> None:
        _memory(indices, numpy.intp, shape)[...] = _memory(data, dtype, shape).argsort(axis=-1, kind="stable")

    _enqueue(work)


def lexsort(dtype: Any, indices: int, keys: int, k: int, n: int) -> None:
    def work() -> None:
        _memory(indices, numpy.intp, (n,))[...] = numpy.lexsort(_memory(keys, dtype, (k, n)))

    _enqueue(work)
