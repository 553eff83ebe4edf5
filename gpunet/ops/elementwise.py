"""Elementwise primitives: arithmetic, powers, exponentials, trigonometry, selection.

Each launches a ufunc that NumPy and CuPy have in common.
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import ADD, MULTIPLY, Tensor, contiguous, get_default_dtype, method, primitive, wrap
from gpunet.backend.dtypes import is_floating
from gpunet.errors import ArgumentError, DtypeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.ops.broadcast import (
    broadcast_shape,
    cast,
    launch_binary,
    launch_unary,
    result_dtype,
    ufunc,
)
from gpunet.ops.compare import compare, eq, logical_and, sign
from gpunet.ops.special import ERF

__all__ = [
    "abs",
    "add",
    "atan",
    "clamp",
    "cos",
    "cosh",
    "div",
    "erf",
    "exp",
    "expm1",
    "log",
    "log1p",
    "log2",
    "log10",
    "maximum",
    "minimum",
    "mul",
    "neg",
    "pow",
    "reciprocal",
    "rsqrt",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "sub",
    "tan",
    "where",
]  # fmt: skip

WHERE = Shim(
    "where", lambda xp, out, condition, a, b: (xp.copyto(out, b), xp.copyto(out, a, where=condition)), widens=False
)


# ---- arithmetic -----------------------------------------------------------------------------------------------------


@primitive(methods="__add__ __radd__")
def add(a, b):
    """a + b, broadcast."""
    return launch_binary(ADD, a, b)


add.derivatives(a=lambda g: g, b=lambda g: g)


@primitive(methods="__sub__")
def sub(a, b):
    """a - b, broadcast."""
    return launch_binary(ufunc("subtract"), a, b)


sub.derivatives(a=lambda g: g, b=lambda g: -g)


@primitive(methods="mul multiply __mul__ __rmul__")
def mul(a, b):
    """a * b, broadcast."""
    return launch_binary(MULTIPLY, a, b)


mul.derivatives(a=lambda g, b: g * b, b=lambda g, a: g * a)


@primitive(methods="div divide true_divide __truediv__")
def div(a, b):
    """a / b, broadcast; integers are divided in the default dtype."""
    dtype = result_dtype(a, b)
    return launch_binary(ufunc("divide"), a, b, dtype if is_floating(dtype) else get_default_dtype())


div.derivatives(a=lambda g, b: g / b, b=lambda g, a, b: -(g * a) / (b * b))


@primitive(methods="pow __pow__")
def pow(a, b):
    """a ** b.  The gradient with respect to b takes log(0) as 0, as in PyTorch."""
    if not isinstance(b, Tensor):
        if b == 2:
            return launch_binary(MULTIPLY, a, a)
        if b < 0 and not is_floating(result_dtype(a, b)):
            raise DtypeError(f"pow: an integer tensor has no power {b}; convert it with .float() first")
    return launch_binary(ufunc("power"), a, b)


def _pow_base(g, a, b):
    if isinstance(b, Tensor):  # b = 0 needs where(): at a = 0, b * a ** (b - 1) would be 0 * inf = NaN
        return where(eq(b, 0), 0.0, g * (b * a ** where(eq(b, 0), 1.0, b - 1)))
    if b == 2:
        return g * (2.0 * a)
    return g * (b * a ** (b - 1)) if b != 0 else g * 0.0


def _pow_exponent(g, a, b):
    if not isinstance(a, Tensor):
        return g * (a**b * (math.log(a) if a > 0 else 0.0))
    return g * (a**b * log(where(eq(a, 0), 1.0, a)))


pow.derivatives(a=_pow_base, b=_pow_exponent)


@method("__rsub__")
def _rsub(b, a):
    return sub(a, b)


@method("__rtruediv__")
def _rdiv(b, a):
    return div(a, b)


@method("__rpow__")
def _rpow(b, a):
    return pow(a, b)


@method("add")
def add_scaled(a, b, *, alpha=1):
    """a + alpha * b."""
    return add(a, b if alpha == 1 else b * alpha)  # not mul(): if b is a number, mul() would make a CPU tensor of it


@method("sub subtract")
def sub_scaled(a, b, *, alpha=1):
    """a - alpha * b."""
    return sub(a, b if alpha == 1 else b * alpha)


@primitive(methods="neg negative __neg__")
def neg(x):
    """-x."""
    return launch_unary(ufunc("negative"), x, x.dtype)


neg.derivatives(x=lambda g: -g)


@method("__pos__")
def _pos(x):
    return x


@primitive(methods="abs absolute __abs__")
def abs(x):
    """|x|; the gradient at 0 is 0."""
    return launch_unary(ufunc("absolute"), x, x.dtype)


abs.derivatives(x=lambda g, x: g * sign(x))


@primitive(methods="square")
def square(x):
    """x^2."""
    return launch_unary(ufunc("square"), x, x.dtype)


square.derivatives(x=lambda g, x: g * (2.0 * x))


@primitive(methods="sqrt")
def sqrt(x):
    """The square root of x."""
    return launch_unary(ufunc("sqrt"), x)


sqrt.derivatives(x=lambda g, out: g / (2.0 * out))


@method("rsqrt")
def rsqrt(x):
    """1 / sqrt(x)."""
    return 1.0 / sqrt(x)


@primitive(methods="reciprocal")
def reciprocal(x):
    """1 / x."""
    dtype = x.dtype if is_floating(x.dtype) else get_default_dtype()
    return launch_binary(ufunc("divide"), 1.0, x, dtype)


reciprocal.derivatives(x=lambda g, out: -(g * out * out))


# ---- exponentials, trigonometry -------------------------------------------------------------------------------------


@primitive(methods="exp")
def exp(x):
    """e^x."""
    return launch_unary(ufunc("exp"), x)


exp.derivatives(x=lambda g, out: g * out)


@primitive(methods="expm1")
def expm1(x):
    """e^x - 1, accurate near 0."""
    return launch_unary(ufunc("expm1"), x)


expm1.derivatives(x=lambda g, out: g * (out + 1.0))


@primitive(methods="log")
def log(x):
    """The natural logarithm of x."""
    return launch_unary(ufunc("log"), x)


log.derivatives(x=lambda g, x: g / x)


@primitive(methods="log1p")
def log1p(x):
    """log(1 + x), accurate near 0."""
    return launch_unary(ufunc("log1p"), x)


log1p.derivatives(x=lambda g, x: g / (x + 1.0))


@primitive(methods="log2")
def log2(x):
    """The logarithm of x to base 2."""
    return launch_unary(ufunc("log2"), x)


log2.derivatives(x=lambda g, x: g / (x * math.log(2.0)))


@primitive(methods="log10")
def log10(x):
    """The logarithm of x to base 10."""
    return launch_unary(ufunc("log10"), x)


log10.derivatives(x=lambda g, x: g / (x * math.log(10.0)))


@primitive(methods="sin")
def sin(x):
    """The sine of x in radians."""
    return launch_unary(ufunc("sin"), x)


sin.derivatives(x=lambda g, x: g * cos(x))


@primitive(methods="cos")
def cos(x):
    """The cosine of x in radians."""
    return launch_unary(ufunc("cos"), x)


cos.derivatives(x=lambda g, x: -(g * sin(x)))


@primitive(methods="tan")
def tan(x):
    """The tangent of x in radians."""
    return launch_unary(ufunc("tan"), x)


tan.derivatives(x=lambda g, out: g * (out * out + 1.0))


@primitive(methods="sinh")
def sinh(x):
    """(e^x - e^-x) / 2."""
    return launch_unary(ufunc("sinh"), x)


sinh.derivatives(x=lambda g, x: g * cosh(x))


@primitive(methods="cosh")
def cosh(x):
    """(e^x + e^-x) / 2."""
    return launch_unary(ufunc("cosh"), x)


cosh.derivatives(x=lambda g, x: g * sinh(x))


@primitive(methods="arctan atan")
def atan(x):
    """The arctangent of x, in [-pi/2, pi/2]."""
    return launch_unary(ufunc("arctan"), x)


atan.derivatives(x=lambda g, x: g / (x * x + 1.0))


@primitive(methods="erf")
def erf(x):
    """2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    array = x.array if is_floating(x.dtype) else cast(x, dtype=get_default_dtype()).array
    out = empty(x.shape, array.dtype, array)
    ERF(out, contiguous(array))
    return out


