"""Elementwise primitives: arithmetic, powers, exponentials, trigonometry, selection.

All are launches of universal functions that NumPy and CuPy share.
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import ADD, MULTIPLY, Tensor, contiguous, get_default_dtype, method, primitive, wrap
from gpunet.errors import ArgumentError, DtypeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.ops.broadcast import binary, broadcast_shape, cast, fit, like, result_dtype, ufunc, unary
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

WHERE = Shim("where", lambda xp, out, condition, a, b: (xp.copyto(out, b), xp.copyto(out, a, where=condition)))


# ---- arithmetic -----------------------------------------------------------------------------------------------------


@primitive(methods="__add__ __radd__")
def add(a, b):
    a_like, b_like = like(a), like(b)
    return binary(ADD, a, b), lambda g: fit(g, a_like), lambda g: fit(g, b_like)


@primitive(methods="__sub__")
def sub(a, b):
    a_like, b_like = like(a), like(b)
    return binary(ufunc("subtract"), a, b), lambda g: fit(g, a_like), lambda g: fit(-g, b_like)


@primitive(methods="mul multiply __mul__ __rmul__")
def mul(a, b):
    a_like, b_like = like(a), like(b)
    return binary(MULTIPLY, a, b), lambda g: fit(g * b, a_like), lambda g: fit(g * a, b_like)


@primitive(methods="div divide true_divide __truediv__")
def div(a, b):
    a_like, b_like = like(a), like(b)
    dtype = result_dtype(a, b)
    out = binary(ufunc("divide"), a, b, dtype if dtype.kind == "f" else get_default_dtype())
    return out, lambda g: fit(g / b, a_like), lambda g: fit(-(g * a) / (b * b), b_like)


@primitive(methods="pow __pow__")
def pow(a, b):
    """a ** b.  The gradient of the exponent takes log(a) as 0 where a is 0, as PyTorch does."""
    a_like, b_like = like(a), like(b)
    if not isinstance(b, Tensor) and b == 2:
        return binary(MULTIPLY, a, a), lambda g: fit(g * (2.0 * a), a_like)
    launch = ufunc("power") if isinstance(b, Tensor) or result_dtype(a, b).kind == "f" or b >= 0 else None
    if launch is None:
        raise DtypeError(f"pow: an integer tensor to the negative power {b}: convert it with .float() first")

    def base_rule(g):
        if not isinstance(b, Tensor):
            return fit(g * (b * a ** (b - 1)), a_like) if b != 0 else fit(g * 0.0, a_like)
        # where b is 0 the derivative is 0, also at a = 0, where b * a ** (b - 1) would be 0 * inf
        return fit(where(eq(b, 0), 0.0, g * (b * a ** where(eq(b, 0), 1.0, b - 1))), a_like)

    def exponent_rule(g):
        if not isinstance(a, Tensor):
            return fit(g * (a**b * (math.log(a) if a > 0 else 0.0)), b_like)
        safe = where(eq(a, 0), 1.0, a)
        return fit(g * (a**b * log(safe)), b_like)

    return binary(launch, a, b), base_rule, exponent_rule


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
    return add(a, b if alpha == 1 else b * alpha)  # not mul(): of two numbers that would be a tensor on the CPU


@method("sub subtract")
def sub_scaled(a, b, *, alpha=1):
    return sub(a, b if alpha == 1 else b * alpha)


@primitive(methods="neg negative __neg__")
def neg(x):
    return unary(ufunc("negative"), x, x.dtype), lambda g: -g


@method("__pos__")
def _pos(x):
    return x


@primitive(methods="abs absolute __abs__")
def abs(x):
    return unary(ufunc("absolute"), x, x.dtype), lambda g: g * sign(x)


@primitive(methods="square")
def square(x):
    return unary(ufunc("square"), x, x.dtype), lambda g: g * (2.0 * x)


@primitive(methods="sqrt", output=True)
def sqrt(x):
    return unary(ufunc("sqrt"), x), lambda g, out: g / (2.0 * out)


@method("rsqrt")
def rsqrt(x):
    """1 / sqrt(x)."""
    return 1.0 / sqrt(x)


@primitive(methods="reciprocal", output=True)
def reciprocal(x):
    dtype = x.dtype if x.dtype.kind == "f" else get_default_dtype()
    return binary(ufunc("divide"), 1.0, x, dtype), lambda g, out: -(g * out * out)


# ---- exponentials, trigonometry -------------------------------------------------------------------------------------


@primitive(methods="exp", output=True)
def exp(x):
    return unary(ufunc("exp"), x), lambda g, out: g * out


@primitive(methods="expm1", output=True)
def expm1(x):
    return unary(ufunc("expm1"), x), lambda g, out: g * (out + 1.0)


@primitive(methods="log")
def log(x):
    return unary(ufunc("log"), x), lambda g: g / x


@primitive(methods="log1p")
def log1p(x):
    return unary(ufunc("log1p"), x), lambda g: g / (x + 1.0)


@primitive(methods="log2")
def log2(x):
    return unary(ufunc("log2"), x), lambda g: g / (x * math.log(2.0))


@primitive(methods="log10")
def log10(x):
    return unary(ufunc("log10"), x), lambda g: g / (x * math.log(10.0))


@primitive(methods="sin")
def sin(x):
    return unary(ufunc("sin"), x), lambda g: g * cos(x)


@primitive(methods="cos")
def cos(x):
    return unary(ufunc("cos"), x), lambda g: -(g * sin(x))


@primitive(methods="tan", output=True)
def tan(x):
    return unary(ufunc("tan"), x), lambda g, out: g * (out * out + 1.0)


@primitive(methods="sinh")
def sinh(x):
    return unary(ufunc("sinh"), x), lambda g: g * cosh(x)


@primitive(methods="cosh")
def cosh(x):
    return unary(ufunc("cosh"), x), lambda g: g * sinh(x)


@primitive(methods="arctan atan")
def atan(x):
    return unary(ufunc("arctan"), x), lambda g: g / (x * x + 1.0)


@primitive(methods="erf")
def erf(x):
    """2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    array = x.array if x.dtype.kind == "f" else cast(x, dtype=get_default_dtype()).array
    out = empty(x.shape, array.dtype, array)
    ERF(out, contiguous(array))
    return out, lambda g: g * (2.0 / math.sqrt(math.pi) * exp(-(x * x)))


