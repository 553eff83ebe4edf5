"""Bessel functions of the orders 0 and 1, and Airy's function.

Power series and Chebyshev series near 0, Chebyshev series of the amplitudes for large x.
"""

from __future__ import annotations

import math
from typing import Any

from gpunet.autograd import Tensor
from gpunet.backend.devices import Array
from gpunet.ops import special_tables as tables
from gpunet.ops.compare import eq
from gpunet.ops.define import unary
from gpunet.ops.elementwise import where
from gpunet.ops.in_float64 import chebyshev, float64_shim, launched, polynomial, without_gradient
from gpunet.ops.rounding import sign

__all__ = [
    "airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "i0", "i0e", "i1", "i1e", "modified_bessel_i0",
    "modified_bessel_i1", "modified_bessel_k0", "modified_bessel_k1", "scaled_modified_bessel_k0", "scaled_modified_bessel_k1",
    "spherical_bessel_j0",
]  # fmt: skip

_EULER = 0.57721566490153286061
_SMALL = 8.0  # up to it the power series of I and the tables of J and Y near 0 hold
_SMALL_K = 2.0

#: Coefficients in (x / 2)^2 of I0(x), of I1(x) / (x / 2) (DLMF 10.25.2), and of the further series in K0 and K1 (10.31.1, 10.31.2)
_I0 = tuple(1.0 / math.factorial(k) ** 2 for k in range(32))
_I1 = tuple(1.0 / (math.factorial(k) * math.factorial(k + 1)) for k in range(32))
_HARMONIC = [sum(1.0 / i for i in range(1, k + 1)) for k in range(18)]
_K0 = tuple(_HARMONIC[k] / math.factorial(k) ** 2 for k in range(16))
_K1 = tuple((_HARMONIC[k] + _HARMONIC[k + 1] - 2.0 * _EULER) / (math.factorial(k) * math.factorial(k + 1)) for k in range(16))


# ---- modified functions -------------------------------------------------------------------------------------------------


def _i(xp: Any, x: Array, *, order: int, scaled: bool) -> Array:
    """I0(x) or I1(x), times e^-|x| if ``scaled``."""
    a = xp.abs(x)
    quarter = xp.minimum(a, _SMALL) ** 2 * 0.25
    small = polynomial(quarter, _I1) * (0.5 * a) if order else polynomial(quarter, _I0)
    large = xp.maximum(a, _SMALL)
    amplitude = chebyshev(16.0 / large - 1.0, tables.I1_LARGE if order else tables.I0_LARGE) / xp.sqrt(large)
    if scaled:
        value = xp.where(a <= _SMALL, small * xp.exp(-a), amplitude)
    else:
        half = xp.exp(0.5 * large)  # e^x would overflow before the result
        value = xp.where(a <= _SMALL, small, half * amplitude * half)
        value = xp.where(xp.isinf(a), math.inf, value)
    return xp.copysign(value, x) if order else value


def _k(xp: Any, x: Array, *, order: int, scaled: bool) -> Array:
    """K0(x) or K1(x), times e^x if ``scaled``; inf at 0, NaN below."""
    a = xp.where(x > 0.0, x, 1.0)
    near = xp.minimum(a, _SMALL_K)
    quarter, logarithm = near * near * 0.25, xp.log(0.5 * near)
    if order:
        small = 1.0 / near + logarithm * (0.5 * near) * polynomial(quarter, _I1) - 0.25 * near * polynomial(quarter, _K1)
    else:
        small = polynomial(quarter, _K0) - (logarithm + _EULER) * polynomial(quarter, _I0)
    far = xp.maximum(a, _SMALL_K)
    large = chebyshev(4.0 / far - 1.0, tables.K1_LARGE if order else tables.K0_LARGE) / xp.sqrt(far)
    if scaled:
        small = small * xp.exp(near)
    else:
        large = large * xp.exp(-far)
    value = xp.where(a <= _SMALL_K, small, large)
    return xp.where(x > 0.0, value, xp.where(x == 0.0, math.inf, math.nan))