erf.derivatives(x=lambda g, x: g * (2.0 / math.sqrt(math.pi) * exp(-(x * x))))


# ---- selection ------------------------------------------------------------------------------------------------------


def _chosen(g, greater_or_less, x, other):
    """The gradient of the operand x; a tie gives half of the gradient to each operand, as in PyTorch."""
    chosen = cast(compare(greater_or_less, x, other), dtype=g.dtype)
    return g * (chosen + 0.5 * cast(eq(x, other), dtype=g.dtype))


@primitive(methods="maximum")
def maximum(a, b):
    """Elementwise maximum; NaN where either operand is NaN."""
    return launch_binary(ufunc("maximum"), a, b)


maximum.derivatives(a=lambda g, a, b: _chosen(g, "greater", a, b), b=lambda g, a, b: _chosen(g, "greater", b, a))


@primitive(methods="minimum")
def minimum(a, b):
    """Elementwise minimum; NaN where either operand is NaN."""
    return launch_binary(ufunc("minimum"), a, b)


minimum.derivatives(a=lambda g, a, b: _chosen(g, "less", a, b), b=lambda g, a, b: _chosen(g, "less", b, a))


@primitive
def _where(condition, a, b):
    mask = condition.array
    shape = broadcast_shape("where", mask.shape, *(v.shape for v in (a, b) if isinstance(v, Tensor)))
    out = empty(shape, result_dtype(a, b), mask)
    WHERE(out, mask, *(v.array if isinstance(v, Tensor) else v for v in (a, b)))
    return out


