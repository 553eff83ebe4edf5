"""Further arithmetic: remainders, extremes that ignore NaN, parts of numbers, powers, logarithms of sums, integers."""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import Tensor, ignore_fp_errors, make_tensor, operands, primitive, wrap
from gpunet.backend import dtypes
from gpunet.backend.dtypes import is_boolean, is_floating
from gpunet.errors import ArgumentError, DtypeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.ops.broadcast import (
    broadcast_shape,
    cast,
    check_operand,
    in_accumulator,
    launch_binary,
    launch_unary,
    result_dtype,
    tensor_of,
    ufunc,
    zero_gradient,
)
from gpunet.ops.compare import BOOL, compare, eq, isinf, isnan
from gpunet.ops.convert import clone
from gpunet.ops.define import elementwise, unary
from gpunet.ops.elementwise import _pow, clamp, exp, log, where
from gpunet.ops.face import as_number, public
from gpunet.ops.rounding import sign, trunc
from gpunet.ops.trigonometry import floating_dtype

__all__ = [
    "bitwise_left_shift", "bitwise_right_shift", "copysign", "exp2", "float_power", "fmax", "fmin", "fmod", "frac", "gcd",
    "heaviside", "isneginf", "isposinf", "lcm", "ldexp", "logaddexp", "logaddexp2", "logit", "nan_to_num", "nextafter",
    "positive", "signbit",
]  # fmt: skip


# ---- remainders, extremes -----------------------------------------------------------------------------------------------


@primitive
def _fmod(a, b):
    return launch_binary(ufunc("fmod"), a, b)


_fmod.derivatives(a=lambda g: g, b=lambda g, a, b: -(g * trunc(a / b)))


@elementwise("fmod")
def fmod(input: Any, other: Any) -> Tensor:
    """input - other * trunc(input / other), which has the sign of ``input``; 0 for an integer divided by 0."""
    _refuse_boolean("fmod", input, other)
    return _fmod(input, other)


def _refuse_boolean(function: str, *values: Any) -> None:
    if is_boolean(result_dtype(*operands(function, [v if isinstance(v, Tensor) else _checked(function, v) for v in values]))):
        raise DtypeError(f"{function} of booleans; convert one with .long() or .float() first")


def _checked(function: str, value: Any) -> Any:
    wrapped = operands(function, [value])[0]
    check_operand(function, wrapped)
    return wrapped


def _is_chosen(a, b):
    return compare("greater_equal", a, b) | isnan(b)


@primitive
def _fmax(a, b):
    return launch_binary(ufunc("fmax"), a, b)


_fmax.derivatives(
    a=lambda g, a, b: where(_is_chosen(a, b), g, 0.0), b=lambda g, a, b: where(_is_chosen(a, b), 0.0, g)
)


@primitive
def _fmin(a, b):
    return launch_binary(ufunc("fmin"), a, b)


_fmin.derivatives(
    a=lambda g, a, b: where(compare("less_equal", a, b) | isnan(b), g, 0.0),
    b=lambda g, a, b: where(compare("less_equal", a, b) | isnan(b), 0.0, g),
)


@public("fmax")
def fmax(input: Any, other: Any) -> Tensor:
    """Elementwise maximum; where one operand is NaN, the other."""
    return _fmax(input, wrap(other, "fmax"))


@public("fmin")
def fmin(input: Any, other: Any) -> Tensor:
    """Elementwise minimum; where one operand is NaN, the other."""
    return _fmin(input, wrap(other, "fmin"))


# ---- parts of numbers ---------------------------------------------------------------------------------------------------


@elementwise("frac")
def frac(input: Any) -> Tensor:
    """x - trunc(x), the part behind the point.

    Raises:
        DtypeError: an integer tensor.
    """
    if not is_floating(input.dtype):
        raise DtypeError(f"frac: the tensor has dtype {input.dtype}; expected a floating dtype")
    return input - trunc(input)


@public("positive", out=False, takes_complex=True)
def positive(input: Any) -> Tensor:
    """The tensor itself.

    Raises:
        DtypeError: a boolean tensor.
    """
    return +input


def _predicate(name: str, doc: str, function: Any) -> Any:
    def predicate(input: Any) -> Tensor:
        return function(input)

    predicate.__name__ = predicate.__qualname__ = name
    predicate.__doc__ = f"{doc}, a boolean tensor."
    return public(name)(predicate)


