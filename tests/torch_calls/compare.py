"""Comparison of results, within the rounding errors of their dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy

from tests.torch_calls.outcome import Other, TensorValue, Value

#: Distance of 1 to the next number.
EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
#: The dtypes of the parts of complex numbers.
PARTS = {"complex64": "float32", "complex128": "float64"}
#: A result is as good as PyTorch's if it is at most this many epsilons of its magnitude away: a few roundings on each side.
ROUNDINGS = 8


def difference(theirs: Value, ours: Value, scale: Any = 0.0) -> str:
    """Return how two results differ: "", or "type", "length", "shape", "dtype", "requires_grad" or "value".

    Args:
        scale: magnitude that rounding errors are relative to, beside that of the result.
    """
    if isinstance(theirs, TensorValue) or isinstance(ours, TensorValue):
        if not (isinstance(theirs, TensorValue) and isinstance(ours, TensorValue)):
            return "type"
        return _difference_of_tensors(theirs, ours, scale)
    if isinstance(theirs, Other) or isinstance(ours, Other):
        return _difference_of_others(theirs, ours)
    if theirs[0] != ours[0]:
        return "type"
    if len(theirs) != len(ours):
        return "length"
    return next((d for pair in zip(theirs[1:], ours[1:]) if (d := difference(*pair, scale))), "")


def _difference_of_others(theirs: Value, ours: Value) -> str:
    if not isinstance(theirs, Other) or not isinstance(ours, Other) or theirs.type != ours.type:
        return "type"
    if isinstance(theirs.value, float):
        a, b = theirs.value, ours.value
        return "" if a == b or (a != a and b != b) or abs(a - b) <= ROUNDINGS * EPSILON["float32"] * abs(a) else "value"
    return "" if theirs.value == ours.value else "value"


def _difference_of_tensors(theirs: TensorValue, ours: TensorValue, scale: Any) -> str:
    if theirs.shape != ours.shape:
        return "shape"
    if theirs.dtype != ours.dtype:
        return "dtype"
    if not equal(theirs.array, ours.array, theirs.dtype, scale):
        return "value"
    return "" if theirs.requires_grad == ours.requires_grad else "requires_grad"


def equal(theirs: Any, ours: Any, dtype: str, scale: Any) -> bool:
    dtype = dtype.removeprefix("numpy.")
    if dtype in PARTS:
        size = numpy.nan_to_num(numpy.abs(theirs), nan=0.0, posinf=0.0)
        return all(equal(getattr(theirs, part), getattr(ours, part), PARTS[dtype], scale + size) for part in ("real", "imag"))
    if dtype not in EPSILON:
        return bool(numpy.array_equal(theirs, ours))
    with numpy.errstate(all="ignore"):
        tolerance = ROUNDINGS * EPSILON[dtype] * (numpy.abs(theirs) + scale)
        close = (theirs == ours) | (numpy.isnan(theirs) & numpy.isnan(ours)) | (numpy.abs(theirs - ours) <= tolerance)
        return bool(close.all())


# ---- elements that differ -------------------------------------------------------------------------------------------


class Elements(NamedTuple):
    """The elements in which two results differ by more than roundings: arrays of one dimension."""

    theirs: Any  # PyTorch's
    ours: Any  # gpunet's
    leaf: Any  # of gradients, the elements of the leaf; otherwise NaN


def have_same_shapes(theirs: Value, ours: Value) -> bool:
    """Whether two results consist of tensors of the same shapes."""
    if isinstance(theirs, TensorValue) and isinstance(ours, TensorValue):
        return theirs.shape == ours.shape
    if isinstance(theirs, Other) or isinstance(ours, Other) or isinstance(theirs, TensorValue) or isinstance(ours, TensorValue):
        return type(theirs) is type(ours)
    return len(theirs) == len(ours) and all(have_same_shapes(*pair) for pair in zip(theirs[1:], ours[1:]))


def differing_elements(theirs: Value, ours: Value, leaf: Value | None = None) -> Iterator[Elements]:
    """The elements in which two results of the same type differ, for each tensor with such elements.

    Args:
        leaf: the leaf that the results are gradients of.
    """
    if isinstance(theirs, TensorValue) and isinstance(ours, TensorValue):
        with numpy.errstate(all="ignore"):
            a, b = _numbers(theirs.array), _numbers(ours.array)
            ordinary = numpy.abs(a, where=numpy.isfinite(a), out=numpy.zeros_like(a))
            tolerance = 64 * EPSILON.get(PARTS.get(theirs.dtype, theirs.dtype), 0.0) * (1.0 + ordinary)
            differs = ~((a == b) | (numpy.isnan(a) & numpy.isnan(b)) | (numpy.abs(a - b) <= tolerance))
        if differs.any():
            has_leaf = isinstance(leaf, TensorValue) and leaf.shape == theirs.shape
            is_real = theirs.dtype not in PARTS
            at = leaf.array if isinstance(leaf, TensorValue) and has_leaf and is_real else numpy.full(a.shape, numpy.nan)
            yield Elements(a[differs], b[differs], at[differs])
    elif isinstance(theirs, tuple) and isinstance(ours, tuple) and not isinstance(theirs, Other):
        for pair in zip(theirs, ours):
            if not isinstance(pair[0], str):
                yield from differing_elements(*pair)


def _numbers(array: Any) -> Any:
    """The numbers in float64; of complex ones the two parts, in a last dimension."""
    if numpy.iscomplexobj(array):
        return numpy.stack([array.real, array.imag], -1).astype(numpy.float64)
    return array.astype(numpy.float64)