_where.derivatives(a=lambda g, condition: where(condition, g, 0.0), b=lambda g, condition: where(condition, 0.0, g))


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """``a`` where ``condition`` is true, else ``b``; an element that is not selected gets gradient zero.

    Raises:
        DtypeError: the condition is not boolean.
    """
    condition = wrap(condition)
    if condition.dtype != numpy.bool_:
        raise DtypeError(
            f"where: condition of dtype {condition.dtype}; expected a boolean tensor, such as x > 0"
        )
    return _where(condition, a, b)


@method("where")
def _where_method(x, condition, other):
    return where(condition, x, other)


@method("masked_fill")
def masked_fill(x: Tensor, mask: Any, value: Any) -> Tensor:
    """``value`` where ``mask`` is true, else ``x``."""
    return where(mask, value, x)


@primitive(methods="clamp clip")
def clamp(x, min=None, max=None):
    """Limit x to [min, max] (numbers or None).  The gradient is 1 inside, bounds included, and 0 outside."""
    if min is None and max is None:
        raise ArgumentError("clamp: min and max are both None; expected at least one number")
    out = empty(x.shape, result_dtype(x, *(v for v in (min, max) if v is not None)), x.array)
    source = x.array
    if min is not None:
        ufunc("maximum")(out, source, min)
        source = out
    if max is not None:
        ufunc("minimum")(out, source, max)

    return out


def _inside(g, x, min, max):
    low = None if min is None else compare("greater_equal", x, min)
    high = None if max is None else compare("less_equal", x, max)
    return where(low if high is None else high if low is None else logical_and(low, high), g, 0.0)


clamp.derivatives(x=_inside)
