"""Products with logarithms that are 0 where the first factor is 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gpunet.autograd import Tensor, operands, primitive
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import accumulator, is_floating
from gpunet.errors import DtypeError
from gpunet.ops.broadcast import cast, check_operand, in_accumulator, tensor_of
from gpunet.ops.compare import eq, isnan
from gpunet.ops.define import elementwise, unary
from gpunet.ops.elementwise import log, log1p, where
from gpunet.ops.face import public
from gpunet.ops.trigonometry import floating_dtype

__all__ = ["entr", "xlog1py", "xlogy"]


def _product(logarithm: Callable[[Tensor], Tensor], a: Tensor, b: Tensor) -> Array:
    a, b = a.detach(), b.detach()
    is_zero = eq(a, 0) & ~isnan(b)
    return where(is_zero, 0.0, a * logarithm(where(is_zero, 1.0, b))).array


@primitive
def _xlogy(a, b, *, has_pole):
    return _product(log, a, b)


def _xlogy_gradient(g, a, b, has_pole):
    """g log(b); 0 where a is 0 and b has no finite logarithm.  A number other than a positive one counts as such, also NaN."""
    return where(eq(a, 0) & (has_pole | (b <= 0)), 0.0, _xlogy(g, b, has_pole=has_pole))


_xlogy.derivatives(a=_xlogy_gradient, b=lambda g, a, b: g * (a / b))


@primitive
def _xlog1py(a, b, *, has_pole):
    return _product(log1p, a, b)


def _xlog1py_gradient(g, a, b, has_pole):
    return where(eq(a, 0) & (has_pole | (b <= -1)), 0.0, _xlog1py(g, b, has_pole=has_pole))


_xlog1py.derivatives(a=_xlog1py_gradient, b=lambda g, a, b: g * (a / (b + 1.0)))


def _computed(name: str, op: Callable[..., Tensor], input: Any, other: Any, pole: float) -> Tensor:
    a, b = operands(name, [input, other])
    for value in (a, b):
        check_operand(name, value)
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        raise DtypeError(f"{name} of {input!r} and {other!r}; expected a tensor")
    dtype = floating_dtype(a, b)
    device = (a if isinstance(a, Tensor) else b).device
    has_pole = not isinstance(b, Tensor) and not b > pole
    result = op(*(tensor_of(v, accumulator(dtype), device) for v in (a, b)), has_pole=has_pole)
    return result if result.dtype == dtype else cast(result, dtype=dtype)


@elementwise("xlogy", numbers=True)
def xlogy(input: Any, other: Any) -> Tensor:
    """input * log(other); 0 where ``input`` is 0, unless ``other`` is NaN."""
    return _computed("xlogy", _xlogy, input, other, 0.0)


@public(numbers=True)
def xlog1py(input: Any, other: Any) -> Tensor:
    """input * log(1 + other); 0 where ``input`` is 0, unless ``other`` is NaN."""
    return _computed("xlog1py", _xlog1py, input, other, -1.0)


@in_accumulator
def _entropy(x: Tensor) -> Tensor:
    is_positive = x > 0
    outside = where(eq(x, 0), 0.0, where(isnan(x), x, -math.inf))
    return where(is_positive, -x * log(where(is_positive, x, 1.0)), outside)


def _entr_array(x: Tensor) -> Array:
    return _entropy(x.detach() if is_floating(x.dtype) else cast(x, dtype=floating_dtype(x))).array


@unary(lambda g, input: -(g * (log(input) + 1.0)), forward=_entr_array, is_method=False)
def entr(input):
    """-x log(x), a term of the entropy: 0 at 0, -inf for negative x."""
