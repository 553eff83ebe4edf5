"""Arrays of the device "emulated": NumPy arrays that behave like CuPy's.

The device runs CUDA sources on the CPU (:mod:`gpunet.emulator`).  Its arrays cannot be mixed with NumPy arrays, so Python
code that would fail on a GPU fails on this device, too.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import numpy

from gpunet.errors import DeviceError


class EmulatedArray(numpy.ndarray):
    """An array of the device "emulated": a NumPy array that behaves like CuPy's.

    As on a GPU, arithmetic and assignments with NumPy arrays raise, and an operation that would return a NumPy scalar
    returns a 0-d array on the device.
    """

    @property
    def base(self) -> EmulatedArray | None:
        """The array that owns the memory of this view, as in CuPy: never a view, nor the plain NumPy array underneath."""
        owner, base = None, super().base
        while isinstance(base, numpy.ndarray):
            if isinstance(base, EmulatedArray):
                owner = base
            base = numpy.ndarray.base.__get__(base)
        return owner

    def get(self) -> numpy.ndarray:
        """Return a copy as a NumPy array."""
        return numpy.array(self.view(numpy.ndarray))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return _call_on_emulated(getattr(ufunc, method), inputs, options)

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        return _call_on_emulated(function, inputs, options)

    def __getitem__(self, index: Any) -> Any:
        memory = self.view(numpy.ndarray)
        result = memory[_to_numpy(index, strict=False)]
        if isinstance(result, numpy.generic):  # a trailing ellipsis makes NumPy return a 0-d view, not a scalar
            result = memory[(*(index if isinstance(index, tuple) else (index,)), ...)]
        return _to_emulated(result)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.view(numpy.ndarray)[_to_numpy(index, strict=False)] = _to_numpy(value)


def _to_numpy(value: Any, strict: bool = True) -> Any:
    """Replace emulated arrays by NumPy views, also inside tuples, lists and dictionaries.

    Raises:
        DeviceError: ``strict``, and there is a plain NumPy array.
    """
    if isinstance(value, EmulatedArray):
        return value.view(numpy.ndarray)
    if strict and type(value) is numpy.ndarray:
        raise DeviceError(
            f"cannot combine a NumPy array of shape {value.shape} with an array on the device 'emulated': "
            "move it there first, as for a GPU"
        )
    if type(value) in (tuple, list):
        return type(value)([_to_numpy(v, strict) for v in value])
    if isinstance(value, dict):
        return {key: _to_numpy(v, strict) for key, v in value.items()}
    return value


def emulated_copy(array: numpy.ndarray) -> EmulatedArray:
    """Return a copy that owns its memory: it is the base of its views, as in CuPy, which a view of ``array`` would not be."""
    out = numpy.ndarray.__new__(EmulatedArray, array.shape, array.dtype, order="F" if array.flags.fnc else "C")
    numpy.copyto(out.view(numpy.ndarray), array)
    return out


def _to_emulated(result: Any) -> Any:
    """Replace NumPy arrays and scalars in a function's result by emulated arrays."""
    if isinstance(result, (numpy.ndarray, numpy.generic)):
        array = numpy.asarray(result)
        is_dense = array.flags.c_contiguous or array.flags.f_contiguous
        return emulated_copy(array) if array.base is None and is_dense else array.view(EmulatedArray)
    if type(result) in (tuple, list):
        return type(result)(_to_emulated(v) for v in result)
    return result


def _call_on_emulated(function: Any, inputs: Any, options: Any, strict: bool = True) -> Any:
    out = options.get("out")
    result = function(*_to_numpy(inputs, strict), **_to_numpy(options))
    if out is None:
        return _to_emulated(result)
    return out[0] if isinstance(out, tuple) and len(out) == 1 else out


class _EmulatedNumpy(ModuleType):
    """NumPy's functions for the device "emulated": they take and return its arrays, as CuPy's do for a GPU."""

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(numpy, name)
        if isinstance(attribute, type) or not callable(attribute):
            return attribute
        accepts_numpy = name in ("array", "asarray", "ascontiguousarray")

        @functools.wraps(attribute)
        def call(*inputs: Any, **options: Any) -> Any:
            return _call_on_emulated(attribute, inputs, options, strict=not accepts_numpy)

        setattr(self, name, call)
        return call


#: The array module of the device "emulated".
emulated_numpy = _EmulatedNumpy("numpy on the device 'emulated'")