I0, I1 = (float64_shim(f"i{n}", lambda xp, x, n=n: _i(xp, x, order=n, scaled=False)) for n in (0, 1))
I0E, I1E = (float64_shim(f"i{n}e", lambda xp, x, n=n: _i(xp, x, order=n, scaled=True)) for n in (0, 1))


def _i0_gradient(g: Tensor, input: Tensor) -> Tensor:
    return g * i1(input)


@unary(_i0_gradient, forward=lambda x: launched(I0, x))
def i0(input):
    """The modified Bessel function I0."""


def _i0e_gradient(g: Tensor, input: Tensor, out: Tensor) -> Tensor:
    return g * (i1e(input) - sign(input) * out)


@unary(_i0e_gradient, forward=lambda x: launched(I0E, x), is_method=False)
def i0e(input):
    """e^-|x| I0(x), which does not overflow."""


def _over(out: Tensor, input: Tensor) -> Tensor:
    """out / input, of a function whose derivative at 0 is 1/2."""
    is_zero = eq(input, 0)
    return where(is_zero, 0.5, out / where(is_zero, 1.0, input))


def _i1_gradient(g: Tensor, input: Tensor, out: Tensor) -> Tensor:
    """I0 - I1 / x; 1/2 at 0."""
    return g * (i0(input) - _over(out, input))


@unary(_i1_gradient, forward=lambda x: launched(I1, x), is_method=False)
def i1(input):
    """The modified Bessel function I1."""


def _i1e_gradient(g: Tensor, input: Tensor, out: Tensor) -> Tensor:
    return g * (i0e(input) - sign(input) * out - _over(out, input))


@unary(_i1e_gradient, forward=lambda x: launched(I1E, x), is_method=False)
def i1e(input):
    """e^-|x| I1(x), which does not overflow."""


@without_gradient(lambda xp, x: _i(xp, x, order=0, scaled=False))
def modified_bessel_i0(input):
    """The modified Bessel function I0, without a gradient, as in PyTorch; that of :func:`i0` has one."""


@without_gradient(lambda xp, x: _i(xp, x, order=1, scaled=False))
def modified_bessel_i1(input):
    """The modified Bessel function I1, without a gradient, as in PyTorch; that of :func:`i1` has one."""


@without_gradient(lambda xp, x: _k(xp, x, order=0, scaled=False))
def modified_bessel_k0(input):
    """The modified Bessel function K0."""


@without_gradient(lambda xp, x: _k(xp, x, order=1, scaled=False))
def modified_bessel_k1(input):
    """The modified Bessel function K1."""


@without_gradient(lambda xp, x: _k(xp, x, order=0, scaled=True))
def scaled_modified_bessel_k0(x):
    """e^x K0(x), which does not underflow."""


@without_gradient(lambda xp, x: _k(xp, x, order=1, scaled=True))
def scaled_modified_bessel_k1(x):
    """e^x K1(x), which does not underflow."""


# ---- functions of the first and the second kind ---------------------------------------------------------------------------


def _wave(xp: Any, x: Array, order: int) -> tuple[Array, Array]:
    """J and Y of x > 8, by the amplitudes P and Q (DLMF 10.17.3): sin and cos of x - pi/4 follow from those of x exactly."""
    p_table, q_table = (tables.P1_LARGE, tables.Q1_LARGE) if order else (tables.P0_LARGE, tables.Q0_LARGE)
    far = xp.maximum(x, _SMALL)
    t = 2.0 * (_SMALL / far) ** 2 - 1.0
    p, q = chebyshev(t, p_table), chebyshev(t, q_table) / far
    sine, cosine = xp.sin(far), xp.cos(far)
    c, s = (sine - cosine, -sine - cosine) if order else (cosine + sine, sine - cosine)  # sqrt(2) times those of x - pi/4 (- pi/2)
    scale = 1.0 / (math.sqrt(math.pi) * xp.sqrt(far))
    return scale * (p * c - q * s), scale * (p * s + q * c)


