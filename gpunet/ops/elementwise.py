"""Elementwise functions: arithmetic, powers, exponentials, trigonometry, selection.

Each launches a ufunc that NumPy and CuPy have in common.
"""

from __future__ import annotations

import cmath
import math
from typing import Any

import numpy

from gpunet.autograd import ADD, MULTIPLY, Tensor, contiguous, get_default_dtype, make_tensor, method, primitive, wrap
from gpunet.autograd.autocast import casts
from gpunet.autograd.data import convert_number
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import is_boolean, is_complex, is_floating, is_half, is_inexact, to_real
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.launch.tape import active, graph_break_on_read
from gpunet.ops.broadcast import (
    broadcast_shape,
    cast,
    check_operand,
    launch_binary,
    launch_unary,
    operand_array,
    result_dtype,
    ufunc,
    zero_gradient,
)
from gpunet.ops.compare import BOOL, compare, eq
from gpunet.ops.define import elementwise, unary
from gpunet.ops.face import public
from gpunet.ops.rounding import check_rounding_mode, floor_divide, truncated_div
from gpunet.ops.special import ERF

__all__ = [
    "abs", "absolute", "add", "arctan", "atan", "clamp", "clamp_max", "clamp_min", "clip", "cos", "cosh", "div", "divide", "erf",
    "exp", "expm1", "log", "log1p", "log2", "log10", "masked_fill", "maximum", "minimum", "mul", "multiply", "neg", "negative",
    "pow", "reciprocal", "rsqrt", "rsub", "sin", "sinh", "sqrt", "square", "sub", "subtract", "tan", "true_divide", "where",
]  # fmt: skip

def _write_where(xp: Any, out: Array, condition: Array, a: Any, b: Any) -> None:
    """Write ``a`` to ``out`` where a condition holds, else ``b``."""
    xp.copyto(out, b)
    is_whole = type(out) is numpy.ndarray and type(a) is numpy.ndarray and a.shape == out.shape and a.dtype == out.dtype
    if is_whole and condition.shape == out.shape:
        numpy.putmask(out, condition, a)  # several times as fast as copyto
    elif is_whole and condition.ndim == out.ndim > 1 and condition.size == len(out) == len(condition):  # one for each row
        rows = condition.reshape(-1)
        out[rows] = a[rows]
    else:
        xp.copyto(out, a, where=condition)


WHERE = Shim("where", _write_where, widens=False)
#: On the CPU, several times as fast as the maximum and the minimum one after the other.
CLIP = Shim("clip", lambda xp, out, x, low, high: xp.clip(x, low, high, out=out), widens=False)


# ---- arithmetic -----------------------------------------------------------------------------------------------------
# Operators call the primitives; the public functions stand in front of them.


@primitive(methods="__add__ __radd__", takes_complex=True)
def _add(a, b):
    return launch_binary(ADD, a, b)


_add.derivatives(a=lambda g: g, b=lambda g: g)


@primitive(methods="__sub__", takes_complex=True)
def _sub(a, b):
    if _is_boolean(a) or _is_boolean(b):
        raise DtypeError("sub (-) of a boolean: expected numbers; use ~ or ^ for masks, or convert with .float() or .long()")
    return launch_binary(ufunc("subtract"), a, b)


def _is_boolean(operand: Any) -> bool:
    return operand.array.dtype == BOOL if isinstance(operand, Tensor) else operand is True or operand is False


_sub.derivatives(a=lambda g: g, b=lambda g: -g)


@primitive(methods="__mul__ __rmul__", takes_complex=True)
def _mul(a, b):
    return launch_binary(MULTIPLY, a, b)


_mul.derivatives(a=lambda g, b: g * b, b=lambda g, a: g * a)


@primitive(methods="__truediv__", takes_complex=True)
def _div(a, b):
    dtype = result_dtype(a, b)
    return launch_binary(ufunc("divide"), a, b, dtype if is_inexact(dtype) else get_default_dtype())


