"""Launches of functions that NumPy and CuPy share, which need no kernel of our own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy
from numpy import ndarray

from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import is_boolean
from gpunet.errors import DtypeError, LaunchError
from gpunet.launch import halves
from gpunet.launch.launchable import Launchable


class Shim(Launchable):
    """A launch of ``function(xp, destination, *inputs, **options)``, where ``xp`` is NumPy or CuPy.

    Inputs may be strided, of any dtype, or Python scalars; only that all arrays are on one device is checked.

    Args:
        on_gpu: instead of ``function`` on a GPU, where methods of CuPy's arrays differ from NumPy's.
        reads_values: see :class:`Launchable`.
        widens: run the function on float32 copies of halves; False if it only moves or converts numbers.
    """

    def __init__(
        self, name: str, function: Callable[..., Any], on_gpu: Callable[..., Any] | None = None, *, widens: bool = True,
        reads_values: bool = False,
    ) -> None:  # fmt: skip
        self.name = name
        self.function = function
        self._on_gpu = on_gpu or function
        self.widens, self.reads_values = widens, reads_values

    def check(self, arrays: Sequence[Any]) -> None:
        array_type = type(arrays[0])
        for array in arrays:
            if type(array) is not array_type and devices.is_array(array):
                raise LaunchError(
                    f"kernel {self.name}: got both a {type(array).__name__} and a {array_type.__name__}; all arrays of "
                    "a launch must be on the same device"
                )

    def launch(self, arrays: Sequence[Any], options: dict[str, Any]) -> None:
        if self.widens and halves.has_halves(arrays):
            with halves.widened(arrays, self.outputs) as wide:
                self._run(wide, options)
        else:
            self._run(arrays, options)

    def _run(self, arrays: Sequence[Any], options: dict[str, Any]) -> None:
        if type(arrays[0]) is ndarray:
            self.function(numpy, *arrays, **options)
        else:
            function = self.function if type(arrays[0]) is devices.EmulatedArray else self._on_gpu
            with devices.on_device_of(arrays[0]):
                function(devices.module(arrays[0]), *arrays, **options)


_PYTORCH_NAMES = {
    "absolute": "abs", "arctan": "atan", "divide": "div", "equal": "eq", "greater": "gt", "greater_equal": "ge",
    "less": "lt", "less_equal": "le", "multiply": "mul", "negative": "neg", "not_equal": "ne", "power": "pow",
    "rint": "round", "subtract": "sub",
}  # fmt: skip


class Ufunc(Shim):
    """A NumPy/CuPy ufunc, given by its name: ``Ufunc("add")(out, a, b)`` runs ``xp.add(a, b, out=out)``.

    Halves are computed in float32 and rounded to the result.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, self._call, widens=False)
        self.numpy_function = getattr(numpy, name)
        self.public_name = _PYTORCH_NAMES.get(name, name)  # for messages

    def launch(self, arrays: Sequence[Any], options: dict[str, Any]) -> None:
        out, *inputs = arrays
        options = halves.ufunc_options(out, inputs) or options
        if type(out) is ndarray:
            try:
                self.numpy_function(*inputs, out=out, **options)
            except (TypeError, OverflowError) as error:
                raise self._dtype_error(inputs, error) from None
        else:
            self._call(devices.module(out), out, *inputs, **options)

    def _call(self, xp: Any, out: Array, *inputs: Any, **options: Any) -> None:
        try:
            getattr(xp, self.name)(*inputs, out=out, **options)
        except (TypeError, OverflowError) as error:
            raise self._dtype_error(inputs, error) from None

    def _dtype_error(self, inputs: Sequence[Any], error: Exception) -> DtypeError:
        arguments = " and ".join(f"a tensor of {x.dtype}" if devices.is_array(x) else repr(x) for x in inputs)
        if all(is_boolean(x.dtype) if devices.is_array(x) else isinstance(x, bool) for x in inputs):
            return DtypeError(
                f"{self.public_name} of {arguments}: not defined for booleans; convert with .long() or .float() first, or use "
                "a logical operator (&, |, ^, ~)"
            )
        return DtypeError(f"{self.public_name} of {arguments}: {error}; convert with .to(dtype) first")