def _signs(x: Tensor) -> Tensor:
    return make_tensor(launch_unary(ufunc("signbit"), x, BOOL)) if is_floating(x.dtype) else compare("less", x, 0)


signbit = _predicate("signbit", "Whether the sign is negative, also of -0.0 and of NaN", _signs)
isposinf = _predicate("isposinf", "Whether numbers are positive infinity", lambda x: isinf(x) & (x > 0))
isneginf = _predicate("isneginf", "Whether numbers are negative infinity", lambda x: isinf(x) & (x < 0))


@primitive
def _copysign(a, b):
    return launch_binary(ufunc("copysign"), a, b, floating_dtype(a, b))


_copysign.derivatives(a=lambda g, a, out: g * (sign(a) * sign(out)), b=zero_gradient)


@elementwise("copysign")
def copysign(input: Any, other: Any) -> Tensor:
    """The magnitude of ``input`` with the sign of ``other``; the gradient at 0 is 0."""
    return _copysign(input, other)


NEXT = Shim("nextafter", lambda xp, out, a, b: xp.nextafter(a, b, out=out), widens=False)


@elementwise("nextafter")
@ignore_fp_errors
def nextafter(input: Any, other: Any) -> Tensor:
    """The next number of the dtype after ``input`` towards ``other``; it has no gradient.

    Raises:
        DtypeError: the tensors are integers.
    """
    input, other = operands("nextafter", [input.detach(), wrap(other, "nextafter").detach()])
    dtype = result_dtype(input, other)
    if not is_floating(dtype):
        raise DtypeError(f"nextafter of {input.dtype} and {other.dtype}; expected a floating tensor")
    shape = broadcast_shape("nextafter", input.array.shape, other.array.shape)
    out = empty(shape, dtype, input.array)
    NEXT(out, *(x.array if x.dtype == dtype else cast(x, dtype=dtype).array for x in (input, other)))
    return make_tensor(out)