_div.derivatives(a=lambda g, b: g / b, b=lambda g, a, b: -(g * (a / b / b)))  # b * b would overflow


@elementwise("add", "__iadd__", launch=ADD, numbers=True, takes_complex=True)
def add(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """input + alpha * other, broadcast."""
    return _add(input, other if type(alpha) is int and alpha == 1 else _scaled("add", input, other, alpha))


@elementwise("sub subtract", "__isub__", launch=ufunc("subtract"), numbers=True, takes_complex=True)
def sub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """input - alpha * other, broadcast."""
    if type(alpha) is int and alpha == 1:
        return _sub(input, other)
    return _sub(input, other if _is_boolean(other) else _scaled("sub", input, other, alpha))


def _scaled(name: str, input: Any, other: Any, alpha: Any) -> Any:
    """alpha * other, in the dtype of the result; a number stays one."""
    dtype = result_dtype(input, other)
    own = result_dtype(alpha)
    if own != dtype and (is_inexact(own) > is_inexact(dtype) or is_boolean(own)):
        raise DtypeError(f"{name}: alpha={alpha} for a result of {dtype}; expected a number of the result's kind")
    if not isinstance(alpha, Tensor):
        alpha = convert_number(alpha, dtype, name, "alpha", rounds_to_inf=True)
    if not isinstance(other, Tensor):
        check_operand(name, other)
    elif other.dtype != dtype:
        other = cast(other, dtype=dtype)
    scaled = other * alpha
    return cast(scaled, dtype=dtype) if isinstance(scaled, Tensor) and scaled.dtype != dtype else scaled


@elementwise("mul multiply", "__imul__", launch=MULTIPLY, numbers=True, takes_complex=True)
def mul(input: Any, other: Any) -> Tensor:
    """input * other, broadcast."""
    return _mul(input, other)


@elementwise("div divide true_divide", "__itruediv__", launch=ufunc("divide"), numbers=True, takes_complex=True)
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """input / other, broadcast; integers are divided in the default dtype.

    Args:
        rounding_mode: "trunc" rounds towards zero, "floor" down; then the quotient of integers is an integer, and the
            gradient is zero.
    """
    if rounding_mode is None:
        return _div(input, other)
    check_rounding_mode(rounding_mode)
    return (floor_divide if rounding_mode == "floor" else truncated_div)(input, other)


@public("rsub", numbers=True, takes_complex=True)
def rsub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """other - alpha * input."""
    return sub(other, input, alpha=alpha)


@primitive(takes_complex=True)
def _pow(a, b):
    if isinstance(b, Tensor):
        dtype = result_dtype(a, b)
        return launch_binary(ufunc("power"), a, b, dtype) if is_inexact(dtype) else _integer_pow(a, b).array
    check_operand("pow", b)
    keeps_dtype = isinstance(a, Tensor) and is_floating(a.array.dtype) and type(b) is not complex
    dtype = a.array.dtype if keeps_dtype else result_dtype(a, b)
    if b == 2:
        return launch_binary(MULTIPLY, a, a, dtype)
    if not is_inexact(dtype) and b < 0:
        raise DtypeError(f"pow: an integer tensor has no power {b}; convert it with .float() first")
    return launch_binary(ufunc("power"), a, b, dtype)


def _integer_pow(a: Any, b: Tensor) -> Tensor:
    """a ** b of integers; a negative power is 0 except that of 1 and -1, as in PyTorch."""
    dtype = result_dtype(a, b)
    if is_boolean(dtype):
        raise DtypeError("pow: two boolean tensors; convert one with .long() first")
    b = b if b.dtype == dtype else cast(b, dtype=dtype)
    power = make_tensor(launch_binary(ufunc("power"), a, where(b < 0, b & 1, b), dtype))
    return where((b < 0) & (a != 1) & (a != -1), 0, power)


def _complex_conjugate(g, a):
    """A real base of a complex power as conj(a + 0i), on whose side of the branch cut log(a) is the conjugate."""
    if not is_complex(g.dtype):
        return a
    if isinstance(a, Tensor):
        return a if is_complex(a.dtype) else cast(a, dtype=g.dtype).conj()
    return a if isinstance(a, complex) else complex(a, -0.0)


def _pow_base(g, a, b):
    a = _complex_conjugate(g, a)
    if isinstance(b, Tensor):
        if not is_inexact(b.dtype):  # b - 1 would wrap around, and 1.0 make it float32
            b = cast(b, dtype=g.dtype)
        # b = 0 needs where(): at a = 0, b * a ** (b - 1) would be 0 * inf = NaN
        return where(eq(b, 0), 0.0, g * (b * a ** where(eq(b, 0), 1.0, b - 1)))
    if b == 2:
        return g * (2.0 * a)
    return g * (b * a ** (b - 1)) if b != 0 else zero_gradient(g)


def _pow_exponent(g, a, b):
    """g * a ** b * log(a); 0 where a is 0 and b is not negative, as in PyTorch."""
    a = _complex_conjugate(g, a)
    real_exponent = b.real if is_complex(b.dtype) else b
    if not isinstance(a, Tensor):
        log_of = cmath.log if is_complex(g.dtype) else math.log
        gradient = g * (a**b * (-math.inf if a == 0 else math.nan if log_of is math.log and a < 0 else log_of(a)))
        return gradient if a != 0 else where(real_exponent >= 0, 0.0, gradient)
    if a.dtype != g.dtype:  # an integer, or a 0-d tensor of less precision
        a = cast(a, dtype=g.dtype)
    is_zero = eq(a, 0) & (real_exponent >= 0)
    return where(is_zero, 0.0, g * (a**b * log(where(is_zero, 1.0, a))))


_pow.derivatives(a=_pow_base, b=_pow_exponent)


@elementwise("pow", "__ipow__", numbers=True, autocast="cuda: float32", takes_complex=True)
def pow(input: Any, exponent: Any) -> Tensor:
    """input ** exponent, broadcast; one of them may be a number.

    Raises:
        DtypeError: an integer tensor to the power of a negative integer.
    """
    return _pow(input, exponent)


@method("__rsub__")
def _rsub(b, a):
    return _sub(a, b)


@method("__rtruediv__")
@casts("cuda: float32")
def _rdiv(b, a):
    return _div(a, b)


@method("__pow__")
@casts("cuda: float32")
def _power(a, b):
    return _pow(a, b)


@method("__rpow__")
@casts("cuda: float32")
def _rpow(b, a):
    return _pow(a, b)


@method("__pos__")
def _pos(x):
    if is_boolean(x.dtype):
        raise DtypeError("+ of a boolean tensor; convert it with .float() or .long() first")
    return x


@unary(lambda g: -g, aliases="negative", function="negative", same_dtype=True, takes_complex=True)
def neg(input):
    """-x."""


def _abs_array(x: Tensor) -> Array:
    return launch_unary(ufunc("absolute"), x, to_real(x.dtype))


@unary(lambda g, input: g * input.sgn(), aliases="absolute", forward=_abs_array, takes_complex=True)
def abs(input):
    """|x|, of complex numbers the real magnitude; the gradient at 0 is 0."""


Tensor.__neg__, Tensor.__abs__ = neg, abs  # type: ignore[method-assign]


def _square_array(x: Tensor) -> Array:
    return launch_binary(MULTIPLY, x, x, numpy.dtype("int64") if is_boolean(x.dtype) else x.dtype)


@unary(lambda g, input: g * (2.0 * input), forward=_square_array, takes_complex=True)
def square(input):
    """x^2."""


@unary(lambda g, out: g / (2.0 * out), takes_complex=True)
def sqrt(input):
    """The square root of x."""


def _rsqrt_array(x: Tensor) -> Array:
    root = launch_unary(ufunc("sqrt"), x)
    ufunc("divide")(root, 1.0, root)
    return root


@unary(lambda g, out: -0.5 * (g * (out * out * out)), forward=_rsqrt_array, autocast="cuda: float32", takes_complex=True)
def rsqrt(input):
    """1 / sqrt(x)."""


def _reciprocal_array(x: Tensor) -> Array:
    return launch_binary(ufunc("divide"), 1.0, x, x.dtype if is_inexact(x.dtype) else get_default_dtype())


@unary(lambda g, out: -(g * out * out), forward=_reciprocal_array, autocast="cuda: float32", takes_complex=True)
def reciprocal(input):
    """1 / x."""


# ---- exponentials, trigonometry -------------------------------------------------------------------------------------


@unary(lambda g, out: g * out, autocast="cuda: float32", takes_complex=True)
def exp(input):
    """e^x."""


@unary(lambda g, out: g * (out + 1.0), autocast="cuda: float32", takes_complex=True)
def expm1(input):
    """e^x - 1, accurate near 0."""


@unary(lambda g, input: g / input, autocast="cuda: float32", takes_complex=True)
def log(input):
    """The natural logarithm of x."""


def _log1p_of_complex(xp: Any, out: Array, z: Array) -> None:
    """out = log(1 + z): near 0, |1 + z|^2 - 1 has its digits; of large numbers, the square does not overflow."""
    x, y = z.real, z.imag
    whole, height = xp.absolute(x + 1.0), xp.absolute(y)
    larger, smaller = xp.maximum(whole, height), xp.minimum(whole, height)
    ratio = xp.where(larger == smaller, 1.0, smaller / xp.where(larger == smaller, 1.0, larger))  # also of 0 and infinity
    far = xp.log(larger) + 0.5 * xp.log1p(ratio * ratio)
    near = 0.5 * xp.log1p(x * (x + 2.0) + y * y)
    out.real = xp.where(xp.absolute(x) + height < 0.5, near, far)
    out.imag = xp.arctan2(y, x + 1.0)


LOG1P_OF_COMPLEX = Shim("log1p", _log1p_of_complex)


def _log1p_array(x: Tensor) -> Array:
    return launch_unary(LOG1P_OF_COMPLEX if is_complex(x.array.dtype) else ufunc("log1p"), x)


@unary(lambda g, input: g / (input + 1.0), autocast="cuda: float32", takes_complex=True, forward=_log1p_array)
def log1p(input):
    """log(1 + x), accurate near 0."""


@unary(lambda g, input: g / (input * math.log(2.0)), autocast="cuda: float32", takes_complex=True)
def log2(input):
    """The logarithm of x to base 2."""


@unary(lambda g, input: g / (input * math.log(10.0)), autocast="cuda: float32", takes_complex=True)
def log10(input):
    """The logarithm of x to base 10."""


@unary(lambda g, input: g * input.cos(), takes_complex=True)
def sin(input):
    """The sine of x in radians."""


@unary(lambda g, input: -(g * input.sin()), takes_complex=True)
def cos(input):
    """The cosine of x in radians."""


@unary(lambda g, out: g * (out * out + 1.0), autocast="cuda: float32", takes_complex=True)
def tan(input):
    """The tangent of x in radians."""


@unary(lambda g, input: g * input.cosh(), autocast="cuda: float32", takes_complex=True)
def sinh(input):
    """(e^x - e^-x) / 2."""


@unary(lambda g, input: g * input.sinh(), autocast="cuda: float32", takes_complex=True)
def cosh(input):
    """(e^x + e^-x) / 2."""


@unary(lambda g, input: g / (input * input + 1.0), aliases="arctan", function="arctan")
def atan(input):
    """The arctangent of x, in [-pi/2, pi/2]."""


def _erf_array(x: Tensor) -> Array:
    array = x.array if is_floating(x.dtype) else cast(x, dtype=get_default_dtype()).array
    out = empty(x.shape, array.dtype, array)
    ERF(out, contiguous(array))
    return out


@unary(lambda g, input: g * (2.0 / math.sqrt(math.pi) * exp(-(input * input))), forward=_erf_array)
def erf(input):
    """2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x."""


# ---- selection ------------------------------------------------------------------------------------------------------


def _chosen(g, not_chosen, x, other):
    """The gradient of the operand x; a tie gives half of the gradient to each operand, and NaN all, as in PyTorch."""
    return where(compare(not_chosen, x, other), 0.0, where(eq(x, other), g * 0.5, g))


@primitive
def _maximum(a, b):
    return launch_binary(ufunc("maximum"), a, b)


_maximum.derivatives(a=lambda g, a, b: _chosen(g, "less", a, b), b=lambda g, a, b: _chosen(g, "less", b, a))


@public("maximum", numbers=True)
def maximum(input: Any, other: Any) -> Tensor:
    """Elementwise maximum; NaN where either operand is NaN."""
    return _maximum(input, other)


@primitive
def _minimum(a, b):
    return launch_binary(ufunc("minimum"), a, b)


_minimum.derivatives(a=lambda g, a, b: _chosen(g, "greater", a, b), b=lambda g, a, b: _chosen(g, "greater", b, a))


@public("minimum", numbers=True)
def minimum(input: Any, other: Any) -> Tensor:
    """Elementwise minimum; NaN where either operand is NaN."""
    return _minimum(input, other)


@primitive(takes_complex=True)
def _where(condition, a, b):
    mask = condition.array
    shape = broadcast_shape("where", mask.shape, *(v.shape for v in (a, b) if isinstance(v, Tensor)))
    dtype = result_dtype(a, b)
    out = empty(shape, dtype, mask)
    a, b = (_selectable(v, dtype) for v in (a, b))
    WHERE(out, mask, a, b)
    return out


def _selectable(operand: Any, dtype: numpy.dtype[Any]) -> Any:
    """An operand of where() as a number or an array that NumPy copies to one of ``dtype``: it looks at the dtype of 0-d ones."""
    if not isinstance(operand, Tensor):
        return convert_number(operand, dtype, "where", rounds_to_inf=True)
    return operand.array if operand.ndim or operand.dtype == dtype else cast(operand, dtype=dtype).array


_where.derivatives(a=lambda g, condition: _where(condition, g, 0.0), b=lambda g, condition: _where(condition, 0.0, g))


@public(takes_complex=True)
def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """``input`` where ``condition`` is true, else ``other``; an element that is not selected gets gradient zero.

    ``where(condition)`` returns the indices of the nonzero elements: an int64 tensor for each dimension.

    Raises:
        DtypeError: the condition is not boolean.
    """
    condition = wrap(condition)
    if input is None and other is None:
        return _nonzero(condition)
    if input is None or other is None:
        raise ArgumentError("where: got one of input and other; expected both, or only the condition")
    return _where(_checked_mask("where", "condition", condition), input, other)


def _checked_mask(function: str, name: str, mask: Any) -> Tensor:
    mask = wrap(mask)
    if not is_boolean(mask.dtype):
        raise DtypeError(f"{function}: {name} of dtype {mask.dtype}; expected a boolean tensor, such as x > 0")
    return mask


def _nonzero(x: Tensor) -> tuple[Tensor, ...]:
    graph_break_on_read("where(condition), whose shape depends on values")
    array = x.array if x.ndim else x.array.reshape(1)
    return tuple(make_tensor(index) for index in devices.module(array).nonzero(array))


def _where_method(input: Any, condition: Any, other: Any) -> Tensor:
    return where(condition, input, other)


_where_method.__name__ = _where_method.__qualname__ = "where"
public("where", out=False)(_where_method)


@elementwise("masked_fill", takes_complex=True)
def masked_fill(input: Any, mask: Any, value: Any) -> Tensor:
    """``value``, a number or a 0-d tensor, where ``mask`` is true, else ``input``; in the dtype of ``input``.

    Raises:
        DtypeError: the mask is not boolean, or an integer dtype cannot hold the value.
        ShapeError: the value has dimensions.
    """
    mask = _checked_mask("masked_fill", "mask", mask)
    if not isinstance(value, (Tensor, float, int, complex)) and devices.is_array(value):
        value = wrap(value)
    if not isinstance(value, Tensor):
        value = convert_number(value, input.dtype, "masked_fill", "value", rounds_to_inf=True)
    elif value.ndim:
        raise ShapeError(f"masked_fill: value has shape {value.shape}; expected a number or a 0-d tensor: use where()")
    elif value.dtype != input.dtype:
        value = cast(value, dtype=input.dtype)
    return _where(mask, value, input)


@primitive
def _clamp(x, low, high):
    shape, dtype = x.array.shape, x.array.dtype
    bounds = [bound for bound in (low, high) if bound is not None]
    for bound in bounds:
        if isinstance(bound, Tensor):
            shape = broadcast_shape("clamp", shape, bound.shape)
        else:
            check_operand("clamp", bound)
        if isinstance(bound, Tensor) or not is_floating(dtype):
            dtype = result_dtype(x, *bounds)
    out, source = empty(shape, dtype, x.array), operand_array(x, dtype)
    limits = [None if bound is None else operand_array(bound, dtype) for bound in (low, high)]
    is_wide = is_floating(dtype) and not is_half(dtype)
    if None not in (low, high) and is_wide and type(out) is numpy.ndarray and active.tape is None:
        CLIP(out, source, *limits)  # of a tape, the two launches below become part of a loop
        return out
    for function, limit in zip(("maximum", "minimum"), limits):
        if limit is not None:
            ufunc(function)(out, source, limit)
            source = out
    return out


def _inside(g, x, low, high):
    for inside, bound in (("greater_equal", low), ("less_equal", high)):
        if bound is not None:
            g = where(compare(inside, x, bound), g, 0.0)
    return g


_clamp.derivatives(
    x=_inside,
    low=lambda g, x, low, high: where(x < low if high is None else (x < low) & (low < high), g, 0.0),
    high=lambda g, x, low, high: where(x > high if low is None else (x > high) | (high < low), g, 0.0),
)


@primitive(name="clamp")
def raise_to(x, *, bound):
    """max(x, bound), whose gradient passes the bound: d / dx is 1 everywhere."""
    return _clamp(x.detach(), bound, None).array


raise_to.derivatives(x=lambda g: g)


@elementwise("clamp clip")
def clamp(input: Any, min: Any = None, max: Any = None) -> Tensor:
    """Limit ``input`` to [min, max], numbers or tensors; None is no limit.

    The gradient of ``input`` is 1 inside, bounds included, and 0 outside.

    Raises:
        ArgumentError: both limits are None.
    """
    if min is None and max is None:
        raise ArgumentError("clamp: min and max are both None; expected at least one limit")
    if isinstance(min, (int, float)) or isinstance(max, (int, float)):
        min, max = (_as_limit(bound, input) for bound in (min, max))
    return _clamp(input, min, max)


def _as_limit(bound: Any, x: Tensor) -> Any:
    """A limit of clamp() beside a number: a 0-d tensor counts as a number, so that it does not widen x."""
    if not isinstance(bound, Tensor) or bound.ndim:
        return bound
    dtype = result_dtype(x, 0.0 if is_floating(bound.dtype) else 0)
    return bound if bound.dtype == dtype else cast(bound, dtype=dtype)


@elementwise("clamp_min")
def clamp_min(input: Any, min: Any) -> Tensor:
    """The maximum of ``input`` and the limit ``min``; the gradient as in :func:`clamp`."""
    check_operand("clamp_min", min)
    return _clamp(input, min, None)


@elementwise("clamp_max")
def clamp_max(input: Any, max: Any) -> Tensor:
    """The minimum of ``input`` and the limit ``max``; the gradient as in :func:`clamp`."""
    check_operand("clamp_max", max)
    return _clamp(input, None, max)


absolute, arctan, clip, divide, true_divide = abs, atan, clamp, div, div
multiply, negative, subtract = mul, neg, sub