def _j_small(x: Array, order: int) -> Array:
    t = x * x / 32.0 - 1.0
    return chebyshev(t, tables.J1_SMALL) * x if order else chebyshev(t, tables.J0_SMALL)


def _j(xp: Any, x: Array, *, order: int) -> Array:
    a = xp.abs(x)
    value = xp.where(a <= _SMALL, _j_small(xp.minimum(a, _SMALL), order), _wave(xp, a, order)[0])
    value = xp.where(xp.isinf(x), 0.0, value)
    return xp.where(x < 0.0, -value, value) if order else value


def _y(xp: Any, x: Array, *, order: int) -> Array:
    """-inf at 0, NaN below."""
    a = xp.where(x > 0.0, x, 1.0)
    near = xp.minimum(a, _SMALL)
    t, logarithm = near * near / 32.0 - 1.0, (2.0 / math.pi) * xp.log(near)
    if order:
        small = chebyshev(t, tables.Y1_SMALL) * near + logarithm * _j_small(near, 1) - (2.0 / math.pi) / near
    else:
        small = chebyshev(t, tables.Y0_SMALL) + logarithm * _j_small(near, 0)
    value = xp.where(a <= _SMALL, small, _wave(xp, a, order)[1])
    return xp.where(x > 0.0, value, xp.where(x == 0.0, -math.inf, math.nan))


@without_gradient(lambda xp, x: _j(xp, x, order=0))
def bessel_j0(input):
    """The Bessel function of the first kind J0."""


@without_gradient(lambda xp, x: _j(xp, x, order=1))
def bessel_j1(input):
    """The Bessel function of the first kind J1."""


@without_gradient(lambda xp, x: _y(xp, x, order=0))
def bessel_y0(input):
    """The Bessel function of the second kind Y0."""


@without_gradient(lambda xp, x: _y(xp, x, order=1))
def bessel_y1(input):
    """The Bessel function of the second kind Y1."""


def _spherical_j0(xp: Any, x: Array) -> Array:
    value = xp.sin(x) / xp.where(x == 0.0, 1.0, x)
    return xp.where(x == 0.0, 1.0, xp.where(xp.isinf(x), 0.0, value))


@without_gradient(_spherical_j0)
def spherical_bessel_j0(x):
    """The spherical Bessel function j0: sin(x) / x, and 1 at 0."""


def _airy(xp: Any, x: Array) -> Array:
    """A table from -4 to 2; above it the amplitude of e^-z, below it that of a wave, z = 2/3 |x|^(3/2) (DLMF 9.7.5, 9.7.9)."""
    middle = chebyshev((xp.clip(x, -4.0, 2.0) + 1.0) / 3.0, tables.AIRY_MIDDLE)
    up = xp.maximum(x, 2.0)
    z, z2 = up * xp.sqrt(up) * (2.0 / 3.0), 2.0 * math.sqrt(2.0) * (2.0 / 3.0)
    decay = xp.where(xp.isinf(up), 0.0, chebyshev(2.0 * z2 / z - 1.0, tables.AIRY_POSITIVE) * xp.exp(-z) / xp.sqrt(xp.sqrt(up)))
    down = xp.maximum(-x, 4.0)
    z, z4 = down * xp.sqrt(down) * (2.0 / 3.0), 8.0 * (2.0 / 3.0)
    t = 2.0 * (z4 / z) ** 2 - 1.0
    sine, cosine = xp.sin(z), xp.cos(z)
    wave = chebyshev(t, tables.AIRY_P) * (cosine + sine) + chebyshev(t, tables.AIRY_Q) / z * (sine - cosine)
    wave = wave / (math.sqrt(2.0 * math.pi) * xp.sqrt(xp.sqrt(down)))
    value = xp.where(x > 2.0, decay, xp.where(x < -4.0, wave, middle))
    return xp.where(xp.isnan(x), x, value)


@without_gradient(_airy)
def airy_ai(x):
    """Airy's function Ai."""
