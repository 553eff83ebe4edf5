"""Orthogonal polynomials of an order that is a tensor, too: Chebyshev's of four kinds, Hermite's, Laguerre's and Legendre's.

An order is rounded towards zero; those below 0 and beyond 64 bits give 0.  The results have no gradient, as in PyTorch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

from gpunet.autograd import Tensor, ignore_fp_errors, make_tensor
from gpunet.backend.devices import Array
from gpunet.errors import OutOfRangeError
from gpunet.ops.face import public
from gpunet.ops.in_float64 import as_tensors, float64_shim, launched

__all__ = [
    "chebyshev_polynomial_t", "chebyshev_polynomial_u", "chebyshev_polynomial_v", "chebyshev_polynomial_w", "hermite_polynomial_h",
    "hermite_polynomial_he", "laguerre_polynomial_l", "legendre_polynomial_p", "shifted_chebyshev_polynomial_t",
    "shifted_chebyshev_polynomial_u", "shifted_chebyshev_polynomial_v", "shifted_chebyshev_polynomial_w",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])

_MAX_ORDER = 1_000_000  # of polynomials that take a step for each order
_MAX_HERMITE = {4: 128, 8: 512}  # PyTorch's limits, NaN beyond them: number of bytes of an element -> order
_RECURRED = 8  # up to this order Chebyshev's polynomials are computed by recurrence, which is exact for small integers


def _order(xp: Any, n: Array) -> Array:
    return xp.where(xp.abs(n) < 2.0**63, xp.trunc(n), -1.0)


def _by_recurrence(xp: Any, x: Array, n: Array, first: Array, steps: int, step: Callable[[int, Array, Array], Array]) -> Array:
    """p_n, where p_0 = 1, p_1 = first, p_(k+1) = step(k, p_k, p_(k-1)); 0 for negative n."""
    before, last = xp.ones_like(x * n), first + 0.0 * n
    value = xp.where(n == 0.0, 1.0, xp.where(n == 1.0, last, 0.0))
    for k in range(1, steps):
        before, last = last, step(k, last, before)
        value = xp.where(n == k + 1.0, last, value)
    return value


# ---- Chebyshev ------------------------------------------------------------------------------------------------------------


def _even(theta: Array, n: Array, cos: Any, sin: Any) -> Array:
    return cos(n * theta)


def _second(theta: Array, n: Array, cos: Any, sin: Any) -> Array:
    return sin((n + 1.0) * theta) / sin(theta)


def _third(theta: Array, n: Array, cos: Any, sin: Any) -> Array:
    return cos((n + 0.5) * theta) / cos(0.5 * theta)


def _fourth(theta: Array, n: Array, cos: Any, sin: Any) -> Array:
    return sin((n + 0.5) * theta) / sin(0.5 * theta)


#: Kind -> p_1 as factors of x and 1, the formula in theta where x = cos(theta), that of the reflected kind, and the value at x = 1.
_KINDS: dict[str, tuple[tuple[float, float], Any, Any, Callable[[Array], Array]]] = {
    "t": ((1.0, 0.0), _even, _even, lambda n: 0.0 * n + 1.0),
    "u": ((2.0, 0.0), _second, _second, lambda n: n + 1.0),
    "v": ((2.0, -1.0), _third, _fourth, lambda n: 0.0 * n + 1.0),
    "w": ((2.0, 1.0), _fourth, _third, lambda n: 2.0 * n + 1.0),
}
_REFLECTED = {"t": "t", "u": "u", "v": "w", "w": "v"}


def _chebyshev(xp: Any, x: Array, n: Array, *, kind: str, shifted: bool) -> Array:
    """DLMF 18.5.1 to 18.5.4; hyperbolic functions in place of the trigonometric ones where |x| > 1."""
    (factor, constant), formula, reflected, at_1 = _KINDS[kind]
    x = 2.0 * x - 1.0 if shifted else x
    n = _order(xp, n)
    small = _by_recurrence(xp, x, n, factor * x + constant, _RECURRED, lambda k, last, before: 2.0 * x * last - before)
    inside = xp.where(xp.abs(x) < 1.0, x, 0.5)
    theta = 2.0 * xp.arctan2(xp.sqrt(1.0 - inside), xp.sqrt(1.0 + inside))
    large = formula(theta, n, xp.cos, xp.sin)
    a = xp.maximum(xp.abs(x), 1.0)
    u = 2.0 * xp.arcsinh(xp.sqrt(0.5 * xp.where(a > 1.0, a - 1.0, 1.0)))
    sign = xp.where(xp.remainder(n, 2.0) == 0.0, 1.0, -1.0)
    outside = xp.where(x > 0.0, formula(u, n, xp.cosh, xp.sinh), sign * reflected(u, n, xp.cosh, xp.sinh))
    limit = xp.where(x > 0.0, at_1(n), sign * _KINDS[_REFLECTED[kind]][3](n))
    large = xp.where(xp.abs(x) < 1.0, large, xp.where(xp.abs(x) == 1.0, limit, outside))
    return xp.where(xp.isnan(x), xp.where(n > 0.0, x, small), xp.where(n > _RECURRED, large, small))


# ---- Hermite, Laguerre, Legendre --------------------------------------------------------------------------------------------


def _num_steps(xp: Any, n: Array, limit: int) -> int:
    return int(min(n.max(), limit)) if n.size else 0


def _hermite(xp: Any, x: Array, n: Array, *, physical: bool, limit: int) -> Array:
    """H of the physicists (DLMF 18.9.1) or He of the probabilists."""
    factor = 2.0 if physical else 1.0
    n = _order(xp, n)
    steps = _num_steps(xp, n, limit)
    value = _by_recurrence(xp, x, n, factor * x, steps, lambda k, last, before: factor * (x * last - float(k) * before))
    return xp.where(n > limit, math.nan, value)


def _laguerre(xp: Any, x: Array, n: Array) -> Array:
    n = _order(xp, n)
    steps = _num_steps(xp, n, _MAX_ORDER)
    value = _by_recurrence(
        xp, x, n, 1.0 - x, steps, lambda k, last, before: ((2.0 * k + 1.0 - x) * last - float(k) * before) / (k + 1.0)
    )
    return xp.where((x == 0.0) & (n >= 0.0), 1.0, value)


def _legendre(xp: Any, x: Array, n: Array) -> Array:
    n = _order(xp, n)
    steps = _num_steps(xp, n, _MAX_ORDER)
    value = _by_recurrence(
        xp, x, n, x, steps, lambda k, last, before: ((2.0 * k + 1.0) * x * last - float(k) * before) / (k + 1.0)
    )
    sign = xp.where((x > 0.0) | (xp.remainder(n, 2.0) == 0.0), 1.0, -1.0)
    return xp.where((xp.abs(x) == 1.0) & (n >= 0.0), sign, value)


# ---- public functions -------------------------------------------------------------------------------------------------------


def _polynomial(function: Callable[..., Array], *, has_many_steps: bool = False, **options: Any) -> Callable[[F], F]:
    """Decorator of the declaration of a polynomial.

    Args:
        has_many_steps: an order takes that many steps, and so a large one is refused.
    """

    def decorate(declaration: F) -> F:
        name = declaration.__name__
        launch = float64_shim(name, function)

        @ignore_fp_errors
        @functools.wraps(declaration)
        def call(x: Any, n: Any) -> Tensor:
            a, b = as_tensors(name, x, n)
            a, b = a.detach(), b.detach()
            if has_many_steps and a.numel() and b.numel() and not (largest := float(b.max())) <= _MAX_ORDER and largest < 2.0**63:
                raise OutOfRangeError(f"{name}: an order n={largest:g}; expected at most {_MAX_ORDER}, since each order is a step")
            limits = {"limit": _MAX_HERMITE[8 if b.dtype.itemsize == 8 else 4]} if function is _hermite else {}
            return make_tensor(launched(launch, a, b, **options, **limits))

        return public()(call)  # type: ignore[return-value]

    return decorate


@_polynomial(_chebyshev, kind="t", shifted=False)
def chebyshev_polynomial_t(x, n):
    """Chebyshev's polynomial of the first kind, T_n(x)."""


