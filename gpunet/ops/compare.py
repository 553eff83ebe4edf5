"""Functions without a gradient: comparisons, predicates, rounding, floor division and remainder."""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.autograd import Tensor, ignore_fp_errors, make_tensor, method, operands, wrap
from gpunet.backend import devices
from gpunet.backend.dtypes import is_half
from gpunet.launch.tape import graph_break_on_read
from gpunet.ops.broadcast import cast, launch_binary, launch_unary, result_dtype, ufunc

__all__ = [
    "allclose", "ceil", "eq", "equal", "floor", "ge", "greater", "greater_equal", "gt", "isfinite", "isinf", "isnan",
    "le", "less", "less_equal", "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "ne", "not_equal",
    "round", "sign", "trunc",
]  # fmt: skip


def compare(name: str, a: Any, b: Any) -> Tensor:
    """Apply the comparison or logical ufunc ``name`` (a NumPy name) elementwise; returns a boolean tensor."""
    function = ufunc(name)
    a, b = operands(function.public_name, [a, b])
    if any(isinstance(v, Tensor) and is_half(v.dtype) for v in (a, b)):
        dtype = result_dtype(a, b)  # NumPy promotes no bfloat16, and numbers to float32 instead of the half
        a, b = (_converted(v, dtype) for v in (a, b))
    return make_tensor(launch_binary(function, a, b, numpy.dtype(bool)))


def _converted(operand: Any, dtype: numpy.dtype[Any]) -> Any:
    """An operand of a comparison as a tensor of ``dtype``, or as a number rounded to it."""
    if not isinstance(operand, Tensor):
        return float(numpy.asarray(operand, dtype))
    return operand if operand.dtype == dtype else cast(operand, dtype=dtype)


@method("sign sgn")
def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1.  Not recorded in the graph: the gradient is zero almost everywhere."""
    return make_tensor(launch_unary(ufunc("sign"), x, x.dtype))


def _comparison(name: str, methods: str) -> Any:
    def function(a: Any, b: Any) -> Tensor:
        return compare(name, a, b)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Elementwise {name.replace('_', ' ')}, a boolean tensor."
    return method(methods)(function)


eq = _comparison("equal", "eq __eq__")
ne = not_equal = _comparison("not_equal", "ne not_equal __ne__")
gt = greater = _comparison("greater", "gt greater __gt__")
ge = greater_equal = _comparison("greater_equal", "ge greater_equal __ge__")
lt = less = _comparison("less", "lt less __lt__")
le = less_equal = _comparison("less_equal", "le less_equal __le__")
logical_and = _comparison("logical_and", "logical_and __and__ __rand__")
logical_or = _comparison("logical_or", "logical_or __or__ __ror__")
logical_xor = _comparison("logical_xor", "logical_xor __xor__ __rxor__")


def _predicate(name: str) -> Any:
    def test(x: Any) -> Tensor:
        return make_tensor(launch_unary(ufunc(name), wrap(x), numpy.dtype(bool)))

    test.__name__ = test.__qualname__ = name
    test.__doc__ = f"Elementwise {name}, a boolean tensor."
    return method(name)(test)


isnan = _predicate("isnan")
isinf = _predicate("isinf")
isfinite = _predicate("isfinite")
logical_not = _predicate("logical_not")
Tensor.__invert__ = logical_not  # type: ignore[method-assign]


def _rounding(name: str, methods: str) -> Any:
    def function(x: Any) -> Tensor:
        x = wrap(x)
        return make_tensor(launch_unary(ufunc(name), x, x.dtype))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Elementwise {name}.  Not recorded in the graph: the gradient is zero almost everywhere."
    return method(methods)(function)


floor = _rounding("floor", "floor")
ceil = _rounding("ceil", "ceil")
round = _rounding("rint", "round")
trunc = _rounding("trunc", "trunc")


def _integer_arithmetic(name: str, methods: str) -> Any:
    @ignore_fp_errors
    def function(a: Any, b: Any) -> Tensor:
        a, b = operands(name, [a, b])
        return make_tensor(launch_binary(ufunc(name), a, b))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Elementwise {name}, with the sign convention of Python; not recorded in the graph."
    return method(methods)(function)


floor_divide = _integer_arithmetic("floor_divide", "floor_divide __floordiv__")
remainder = _integer_arithmetic("remainder", "remainder __mod__")


@method("equal")
def equal(a: Any, b: Any) -> bool:
    """Whether two tensors have the same shape and equal elements."""
    a, b = operands("equal", [wrap(a), wrap(b)])
    if a.shape != b.shape:
        return False
    same = eq(a, b).array
    graph_break_on_read("equal()", same)
    return bool(devices.to_host(same).all())


@method("allclose")
def allclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether |a - b| <= atol + rtol * |b| for all elements."""
    a, b = wrap(a).array, wrap(b).array
    graph_break_on_read("allclose()", a, b)
    a, b = devices.move(a, devices.CPU), devices.move(b, devices.CPU)
    return bool(numpy.allclose(a, b, rtol=rtol, atol=atol, equal_nan=equal_nan))
