"""NumPy's ufuncs, number literals and casts as source, for one element of a compiled loop.

A half is a 16-bit integer there: operands are widened to float32, and results rounded to it (``convert``).
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.backend.dtypes import (
    accumulator,
    as_dtype,
    float32,
    has_bfloat16,
    is_boolean,
    is_floating,
    is_half,
    is_integer,
)

#: The dtypes that loops support -> their names in generated source.
TYPE_NAMES = {
    as_dtype(kind): name
    for kind, name in (
        ("float32", "f4"), ("float64", "f8"), ("bool", "b1"), ("int8", "i1"), ("int16", "i2"), ("int32", "i4"), ("int64", "i8"),
        ("uint8", "u1"), ("uint16", "u2"), ("uint32", "u4"), ("uint64", "u8"), ("float16", "f2"), ("bfloat16", "bf2"),
    )
    if kind != "bfloat16" or has_bfloat16()
}  # fmt: skip

_ANY = {
    "add": "{0} + {1}", "subtract": "{0} - {1}", "multiply": "{0} * {1}", "negative": "-{0}", "positive": "{0}",
    "square": "{0} * {0}", "absolute": "abs({0})", "fabs": "abs({0})", "conjugate": "{0}",
    "equal": "{0} == {1}", "not_equal": "{0} != {1}", "less": "{0} < {1}", "less_equal": "{0} <= {1}",
    "greater": "{0} > {1}", "greater_equal": "{0} >= {1}",
    "logical_and": "({0} != 0) & ({1} != 0)", "logical_or": "({0} != 0) | ({1} != 0)", "logical_not": "{0} == 0",
    "logical_xor": "({0} != 0) != ({1} != 0)",
}  # fmt: skip
_INTEGER = {
    "bitwise_and": "{0} & {1}", "bitwise_or": "{0} | {1}", "bitwise_xor": "{0} ^ {1}", "invert": "~{0}",
    "maximum": "select({0} >= {1}, {0}, {1})", "minimum": "select({0} <= {1}, {0}, {1})",
    "sign": "{T}({0} > 0) - {T}({0} < 0)",
}  # fmt: skip
_BOOLEAN = {
    "add": "{0} | {1}", "multiply": "{0} & {1}", "bitwise_and": "{0} & {1}", "bitwise_or": "{0} | {1}", "invert": "not {0}",
    "bitwise_xor": "{0} != {1}", "maximum": "{0} | {1}", "minimum": "{0} & {1}", "absolute": "{0}",
    "equal": "{0} == {1}", "not_equal": "{0} != {1}",
    "logical_and": "{0} & {1}", "logical_or": "{0} | {1}", "logical_xor": "{0} != {1}", "logical_not": "not {0}",
}  # fmt: skip
_FLOATING = {
    "divide": "{0} / {1}", "reciprocal": "{T}(1) / {0}", "sqrt": "math.sqrt({0})", "power": "{0} ** {1}",
    "maximum": "maximum({0}, {1})", "minimum": "minimum({0}, {1})",
    "fmax": "select({1} != {1}, {0}, select({0} >= {1}, {0}, {1}))",
    "fmin": "select({1} != {1}, {0}, select({0} <= {1}, {0}, {1}))",
    "sign": "select({0} == {0}, {T}({0} > {T}(0)) - {T}({0} < {T}(0)), {0})",
    "exp": "exp_{T}({0})", "expm1": "expm1_{T}({0})", "log": "log_{T}({0})", "log1p": "log1p_{T}({0})", "tanh": "tanh_{T}({0})",
    "log2": "math.log2({0})", "log10": "math.log10({0})", "sin": "math.sin({0})", "cos": "math.cos({0})", "tan": "math.tan({0})",
    "arcsin": "math.asin({0})", "arccos": "math.acos({0})", "arctan": "math.atan({0})", "sinh": "math.sinh({0})",
    "cosh": "math.cosh({0})", "arcsinh": "math.asinh({0})", "arccosh": "math.acosh({0})", "arctanh": "math.atanh({0})",
    "arctan2": "math.atan2({0}, {1})", "hypot": "math.hypot({0}, {1})",
    "isnan": "{0} != {0}", "isfinite": "abs({0}) < {T}(math.inf)", "isinf": "abs({0}) == {T}(math.inf)",
}  # fmt: skip


def template(name: str, dtype: numpy.dtype[Any]) -> str | None:
    """The source of a ufunc on elements of ``dtype``: {0}, {1} are its operands, {T} the type.  None if unsupported."""
    if is_boolean(dtype):
        return _BOOLEAN.get(name)
    own = _FLOATING if is_floating(dtype) else _INTEGER
    return own.get(name, _ANY.get(name))


def loop_dtypes(ufunc: numpy.ufunc, inputs: list[Any], signature: Any = None) -> list[numpy.dtype[Any]] | None:
    """The dtypes that NumPy computes in, of each operand and the result; None if NumPy or our loops lack support.

    NumPy computes halves in float32, too.

    Args:
        inputs: the operands' dtypes; ``int`` or ``float`` for a Python number.
        signature: as ``numpy.ufunc.resolve_dtypes`` takes it.
    """
    try:
        dtypes = ufunc.resolve_dtypes((*inputs, None), **({} if signature is None else {"signature": signature}))
    except (TypeError, ValueError):
        return None
    return [*map(accumulator, dtypes)] if all(d in TYPE_NAMES for d in dtypes) else None


def literal(value: Any, dtype: numpy.dtype[Any]) -> str | None:
    """The source of a number of ``dtype``; None for an integer out of range, which NumPy compares by special rules."""
    if is_boolean(dtype):
        return repr(bool(value))
    if is_half(dtype):
        return f"{TYPE_NAMES[dtype]}({int(numpy.asarray(value, dtype).view(numpy.uint16))})"
    if not is_floating(dtype):
        limits = numpy.iinfo(dtype)
        return f"{TYPE_NAMES[dtype]}({int(value)})" if limits.min <= int(value) <= limits.max else None
    value = float(dtype.type(value))
    text = repr(value) if math.isfinite(value) else "math.nan" if value != value else f"{'-' * (value < 0)}math.inf"
    return f"{TYPE_NAMES[dtype]}({text})"


def convert(text: str, source: numpy.dtype[Any], target: numpy.dtype[Any]) -> str:
    """The source of an expression of dtype ``source`` cast to ``target``, as C casts it."""
    if source == target:
        return text
    if is_half(source):
        return convert(f"widen_{TYPE_NAMES[source]}({text})", float32, target)
    if is_half(target):
        return f"round_{TYPE_NAMES[target]}({convert(text, source, float32)})"
    if is_boolean(target):
        return f"({text} != 0)"
    # through a signed integer: C leaves the cast of a negative float to an unsigned integer undefined
    if is_floating(source) and is_integer(target) and target != numpy.uint64:
        text = f"float_to_int({text}, {'i8' if target.itemsize == 8 or target == numpy.uint32 else 'i4'})"
    return f"{TYPE_NAMES[target]}({text})"
