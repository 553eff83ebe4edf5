"""The gamma function's logarithm, its derivatives, and the zeta function, which NumPy lacks."""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import Tensor, get_default_dtype, primitive, wrap
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import is_boolean, is_floating
from gpunet.errors import ArgumentError, DtypeError
from gpunet.ops.broadcast import in_accumulator
from gpunet.ops.define import elementwise, unary
from gpunet.ops.face import as_integer, as_positive, public
from gpunet.ops.in_float64 import as_tensors, float64_shim, launched, polynomial, refuse_gradient

__all__ = ["digamma", "lgamma", "mvlgamma", "polygamma", "zeta"]


_SHIFT = 10  # arguments below it are moved up by it, where the asymptotic series below have converged

#: Bernoulli numbers B2, B4, ...
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
_EULER = 0.57721566490153286061


def _zeta_minus_1(s: int) -> float:
    """zeta(s) - 1 for s >= 2, by Euler-Maclaurin summation (DLMF 25.2.9)."""
    n, value = 12, sum(k**-s for k in range(2, 12))
    value += n ** (1 - s) / (s - 1) + 0.5 * n**-s
    factor = s * n ** (-s - 1.0)
    for j, bernoulli in enumerate(_BERNOULLI[:6], 1):
        value += bernoulli / math.factorial(2 * j) * factor
        factor *= (s + 2 * j - 1) * (s + 2 * j) / n**2
    return value


#: Coefficients of z, z^2, ... of log(Gamma(2 + z)) (DLMF 5.7.3)
_NEAR_2 = (1.0 - _EULER, *((-1) ** k * _zeta_minus_1(k) / k for k in range(2, 31)))


def lgamma_array(xp: Any, x: Array) -> Array:
    """Below 10 recurrence and a series around 1 and 2, its zeros (DLMF 5.5.1, 5.7.3); above it Stirling's series (5.11.1).

    Negative x by reflection (5.5.3).
    """
    is_negative = x < 0.0
    a = xp.where(is_negative, 1.0 - x, xp.abs(x))  # of -0, too
    is_tiny, is_large = a < 0.5, a > _SHIFT
    near, product = xp.where(is_large, 1.0, xp.where(is_tiny, a + 1.0, a)), xp.where(is_tiny, 1.0 / a, 1.0)
    for _ in range(_SHIFT - 2):
        is_above = near > 2.5
        near = xp.where(is_above, near - 1.0, near)
        product = xp.where(is_above, product * near, product)
    is_low = near < 1.5
    z = near - xp.where(is_low, 1.0, 2.0)
    small = z * polynomial(z, _NEAR_2) - xp.where(is_low, xp.log1p(z), 0.0) + xp.log(product)
    y = xp.where(is_large, a, float(_SHIFT))
    series = polynomial(1.0 / (y * y), [b / (2 * j * (2 * j - 1)) for j, b in enumerate(_BERNOULLI, 1)]) / y
    large = (y - 0.5) * (xp.log(y) - 1.0) + (0.5 * math.log(2.0 * math.pi) - 0.5) + series
    value = xp.where(is_large, large, small)
    fraction = xp.where(is_negative & xp.isfinite(x), x - xp.rint(x), 0.25)
    reflected = math.log(math.pi) - xp.log(xp.abs(xp.sin(math.pi * fraction))) - value
    value = xp.where(is_negative, xp.where(fraction == 0.0, math.inf, reflected), value)
    return xp.where(xp.isinf(x), math.inf, xp.where(xp.isnan(x), x, value))


def digamma_array(xp: Any, x: Array) -> Array:
    """The asymptotic series (DLMF 5.11.2) of x + 10, recurrence (5.5.2), and reflection (5.5.4) of negative x."""
    is_negative = x < 0.0
    a = xp.where(is_negative, 1.0 - x, x)
    is_small = a < _SHIFT
    y = xp.where(is_small, a + float(_SHIFT), a)
    value = xp.log(y) - 0.5 / y - polynomial(1.0 / (y * y), [b / (2 * j) for j, b in enumerate(_BERNOULLI, 1)]) / (y * y)
    for k in range(_SHIFT):
        value = value - xp.where(is_small, 1.0 / (a + float(k)), 0.0)
    fraction = x - xp.rint(x)
    pole = xp.where(fraction == 0.0, math.nan, math.pi / xp.tan(math.pi * fraction))
    value = xp.where(is_negative, value - pole, value)
    return xp.where(x == 0.0, xp.copysign(math.inf, -x), value)


