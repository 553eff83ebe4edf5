"""Arrays of the device "emulated": NumPy's memory with CuPy's manners.

The device runs CUDA sources on the CPU (:mod:`gpunet.emulator`).  So that Python code that would fail on a card fails there
too, its arrays don't mix with NumPy's.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import numpy

from gpunet.errors import DeviceError


class EmulatedArray(numpy.ndarray):
    """An array of the device "emulated": NumPy's memory with CuPy's manners.

    As on a card, it does not meet NumPy arrays in arithmetic or assignments, and what would be a NumPy scalar stays an
    array without dimensions on the device.
    """

    @property
    def base(self) -> EmulatedArray | None:
        """The array whose memory this is a view of, as in CuPy: not the views in between, nor NumPy's underneath."""
        owner, at = None, super().base
        while isinstance(at, numpy.ndarray):
            if isinstance(at, EmulatedArray):
                owner = at
            at = numpy.ndarray.base.__get__(at)
        return owner

    def get(self) -> numpy.ndarray:
        """A copy as a NumPy array."""
        return numpy.array(self.view(numpy.ndarray))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return _on_emulated(getattr(ufunc, method), inputs, options)

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        return _on_emulated(function, inputs, options)

    def __getitem__(self, index: Any) -> Any:
        memory = self.view(numpy.ndarray)
        found = memory[_memory(index, strict=False)]
        if isinstance(found, numpy.generic):  # with an ellipsis NumPy gives a view instead
            found = memory[(*(index if isinstance(index, tuple) else (index,)), ...)]
        return _emulated(found)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.view(numpy.ndarray)[_memory(index, strict=False)] = _memory(value)


def _memory(value: Any, strict: bool = True) -> Any:
    """``value`` with NumPy arrays in place of emulated ones, also inside of tuples, lists and dictionaries."""
    if isinstance(value, EmulatedArray):
        return value.view(numpy.ndarray)
    if strict and type(value) is numpy.ndarray:
        raise DeviceError(
            f"a NumPy array of shape {value.shape} meets one on the device 'emulated': move it there first, as for a card"
        )
    if type(value) in (tuple, list):
        return type(value)([_memory(v, strict) for v in value])
    if isinstance(value, dict):
        return {key: _memory(v, strict) for key, v in value.items()}
    return value


def _emulated(result: Any) -> Any:
    """What NumPy returned, on the device "emulated"."""
    if isinstance(result, (numpy.ndarray, numpy.generic)):
        return numpy.asarray(result).view(EmulatedArray)
    if type(result) in (tuple, list):
        return type(result)(_emulated(v) for v in result)
    return result


def _on_emulated(function: Any, inputs: Any, options: Any, strict: bool = True) -> Any:
    out = options.get("out")
    result = function(*_memory(inputs, strict), **_memory(options))
    if out is None:
        return _emulated(result)
    return out[0] if isinstance(out, tuple) and len(out) == 1 else out


class _EmulatedNumpy(ModuleType):
    """NumPy for the device "emulated", as CuPy is for a card: its functions take and make arrays of that device."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(numpy, name)
        if isinstance(found, type) or not callable(found):
            return found
        from_host = name in ("array", "asarray", "ascontiguousarray")

        @functools.wraps(found)
        def call(*inputs: Any, **options: Any) -> Any:
            return _on_emulated(found, inputs, options, strict=not from_host)

        setattr(self, name, call)
        return call


#: NumPy for arrays of the device, as CuPy is for a card's.
emulated_numpy = _EmulatedNumpy("numpy on the device 'emulated'")
