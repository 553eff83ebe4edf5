"""Norms, and logsumexp: reductions that are computed without overflow, or whose gradient at 0 is defined."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import Tensor, get_default_dtype, primitive
from gpunet.backend.dtypes import accumulator, is_complex, is_floating, to_real
from gpunet.errors import ArgumentError, ShapeError
from gpunet.ops.compare import eq
from gpunet.ops.dims import Dims, dropped_shape, kept_shape, reduced_dims
from gpunet.ops.elementwise import abs, exp, log, where
from gpunet.ops.face import public
from gpunet.ops.order import _extreme
from gpunet.ops.reduce import _sum, check_floating, converted, sqrt_0
from gpunet.ops.shape import _reshape

__all__ = ["logsumexp", "norm"]


@primitive
def _logsumexp(x, *, axes, keepdim):
    x, shape = x.detach(), x.array.shape
    largest: Any = 0.0
    if 0 not in [shape[a] for a in axes]:
        largest = _extreme(x, name="amax", axes=axes, keepdim=True)
        largest = where(largest.isfinite(), largest, 0.0)
    total = log(_sum(exp(x - largest), axes=axes, keepdim=True)) + largest
    return total.array if keepdim else total.array.reshape(dropped_shape(shape, axes))


def _logsumexp_derivative(g, x, out, axes):
    kept = kept_shape(x.array.shape, axes)
    return _reshape(g, shape=kept) * exp(x - _reshape(out, shape=kept))


_logsumexp.derivatives(x=_logsumexp_derivative)


@public("logsumexp", autocast="cuda: float32")
def logsumexp(input: Any, dim: Dims, keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))) over ``dim``, computed without overflow; -inf of no elements."""
    dtype = input.dtype if is_floating(input.dtype) else get_default_dtype()
    axes = reduced_dims(input, dim, "logsumexp")
    return converted(_logsumexp(converted(input, accumulator(dtype)), axes=axes, keepdim=keepdim), dtype)


@public("norm", autocast="cuda: float32", takes_complex=True)
def norm(
    input: Any, p: float | str | None = "fro", dim: Dims = None, keepdim: bool = False, dtype: Any = None
) -> Tensor:
    """The p-norm over ``dim``, of all elements as one vector: sum(|x|^p)^(1/p).

    Args:
        p: a number; "fro" and None mean 2, inf the largest magnitude, -inf the smallest, 0 the number of nonzero elements.
        dtype: convert the tensor first.

    Raises:
        DtypeError: an integer tensor.
        ArgumentError: p is "nuc": the nuclear norm needs singular values.
    """
    if p is None or (isinstance(p, str) and p == "fro"):
        p = 2
    if not isinstance(p, (int, float, numpy.number)) or math.isnan(p):
        raise ArgumentError(f"norm: p={p!r}; expected a number, inf, -inf or 'fro'")
    x = check_floating(converted(input, dtype), "norm")
    axes = reduced_dims(x, dim, "norm")
    if (p < 0 or p == math.inf) and 0 in [x.array.shape[a] for a in axes]:
        raise ShapeError(f"norm: p={p} of a tensor of shape {tuple(x.array.shape)}; expected at least one element")
    return converted(_norm(converted(x, accumulator(x.dtype)), float(p), axes, keepdim), to_real(x.dtype))


def _norm(x: Tensor, p: float, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """The gradient is 0 where an element or the norm is 0.  A complex tensor has the norm of its magnitudes."""
    if is_complex(x.dtype):
        x = abs(x)
    if p != 0 and all(x.array.shape[a] == 1 for a in axes):  # one element: no power that may overflow or vanish
        p = 1
    if p == 2:
        return sqrt_0(_sum(x * x, axes=axes, keepdim=keepdim))
    if p == 1:
        return _sum(abs(x), axes=axes, keepdim=keepdim)
    if math.isinf(p):
        return _extreme(abs(x), name="max" if p > 0 else "min", axes=axes, keepdim=keepdim)
    zero = eq(x, 0)
    if p == 0:
        return _sum(where(zero, 0.0 * where(zero, x, 0.0), 1.0), axes=axes, keepdim=keepdim)
    powers = abs(where(zero, 1.0, x)) ** p
    total = _sum(where(zero, math.inf if p < 0 else 0.0, powers), axes=axes, keepdim=keepdim)
    vanishes = eq(total, 0)
    return where(vanishes, 0.0, where(vanishes, 1.0, total) ** (1.0 / p))
