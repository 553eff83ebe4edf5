"""Comparisons, predicates, logical and bitwise functions: no gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from gpunet.autograd import Tensor, ignore_fp_errors, make_tensor, operands
from gpunet.autograd.complex_numbers import refuse_complex
from gpunet.backend import devices
from gpunet.backend.dtypes import NATIVE, complex_in_use, is_floating, is_inexact
from gpunet.errors import DtypeError
from gpunet.launch.shims import Ufunc
from gpunet.ops.broadcast import cast, check_operand, launch_binary, launch_unary, result_dtype, ufunc
from gpunet.ops.define import elementwise
from gpunet.ops.face import public

__all__ = [
    "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "eq", "ge", "greater", "greater_equal", "gt", "isfinite", "isinf",
    "isnan", "le", "less", "less_equal", "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "ne", "not_equal",
]  # fmt: skip

BOOL = numpy.dtype(bool)
#: What complex numbers have; NumPy would order them by the real part first.
_UNORDERED = ("equal", "not_equal", "logical_and", "logical_or", "logical_xor")


# ---- comparisons --------------------------------------------------------------------------------------------------------


def compare(name: str, a: Any, b: Any) -> Tensor:
    """Apply the comparison or logical ufunc ``name`` (a NumPy name) elementwise; returns a boolean tensor."""
    function = ufunc(name)
    a, b = operands(function.public_name, [a, b])
    for value in (a, b):
        if not isinstance(value, Tensor):
            check_operand(function.public_name, value)
    if complex_in_use and name not in _UNORDERED:
        refuse_complex(function.public_name, (a, b))
    own = [v.array.dtype for v in (a, b) if isinstance(v, Tensor)]
    if own and (own[0] not in NATIVE or own[0] != own[-1]):
        return _compare_converted(function, a, b)
    return make_tensor(launch_binary(function, a, b, BOOL))


@ignore_fp_errors  # comparing NaN of bfloat16 warns
def _compare_converted(function: Ufunc, a: Any, b: Any) -> Tensor:
    dtype = result_dtype(a, b)
    if is_floating(dtype):
        a, b = (_converted(v, dtype) for v in (a, b))
    return make_tensor(launch_binary(function, a, b, BOOL))


def _converted(operand: Any, dtype: numpy.dtype[Any]) -> Any:
    """An operand of a comparison as a tensor of ``dtype``, or as a number rounded to it.

    NumPy would compare float32 with an integer or a 0-d float64 tensor in float64; it promotes no bfloat16, and numbers to
    float32 instead of the half.
    """
    if isinstance(operand, Tensor):
        return operand if operand.dtype == dtype else cast(operand.detach(), dtype=dtype)
    return float(numpy.asarray(float(operand), dtype)) if isinstance(operand, (int, float)) else operand


def _comparison(name: str, methods: str) -> Any:
    def function(input: Any, other: Any) -> Tensor:
        return compare(name, input, other)

    _describe(function, methods.split()[0], f"Elementwise {name.replace('_', ' ')}, a boolean tensor.")
    return elementwise(methods, numbers=True, takes_complex=name in _UNORDERED)(function)


def _describe(function: Callable[..., Any], name: str, doc: str) -> None:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc


eq = _comparison("equal", "eq")
ne = not_equal = _comparison("not_equal", "ne not_equal")
gt = greater = _comparison("greater", "gt greater")
ge = greater_equal = _comparison("greater_equal", "ge greater_equal")
lt = less = _comparison("less", "lt less")
le = less_equal = _comparison("less_equal", "le less_equal")


def _logical(name: str) -> Any:
    def function(input: Any, other: Any) -> Tensor:
        return compare(name, input, other)

    _describe(function, name, f"Elementwise {name.replace('_', ' ')}: whether numbers are not zero; a boolean tensor.")
    return elementwise(name, numbers=True, takes_complex=True)(function)


logical_and = _logical("logical_and")
logical_or = _logical("logical_or")
logical_xor = _logical("logical_xor")


def _operator(name: str) -> Any:
    def operator(self: Tensor, other: Any) -> Tensor:
        if isinstance(other, (Tensor, int, float, complex, numpy.generic)) or devices.is_array(other):
            return compare(name, self, other)
        return NotImplemented  # x == None is False, x < None a TypeError

    return operator


Tensor.__eq__, Tensor.__ne__ = _operator("equal"), _operator("not_equal")  # type: ignore[method-assign]
Tensor.__gt__, Tensor.__ge__ = _operator("greater"), _operator("greater_equal")  # type: ignore[method-assign]
Tensor.__lt__, Tensor.__le__ = _operator("less"), _operator("less_equal")  # type: ignore[method-assign]


# ---- bits ---------------------------------------------------------------------------------------------------------------


def _bitwise(name: str, symbol: str) -> Any:
    def function(input: Any, other: Any) -> Tensor:
        a, b = operands(name, [input, other])
        if isinstance(a, Tensor) and isinstance(b, Tensor) and a.array.dtype == b.array.dtype:
            dtype = a.array.dtype
        else:
            check_operand(name, a)
            check_operand(name, b)
            dtype = result_dtype(a, b)
        _check_bits(name, symbol, dtype)
        return make_tensor(launch_binary(ufunc(name), a, b, dtype))

    word = name.removeprefix("bitwise_")
    _describe(function, name, f"Elementwise {word} of the bits of integers; the logical {word} of booleans.")
    for operator in (f"__{word}__", f"__r{word}__"):
        setattr(Tensor, operator, function)
    return elementwise(name, f"__i{word}__", numbers=True)(function)


def _check_bits(name: str, symbol: str, dtype: numpy.dtype[Any]) -> None:
    if is_inexact(dtype):
        raise DtypeError(f"{name} ({symbol}) of {dtype}: expected integers or booleans, such as the mask x > 0")


bitwise_and = _bitwise("bitwise_and", "&")
bitwise_or = _bitwise("bitwise_or", "|")
bitwise_xor = _bitwise("bitwise_xor", "^")


@elementwise("bitwise_not")
def bitwise_not(input: Any) -> Tensor:
    """The inverted bits of integers; the logical not of booleans."""
    _check_bits("bitwise_not", "~", input.dtype)
    return make_tensor(launch_unary(ufunc("invert"), input, input.dtype))


Tensor.__invert__ = bitwise_not  # type: ignore[method-assign]


# ---- predicates -----------------------------------------------------------------------------------------------------------


def _predicate(name: str, decorator: Callable[..., Any]) -> Any:
    def function(input: Any) -> Tensor:
        return make_tensor(launch_unary(ufunc(name), input, BOOL))

    _describe(function, name, f"Elementwise {name}, a boolean tensor.")
    return decorator(function)


isnan = _predicate("isnan", public("isnan", out=False, takes_complex=True))
isinf = _predicate("isinf", public("isinf", out=False, takes_complex=True))
isfinite = _predicate("isfinite", public("isfinite", out=False, takes_complex=True))
logical_not = _predicate("logical_not", elementwise("logical_not", takes_complex=True))
