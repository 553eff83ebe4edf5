"""exp, log and tanh without branches and calls, so that loops over them become vector instructions.

exp(x) = 2^k (1 + q) with k = round(x / log 2) and q = exp(r) - 1, r = x - k log 2, from its Taylor series; |r| <= 0.35, so
that q itself is exact to rounding where x is small, and so are expm1 and tanh.  log(m 2^e) = e log 2 + 2 artanh(s),
s = (m - 1) / (m + 1), for m from sqrt(1/2) to sqrt(2).  Errors are a few units in the last place.  Imported by generated
modules only: Numba is optional.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from numba import float32, float64, int32, int64
from numba.extending import overload

from gpunet.captured.compiled.jit.memory import choose, float_bits, jit_helper, maximum, minimum

_LOG_2 = Fraction("0.6931471805599453094172321214581765680755001343602552")


def _split(bits: int) -> tuple[float, float]:
    """log 2 as a number of few bits, whose product with an exponent is exact, and the rest."""
    high = Fraction(math.floor(_LOG_2 * 2**bits), 2**bits)
    return float(high), float(_LOG_2 - high)


def _functions(number: Any, integer: Any, mantissa: int, bias: int, split: int, terms: int, series: int) -> dict[str, Any]:
    """The functions for one floating type.

    Args:
        number, integer: the type, and the integer of its width.
        mantissa, bias: its bits after the point, and what is added to its exponent.
        split: bits of the upper part of log 2.
        terms: of the series of exp(r) - 1.
        series: terms of artanh.
    """
    high, low = (number(v) for v in _split(split))
    shift = number(1.5 * 2**mantissa)  # a sum with it is rounded to a whole number
    shift_bits = int(math.log2(1.5 * 2**mantissa)) + bias << mantissa | 1 << mantissa - 1
    per_log_2 = number(1 / math.log(2))
    c = [number(1 / math.factorial(i)) for i in range(14)]
    a = [number(1 / (2 * i + 1)) for i in range(11)]
    c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13 = c[2:]
    a1, a2, a3, a4, a5, a6, a7, a8, a9, a10 = a[1:]
    long, longer = terms > 8, series > 6
    lowest, highest = number(-104 if mantissa == 23 else -746), number(89 if mantissa == 23 else 710)
    smallest, scale = number(2.0 ** (1 - bias)), number(2.0 ** (mantissa + 2))
    root_bits = (bias - 1 << mantissa) + int((math.sqrt(2) - 1) * 2**mantissa)
    one, two, half, zero, infinity, nothing = (number(v) for v in (1, 2, 0.5, 0, math.inf, math.nan))
    certain = number(-20 if mantissa == 23 else -40)  # below, exp(x) - 1 is -1
    flat = number(10 if mantissa == 23 else 20)  # above, tanh is 1

    @jit_helper
    def parts(x):
        """(k, q) for x within the range of exp."""
        shifted = x * per_log_2 + shift
        whole = shifted - shift
        r = (x - whole * high) - whole * low
        if long:
            p = c7 + r * (c8 + r * (c9 + r * (c10 + r * (c11 + r * (c12 + r * c13)))))
        else:
            p = c7
        p = c2 + r * (c3 + r * (c4 + r * (c5 + r * (c6 + r * p))))
        return integer(float_bits(shifted) - integer(shift_bits)), r + r * r * p

    @jit_helper
    def power_of_two(k):
        return float_bits(integer(integer(k + integer(bias)) << integer(mantissa)))

    @jit_helper
    def exp(x):
        k, q = parts(minimum(maximum(x, lowest), highest))
        first = integer(k >> integer(1))  # in two steps: 2^k alone may be too large or too small
        return (one + q) * power_of_two(first) * power_of_two(integer(k - first))

    @jit_helper
    def expm1(x):
        k, q = parts(minimum(maximum(x, certain), highest))
        first = integer(k >> integer(1))
        large = (one + q) * power_of_two(first) * power_of_two(integer(k - first)) - one
        factor = power_of_two(k)
        value = choose(k > integer(30), large, q * factor + (factor - one))
        return choose(x == zero, x, value)  # -0 stays -0

    @jit_helper
    def tanh(x):
        k, q = parts(two * minimum(maximum(x, -flat), flat))
        factor = power_of_two(k)
        e = q * factor + (factor - one)
        return choose(x == zero, x, e / (e + two))

    @jit_helper
    def log(x):
        denormal = x < smallest
        bits = float_bits(choose(denormal, x * scale, x))
        e = integer(integer(bits - integer(root_bits)) >> integer(mantissa))
        m = float_bits(integer(bits - integer(e << integer(mantissa))))
        exponent = number(e) - choose(denormal, number(mantissa + 2), zero)
        f = m - one
        s = f / (two + f)
        z = s * s
        if longer:
            p = a5 + z * (a6 + z * (a7 + z * (a8 + z * (a9 + z * a10))))
        else:
            p = a5
        p = z * (a1 + z * (a2 + z * (a3 + z * (a4 + z * p))))
        square = half * f * f  # 2 s (1 + p) = f - f^2 / 2 + s (f^2 / 2 + 2 p), whose first term is exact
        value = exponent * high + (f - (square - (s * (square + two * p) + exponent * low)))
        value = choose(x == infinity, infinity, value)
        return choose(x > zero, value, choose(x == zero, -infinity, nothing))

    @jit_helper
    def log1p(x):
        # log(u) x / (u - 1) with u = 1 + x rounded: what rounding takes from u, it takes from u - 1, too
        u = one + x
        difference = u - one
        ratio = x / choose(difference == zero, one, difference)
        value = log(u) * choose(u == infinity, one, ratio)
        return choose(difference == zero, x, value)

    return {"exp": exp, "expm1": expm1, "tanh": tanh, "log": log, "log1p": log1p}


_f4 = _functions(float32, int32, 23, 127, 15, 7, 5)
_f8 = _functions(float64, int64, 52, 1023, 32, 13, 10)
exp_f4, expm1_f4, tanh_f4, log_f4, log1p_f4 = _f4.values()
exp_f8, expm1_f8, tanh_f8, log_f8, log1p_f8 = _f8.values()


def exp(x):
    """For either type, in functions that are compiled for both."""
    return math.exp(x)


def log(x):
    """For either type, in functions that are compiled for both."""
    return math.log(x)


@overload(exp)
def _exp(x):
    return (lambda x: exp_f4(x)) if x == float32 else (lambda x: exp_f8(x))


@overload(log)
def _log(x):
    return (lambda x: log_f4(x)) if x == float32 else (lambda x: log_f8(x))
