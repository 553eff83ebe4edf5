"""The complement of erf, and the normal distribution function: accurate in the tails.

All are computed from erfcx, whose table is a Chebyshev series in (x - 3.75) / (x + 3.75).  The choice of variable is that of
Shepherd and Laframboise, "Chebyshev approximation of (1 + 2x) exp(x^2) erfc x", Mathematics of Computation 36 (1981).
"""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import Tensor
from gpunet.backend.devices import Array
from gpunet.launch.random import CENTRAL, MIDDLE, TAIL
from gpunet.ops.define import unary
from gpunet.ops.elementwise import exp
from gpunet.ops.in_float64 import SQRT_HALF, SQRT_PI, chebyshev, exp_of_minus_square, float64_shim, launched, polynomial
from gpunet.ops.special_tables import ERFCX as ERFCX_TABLE

__all__ = ["erfc", "erfcx", "erfinv", "log_ndtr", "ndtr", "ndtri"]

#: Coefficients of erf(x) / x in x^2 (DLMF 7.6.1), for |x| <= 0.5
_ERF_SERIES = tuple(2.0 / SQRT_PI * (-1.0) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(15))


def _erfcx_of_positive(x: Array) -> Array:
    return chebyshev(1.0 - 7.5 / (x + 3.75), ERFCX_TABLE) / (1.0 + 2.0 * x)


def _erfcx(xp: Any, x: Array) -> Array:
    """Negative x by erfcx(x) = 2 e^(x^2) - erfcx(-x)."""
    value = _erfcx_of_positive(xp.abs(x))
    return xp.where(x < 0.0, 2.0 / exp_of_minus_square(xp, x) - value, value)


def erfc_array(xp: Any, x: Array) -> Array:
    a = xp.abs(x)
    tail = exp_of_minus_square(xp, xp.minimum(a, 30.0)) * _erfcx_of_positive(a)
    near = 1.0 - x * polynomial(xp.minimum(a, 0.5) ** 2, _ERF_SERIES)
    return xp.where(a < 0.5, near, xp.where(x < 0.0, 2.0 - tail, tail))


def _ndtr(xp: Any, x: Array) -> Array:
    return 0.5 * erfc_array(xp, -SQRT_HALF * x)


def _log_ndtr(xp: Any, x: Array) -> Array:
    """Below -1 the logarithm of erfcx, so that nothing underflows."""
    lower = xp.log(0.5 * _erfcx_of_positive(xp.maximum(-SQRT_HALF * x, 0.5))) - 0.5 * x * x
    return xp.where(x < -1.0, lower, xp.log1p(-0.5 * erfc_array(xp, SQRT_HALF * x)))


def _quantile(xp: Any, q: Array, tail: Array) -> Array:
    """The normal quantile of 1/2 + q, where tail = 1/2 - |q|: Wichura, algorithm AS 241, Applied Statistics 37 (1988)."""
    r = 0.180625 - q * q
    central = q * (polynomial(r, CENTRAL[0]) / polynomial(r, CENTRAL[1]))
    r = xp.sqrt(-xp.log(xp.where(tail > 0.0, tail, 0.5)))
    middle = polynomial(r - 1.6, MIDDLE[0]) / polynomial(r - 1.6, MIDDLE[1])
    outer = polynomial(r - 5.0, TAIL[0]) / polynomial(r - 5.0, TAIL[1])
    outer = xp.where(tail == 0.0, math.inf, xp.where(r <= 5.0, middle, outer))
    z = xp.where(xp.abs(q) <= 0.425, central, xp.copysign(outer, q))
    return xp.where(tail >= 0.0, z, math.nan)


def _erfinv(xp: Any, x: Array) -> Array:
    """x / 2 and, in the tails, (1 - |x|) / 2 are exact, and so the relative error is small everywhere."""
    return _quantile(xp, 0.5 * x, 0.5 * (1.0 - xp.abs(x))) * SQRT_HALF


def _ndtri(xp: Any, p: Array) -> Array:
    return _quantile(xp, p - 0.5, xp.minimum(p, 1.0 - p))


ERFINV, ERFC, ERFCX = float64_shim("erfinv", _erfinv), float64_shim("erfc", erfc_array), float64_shim("erfcx", _erfcx)
NDTR, LOG_NDTR, NDTRI = float64_shim("ndtr", _ndtr), float64_shim("log_ndtr", _log_ndtr), float64_shim("ndtri", _ndtri)


@unary(lambda g, out: g * (0.5 * SQRT_PI * exp(out * out)), forward=lambda x: launched(ERFINV, x), autocast="cuda: float32")
def erfinv(input):
    """The inverse of erf, for x from -1 to 1."""


@unary(lambda g, input: g * (-2.0 / SQRT_PI * exp(-(input * input))), forward=lambda x: launched(ERFC, x))
def erfc(input):
    """1 - erf(x), accurate where erf(x) is near 1."""


def _erfcx_gradient(g: Tensor, input: Tensor, out: Tensor) -> Tensor:
    return g * (2.0 * (input * out) - 2.0 / SQRT_PI)


@unary(_erfcx_gradient, forward=lambda x: launched(ERFCX, x), is_method=False)
def erfcx(input):
    """e^(x^2) erfc(x), which falls as 1 / x."""


@unary(
    lambda g, input: g * (SQRT_HALF / SQRT_PI * exp(-0.5 * (input * input))), forward=lambda x: launched(NDTR, x), is_method=False
)
def ndtr(input):
    """The normal distribution function: the probability of a standard normal number below x."""


def _log_ndtr_gradient(g: Tensor, input: Tensor) -> Tensor:
    """The density over the distribution function, sqrt(2 / pi) / erfcx(-x / sqrt(2)), which does not underflow."""
    return g * (2.0 * SQRT_HALF / SQRT_PI) / erfcx(input * -SQRT_HALF)


@unary(_log_ndtr_gradient, forward=lambda x: launched(LOG_NDTR, x), is_method=False)
def log_ndtr(input):
    """The logarithm of :func:`ndtr`, also where that underflows."""


@unary(
    lambda g, out: g * (math.sqrt(2.0 * math.pi) * exp(0.5 * (out * out))), forward=lambda x: launched(NDTRI, x), is_method=False
)
def ndtri(input):
    """The inverse of :func:`ndtr`, for probabilities from 0 to 1."""