def _zeta(xp: Any, s: Array, q: Array) -> Array:
    """Euler-Maclaurin summation (DLMF 25.11.5); negative q of integer s as a difference of two sums of positive terms."""
    step = xp.floor(q)
    fraction = q - step
    is_negative = (q < 0.0) & xp.isfinite(q)
    value = _zeta_of_positive(xp, s, xp.where(is_negative, fraction, xp.maximum(q, 0.0)))
    below = _zeta_of_positive(xp, s, xp.where(is_negative, 1.0 - fraction, 1.0)) - _zeta_of_positive(xp, s, 1.0 - step - fraction)
    sign = xp.where(xp.remainder(s, 2.0) == 0.0, 1.0, -1.0)
    value = xp.where(is_negative, xp.where(s == xp.floor(s), value + sign * below, math.nan), value)
    value = xp.where((q <= 0.0) & (fraction == 0.0), math.inf, value)
    return xp.where(s == 1.0, math.inf, xp.where((s > 1.0) & (q > -math.inf), value, math.nan))


def _zeta_of_positive(xp: Any, s: Array, q: Array) -> Array:
    y = q + float(_SHIFT)
    value = y ** (1.0 - s) / (s - 1.0) + 0.5 * y**-s
    for k in range(_SHIFT):
        value = value + (q + float(k)) ** -s
    s = xp.minimum(s, 1e30)  # whose square does not overflow
    factor = s * y ** (-s - 1.0)
    for j, bernoulli in enumerate(_BERNOULLI, 1):
        value = value + bernoulli / math.factorial(2 * j) * factor
        factor = factor * ((s + (2 * j - 1)) / y) * ((s + 2 * j) / y)
    return value


def _polygamma(xp: Any, x: Array, *, order: int) -> Array:
    """(-1)^(n+1) n! zeta(n + 1, x) (DLMF 5.15.1)."""
    scale = math.factorial(order) if order <= 170 else math.inf
    return _zeta(xp, xp.full_like(x, order + 1.0), x) * (float(scale) if order % 2 else -float(scale))


LGAMMA, DIGAMMA = float64_shim("lgamma", lgamma_array), float64_shim("digamma", digamma_array)
POLYGAMMA, ZETA = float64_shim("polygamma", _polygamma), float64_shim("zeta", _zeta)


def _lgamma_gradient(g: Tensor, input: Tensor) -> Tensor:
    return g * digamma(input)


@unary(_lgamma_gradient, forward=lambda x: launched(LGAMMA, x))
def lgamma(input):
    """The logarithm of |Gamma(x)|."""


@unary(lambda g, input: g * _polygamma_of(input, order=1), forward=lambda x: launched(DIGAMMA, x))
def digamma(input):
    """The derivative of lgamma(x)."""


@primitive(name="polygamma")
def _polygamma_of(x, *, order):
    return launched(POLYGAMMA, x, order=order)


_polygamma_of.derivatives(x=lambda g, x, order: g * _polygamma_of(x, order=order + 1))


@public()
def polygamma(n: Any, input: Any) -> Tensor:
    """The derivative of :func:`digamma` of order ``n``; digamma itself for ``n`` 0.

    Raises:
        ArgumentError: ``n`` is negative.
    """
    return _polygamma_method(wrap(input, "polygamma"), n)


def _polygamma_method(input: Any, n: Any) -> Tensor:
    order = as_integer("polygamma", "n", n)
    if order < 0:
        raise ArgumentError(f"polygamma: n={order}; expected 0 or more")
    return _polygamma_of(input, order=order) if order else digamma(input)


_polygamma_method.__name__ = _polygamma_method.__qualname__ = "polygamma"
elementwise("polygamma")(_polygamma_method)


@elementwise("mvlgamma")
def mvlgamma(input: Any, p: Any) -> Tensor:
    """The logarithm of the gamma function of dimension ``p``: the sum of lgamma(x - j / 2), j < p, and p (p - 1) / 4 log(pi).

    Raises:
        ArgumentError: ``p`` is less than 1.
        DtypeError: a boolean tensor.
    """
    if is_boolean(input.dtype):
        raise DtypeError("mvlgamma of a boolean tensor; convert it with .float() first")
    count = as_positive("mvlgamma", "p", p)
    return _sum_of_lgamma(input if is_floating(input.dtype) else input.to(get_default_dtype()), count)


@in_accumulator
def _sum_of_lgamma(x: Tensor, count: int) -> Tensor:
    total = lgamma(x)
    for j in range(1, count):
        total = total + lgamma(x - 0.5 * j)
    return total + 0.25 * count * (count - 1) * math.log(math.pi)


def _zeta_gradient(g: Tensor, q: Tensor, s: Tensor) -> Tensor:
    return g * (-s * _zeta_of(s + 1.0, q))


@primitive
def _zeta_of(s, q):
    return launched(ZETA, s, q)


_zeta_of.derivatives(s=lambda g: refuse_gradient("zeta", "input"), q=_zeta_gradient)


@public(numbers=True)
def zeta(input: Any, other: Any) -> Tensor:
    """Hurwitz's zeta function: the sum of (other + k)^-input over k = 0, 1, ...; its gradient is in ``other`` only."""
    return _zeta_of(*as_tensors("zeta", input, other))
