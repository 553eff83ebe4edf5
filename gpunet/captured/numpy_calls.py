"""The NumPy lowering: one Python function with one NumPy call a line, on arrays bound beforehand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy

from gpunet.backend import blas
from gpunet.backend.dtypes import NATIVE
from gpunet.captured.codegen import compile_source
from gpunet.captured.ir import Call, View, tree_map
from gpunet.launch.memory import MAX_ZEROS

_EXTREMES = (numpy.maximum, numpy.minimum)  # NumPy deprecates their positional ``out``


class Bound:
    """Gives names to the constants of a generated function: arrays, functions and options.

    Args:
        array: returns the array of a view.
        given: buffers that the function gets as parameters -> name of the parameter, and the view of the whole buffer.

    Attributes:
        values: the constants by name.
    """

    def __init__(self, array: Callable[[View], numpy.ndarray], given: Mapping[int, tuple[str, View]] | None = None) -> None:
        self._array, self.given = array, given or {}
        self.values: dict[str, Any] = {}
        self._names: dict[Any, str] = {}
        self._counts: Counter[str] = Counter()
        self._kept: list[Any] = []

    def name(self, kind: str, key: Any, value: Any) -> str:
        """Return the name of the constant with this key; if it is new, name it ``kind`` and a number."""
        if key not in self._names:
            self._names[key] = name = f"{kind}{self._counts[kind]}"
            self._counts[kind] += 1
            self.values[name] = value
        return self._names[key]

    def array(self, view: View) -> str:
        """Return the source of an array."""
        if view.buffer in self.given:
            name, whole = self.given[view.buffer]
            return name if view.shape == whole.shape else f"{name}.reshape({view.shape})"
        return self.name("a", view, self._array(view))

    def argument(self, value: Any, dtype: Any = None, shape: tuple[int, ...] = ()) -> str:
        """Return the source of an argument; with ``dtype``, a number becomes an array of that dtype and shape."""
        if isinstance(value, View):
            return self.array(value)
        if value is None or isinstance(value, (bool, str)):
            return repr(value)
        if isinstance(value, (int, float, numpy.generic)):
            if dtype is not None and getattr(value, "dtype", dtype) == dtype:
                # an array saves NumPy the conversion of a scalar at each call
                scalar = numpy.asarray(value, dtype)
                return self.name("s", (dtype, scalar.tobytes(), shape), numpy.full(shape, scalar))
            if isinstance(value, int) or (type(value) is float and value - value == 0):
                return repr(value)
            return self.name("s", ("number", type(value), repr(value)), value)
        self._kept.append(value)  # so that its id is not reused
        return self.name("c", ("object", id(value)), tree_map(value, self._array))

    def function(self, function: Callable[..., Any]) -> str:
        """Return the name of a function: its own, unless that is taken."""
        known = getattr(function, "__name__", "function")
        if isinstance(getattr(function, "__self__", None), numpy.ufunc):  # add.reduce
            known = f"{function.__self__.__name__}_{known}"  # type: ignore[attr-defined]
        name = known if known.isidentifier() else "function"
        while name in self.values and self.values[name] != function:
            name += "_"
        self.values[name] = function
        return name


def scalar_dtype(call: Call) -> Any:
    """Return the dtype to which NumPy converts Python numbers in an elementwise call, or None if that is not certain.

    It is certain where the call names the dtype, or all arrays have the same one, float32 or float64 (NEP 50).
    """
    dtypes = {v.dtype for v in call.reads}
    if call.kind not in ("elementwise", "copy") or len(dtypes) != 1:
        return None
    (dtype,) = dtypes
    dtype = call.options.get("dtype", dtype)
    return dtype if dtype in NATIVE else None


def line(call: Call, bound: Bound) -> str:
    """Return the source of a call."""
    if (prepared := _prepared_product(call, bound)) is not None:
        return prepared
    name = bound.function(call.function)
    dtype = scalar_dtype(call) if isinstance(call.function, numpy.ufunc) else None
    shape: tuple[int, ...] = ()
    if call.function in _EXTREMES and call.writes[0].size <= MAX_ZEROS:
        shape = call.writes[0].shape  # with a scalar operand NumPy takes three to six times as long
    arguments = [bound.argument(a, dtype, shape) for a in call.arguments]
    options = {k: v for k, v in call.options.items() if v is not None or k != "out"}
    if call.kind == "reduce" and set(options) <= {"axis", "out", "keepdims"}:
        arguments += [bound.argument(options.pop("axis", 0)), "None", bound.argument(options.pop("out"))]
        if options.pop("keepdims", False):
            arguments.append("True")
    elif call.kind in ("elementwise", "product") and "out" in options and call.function not in _EXTREMES:
        arguments.append(bound.argument(options.pop("out")))
    arguments += [f"{k}={bound.argument(v)}" for k, v in options.items()]
    return f"{name}({', '.join(arguments)})"


def _prepared_product(call: Call, bound: Bound) -> str | None:
    """Return the source of a large matrix product by a BLAS other than NumPy's, or None where NumPy computes it."""
    if call.function is not numpy.dot:
        return None
    views = (*call.arguments[:2], call.options.get("out", call.arguments[-1]))
    if any(len(v.shape) != 2 for v in views) or views[0].size * views[1].shape[1] < blas.LEAST:
        return None
    names = [bound.array(v) for v in views]
    if any(v.buffer in bound.given for v in views):
        return f"{bound.function(blas.dot)}({', '.join(names)})"
    product = blas.prepared(*(bound.values[name] for name in names))
    return None if product is None else f"{bound.name('product', views, product)}()  # dot({', '.join(names)})"


def function(calls: list[Call], array: Callable[[View], numpy.ndarray]) -> tuple[Callable[[], None], str]:
    """Return a function that runs all calls, and its source.

    Args:
        calls: on planned memory, in order.
        array: returns the array of a view.
    """
    bound = Bound(array)
    lines = [line(call, bound) for call in calls]
    return compile_source("", lines, bound.values)
