"""Inverse trigonometric and hyperbolic functions, angles, sinc."""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import Tensor, get_default_dtype, primitive
from gpunet.backend.dtypes import is_floating
from gpunet.ops.broadcast import in_accumulator, launch_binary, result_dtype, ufunc
from gpunet.ops.compare import compare, eq
from gpunet.ops.define import elementwise, unary
from gpunet.ops.elementwise import abs, rsqrt, sin, where

__all__ = [
    "acos", "acosh", "arccos", "arccosh", "arcsin", "arcsinh", "arctan2", "arctanh", "asin", "asinh", "atan2", "atanh", "deg2rad",
    "hypot", "rad2deg", "sinc",
]  # fmt: skip


@unary(lambda g, input: -(g * rsqrt(1.0 - input * input)), aliases="arccos", function="arccos", autocast="cuda: float32")
def acos(input):
    """The arccosine of x, in [0, pi]; NaN outside [-1, 1]."""


@unary(lambda g, input: g * rsqrt(1.0 - input * input), aliases="arcsin", function="arcsin", autocast="cuda: float32")
def asin(input):
    """The arcsine of x, in [-pi/2, pi/2]; NaN outside [-1, 1]."""


@unary(lambda g, input: g * rsqrt(input * input - 1.0), aliases="arccosh", function="arccosh")
def acosh(input):
    """The inverse hyperbolic cosine of x, at least 0; NaN below 1."""


@unary(lambda g, input: g * rsqrt(input * input + 1.0), aliases="arcsinh", function="arcsinh")
def asinh(input):
    """The inverse hyperbolic sine of x."""


@unary(lambda g, input: g / (1.0 - input * input), aliases="arctanh", function="arctanh")
def atanh(input):
    """The inverse hyperbolic tangent of x; NaN outside [-1, 1]."""


arccos, arccosh, arcsin, arcsinh, arctanh = acos, acosh, asin, asinh, atanh


def floating_dtype(*operands: Any) -> Any:
    """The dtype of a result that is no integer: the promoted one, the default dtype for integers."""
    dtype = result_dtype(*operands)
    return dtype if is_floating(dtype) else get_default_dtype()


@primitive
def _atan2(a, b):
    return launch_binary(ufunc("arctan2"), a, b, floating_dtype(a, b))


def _per_square(numerator, a, b):
    """numerator / (a^2 + b^2), without overflow; 0 at the origin."""
    distance = _hypot(a, b)
    is_zero = eq(distance, 0)
    distance = where(is_zero, 1.0, distance)
    return where(is_zero, 0.0, numerator / distance / distance)


_atan2.derivatives(a=lambda g, a, b: g * _per_square(b, a, b), b=lambda g, a, b: -(g * _per_square(a, a, b)))


@elementwise("atan2 arctan2", autocast="cuda: widest")
def atan2(input: Any, other: Any) -> Tensor:
    """The angle of the point (other, input) to the x axis, in [-pi, pi]."""
    return _atan2(input, other)


arctan2 = atan2


@primitive
def _hypot(a, b):
    return launch_binary(ufunc("hypot"), a, b, floating_dtype(a, b))


_hypot.derivatives(a=lambda g, a, out: g * (a / out), b=lambda g, b, out: g * (b / out))


@elementwise("hypot")
def hypot(input: Any, other: Any) -> Tensor:
    """sqrt(input^2 + other^2), computed without overflow."""
    return _hypot(input, other)


@elementwise("deg2rad")
def deg2rad(input: Any) -> Tensor:
    """An angle in degrees in radians."""
    return input * (math.pi / 180.0)


@elementwise("rad2deg")
def rad2deg(input: Any) -> Tensor:
    """An angle in radians in degrees."""
    return input * (180.0 / math.pi)


@elementwise("sinc")
@in_accumulator
def sinc(input: Any) -> Tensor:
    """sin(pi x) / (pi x), and 1 at 0."""
    angle = input * math.pi
    is_small = compare("less", abs(angle.detach()), 0.1)
    square = where(is_small, angle * angle, 0.0)
    series: Any = 0.0  # of Taylor; the first term left out is below 0.1**12 / 13!
    for n in (10, 8, 6, 4, 2):
        series = (1.0 - series) * (square * (1.0 / (n * (n + 1))))
    safe = where(is_small, 1.0, angle)
    return where(is_small, 1.0 - series, sin(safe) / safe)
