"""Dtypes: PyTorch's names, categories, type promotion, accumulators and C names.

This module alone knows dtypes; other modules ask :func:`is_floating` and the like instead of comparing ``dtype.kind``.
NumPy has no bfloat16: the package ml_dtypes adds it (``pip install 'gpunet[bfloat16]'``), as a dtype of kind "V".
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib.util
from typing import Any

import numpy

from gpunet.errors import DtypeError, MissingDependencyError

__all__ = [
    "bfloat16", "bool", "double", "dtype", "finfo", "float", "float16", "float32", "float64", "half", "iinfo", "int", "int8",
    "int16", "int32", "int64", "long", "short", "uint8", "uint16", "uint32", "uint64",
]  # fmt: skip

bool = numpy.dtype("bool")
uint8 = numpy.dtype("uint8")
uint16 = numpy.dtype("uint16")
uint32 = numpy.dtype("uint32")
uint64 = numpy.dtype("uint64")
int8 = numpy.dtype("int8")
int16 = short = numpy.dtype("int16")
int32 = int = numpy.dtype("int32")
int64 = long = numpy.dtype("int64")
float16 = half = numpy.dtype("float16")
float32 = float = numpy.dtype("float32")
float64 = double = numpy.dtype("float64")
bfloat16: numpy.dtype[Any]  # of ml_dtypes, which the first use imports: see __getattr__

#: The floating dtypes that are their own accumulator: arithmetic, BLAS and compiled loops take them as they are.
NATIVE = (float32, float64)
#: C name of each dtype that a kernel's parameter may have; float16 and bfloat16 are structs of ``common/half.cuh``.
C_TYPES = {
    "float16": "float16",
    "bfloat16": "bfloat16",
    "float32": "float",
    "float64": "double",
    "bool": "bool",
    "int8": "signed char",
    "int16": "short",
    "int32": "int",
    "int64": "long long",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
    "uint32": "unsigned int",
    "uint64": "unsigned long long",
}


#: The dtypes of tensors that NumPy has itself; dtype.name takes a microsecond.
_NUMERIC = frozenset(numpy.dtype(name) for name in C_TYPES if name != "bfloat16")


def __getattr__(name: str) -> Any:
    if name != "bfloat16":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import ml_dtypes
    except ImportError:
        raise MissingDependencyError("bfloat16 needs the package ml_dtypes: pip install 'gpunet[bfloat16]'") from None
    globals()[name] = found = numpy.dtype(ml_dtypes.bfloat16)
    return found


def has_bfloat16() -> builtins.bool:
    """Return whether the package that defines bfloat16 is installed."""
    return importlib.util.find_spec("ml_dtypes") is not None


def as_dtype(value: Any) -> numpy.dtype[Any]:
    """Return the dtype that ``value`` names: a dtype, a scalar type, or a name such as "float32" or "bfloat16".

    Raises:
        DtypeError: a tensor cannot have such a dtype.
        MissingDependencyError: it is "bfloat16", and ml_dtypes is not installed.
    """
    if isinstance(value, numpy.dtype) and value in _NUMERIC and value.isnative:
        return value
    found: Any = None
    if isinstance(value, str) and value == "bfloat16":
        return __getattr__(value)
    if isinstance(value, (numpy.dtype, type)) or (isinstance(value, str) and value in C_TYPES):
        with contextlib.suppress(TypeError):
            found = numpy.dtype(value)
    if found is None or found.name not in C_TYPES:
        raise DtypeError(f"{value!r} is not a dtype of tensors; expected one such as gpunet.float32")
    return found if found.isnative else found.newbyteorder("=")


# ---- categories -------------------------------------------------------------------------------------------------------


@functools.cache
def is_floating(dtype: numpy.dtype[Any]) -> builtins.bool:
    """Return whether a dtype holds floating-point numbers."""
    kind = dtype.kind
    return kind == "f" or (kind == "V" and dtype.name == "bfloat16")


@functools.cache
def is_half(dtype: numpy.dtype[Any]) -> builtins.bool:
    """Return whether a dtype is float16 or bfloat16."""
    return dtype.itemsize == 2 and is_floating(dtype)


@functools.cache
def is_integer(dtype: numpy.dtype[Any]) -> builtins.bool:
    """Return whether a dtype holds integers; booleans are none."""
    return dtype.kind in "iu"


def is_boolean(dtype: numpy.dtype[Any]) -> builtins.bool:
    return dtype.kind == "b"


def is_numeric(dtype: numpy.dtype[Any]) -> builtins.bool:
    """Return whether a tensor may have this dtype: booleans, integers, floating-point numbers."""
    return dtype in _NUMERIC or dtype.name in C_TYPES


def describe(dtype: numpy.dtype[Any]) -> str:
    """Return the name of a dtype for messages: "str" for strings of any length, "object", "complex64"."""
    return {"O": "object", "U": "str", "S": "bytes"}.get(dtype.kind, str(dtype))


def is_text(dtype: numpy.dtype[Any]) -> builtins.bool:
    """Return whether an array of this dtype holds strings, as read from a data file."""
    return dtype.kind == "U"


def category(dtype: numpy.dtype[Any]) -> builtins.int:
    """Return 0 for booleans, 1 for integers, 2 for floating-point numbers: the order of type promotion."""
    return 2 if is_floating(dtype) else 0 if dtype.kind == "b" else 1


# ---- arithmetic -------------------------------------------------------------------------------------------------------


@functools.cache
def accumulator(dtype: numpy.dtype[Any]) -> numpy.dtype[Any]:
    """Return the dtype in which products and sums of ``dtype`` are computed: float32 for the halves, else itself."""
    return float32 if is_half(dtype) else dtype


def promote(a: numpy.dtype[Any], b: numpy.dtype[Any]) -> numpy.dtype[Any]:
    """Return the dtype that holds the numbers of both, as ``torch.promote_types``.

    A floating dtype wins over an integer one of any size; float16 with bfloat16 gives float32.

    Raises:
        DtypeError: one is uint64 and the other a signed integer.
    """
    if a == b:
        return a
    if is_floating(a) and is_floating(b):
        return float32 if a.itemsize == b.itemsize else a if a.itemsize > b.itemsize else b
    if is_floating(a) or is_floating(b):
        return a if is_floating(a) else b
    found = numpy.result_type(a, b)
    if is_floating(found):
        raise DtypeError(f"no integer dtype holds the numbers of {a} and {b}: convert one of the tensors with .to()")
    return found


#: PyTorch's name of the type of dtypes.
dtype = numpy.dtype


def iinfo(dtype: Any) -> Any:
    """Return the limits of an integer dtype: ``min``, ``max``, ``bits``, as ``numpy.iinfo``.

    Raises:
        DtypeError: the dtype is no integer.
    """
    found = as_dtype(dtype)
    if not is_integer(found):
        raise DtypeError(f"iinfo of {found}: expected an integer dtype")
    return numpy.iinfo(found)


def finfo(dtype: Any) -> Any:
    """Return the limits of a floating dtype: ``eps``, ``max``, ``tiny``, ``bits`` and others, as ``numpy.finfo``.

    Raises:
        DtypeError: the dtype is not floating.
    """
    dtype = as_dtype(dtype)
    if not is_floating(dtype):
        raise DtypeError(f"finfo of {dtype}: expected a floating dtype")
    if dtype.kind == "f":
        return numpy.finfo(dtype)
    import ml_dtypes

    return ml_dtypes.finfo(dtype)


@functools.lru_cache(maxsize=64)
def limits(dtype: numpy.dtype[Any]) -> tuple[Any, Any]:
    """Return the smallest and the largest finite number of a dtype."""
    if is_floating(dtype):
        return builtins.float(finfo(dtype).min), builtins.float(finfo(dtype).max)
    return (0, 1) if is_boolean(dtype) else (builtins.int(numpy.iinfo(dtype).min), builtins.int(numpy.iinfo(dtype).max))


def significand_bits(dtype: numpy.dtype[Any]) -> builtins.int:
    """Return the bits of the significand of a floating dtype, the implicit one included: 24 for float32."""
    return builtins.int(finfo(dtype).nmant) + 1