@_polynomial(_chebyshev, kind="u", shifted=False)
def chebyshev_polynomial_u(x, n):
    """Chebyshev's polynomial of the second kind, U_n(x)."""


@_polynomial(_chebyshev, kind="v", shifted=False)
def chebyshev_polynomial_v(x, n):
    """Chebyshev's polynomial of the third kind, V_n(x)."""


@_polynomial(_chebyshev, kind="w", shifted=False)
def chebyshev_polynomial_w(x, n):
    """Chebyshev's polynomial of the fourth kind, W_n(x)."""


@_polynomial(_chebyshev, kind="t", shifted=True)
def shifted_chebyshev_polynomial_t(x, n):
    """T_n(2 x - 1)."""


@_polynomial(_chebyshev, kind="u", shifted=True)
def shifted_chebyshev_polynomial_u(x, n):
    """U_n(2 x - 1)."""


@_polynomial(_chebyshev, kind="v", shifted=True)
def shifted_chebyshev_polynomial_v(x, n):
    """V_n(2 x - 1)."""


@_polynomial(_chebyshev, kind="w", shifted=True)
def shifted_chebyshev_polynomial_w(x, n):
    """W_n(2 x - 1)."""


@_polynomial(_hermite, physical=True)
def hermite_polynomial_h(x, n):
    """Hermite's polynomial of the physicists, H_n(x); NaN from orders of 129 (float64: 513) on, as in PyTorch."""


@_polynomial(_hermite, physical=False)
def hermite_polynomial_he(x, n):
    """Hermite's polynomial of the probabilists, He_n(x); NaN from orders of 129 (float64: 513) on, as in PyTorch."""


@_polynomial(_laguerre, has_many_steps=True)
def laguerre_polynomial_l(x, n):
    """Laguerre's polynomial L_n(x).

    Raises:
        OutOfRangeError: an order above 1000000.
    """


@_polynomial(_legendre, has_many_steps=True)
def legendre_polynomial_p(x, n):
    """Legendre's polynomial P_n(x).

    Raises:
        OutOfRangeError: an order above 1000000.
    """
