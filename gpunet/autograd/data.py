"""Data from outside: the one place where arrays, numbers and nested lists of users become arrays that the library works on."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy
from numpy import ndarray

from gpunet.autograd import mode
from gpunet.backend import devices, dtypes
from gpunet.backend.devices import Array
from gpunet.errors import DtypeError, ShapeError


class ArrayHolder:
    """Base class of Tensor: an object with an ``array``, whose values ``tolist`` and ``item`` read."""

    __slots__ = ()

    array: Array
    item: Callable[[], Any]
    tolist: Callable[[], Any]


def plain_array(array: Array, function: str = "") -> Array:
    """Return the data of an array in the form that launches take; its memory is shared where possible.

    Subclasses of ``numpy.ndarray`` (memmap, matrix, recarray, masked array) become plain arrays, without a mask; an array of
    foreign byte order is converted.

    Args:
        function: the function that the user called, for messages.

    Raises:
        DtypeError: a tensor cannot have the dtype.
    """
    dtype = array.dtype
    if not dtypes.is_numeric(dtype):
        raise unsupported(dtype, function)
    if isinstance(array, ndarray) and type(array) is not ndarray and not isinstance(array, devices.EmulatedArray):
        array = array.view(ndarray)
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def unsupported(dtype: numpy.dtype[Any], function: str) -> DtypeError:
    """Return the error of data of a dtype that a tensor cannot have."""
    prefix = f"{function}: " if function else ""
    return DtypeError(
        f"{prefix}data of dtype {dtypes.describe(dtype)}; expected numbers: bool, integers of 8 to 64 bits, float16, bfloat16, "
        "float32, float64, complex64 or complex128"
    )


def array_of_data(data: Any, dtype: numpy.dtype[Any] | None, function: str) -> ndarray:
    """Return numbers, or nested sequences of numbers, arrays and tensors, as a new NumPy array.

    Args:
        dtype: None promotes the dtypes of the items: Python floats have the default dtype, complex numbers the complex dtype of
            such parts, integers int64.
        function: the function that the user called, for messages.

    Raises:
        ShapeError: nested sequences have different lengths.
        DtypeError: an item is no number, or too large for the dtype.
    """
    if not isinstance(data, (bool, int, float, complex, list, tuple, range, numpy.generic)):
        raise DtypeError(f"{function}: {data!r} has type {type(data).__name__}; expected numbers, or nested lists of them")
    types = _leaf_types(data)
    if any(issubclass(kind, ArrayHolder) for kind in types):
        data = _without_tensors(data)
    try:
        array = numpy.asarray(data)
    except ValueError as error:
        raise ShapeError(f"{function}: the nested lists have different lengths: {error}") from None
    if not array.size:
        return numpy.empty(array.shape, mode.get_default_dtype() if dtype is None else dtype)
    if not dtypes.is_numeric(array.dtype):
        raise unsupported(array.dtype, function)
    if dtype is not None and dtypes.is_complex(array.dtype) and not dtypes.is_complex(dtype):
        raise DtypeError(f"{function}: complex numbers for a tensor of {dtype}; expected dtype=gpunet.complex64, or x.real")
    if types <= {bool, int, float}:
        if dtypes.is_integer(array.dtype) and array.dtype != dtypes.int64:
            raise DtypeError(f"{function}: {array.max()} is too large for an integer of 64 bits")
        found = mode.get_default_dtype() if dtypes.is_floating(array.dtype) else array.dtype
    else:
        found = functools.reduce(dtypes.promote, _leaf_dtypes(data))
    if dtype is not None and dtypes.is_integer(dtype) and not dtypes.is_boolean(array.dtype):
        for bound in (array.min(), array.max()):
            convert_number(bound.item(), dtype, function)
    with numpy.errstate(over="ignore"):
        return array.astype(found if dtype is None else dtype)


def _leaf_types(data: Any) -> set[type]:
    """The types of the items of nested sequences."""
    if not isinstance(data, (list, tuple)):
        return {int} if isinstance(data, range) else {type(data)}
    types = set(map(type, data))
    if not types.isdisjoint((list, tuple, range)) or any(issubclass(kind, (list, tuple)) for kind in types):
        return set().union(*map(_leaf_types, data))
    return types


def _leaf_dtypes(data: Any) -> set[numpy.dtype[Any]]:
    """The dtypes of the items of nested sequences."""
    if isinstance(data, (list, tuple)):
        return set().union(*map(_leaf_dtypes, data))
    if isinstance(data, (numpy.generic, ndarray)):
        return {data.dtype}
    return {number_dtype(data)}


def number_dtype(number: Any) -> numpy.dtype[Any]:
    """The dtype of the tensor that a Python or NumPy number becomes."""
    if isinstance(number, (bool, numpy.bool_)):
        return dtypes.bool
    if isinstance(number, (int, numpy.integer)):
        return dtypes.int64
    default = mode.get_default_dtype()
    return dtypes.to_complex(default) if isinstance(number, (complex, numpy.complexfloating)) else default


def _without_tensors(data: Any) -> Any:
    """Nested sequences with NumPy scalars and arrays in place of tensors."""
    if isinstance(data, ArrayHolder):
        return numpy.asarray(data.tolist(), data.array.dtype)[()]
    return [_without_tensors(item) for item in data] if isinstance(data, (list, tuple)) else data


def convert_number(
    value: Any, dtype: numpy.dtype[Any], function: str, name: str = "", *, rounds_to_inf: bool = False
) -> Any:
    """Return a number for tensors of ``dtype``, as PyTorch converts it: a fraction is cut, the integer -1 is 255 for uint8.

    Args:
        value: a Python or NumPy number, or a tensor of one element without dimensions.
        function, name: of the function and its parameter, for messages.
        rounds_to_inf: a number above the largest of a floating dtype becomes infinite, as in arithmetic, instead of an error.

    Returns:
        A bool, an int, a float or a complex number, of the category of ``dtype``.

    Raises:
        DtypeError: it is no number, or the dtype cannot hold it.
    """
    array = value.array if isinstance(value, ArrayHolder) else value
    if isinstance(array, numpy.generic) or (devices.is_array(array) and array.ndim == 0):
        value = value.item()
    what = f"{function}: {name}={value!r}" if name else f"{function}: {value!r}"
    if not isinstance(value, (bool, int, float)):
        if isinstance(value, complex) and dtypes.is_complex(dtype):
            return value
        expected = f"a real number for a tensor of {dtype}" if isinstance(value, complex) else "a number"
        raise DtypeError(f"{what} has type {type(value).__name__}; expected {expected}")
    if dtypes.is_boolean(dtype):
        return bool(value)
    smallest, largest = dtypes.limits(dtype)
    if dtypes.is_integer(dtype):
        low = -largest if smallest == 0 and isinstance(value, int) else smallest  # -1 is the largest of uint8, -1.0 is not
        if not low <= value <= largest:
            raise DtypeError(f"{what} does not fit into {dtype}; expected {smallest} .. {largest}")
        return int(value) % (largest + 1) if smallest == 0 else int(value)
    bound = sys.float_info.max if rounds_to_inf else largest
    if bound < abs(value) != math.inf:
        raise DtypeError(f"{what} does not fit into {dtype}; expected at most {largest:.4g}, or inf")
    return float(value)
