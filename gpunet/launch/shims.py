"""Launches that NumPy and CuPy spell the same way: no kernel of ours is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy
from numpy import ndarray

from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.errors import DtypeError, LaunchError
from gpunet.launch.launchable import Launchable


class Shim(Launchable):
    """A launch that NumPy and CuPy spell the same way: ``function(xp, destination, *inputs, **options)``.

    Inputs may be strided, of any dtype, or Python scalars; only the destination's device is checked against theirs.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.function = function

    def check(self, arrays: Sequence[Any]) -> None:
        kind = type(arrays[0])
        for array in arrays:
            if type(array) is not kind and devices.is_array(array):
                raise LaunchError(
                    f"launch of {self.name}: got a {type(array).__name__} beside a {kind.__name__}: all arrays of a "
                    "launch live on one device"
                )

    def launch(self, arrays: Sequence[Any], options: dict[str, Any]) -> None:
        if type(arrays[0]) is ndarray:
            self.function(numpy, *arrays, **options)
        else:
            with devices.on_device_of(arrays[0]):
                self.function(devices.module(arrays[0]), *arrays, **options)


class Ufunc(Shim):
    """A universal function of NumPy and CuPy by its name: ``ADD(out, a, b)`` is ``numpy.add(a, b, out=out)``."""

    def __init__(self, name: str) -> None:
        super().__init__(name, self._call)
        self.numpy_function = getattr(numpy, name)

    def launch(self, arrays: Sequence[Any], options: dict[str, Any]) -> None:
        out, *inputs = arrays
        if type(out) is ndarray:
            try:
                self.numpy_function(*inputs, out=out, **options)
            except (TypeError, OverflowError) as error:
                raise self._refused(inputs, error) from None
        else:
            with devices.on_device_of(out):
                self._call(devices.module(out), out, *inputs, **options)

    def _call(self, xp: Any, out: Array, *inputs: Any, **options: Any) -> None:
        try:
            getattr(xp, self.name)(*inputs, out=out, **options)
        except (TypeError, OverflowError) as error:
            raise self._refused(inputs, error) from None

    def _refused(self, inputs: Sequence[Any], error: Exception) -> DtypeError:
        taken = " and ".join(f"a tensor of {x.dtype}" if devices.is_array(x) else repr(x) for x in inputs)
        return DtypeError(f"{self.name} of {taken}: {error}; convert with .to(dtype) first")
