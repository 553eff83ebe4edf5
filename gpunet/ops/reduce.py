"""Reductions and scans.  All accept ``axis`` and ``keepdims`` for ``dim`` and ``keepdim``."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy

from gpunet.autograd import FILL, MULTIPLY, Tensor, make_tensor, primitive
from gpunet.backend.dtypes import accumulator, as_dtype, int64, is_inexact, uint8
from gpunet.errors import ArgumentError, DtypeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.ops.broadcast import SUM, broadcast_to, cast, in_accumulator, ufunc
from gpunet.ops.compare import eq
from gpunet.ops.define import elementwise
from gpunet.ops.dims import Dims, dropped_shape, kept_shape, normalize_dim, reduced_dims
from gpunet.ops.elementwise import where
from gpunet.ops.face import public
from gpunet.ops.join import _cat
from gpunet.ops.shape import _permute, _reshape, squeeze, unsqueeze

__all__ = ["all", "any", "cumsum", "mean", "prod", "std", "std_mean", "sum", "var", "var_mean"]

PRODUCT = Shim("prod", lambda xp, out, x, *, axis: xp.prod(x, axis=axis, keepdims=True, out=out))
CUMSUM = Shim("cumsum", lambda xp, out, x, *, axis: xp.cumsum(x, axis=axis, out=out))
ANY_ALL = {
    "any": Shim("any", lambda xp, out, x, *, axis: xp.copyto(out, xp.any(x, axis=axis, keepdims=True))),
    "all": Shim("all", lambda xp, out, x, *, axis: xp.copyto(out, xp.all(x, axis=axis, keepdims=True))),
}


# ---- helpers ----------------------------------------------------------------------------------------------------------


def promote_0d(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: treat a 0-d tensor as shape (1,), and return 0-d results."""

    @functools.wraps(function)
    def call(x: Tensor, *args: Any, **options: Any) -> Any:
        if x.ndim:
            return function(x, *args, **options)
        result = function(unsqueeze(x, 0), *args, **options)
        return squeeze(result, 0) if isinstance(result, Tensor) else type(result)(*(squeeze(t, 0) for t in result))

    return call


def check_floating(x: Tensor, name: str) -> Tensor:
    if not is_inexact(x.dtype):
        raise DtypeError(f"{name}: the tensor has dtype {x.dtype}; expected a floating dtype: convert it with .float()")
    return x


def converted(x: Tensor, dtype: Any) -> Tensor:
    """x in the dtype of a parameter ``dtype``; None keeps x as it is."""
    return x if dtype is None or (dtype := as_dtype(dtype)) == x.dtype else cast(x, dtype=dtype)


def _total_dtype(x: Any, dtype: Any) -> Any:
    """The dtype of a sum or product: integers and booleans become int64, unless a dtype is asked for."""
    return x.dtype if dtype is not None or is_inexact(x.dtype) else int64


def _reduced_shape(shape: tuple[int, ...], axes: tuple[int, ...], keepdim: bool) -> tuple[int, ...]:
    return (kept_shape if keepdim else dropped_shape)(shape, axes)


# ---- sums -------------------------------------------------------------------------------------------------------------


@primitive(takes_complex=True)
def _sum(x, *, axes, keepdim, dtype=None):
    out = empty(_reduced_shape(x.array.shape, axes, keepdim), _total_dtype(x, dtype), x.array)
    SUM(out, x.array, axis=axes, keepdims=keepdim)
    return out


_sum.derivatives(x=lambda g, x_shape, axes: broadcast_to(_reshape(g, shape=kept_shape(x_shape, axes)), shape=x_shape))


