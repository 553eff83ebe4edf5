"""The incomplete gamma function, and draws of the gamma distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import COPY, Tensor, is_grad_enabled, make_tensor, primitive
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.errors import GradientError
from gpunet.launch.memory import empty
from gpunet.launch.random import Generator
from gpunet.ops.broadcast import in_accumulator
from gpunet.ops.define import elementwise
from gpunet.ops.elementwise import exp, log
from gpunet.ops.error_functions import erfc_array
from gpunet.ops.in_float64 import as_tensors, float64_shim, launched, polynomial, refuse_gradient
from gpunet.ops.special_functions import digamma_array, lgamma, lgamma_array

__all__ = ["igamma", "igammac"]


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


#: From this shape on Temme's expansion converges at once, for smaller ones in all cases the series and the fraction do.
_LARGE_SHAPE = 1e5
#: The first coefficients in eta of Temme's c0 and c1, of which |eta| is small unless the result is 0 or 1 (DLMF 8.12.11).
_TEMME = (
    (-1 / 3, 1 / 12, -2 / 135, 1 / 864, 1 / 2835, -139 / 777600, 3.919263178522438e-05, -2.185448510679992e-06),
    (-1 / 540, -1 / 288, 1 / 378, -77 / 77760, 2.0576131687242798e-04),
)


def _log_prefactor(xp: Any, a: Array, x: Array) -> Array:
    """a log(x) - x - log(Gamma(a + 1)); of large a from log(x / a) - m, m = x / a - 1, so that nothing cancels."""
    m = (x - a) / a
    near = xp.where(xp.abs(m) < 0.1, m, 0.0)
    series = near * near * polynomial(near, [(-1.0) ** (k + 1) / k for k in range(2, 18)])
    difference = xp.where(xp.abs(m) < 0.1, series, xp.log(x / a) - m)
    big = xp.maximum(a, 10.0)
    stirling = polynomial(1.0 / (big * big), [1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188]) / big
    large = a * difference - 0.5 * xp.log(2.0 * math.pi * big) - stirling
    return xp.where(a > 10.0, large, a * xp.log(x) - x - lgamma_array(xp, a + 1.0))


def _temme(xp: Any, a: Array, x: Array) -> Array:
    """Q(a, x) = erfc(eta sqrt(a / 2)) / 2 + exp(-a eta^2 / 2) / sqrt(2 pi a) (c0 + c1 / a) (DLMF 8.12.4, 8.12.7)."""
    m = (x - a) / a
    near = xp.where(xp.abs(m) < 0.1, m, 0.0)
    half = near * near * polynomial(near, [(-1.0) ** k / k for k in range(2, 18)])
    half = xp.where(xp.abs(m) < 0.1, half, m - xp.log(x / a))  # eta^2 / 2
    eta = xp.copysign(xp.sqrt(2.0 * half), m)
    small = xp.clip(eta, -0.2, 0.2)
    rest = polynomial(small, _TEMME[0]) + polynomial(small, _TEMME[1]) / a
    value = 0.5 * erfc_array(xp, eta * xp.sqrt(0.5 * a)) + xp.exp(-a * half) / xp.sqrt(2.0 * math.pi * a) * rest
    return xp.clip(value, 0.0, 1.0)


def _incomplete(xp: Any, a: Array, x: Array, *, upper: bool) -> Array:
    """P(a, x), or Q(a, x) = 1 - P if ``upper``: the smaller one is computed, so that its relative error is small."""
    is_regular = (a > 0.0) & (x > 0.0) & xp.isfinite(a) & xp.isfinite(x)
    is_large = is_regular & (a > _LARGE_SHAPE)
    is_upper = is_regular & ~is_large & (x > a + 1.0)
    is_lower = is_regular & ~is_large & ~is_upper
    b, y = xp.where(is_regular & ~is_large, a, 1.0), xp.where(is_regular & ~is_large, x, 1.0)
    log_prefactor = _log_prefactor(xp, b, y)
    s, _ = _lower_series(xp, xp.where(is_lower, b, 1.0), xp.where(is_lower, y, 1.0))
    h, _ = _upper_fraction(xp, xp.where(is_upper, b, 1.0), xp.where(is_upper, y, 4.0))
    tail = xp.exp(log_prefactor + xp.log(xp.where(is_upper, b, 1.0))) * h
    large_a, large_x = xp.where(is_large, a, 1e6), xp.where(is_large, x, 1e6)
    large = _temme(xp, large_a, large_x)
    tail = xp.where(is_large, large, tail)
    if upper:
        value = xp.where(is_upper | is_large, tail, 1.0 - xp.exp(log_prefactor) * s)
    else:
        value = xp.where(is_lower, xp.exp(log_prefactor) * s, 1.0 - tail)
    at_infinity = xp.where(xp.isinf(a), 0.0, 1.0)
    limit = xp.where(a == 0.0, 1.0, xp.where(x == 0.0, 0.0, at_infinity))
    is_undefined = (a < 0.0) | (x < 0.0) | ((a == 0.0) & (x == 0.0)) | (xp.isinf(a) & xp.isinf(x)) | xp.isnan(a) | xp.isnan(x)
    value = xp.where(is_regular, value, 1.0 - limit if upper else limit)
    return xp.where(is_undefined, math.nan, value)


INCOMPLETE_GAMMA = float64_shim("igamma", _incomplete)


@in_accumulator
def _density(a: Tensor, x: Tensor) -> Tensor:
    return exp((a - 1.0) * log(x) - x - lgamma(a))


@primitive
def _igamma(a, x):
    return launched(INCOMPLETE_GAMMA, a, x, upper=False)


@primitive
def _igammac(a, x):
    return launched(INCOMPLETE_GAMMA, a, x, upper=True)


_igamma.derivatives(a=lambda g: refuse_gradient("igamma", "input"), x=lambda g, a, x: g * _density(a, x))
_igammac.derivatives(a=lambda g: refuse_gradient("igammac", "input"), x=lambda g, a, x: -(g * _density(a, x)))


@elementwise("igamma")
def igamma(input: Any, other: Any) -> Tensor:
    """The regularised lower incomplete gamma function P(input, other); its gradient is in ``other`` only."""
    return _igamma(*as_tensors("igamma", input, other))


@elementwise("igammac")
def igammac(input: Any, other: Any) -> Tensor:
    """The regularised upper incomplete gamma function Q = 1 - P; its gradient is in ``other`` only."""
    return _igammac(*as_tensors("igammac", input, other))


# ---- the gamma distribution -------------------------------------------------------------------------------------------


def _gamma_slope(xp: Any, a: Array, x: Array) -> Array:
    """dx/da = -(dF/da) / (dF/dx) of the distribution function F of the gamma distribution with shape a, at x."""
    is_upper = x > a + 1.0
    h, dh = _upper_fraction(xp, xp.where(is_upper, a, 1.0), xp.where(is_upper, x, 4.0))
    s, ds = _lower_series(xp, xp.where(is_upper, 1.0, a), xp.where(is_upper, 1.0, x))
    log_x = xp.log(x)
    upper = x * ((log_x - digamma_array(xp, a)) * h + dh)
    lower = -(x / a) * ((log_x - digamma_array(xp, a + 1.0)) * s + ds)
    return xp.where(is_upper, upper, lower)


GAMMA_SLOPE = float64_shim("gamma_slope", _gamma_slope)


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
    return make_tensor(launched(GAMMA_SLOPE, concentration, value))


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
