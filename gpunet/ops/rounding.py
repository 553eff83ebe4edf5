"""Functions whose gradient is zero almost everywhere: rounding and sign; floor division and remainder.

The zero gradients are in the graph, as in PyTorch.
"""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import COPY, MULTIPLY, Tensor, method, primitive
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import is_boolean, is_floating
from gpunet.errors import ArgumentError, DtypeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.ops.broadcast import in_accumulator, launch_binary, launch_unary, result_dtype, ufunc, zero_gradient
from gpunet.ops.define import elementwise, unary
from gpunet.ops.face import as_integer

__all__ = ["ceil", "fix", "floor", "floor_divide", "remainder", "round", "sign", "trunc"]


# ---- rounding, sign ---------------------------------------------------------------------------------------------------


def _rounded(function: str, x: Tensor) -> Array:
    """The ufunc of a floating tensor; a copy of integers, which are round."""
    return launch_unary(ufunc(function) if is_floating(x.dtype) else COPY, x, x.dtype)


@unary(zero_gradient, forward=lambda x: _rounded("floor", x))
def floor(input):
    """The largest integer that is not above x."""


@unary(zero_gradient, forward=lambda x: _rounded("ceil", x))
def ceil(input):
    """The smallest integer that is not below x."""


@unary(zero_gradient, aliases="fix", forward=lambda x: _rounded("trunc", x))
def trunc(input):
    """The integer next to x towards zero."""


@primitive
def _round(x, *, decimals):
    if not decimals:
        return _rounded("rint", x)
    scale = 10.0 ** abs(decimals) if abs(decimals) <= 308 else math.inf
    first, second = (MULTIPLY, ufunc("divide")) if decimals > 0 else (ufunc("divide"), MULTIPLY)
    out = empty(x.shape, x.dtype, x.array)
    first(out, x.array, scale)
    ufunc("rint")(out, out)
    second(out, out, scale)
    return out


_round.derivatives(x=zero_gradient)


@elementwise("round")
def round(input: Any, *, decimals: int = 0) -> Tensor:
    """Round to the nearest integer, halves to the even one; or to ``decimals`` decimal places.

    Raises:
        DtypeError: ``decimals`` of an integer tensor.
    """
    decimals = as_integer("round", "decimals", decimals)
    if decimals and not is_floating(input.dtype):
        raise DtypeError(f"round: decimals={decimals} of a tensor of {input.dtype}; expected a floating tensor")
    return in_accumulator(_round)(input, decimals=decimals) if decimals else _round(input, decimals=0)


#: As in PyTorch, the sign of NaN is 0; NumPy's is NaN.
SIGN = Shim("sign", lambda xp, out, x: (xp.greater(x, 0, out=out), xp.subtract(out, xp.less(x, 0), out=out)))


def sign_array(x: Tensor) -> Array:
    return launch_unary(COPY if is_boolean(x.dtype) else SIGN, x, x.dtype)


@unary(zero_gradient, forward=sign_array)
def sign(input):
    """-1, 0 or 1, the sign of x; 0 for NaN."""


fix = trunc

# ---- division -----------------------------------------------------------------------------------------------------------


@primitive(methods="__floordiv__")
def _floor_divide(a, b):
    return launch_binary(ufunc("floor_divide"), a, b)


_floor_divide.derivatives(a=zero_gradient, b=zero_gradient)


@primitive(name="div")
def truncated_div(a, b):
    """a / b, rounded towards zero."""
    if is_floating(result_dtype(a, b)):
        out = launch_binary(ufunc("divide"), a, b)
        ufunc("trunc")(out, out)
        return out
    quotient, rest = _floor_divide(a, b), _remainder(a, b)
    return launch_binary(ufunc("add"), quotient, (rest != 0) & ((rest < 0) != (a < 0)))


truncated_div.derivatives(a=zero_gradient, b=zero_gradient)


@primitive(methods="__mod__")
def _remainder(a, b):
    return launch_binary(ufunc("remainder"), a, b)


_remainder.derivatives(a=lambda g: g, b=lambda g, a, b: -(g * _floor_divide(a, b)))


@elementwise("floor_divide", "__ifloordiv__", numbers=True)
def floor_divide(input: Any, other: Any) -> Tensor:
    """input / other, rounded down; an integer divided by 0 is 0."""
    return _floor_divide(input, other)


@elementwise("remainder", "__imod__", numbers=True)
def remainder(input: Any, other: Any) -> Tensor:
    """input - other * floor(input / other), which has the sign of ``other``; 0 for an integer divided by 0."""
    return _remainder(input, other)


@method("__rfloordiv__")
def _rfloordiv(b, a):
    return _floor_divide(a, b)


@method("__rmod__")
def _rmod(b, a):
    return _remainder(a, b)


def check_rounding_mode(mode: Any) -> None:
    """Raise an ArgumentError if ``mode`` is no rounding mode of a division."""
    if mode not in ("trunc", "floor"):
        raise ArgumentError(f"div: rounding_mode={mode!r}; expected None, 'trunc' or 'floor'")