@public("sum", autocast="cuda: float32", takes_complex=True)
def sum(input: Any, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over ``dim`` (None: all dimensions); an integer or boolean tensor gives int64.

    Args:
        dtype: convert the tensor first.
    """
    return _sum(converted(input, dtype), axes=reduced_dims(input, dim, "sum"), keepdim=keepdim, dtype=dtype)


@primitive(takes_complex=True)
def _mean(x, *, axes, keepdim):
    out = empty(_reduced_shape(x.array.shape, axes, keepdim), x.dtype, x.array)
    SUM(out, x.array, axis=axes, keepdims=keepdim)
    MULTIPLY(out, out, _mean_factor(x.array.shape, axes))
    return out


def _mean_factor(shape, axes):
    count = math.prod(shape[a] for a in axes)
    return 1.0 / count if count else math.nan


def _mean_derivative(g, x_shape, axes):
    return broadcast_to(_reshape(g * _mean_factor(x_shape, axes), shape=kept_shape(x_shape, axes)), shape=x_shape)


_mean.derivatives(x=_mean_derivative)
_wide_mean = in_accumulator(_mean)


@public("mean", takes_complex=True)
def mean(input: Any, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean over ``dim``; NaN if there are no elements.

    Args:
        dtype: convert the tensor first.

    Raises:
        DtypeError: an integer tensor.
    """
    x = check_floating(converted(input, dtype), "mean")
    return _wide_mean(x, axes=reduced_dims(x, dim, "mean"), keepdim=keepdim)


# ---- variance ---------------------------------------------------------------------------------------------------------


@primitive
def sqrt_0(x):
    """The square root, whose derivative at 0 is 0: of a standard deviation or a norm."""
    out = empty(x.array.shape, x.dtype, x.array)
    ufunc("sqrt")(out, x.array)
    return out


def _sqrt_0_derivative(g, out):
    zero = eq(out, 0)
    return where(zero, 0.0, g / (2.0 * where(zero, 1.0, out)))


sqrt_0.derivatives(x=_sqrt_0_derivative)


def takes_flag_first(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: PyTorch's overload f(input, unbiased) or f(input, keepdim), in which a bool stands in the place of ``dim``."""

    @functools.wraps(function)
    def call(input: Tensor, *args: Any, **options: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], bool):
            args = (None, args[0])
        return function(input, *args, **options)

    return call


@primitive
def _variance(x, *, axes, keepdim, correction):
    shape = x.array.shape
    centre, squares = empty(kept_shape(shape, axes), x.dtype, x.array), empty(shape, x.dtype, x.array)
    out = empty(_reduced_shape(shape, axes, keepdim), x.dtype, x.array)
    SUM(centre, x.array, axis=axes, keepdims=True)
    MULTIPLY(centre, centre, _mean_factor(shape, axes))
    ufunc("subtract")(squares, x.array, centre)
    MULTIPLY(squares, squares, squares)
    SUM(out, squares, axis=axes, keepdims=keepdim)
    MULTIPLY(out, out, _variance_factor(shape, axes, correction))
    return out


def _variance_factor(shape, axes, correction):
    count = math.prod(shape[a] for a in axes)
    return 1.0 / (count - correction) if count > correction and count else math.inf if count else math.nan


def _variance_derivative(g, x, axes, correction):
    shape = x.array.shape
    centred = x - _mean(x, axes=axes, keepdim=True)
    freedom = math.prod(shape[a] for a in axes) - correction  # may be negative, as in PyTorch
    return _reshape(g, shape=kept_shape(shape, axes)) * centred * (2.0 / freedom if freedom else math.inf)


_variance.derivatives(x=_variance_derivative)


def _moment_arguments(function: str, x: Tensor, dim: Dims, unbiased: bool | None, correction: Any) -> tuple[Tensor, Any, Any]:
    """The tensor in its accumulator's dtype, the axes and the correction."""
    if correction is not None and unbiased is not None:
        raise ArgumentError(f"{function}: got unbiased={unbiased} and correction={correction}, which mean the same; pass one")
    if correction is None:
        correction = 1 if unbiased is None else int(unbiased)
    if isinstance(correction, bool) or not isinstance(correction, (int, float, numpy.number)):
        raise DtypeError(f"{function}: correction={correction!r} has type {type(correction).__name__}; expected a number")
    axes = reduced_dims(check_floating(x, function), dim, function)
    return converted(x, accumulator(x.dtype)), axes, correction


@public("var")
@takes_flag_first
def var(
    input: Any, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
) -> Tensor:
    """The variance over ``dim``: the sum of squared deviations / (n - correction).

    Args:
        unbiased: True means correction 1, False correction 0.  var(input, False) passes it without dimensions.
        correction: 1 if neither is given.

    Raises:
        DtypeError: an integer tensor.
    """
    x, axes, correction = _moment_arguments("var", input, dim, unbiased, correction)
    return converted(_variance(x, axes=axes, keepdim=keepdim, correction=correction), input.dtype)


@public("std")
@takes_flag_first
def std(
    input: Any, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
) -> Tensor:
    """The standard deviation, the square root of :func:`var`; its gradient at 0 is 0."""
    x, axes, correction = _moment_arguments("std", input, dim, unbiased, correction)
    return converted(sqrt_0(_variance(x, axes=axes, keepdim=keepdim, correction=correction)), input.dtype)


@public()
@takes_flag_first
def var_mean(
    input: Any, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
) -> tuple[Tensor, Tensor]:
    """(:func:`var`, :func:`mean`)."""
    x, axes, correction = _moment_arguments("var_mean", input, dim, unbiased, correction)
    variance = _variance(x, axes=axes, keepdim=keepdim, correction=correction)
    return converted(variance, input.dtype), converted(_mean(x, axes=axes, keepdim=keepdim), input.dtype)


@public()
@takes_flag_first
def std_mean(
    input: Any, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
) -> tuple[Tensor, Tensor]:
    """(:func:`std`, :func:`mean`)."""
    x, axes, correction = _moment_arguments("std_mean", input, dim, unbiased, correction)
    variance = _variance(x, axes=axes, keepdim=keepdim, correction=correction)
    return converted(sqrt_0(variance), input.dtype), converted(_mean(x, axes=axes, keepdim=keepdim), input.dtype)


# ---- products, scans --------------------------------------------------------------------------------------------------


@primitive(takes_complex=True)
def _prod(x, *, axes, keepdim, dtype=None):
    kept = kept_shape(x.array.shape, axes)
    out = empty(kept, _total_dtype(x, dtype), x.array)
    PRODUCT(out, x.array, axis=axes)
    return out if keepdim else out.reshape(dropped_shape(x.array.shape, axes))


def _products_of_others(x: Tensor) -> Tensor:
    """x (n, m) -> y (n, m), y[i] the product of the x[j] of j != i.

    Without a division, so that it holds for zeros, in every derivative: pairs of rows are multiplied, the function is applied to
    the products, and each row of a pair gets the other one.
    """
    n = x.array.shape[0]
    if n < 2:
        ones = empty(x.array.shape, x.dtype, x.array)
        FILL(ones, value=1)
        return make_tensor(ones)
    half = n // 2
    first, second, rest = x[:half], x[half : 2 * half], x[2 * half :]
    products = first * second
    if n % 2:
        products = _cat(products, rest, dim=0, starts=(0, half, half + 1))
    others = _products_of_others(products)
    paired, last = others[:half], others[half:]
    return _cat(paired * second, paired * first, last, dim=0, starts=(0, half, 2 * half, n))


def _prod_derivative(g, x, axes):
    shape = x.array.shape
    order = (*axes, *(i for i in range(len(shape)) if i not in axes))
    moved = tuple(shape[i] for i in order)
    count = math.prod(shape[a] for a in axes)
    others = _products_of_others(_reshape(_permute(x, dims=order), shape=(count, x.array.size // count if count else 0)))
    back = tuple(sorted(range(len(order)), key=order.__getitem__))
    return _reshape(g, shape=kept_shape(shape, axes)) * _permute(_reshape(others, shape=moved), dims=back)


_prod.derivatives(x=_prod_derivative)


@public("prod", autocast="float32", takes_complex=True)
def prod(input: Any, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The product over ``dim``; an integer or boolean tensor gives int64.

    Args:
        dtype: convert the tensor first.
    """
    return _prod(converted(input, dtype), axes=reduced_dims(input, dim, "prod"), keepdim=keepdim, dtype=dtype)


@primitive(takes_complex=True)
def _cumsum(x, *, axis, reverse, dtype=None):
    index = (slice(None),) * axis + (slice(None, None, -1),)
    out = empty(x.array.shape, _total_dtype(x, dtype), x.array)
    CUMSUM(out[index] if reverse else out, x.array[index] if reverse else x.array, axis=axis)
    return out


_cumsum.derivatives(x=lambda g, axis, reverse: _cumsum(g, axis=axis, reverse=not reverse))


@elementwise("cumsum", autocast="cuda: float32", takes_complex=True)
@promote_0d
def cumsum(input: Any, dim: int, *, dtype: Any = None) -> Tensor:
    """The cumulative sum along ``dim``; an integer or boolean tensor gives int64.

    Args:
        dtype: convert the tensor first.
    """
    return _cumsum(converted(input, dtype), axis=normalize_dim(dim, input.ndim, "cumsum"), reverse=False, dtype=dtype)


# ---- predicates -------------------------------------------------------------------------------------------------------


def _any_all(name: str) -> Any:
    def reduce(input: Any, dim: Dims = None, keepdim: bool = False) -> Tensor:
        # an empty tuple reduces no dimension, unlike in other reductions
        axes = () if isinstance(dim, (tuple, list)) and not dim else reduced_dims(input, dim, name)
        dtype = uint8 if input.dtype == uint8 else numpy.dtype(bool)
        out = empty(kept_shape(input.array.shape, axes), dtype, input.array)
        ANY_ALL[name](out, input.array, axis=axes)
        return make_tensor(out if keepdim else out.reshape(dropped_shape(input.array.shape, axes)))

    reduce.__name__ = reduce.__qualname__ = name
    reduce.__doc__ = (
        f"Whether {name} elements over ``dim`` are nonzero: a boolean tensor, for uint8 a uint8 one, as in PyTorch.  An empty "
        "``dim`` tests each element."
    )
    return public(name, takes_complex=True)(reduce)


any = _any_all("any")
all = _any_all("all")
