"""Functions of CuPy whose results differ from NumPy's, replaced by functions with NumPy's."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy

from gpunet.backend.dtypes import is_floating

# As npy_divmod and npy_floor_divide in NumPy's npy_math_internal.h.src; CuPy computes floor(x / y) and x - floor(x / y) * y.
# An integer divided by -1 is negated: the smallest one stays itself.
_DIVISION = """
template <class T> __device__ T numpy_remainder(T x, T y) {
  T rest = fmod(x, y);
  if (y == 0) return rest;
  if (rest == 0) return copysign(T(0), y);
  return (y < 0) != (rest < 0) ? rest + y : rest;
}
template <class T> __device__ T numpy_floor_divide(T x, T y) {
  if (y == 0) return x / y;
  const T rest = fmod(x, y);
  T quotient = (x - rest) / y;
  if (rest != 0 && (y < 0) != (rest < 0)) quotient -= 1;
  if (quotient == 0) return copysign(T(0), x / y);
  const T whole = floor(quotient);
  return quotient - whole > T(0.5) ? whole + 1 : whole;
}
template <class T> __device__ T integer_floor_divide(T x, T y) {
  if (y == 0) return 0;
  if (T(-1) < 0 && y == T(-1)) return T(0ull - static_cast<unsigned long long>(x));
  const T quotient = x / y;
  return quotient - ((x < 0) != (y < 0) && quotient * y != x);
}
"""
_INTEGERS = ("bb->b", "BB->B", "hh->h", "HH->H", "ii->i", "II->I", "ll->l", "LL->L", "qq->q", "QQ->Q")
_ROUTINES = {
    "floor_divide": ("out0 = integer_floor_divide(in0, in1)", "out0 = numpy_floor_divide(in0, in1)"),
    "remainder": (
        "out0 = in1 == 0 ? 0 : in0 - integer_floor_divide(in0, in1) * in1", "out0 = numpy_remainder(in0, in1)"
    ),
}  # fmt: skip


@functools.cache
def replacement(cupy: ModuleType, name: str) -> Callable[..., Any] | None:
    """Return the function that replaces ``cupy.<name>``; None if CuPy's own is right."""
    if name in _ROUTINES:
        integers, floats = _ROUTINES[name]
        operations = (*_INTEGERS, ("ff->f", floats), ("dd->d", floats))
        ufunc: Callable[..., Any] = cupy._core.create_ufunc(f"gpunet_{name}", operations, integers, preamble=_DIVISION)
        return ufunc
    if name in ("argmax", "argmin"):
        return functools.partial(_first_extreme, cupy, name)
    return None


def _first_extreme(cupy: ModuleType, name: str, x: Any, axis: int | None = None) -> Any:
    """argmax or argmin: the first NaN if there is one, where CuPy finds any of several; and of a 0-d array 0."""
    if x.ndim == 0:
        return cupy.zeros((), numpy.int64)
    if not is_floating(x.dtype):
        return getattr(cupy, name)(x, axis=axis)
    extreme = (cupy.amax if name == "argmax" else cupy.amin)(x, axis=axis, keepdims=True)
    return cupy.argmax(cupy.logical_or(x == extreme, x != x), axis=axis)


def assign(cupy: ModuleType, target: Any, source: Any, index: Any) -> None:
    """``target[index] = source``; CuPy makes 0 of the number -0.0."""
    if isinstance(source, (float, numpy.floating)) and source == 0 and math.copysign(1, source) < 0 and is_floating(target.dtype):
        source = cupy.negative(cupy.zeros((), target.dtype))
    target[index] = source