# ---- selection ------------------------------------------------------------------------------------------------------


def _extremum(name, a, b, greater_or_less):
    a_like, b_like = like(a), like(b)

    def share(g, first, second, target):  # a tie gives half to each, as PyTorch does
        chosen = cast(compare(greater_or_less, first, second), dtype=g.dtype)
        return fit(g * (chosen + 0.5 * cast(eq(first, second), dtype=g.dtype)), target)

    return binary(ufunc(name), a, b), lambda g: share(g, a, b, a_like), lambda g: share(g, b, a, b_like)


@primitive(methods="maximum")
def maximum(a, b):
    """The larger of each pair; NaN where either is NaN."""
    return _extremum("maximum", a, b, "greater")


@primitive(methods="minimum")
def minimum(a, b):
    """The smaller of each pair; NaN where either is NaN."""
    return _extremum("minimum", a, b, "less")


@primitive
def _where(condition, a, b):
    mask = condition.array
    shape = broadcast_shape("where", mask.shape, *(v.shape for v in (a, b) if isinstance(v, Tensor)))
    out = empty(shape, result_dtype(a, b), mask)
    WHERE(out, mask, *(v.array if isinstance(v, Tensor) else v for v in (a, b)))
    a_like, b_like = like(a), like(b)
    fixed = Tensor(mask)
    fixed._version = condition._version
    return out, None, lambda g: fit(where(fixed, g, 0.0), a_like), lambda g: fit(where(fixed, 0.0, g), b_like)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """``a`` where the condition holds, ``b`` elsewhere; no gradient leaks from the side not taken.

    Raises:
        DtypeError: the condition is not boolean.
    """
    condition = wrap(condition)
    if condition.dtype != numpy.bool_:
        raise DtypeError(
            f"where: condition of dtype {condition.dtype}; expected a boolean tensor, as a comparison gives"
        )
    return _where(condition, a, b)


@method("where")
def _where_method(x, condition, other):
    return where(condition, x, other)


@method("masked_fill")
def masked_fill(x: Tensor, mask: Any, value: Any) -> Tensor:
    """``value`` where ``mask`` holds, ``x`` elsewhere."""
    return where(mask, value, x)


@primitive(methods="clamp clip")
def clamp(x, min=None, max=None):
    """Limit to [min, max], numbers or None.  The gradient passes where x is inside, bounds included."""
    if min is None and max is None:
        raise ArgumentError("clamp: min and max are both None; give at least one")
    out = empty(x.shape, result_dtype(x, *(v for v in (min, max) if v is not None)), x.array)
    source = x.array
    if min is not None:
        ufunc("maximum")(out, source, min)
        source = out
    if max is not None:
        ufunc("minimum")(out, source, max)

    def rule(g):
        low = None if min is None else compare("greater_equal", x, min)
        high = None if max is None else compare("less_equal", x, max)
        both = low if high is None else high if low is None else logical_and(low, high)
        return where(both, g, 0.0)

    return out, rule
