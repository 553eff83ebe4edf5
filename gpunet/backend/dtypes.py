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
    "bfloat16", "bool", "cdouble", "cfloat", "complex64", "complex128", "double", "dtype", "finfo", "float", "float16", "float32",
    "float64", "half", "iinfo", "int", "int8", "int16", "int32", "int64", "long", "short", "uint8", "uint16", "uint32", "uint64",
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
complex64 = cfloat = numpy.dtype("complex64")
complex128 = cdouble = numpy.dtype("complex128")
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


#: The real dtypes of tensors that NumPy has itself; dtype.name takes a microsecond.
_NUMERIC = frozenset(numpy.dtype(name) for name in C_TYPES if name != "bfloat16")
#: Complex dtypes by name: pairs of numbers in memory.  No kernel of ours takes them, so they have no C name.
COMPLEX = {"complex64": complex64, "complex128": complex128}
_REAL_PARTS: dict[Any, Any] = {complex64: float32, complex128: float64}
#: Not empty once a complex dtype was asked for or met in data.  Ops look here first: without complex tensors that is all.
complex_in_use: list[None] = []


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
    if isinstance(value, (numpy.dtype, type)) or (isinstance(value, str) and is_name(value)):
        with contextlib.suppress(TypeError):
            found = numpy.dtype(value)
    if found is None or not is_numeric(found):
        raise DtypeError(f"{value!r} is not a dtype of tensors; expected one such as gpunet.float32")
    return found if found.isnative else found.newbyteorder("=")


def is_name(name: str) -> builtins.bool:
    """Return whether ``name`` is that of a dtype of tensors."""
    return name in C_TYPES or name in COMPLEX


# ---- categories -------------------------------------------------------------------------------------------------------


@functools.cache
def is_floating(dtype: numpy.dtype[Any]) -> builtins.bool:
    """Return whether a dtype holds floating-point numbers."""
    kind = dtype.kind
    return kind == "f" or (kind == "V" and dtype.name == "bfloat16")


@functools.cache
def is_complex(dtype: numpy.dtype[Any]) -> builtins.bool:
    """Return whether a dtype holds complex numbers."""
    return dtype.kind == "c"


@functools.cache
def is_inexact(dtype: numpy.dtype[Any]) -> builtins.bool:
    """Return whether a dtype holds real or complex numbers that are rounded: those that can be divided, and have gradients."""
    return is_floating(dtype) or is_complex(dtype)


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
    """Return whether a tensor may have this dtype: booleans, integers, floating-point numbers, pairs of them.

    Whatever becomes a tensor passes here or :func:`to_complex`, which therefore note the first complex dtype.
    """
    if dtype in _NUMERIC:
        return True
    if dtype.name in COMPLEX:
        note_complex()
        return True
    return dtype.name in C_TYPES


def note_complex() -> None:
    """Let ops look for complex operands from now on."""
    if not complex_in_use:
        complex_in_use.append(None)


def describe(dtype: numpy.dtype[Any]) -> str:
    """Return the name of a dtype for messages: "str" for strings of any length, "object", "complex256"."""
    return {"O": "object", "U": "str", "S": "bytes"}.get(dtype.kind, str(dtype))


def is_text(dtype: numpy.dtype[Any]) -> builtins.bool:
    """Return whether an array of this dtype holds strings, as read from a data file."""
    return dtype.kind == "U"


def category(dtype: numpy.dtype[Any]) -> builtins.int:
    """Return 0 for booleans, 1 for integers, 2 for floating-point, 3 for complex numbers: the order of type promotion."""
    return 2 if is_floating(dtype) else 3 if dtype.kind == "c" else 0 if dtype.kind == "b" else 1


# ---- complex and real -------------------------------------------------------------------------------------------------


def to_complex(dtype: numpy.dtype[Any]) -> numpy.dtype[Any]:
    """Return the complex dtype whose parts hold the numbers of a floating dtype; complex64 for the halves."""
    note_complex()
    return dtype if is_complex(dtype) else complex128 if dtype == float64 else complex64


def to_real(dtype: numpy.dtype[Any]) -> numpy.dtype[Any]:
    """Return the dtype of the parts of complex numbers; another dtype as it is."""
    found: numpy.dtype[Any] = _REAL_PARTS.get(dtype, dtype)
    return found


def discards_imaginary(source: numpy.dtype[Any], target: numpy.dtype[Any]) -> builtins.bool:
    """Return whether a conversion discards the imaginary parts of numbers."""
    return is_complex(source) and not (is_complex(target) or is_boolean(target))


# ---- arithmetic -------------------------------------------------------------------------------------------------------


@functools.cache
def accumulator(dtype: numpy.dtype[Any]) -> numpy.dtype[Any]:
    """Return the dtype in which products and sums of ``dtype`` are computed: float32 for the halves, else itself."""
    return float32 if is_half(dtype) else dtype


def promote(a: numpy.dtype[Any], b: numpy.dtype[Any]) -> numpy.dtype[Any]:
    """Return the dtype that holds the numbers of both, as ``torch.promote_types``.

    A floating dtype wins over an integer one of any size; float16 with bfloat16 gives float32.  A complex one wins over a real
    one, and has parts of the precision of both: complex64 with float64 gives complex128.

    Raises:
        DtypeError: one is uint64 and the other a signed integer.
    """
    if a == b:
        return a
    if is_floating(a) and is_floating(b):
        return float32 if a.itemsize == b.itemsize else a if a.itemsize > b.itemsize else b
    if is_complex(a) or is_complex(b):
        parts = [to_real(dtype) for dtype in (a, b) if is_inexact(dtype)]
        return to_complex(functools.reduce(promote, parts))
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

    Those of a complex dtype are those of its parts.

    Raises:
        DtypeError: the dtype is not floating.
    """
    dtype = to_real(as_dtype(dtype))
    if not is_floating(dtype):
        raise DtypeError(f"finfo of {dtype}: expected a floating dtype")
    if dtype.kind == "f":
        return numpy.finfo(dtype)
    import ml_dtypes

    return ml_dtypes.finfo(dtype)


@functools.lru_cache(maxsize=64)
def limits(dtype: numpy.dtype[Any]) -> tuple[Any, Any]:
    """Return the smallest and the largest finite number of a dtype; of a complex one, of its parts."""
    if is_inexact(dtype):
        return builtins.float(finfo(dtype).min), builtins.float(finfo(dtype).max)
    return (0, 1) if is_boolean(dtype) else (builtins.int(numpy.iinfo(dtype).min), builtins.int(numpy.iinfo(dtype).max))


def significand_bits(dtype: numpy.dtype[Any]) -> builtins.int:
    """Return the bits of the significand of a floating dtype, the implicit one included: 24 for float32."""
    return builtins.int(finfo(dtype).nmant) + 1
