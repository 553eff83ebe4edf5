"""The gamma function's logarithm and its derivatives, the inverse of erf, and draws of the gamma distribution.

NumPy lacks these functions.  They are computed in float64 from functions that NumPy and CuPy share, and rounded once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import COPY, Tensor, get_default_dtype, is_grad_enabled, make_tensor, primitive
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import is_floating
from gpunet.errors import GradientError
from gpunet.launch.memory import empty
from gpunet.launch.random import CENTRAL, MIDDLE, TAIL, Generator
from gpunet.launch.shims import Shim
from gpunet.ops.define import unary
from gpunet.ops.elementwise import exp

__all__ = ["digamma", "erfinv", "lgamma"]

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


def _polynomial(x: Array, coefficients: Any) -> Array:
    """The polynomial with these coefficients, lowest power first."""
    value = x * 0.0 + coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


def _in_float64(function: Any) -> Any:
    """The function of a shim: compute in float64 and round to the destination."""

    def launch(xp: Any, out: Array, *inputs: Array, **options: Any) -> None:
        with numpy.errstate(all="ignore"):
            result = function(xp, *(x.astype("float64") for x in inputs), **options)
        xp.copyto(out, result.astype(out.dtype))

    return launch


def _lgamma(xp: Any, x: Array) -> Array:
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
    small = z * _polynomial(z, _NEAR_2) - xp.where(is_low, xp.log1p(z), 0.0) + xp.log(product)
    y = xp.where(is_large, a, float(_SHIFT))
    series = _polynomial(1.0 / (y * y), [b / (2 * j * (2 * j - 1)) for j, b in enumerate(_BERNOULLI, 1)]) / y
    large = (y - 0.5) * (xp.log(y) - 1.0) + (0.5 * math.log(2.0 * math.pi) - 0.5) + series
    value = xp.where(is_large, large, small)
    fraction = xp.where(is_negative & xp.isfinite(x), x - xp.rint(x), 0.25)
    reflected = math.log(math.pi) - xp.log(xp.abs(xp.sin(math.pi * fraction))) - value
    value = xp.where(is_negative, xp.where(fraction == 0.0, math.inf, reflected), value)
    return xp.where(xp.isinf(x), math.inf, xp.where(xp.isnan(x), x, value))


def _digamma(xp: Any, x: Array) -> Array:
    """The asymptotic series (DLMF 5.11.2) of x + 10, recurrence (5.5.2), and reflection (5.5.4) of negative x."""
    is_negative = x < 0.0
    a = xp.where(is_negative, 1.0 - x, x)
    is_small = a < _SHIFT
    y = xp.where(is_small, a + float(_SHIFT), a)
    value = xp.log(y) - 0.5 / y - _polynomial(1.0 / (y * y), [b / (2 * j) for j, b in enumerate(_BERNOULLI, 1)]) / (y * y)
    for k in range(_SHIFT):
        value = value - xp.where(is_small, 1.0 / (a + float(k)), 0.0)
    fraction = x - xp.rint(x)
    pole = xp.where(fraction == 0.0, math.nan, math.pi / xp.tan(math.pi * fraction))
    value = xp.where(is_negative, value - pole, value)
    return xp.where(x == 0.0, xp.copysign(math.inf, -x), value)


def _polygamma(xp: Any, x: Array, *, order: int) -> Array:
    """(-1)^(n+1) n! zeta(n + 1, x) by Euler-Maclaurin summation; reflection of negative x up to order 2, above it NaN."""
    s = order + 1
    is_negative = x < 0.0
    a = xp.where(is_negative, 1.0 - x, x)
    y = a + float(_SHIFT)
    value = y ** (1.0 - s) / (s - 1.0) + 0.5 * y**-s
    for k in range(_SHIFT):
        value = value + (a + float(k)) ** -s
    factor = s * y ** (-s - 1.0)
    for j, bernoulli in enumerate(_BERNOULLI, 1):
        value = value + bernoulli / math.factorial(2 * j) * factor
        factor = factor * ((s + 2 * j - 1) * (s + 2 * j)) / (y * y)
    value = value * (-1.0) ** (order + 1) * math.factorial(order)
    angle = math.pi * (x - xp.rint(x))
    if order == 1:
        reflected = (math.pi / xp.sin(angle)) ** 2 - value
    elif order == 2:
        reflected = value - 2.0 * math.pi**3 * xp.cos(angle) / xp.sin(angle) ** 3
    else:
        reflected = xp.full_like(value, math.nan)
    return xp.where(is_negative, reflected, value)


def _erfinv(xp: Any, x: Array) -> Array:
    """z(p) / sqrt(2) with the normal quantile z of p = (1 + x) / 2: Wichura, algorithm AS 241, Applied Statistics 37 (1988).

    x / 2 and, in the tails, (1 - |x|) / 2 are exact, and so the relative error is small everywhere.
    """
    q, tail = 0.5 * x, 0.5 * (1.0 - xp.abs(x))
    r = 0.180625 - q * q
    central = q * (_polynomial(r, CENTRAL[0]) / _polynomial(r, CENTRAL[1]))
    r = xp.sqrt(-xp.log(xp.where(tail > 0.0, tail, 0.5)))
    middle = _polynomial(r - 1.6, MIDDLE[0]) / _polynomial(r - 1.6, MIDDLE[1])
    outer = _polynomial(r - 5.0, TAIL[0]) / _polynomial(r - 5.0, TAIL[1])
    outer = xp.where(tail == 0.0, math.inf, xp.where(r <= 5.0, middle, outer))
    z = xp.where(xp.abs(q) <= 0.425, central, xp.copysign(outer, q))
    return xp.where(tail >= 0.0, z / math.sqrt(2.0), math.nan)


def _shim(name: str, function: Any) -> Shim:
    return Shim(name, _in_float64(function), reads_values=True)


LGAMMA, DIGAMMA, ERFINV = _shim("lgamma", _lgamma), _shim("digamma", _digamma), _shim("erfinv", _erfinv)
POLYGAMMA = _shim("polygamma", _polygamma)


def _launched(launch: Shim, x: Tensor, *others: Tensor, **options: Any) -> Array:
    out = empty(x.shape, x.dtype if is_floating(x.dtype) else get_default_dtype(), x.array)
    launch(out, x.array, *(other.array for other in others), **options)
    return out


def _lgamma_gradient(g: Tensor, input: Tensor) -> Tensor:
    return g * digamma(input)


@unary(_lgamma_gradient, forward=lambda x: _launched(LGAMMA, x))
def lgamma(input):
    """The logarithm of |Gamma(x)|."""


@unary(lambda g, input: g * polygamma(input, order=1), forward=lambda x: _launched(DIGAMMA, x))
def digamma(input):
    """The derivative of lgamma(x)."""


@primitive(name="polygamma")
def polygamma(x, *, order):
    """The derivative of digamma of an order, 1 or more; NaN for negative x from order 3 on."""
    return _launched(POLYGAMMA, x, order=order)


polygamma.derivatives(x=lambda g, x, order: g * polygamma(x, order=order + 1))


@unary(
    lambda g, out: g * (0.5 * math.sqrt(math.pi) * exp(out * out)), forward=lambda x: _launched(ERFINV, x), autocast="cuda: float32"
)
def erfinv(input):
    """The inverse of erf, for x from -1 to 1."""


# ---- the gamma distribution -------------------------------------------------------------------------------------------


def _upper_fraction(xp: Any, a: Array, x: Array) -> tuple[Array, Array]:
    """h and dh/da of Q(a, x) = x^a e^-x / Gamma(a) h: Legendre's continued fraction (DLMF 8.9.2), by Lentz's method."""
    b = x + 1.0 - a
    c, dc = xp.full_like(x, 1e300), xp.zeros_like(x)
    d = 1.0 / b
    dd = d * d  # b falls by 1 as a grows by 1
    h, dh = d, dd
    for i in range(1, 100_000):
        numerator, dnumerator = -i * (i - a), float(i)
        b = b + 2.0
        dd_inverse = dnumerator * d + numerator * dd - 1.0
        d = 1.0 / (numerator * d + b)
        dd = -d * d * dd_inverse
        dc = (dnumerator - numerator * dc / c) / c - 1.0
        c = b + numerator / c
        factor, dfactor = c * d, dc * d + c * dd
        h, dh = h * factor, dh * factor + h * dfactor
        if not bool(((abs(factor - 1.0) > 1e-15) | (abs(dfactor) > 1e-15 * (1.0 + abs(dh / h)))).any()):  # a few roundings
            break
    return h, dh


def _lower_series(xp: Any, a: Array, x: Array) -> tuple[Array, Array]:
    """S and dS/da of P(a, x) = x^a e^-x / Gamma(a + 1) S: the power series (DLMF 8.11.4)."""
    term, harmonic = xp.ones_like(x), xp.zeros_like(x)
    total, derivative = xp.ones_like(x), xp.zeros_like(x)
    for n in range(1, 100_000):
        term = term * x / (a + n)
        harmonic = harmonic + 1.0 / (a + n)
        total, derivative = total + term, derivative - term * harmonic
        if not bool((term * (1.0 + harmonic) > 1e-17 * total).any()):
            break
    return total, derivative


def _gamma_slope(xp: Any, a: Array, x: Array) -> Array:
    """dx/da = -(dF/da) / (dF/dx) of the distribution function F of the gamma distribution with shape a, at x."""
    is_upper = x > a + 1.0
    h, dh = _upper_fraction(xp, xp.where(is_upper, a, 1.0), xp.where(is_upper, x, 4.0))
    s, ds = _lower_series(xp, xp.where(is_upper, 1.0, a), xp.where(is_upper, 1.0, x))
    log_x = xp.log(x)
    upper = x * ((log_x - _digamma(xp, a)) * h + dh)
    lower = -(x / a) * ((log_x - _digamma(xp, a + 1.0)) * s + ds)
    return xp.where(is_upper, upper, lower)


GAMMA_SLOPE = _shim("gamma_slope", _gamma_slope)


def gamma_slope(concentration: Tensor, value: Tensor) -> Tensor:
    """The derivative of a draw ``value`` of the gamma distribution in its concentration, at a fixed probability.

    Raises:
        GradientError: it shall be differentiated again.
    """
    if is_grad_enabled() and (concentration.requires_grad or value.requires_grad):
        raise GradientError(
            "create_graph=True: second derivatives of draws of gamma, beta, Dirichlet and Student's t distributions in their "
            "concentration are not supported; leave it out, or use sample() instead of rsample()"
        )
    return make_tensor(_launched(GAMMA_SLOPE, concentration, value))


@primitive(name="rsample")
def reparameterized_gamma(concentration, value):
    """``value``, a draw of the gamma distribution with this concentration; its gradient is implicit.

    Source: Figurnov et al., "Implicit Reparameterization Gradients" (2018).
    """
    out = empty(value.shape, value.dtype, value.array)
    COPY(out, value.array)
    return out


reparameterized_gamma.derivatives(
    concentration=lambda g, concentration, value: g * gamma_slope(concentration, value), value=lambda g: g
)


def draw_on_host(draw: Any, *parameters: Tensor, generator: Generator) -> Tensor:
    """``draw(numpy_generator, *arrays)`` in float64, as a tensor of the dtype and on the device of the first parameter.

    The numbers are the same on all devices.

    Raises:
        CaptureError: called inside a recorded step.
    """
    first = parameters[0]
    drawn = draw(generator.host_generator(), *(devices.to_host(p.array).astype(numpy.float64) for p in parameters))
    return make_tensor(devices.move(numpy.asarray(drawn).astype(first.dtype), first.device))
