"""Launches on halves: float16 and bfloat16 are storage, arithmetic is in float32, and results are rounded once.

The CUDA kernels widen at each load and round at each store.  Here is the same for what NumPy and CuPy compute: twins and
functions work on float32 copies, which are rounded to the destinations at the end; ufuncs are asked for their float32 loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy

from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import float32, is_floating, is_half, is_inexact
from gpunet.launch.memory import JoinedArrays, scratch, scratch_joined

_SLOT = 16  # of the scratch memory of the first argument; twins use lower slots


def has_halves(arrays: Sequence[Any]) -> bool:
    """Return whether any array, or the first of any list, is of halves."""
    for value in arrays:
        value = value[0] if isinstance(value, list) else value
        if getattr(value, "itemsize", 0) == 2 and is_half(value.dtype):
            return True
    return False


@contextmanager
def widened(arrays: Sequence[Any], outputs: int) -> Iterator[list[Any]]:
    """Inside the block, work on float32 copies of the arrays of halves; at its end, round those of destinations.

    Args:
        arrays: arrays, lists of arrays, None or numbers; all on one device.
        outputs: number of leading arrays that are destinations.
    """
    wide = [_widen(value, _SLOT + place) for place, value in enumerate(arrays)]
    yield wide
    for value, of in zip(arrays[:outputs], wide):
        _round(value, of)


def _widen(value: Any, slot: int) -> Any:
    if isinstance(value, list):
        return _widen_list(value, slot) if has_halves(value) else value
    if not (devices.is_array(value) and is_half(value.dtype)):
        return value
    shape, xp = value.shape, devices.module(value)
    if 0 in value.strides and value.size:  # a broadcast array: one element of each broadcast dimension is enough
        value = value[tuple(slice(0, 1 if stride == 0 else None) for stride in value.strides)]
    where = devices.of(value)
    copy = scratch(value.shape, float32, slot) if where == devices.CPU else devices.empty(value.shape, float32, where)
    xp.copyto(copy, value)
    return copy if copy.shape == shape else xp.broadcast_to(copy, shape)


def _widen_list(tensors: list[Any], slot: int) -> list[Any]:
    """Copies of NumPy arrays as views of one vector; joined if the arrays are."""
    copies = scratch_joined(tuple([t.shape for t in tensors]), float32, slot)
    if isinstance(tensors, JoinedArrays) and tensors.flat is not None:
        numpy.copyto(copies.flat, tensors.flat)
        return copies
    for copy, tensor in zip(copies, tensors):
        numpy.copyto(copy, tensor)
    return list(copies)


def _round(value: Any, wide: Any) -> None:
    """Round the float32 copies to the arrays of halves."""
    if wide is value:
        return
    if isinstance(value, JoinedArrays) and value.flat is not None:
        value, wide = [value.flat], [wide.flat]
    elif not isinstance(value, list):
        value, wide = [value], [wide]
    for array, copy in zip(value, wide):
        devices.module(array).copyto(array, copy, casting="same_kind")


def ufunc_options(out: Array, inputs: Sequence[Any]) -> dict[str, Any]:
    """Return the options with which a ufunc computes a floating result: of halves in float32, of integers in its dtype.

    NumPy would compute booleans in float16, and large integers in float64.  Comparisons and predicates, whose result is
    boolean, are exact in any dtype.
    """
    dtype = out.dtype
    if is_floating(dtype):
        if out.itemsize == 2:
            return {"dtype": float32}
        for value in inputs:
            own = getattr(value, "dtype", dtype)
            if own is not dtype and (is_half(own) or not is_inexact(own)):
                return {"dtype": dtype}
    return {}