@elementwise("nan_to_num")
def nan_to_num(input: Any, nan: float | None = None, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """Replace NaN and infinity; replaced elements have gradient 0.

    Args:
        nan: instead of NaN; None means 0.
        posinf, neginf: instead of infinity; None means the largest, the smallest number of the dtype.
    """
    smallest, largest = dtypes.limits(input.dtype)
    numbers = {"nan": (nan, 0.0), "posinf": (posinf, float(largest)), "neginf": (neginf, float(smallest))}
    values = [default if value is None else as_number("nan_to_num", name, value) for name, (value, default) in numbers.items()]
    if not is_floating(input.dtype):
        return clone(input)
    result = where(isnan(input), values[0], input)
    result = where(compare("equal", input, math.inf), values[1], result)
    return where(compare("equal", input, -math.inf), values[2], result)


@elementwise("ldexp")
def ldexp(input: Any, other: Any) -> Tensor:
    """input * 2^other."""
    other = wrap(other, "ldexp")
    dtype = floating_dtype(input, other)
    return _scaled_by_power(input, other if other.dtype == dtype else cast(other, dtype=dtype))


@in_accumulator
def _scaled_by_power(x: Tensor, exponent: Tensor) -> Tensor:
    return x * _pow(2.0, exponent)


# ---- powers, logarithms -------------------------------------------------------------------------------------------------


@unary(lambda g, out: g * (out * math.log(2.0)))
def exp2(input):
    """2^x."""


@elementwise("float_power", numbers=True)
def float_power(input: Any, exponent: Any) -> Tensor:
    """input ** exponent in float64."""
    x, y = operands("float_power", [input, exponent])
    return _pow(*(cast(v, dtype=dtypes.float64) if isinstance(v, Tensor) and v.dtype != dtypes.float64 else v for v in (x, y)))


@primitive
def _logaddexp(a, b):
    return launch_binary(ufunc("logaddexp"), a, b, floating_dtype(a, b))


_logaddexp.derivatives(a=lambda g, a, b: g / (exp(b - a) + 1.0), b=lambda g, a, b: g / (exp(a - b) + 1.0))


@public("logaddexp")
def logaddexp(input: Any, other: Any) -> Tensor:
    """log(e^input + e^other), computed without overflow."""
    return _logaddexp(input, wrap(other, "logaddexp"))


@primitive
def _logaddexp2(a, b):
    return launch_binary(ufunc("logaddexp2"), a, b, floating_dtype(a, b))


_logaddexp2.derivatives(a=lambda g, a, b: g / (exp2(b - a) + 1.0), b=lambda g, a, b: g / (exp2(a - b) + 1.0))


@public("logaddexp2")
def logaddexp2(input: Any, other: Any) -> Tensor:
    """log2(2^input + 2^other), computed without overflow."""
    return _logaddexp2(input, wrap(other, "logaddexp2"))


@primitive
def _logit(x):
    x = x.detach()
    return log(x / (1.0 - x)).array


_logit.derivatives(x=lambda g, x: where((x >= 0) & (x <= 1), g / (x * (1.0 - x)), math.nan))


@elementwise("logit")
def logit(input: Any, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)), the inverse of the sigmoid; NaN outside [0, 1].

    Args:
        eps: limit x to [eps, 1 - eps] first.
    """
    x = input if is_floating(input.dtype) else cast(input, dtype=floating_dtype(input))
    if eps is None:
        return in_accumulator(_logit)(x)
    low = as_number("logit", "eps", eps)
    if not 0.0 <= low <= 0.5:
        raise ArgumentError(f"logit: eps={eps!r}; expected a number from 0 to 0.5")
    return in_accumulator(_limited_logit)(x, low)


def _limited_logit(x: Tensor, low: float) -> Tensor:
    return _logit(clamp(x, low, 1.0 - low))


@elementwise("heaviside")
def heaviside(input: Any, values: Any) -> Tensor:
    """0 for negative numbers, 1 for positive ones, ``values`` at 0.

    Raises:
        DtypeError: the tensors have different dtypes.
    """
    values = wrap(values, "heaviside")
    if values.dtype != input.dtype:
        raise DtypeError(f"heaviside: tensors of {input.dtype} and {values.dtype}; expected one dtype: convert with .to(dtype)")
    step = cast(compare("greater", input.detach(), 0), dtype=input.dtype)
    return where(eq(input, 0), values.detach(), step)


# ---- integers -----------------------------------------------------------------------------------------------------------


def _of_integers(name: str, doc: str) -> Any:
    def function(input: Any, other: Any) -> Tensor:
        a, b = input, wrap(other, name)
        dtype = result_dtype(a, b)
        if not dtypes.is_integer(dtype):
            raise DtypeError(f"{name} of {a.dtype} and {b.dtype}; expected integers")
        return make_tensor(launch_binary(ufunc(name), *(x if x.dtype == dtype else cast(x, dtype=dtype) for x in (a, b))))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return elementwise(name)(function)


gcd = _of_integers("gcd", "The greatest common divisor of integers; not negative.")
lcm = _of_integers("lcm", "The least common multiple of integers; not negative.")


def _shift(name: str, doc: str) -> Any:
    def function(input: Any, other: Any) -> Tensor:
        a, b = operands(name, [input, other])
        for value in (a, b):
            check_operand(name, value)
        dtype = result_dtype(a, b)
        if not dtypes.is_integer(dtype) or not (isinstance(a, Tensor) or isinstance(b, Tensor)):
            raise DtypeError(f"{name} of {input!r} and {other!r}; expected an integer tensor, and another or an integer")
        bits, device = 8 * dtype.itemsize, next(v.device for v in (a, b) if isinstance(v, Tensor))
        a, b = (tensor_of(v, dtype, device) for v in (a, b))
        is_outside = (b < 0) | (b >= bits)
        kept = where(is_outside, 0, b)
        shifted = make_tensor(launch_binary(ufunc(name.removeprefix("bitwise_")), a, kept, dtype))
        return where(is_outside, 0 if "left" in name else cast(a < 0, dtype=dtype) * -1, shifted)

    def reflected(self: Tensor, other: Any) -> Tensor:
        return function(other, self)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    word = f"{'l' if 'left' in name else 'r'}shift"
    setattr(Tensor, f"__{word}__", function)
    setattr(Tensor, f"__r{word}__", reflected)
    return elementwise(name, f"__i{word}__", numbers=True)(function)


bitwise_left_shift = _shift("bitwise_left_shift", "The bits of integers shifted to the left: input * 2^other, without overflow.")
bitwise_right_shift = _shift("bitwise_right_shift", "The bits of integers shifted to the right: floor(input / 2^other).")
