"""exp, expm1, tanh, log and log1p without branches and library calls, so that LLVM vectorises loops over them.

exp(x) = 2^k (1 + q) with k = round(x / log 2), r = x - k log 2, |r| <= 0.35, and q = exp(r) - 1 from its Taylor series.
For small x, k is 0 and q is accurate to rounding, and so are expm1 and tanh.  log(m 2^e) = e log 2 + 2 artanh(s) with
s = (m - 1) / (m + 1) and m in [sqrt(1/2), sqrt(2)].  Errors are a few units in the last place.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from numba import float32, float64, int32, int64
from numba.extending import overload

from gpunet.captured.compiled.jit.arithmetic import bitcast, maximum, minimum, select
from gpunet.captured.compiled.jit.decorators import jit_helper

_LOG_2 = Fraction("0.6931471805599453094172321214581765680755001343602552")


def _split_log_2(bits: int) -> tuple[float, float]:
    """Split log 2 into a number of ``bits`` bits, whose product with an exponent is exact, and the remainder."""
    high = Fraction(math.floor(_LOG_2 * 2**bits), 2**bits)
    return float(high), float(_LOG_2 - high)


def _functions(
    number: Any, integer: Any, mantissa: int, bias: int, split_bits: int, exp_terms: int, artanh_terms: int
) -> dict[str, Any]:
    """The functions for one float type.

    Args:
        number, integer: the Numba float type, and the signed integer type of the same width.
        mantissa, bias: number of stored mantissa bits, and the bias of the exponent.
        split_bits: bits of the upper part of log 2.
        exp_terms: terms of the Taylor series of exp(r) - 1.
        artanh_terms: terms of the series of artanh.
    """
    high, low = (number(v) for v in _split_log_2(split_bits))
    shift = number(1.5 * 2**mantissa)  # adding it rounds to an integer
    shift_bits = int(math.log2(1.5 * 2**mantissa)) + bias << mantissa | 1 << mantissa - 1
    per_log_2 = number(1 / math.log(2))
    c = [number(1 / math.factorial(i)) for i in range(14)]
    a = [number(1 / (2 * i + 1)) for i in range(11)]
    c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13 = c[2:]
    a1, a2, a3, a4, a5, a6, a7, a8, a9, a10 = a[1:]
    has_long_exp, has_long_artanh = exp_terms > 8, artanh_terms > 6
    lowest, highest = number(-104 if mantissa == 23 else -746), number(89 if mantissa == 23 else 710)
    smallest_normal, scale = number(2.0 ** (1 - bias)), number(2.0 ** (mantissa + 2))
    root_bits = (bias - 1 << mantissa) + int((math.sqrt(2) - 1) * 2**mantissa)
    one, two, half, zero, infinity, nan = (number(v) for v in (1, 2, 0.5, 0, math.inf, math.nan))
    expm1_floor = number(-20 if mantissa == 23 else -40)  # below it, expm1 is -1
    tanh_limit = number(10 if mantissa == 23 else 20)  # above it, tanh is 1

    @jit_helper
    def reduce_range(x):
        """(k, q) such that exp(x) = 2^k (1 + q), for x within the range of exp."""
        shifted = x * per_log_2 + shift
        whole = shifted - shift
        r = (x - whole * high) - whole * low
        if has_long_exp:
            p = c7 + r * (c8 + r * (c9 + r * (c10 + r * (c11 + r * (c12 + r * c13)))))
        else:
            p = c7
        p = c2 + r * (c3 + r * (c4 + r * (c5 + r * (c6 + r * p))))
        return integer(bitcast(shifted) - integer(shift_bits)), r + r * r * p

    @jit_helper
    def power_of_two(k):
        return bitcast(integer(integer(k + integer(bias)) << integer(mantissa)))

    @jit_helper
    def exp(x):
        k, q = reduce_range(minimum(maximum(x, lowest), highest))
        first = integer(k >> integer(1))  # two factors, since 2^k alone may overflow or underflow
        return (one + q) * power_of_two(first) * power_of_two(integer(k - first))

    @jit_helper
    def expm1(x):
        k, q = reduce_range(minimum(maximum(x, expm1_floor), highest))
        first = integer(k >> integer(1))
        large = (one + q) * power_of_two(first) * power_of_two(integer(k - first)) - one
        factor = power_of_two(k)
        value = select(k > integer(30), large, q * factor + (factor - one))
        return select(x == zero, x, value)  # keeps -0.0

    @jit_helper
    def tanh(x):
        k, q = reduce_range(two * minimum(maximum(x, -tanh_limit), tanh_limit))
        factor = power_of_two(k)
        e = q * factor + (factor - one)
        return select(x == zero, x, e / (e + two))

    @jit_helper
    def log(x):
        is_subnormal = x < smallest_normal
        bits = bitcast(select(is_subnormal, x * scale, x))
        e = integer(integer(bits - integer(root_bits)) >> integer(mantissa))
        m = bitcast(integer(bits - integer(e << integer(mantissa))))
        exponent = number(e) - select(is_subnormal, number(mantissa + 2), zero)
        f = m - one
        s = f / (two + f)
        z = s * s
        if has_long_artanh:
            p = a5 + z * (a6 + z * (a7 + z * (a8 + z * (a9 + z * a10))))
        else:
            p = a5
        p = z * (a1 + z * (a2 + z * (a3 + z * (a4 + z * p))))
        square = half * f * f  # 2 s (1 + p) = f - f^2 / 2 + s (f^2 / 2 + 2 p), and f is exact
        value = exponent * high + (f - (square - (s * (square + two * p) + exponent * low)))
        value = select(x == infinity, infinity, value)
        return select(x > zero, value, select(x == zero, -infinity, nan))

    @jit_helper
    def log1p(x):
        # log(u) x / (u - 1) with u = 1 + x rounded: the rounding error of u cancels between log(u) and u - 1
        u = one + x
        difference = u - one
        ratio = x / select(difference == zero, one, difference)
        value = log(u) * select(u == infinity, one, ratio)
        return select(difference == zero, x, value)

    return {"exp": exp, "expm1": expm1, "tanh": tanh, "log": log, "log1p": log1p}


_f4 = _functions(float32, int32, 23, 127, 15, 7, 5)
_f8 = _functions(float64, int64, 52, 1023, 32, 13, 10)
exp_f4, expm1_f4, tanh_f4, log_f4, log1p_f4 = _f4.values()
exp_f8, expm1_f8, tanh_f8, log_f8, log1p_f8 = _f8.values()


def exp(x):
    """exp for code that is compiled for both float types."""
    return math.exp(x)


def log(x):
    """log for code that is compiled for both float types."""
    return math.log(x)


def tanh(x):
    """tanh for code that is compiled for both float types."""
    return math.tanh(x)


@jit_helper
def sqrt(x):
    """The square root, which LLVM computes in the type of x."""
    return math.sqrt(x)


@overload(exp)
def _exp(x):
    return (lambda x: exp_f4(x)) if x == float32 else (lambda x: exp_f8(x))


@overload(log)
def _log(x):
    return (lambda x: log_f4(x)) if x == float32 else (lambda x: log_f8(x))


@overload(tanh)
def _tanh(x):
    return (lambda x: tanh_f4(x)) if x == float32 else (lambda x: tanh_f8(x))
