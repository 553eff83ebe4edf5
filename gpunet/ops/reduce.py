"""Reductions, scans and sorting.  All accept ``axis`` and ``keepdims`` for ``dim`` and ``keepdim``."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from gpunet.autograd import MULTIPLY, Tensor, make_tensor, primitive
from gpunet.backend.dtypes import is_floating
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.ops.broadcast import SUM, broadcast_to, cast, in_accumulator
from gpunet.ops.compare import eq
from gpunet.ops.dims import Dims, dropped_shape, kept_shape, normalize_dim, reduced_dims
from gpunet.ops.elementwise import abs, exp, log, sqrt, sub, where
from gpunet.ops.face import public
from gpunet.ops.index import gather
from gpunet.ops.shape import reshape, squeeze, unsqueeze

__all__ = [
    "all", "amax", "amin", "any", "argmax", "argmin", "argsort", "cumsum", "logsumexp", "max", "mean", "min", "norm", "prod",
    "sort", "std", "sum", "topk", "var",
]  # fmt: skip

EXTREMA = {
    "max": Shim("max", lambda xp, out, x, *, axis: xp.amax(x, axis=axis, keepdims=True, out=out)),
    "min": Shim("min", lambda xp, out, x, *, axis: xp.amin(x, axis=axis, keepdims=True, out=out)),
}
ARG = {
    "argmax": Shim("argmax", lambda xp, out, x, *, axis: xp.copyto(out, xp.argmax(x, axis=axis))),
    "argmin": Shim("argmin", lambda xp, out, x, *, axis: xp.copyto(out, xp.argmin(x, axis=axis))),
    "argsort": Shim("argsort", lambda xp, out, x, *, axis: xp.copyto(out, xp.argsort(x, axis=axis, kind="stable"))),
}
PRODUCT = Shim("prod", lambda xp, out, x, *, axis: xp.prod(x, axis=axis, keepdims=True, out=out))
CUMSUM = Shim("cumsum", lambda xp, out, x, *, axis: xp.cumsum(x, axis=axis, out=out))
ANY_ALL = {
    "any": Shim("any", lambda xp, out, x, *, axis: xp.copyto(out, xp.any(x, axis=axis, keepdims=True))),
    "all": Shim("all", lambda xp, out, x, *, axis: xp.copyto(out, xp.all(x, axis=axis, keepdims=True))),
}


def promote_0d(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: treat a 0-d tensor as shape (1,), and return 0-d results."""

    @functools.wraps(function)
    def call(x: Tensor, *args: Any, **options: Any) -> Any:
        if x.ndim:
            return function(x, *args, **options)
        result = function(unsqueeze(x, 0), *args, **options)
        return squeeze(result, 0) if isinstance(result, Tensor) else ValuesIndices(*(squeeze(t, 0) for t in result))

    return call


def check_floating(x: Tensor, name: str) -> Tensor:
    if not is_floating(x.dtype):
        raise DtypeError(f"{name}: the tensor has dtype {x.dtype}; expected a floating dtype: convert it with .float()")
    return x


@primitive
def _sum(x, *, axes, keepdim):
    dtype = x.dtype if is_floating(x.dtype) else numpy.dtype("int64")
    out = empty((kept_shape if keepdim else dropped_shape)(x.shape, axes), dtype, x.array)
    SUM(out, x.array, axis=axes, keepdims=keepdim)
    return out


_sum.derivatives(x=lambda g, x_shape, axes: broadcast_to(reshape(g, kept_shape(x_shape, axes)), shape=x_shape))


@public("sum")
def sum(input: Any, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The sum over ``dim`` (None: all dimensions); an integer or boolean tensor gives int64."""
    return _sum(input, axes=reduced_dims(input, dim, "sum"), keepdim=keepdim)


@primitive
def _mean(x, *, axes, keepdim):
    out = empty((kept_shape if keepdim else dropped_shape)(x.shape, axes), x.dtype, x.array)
    SUM(out, x.array, axis=axes, keepdims=keepdim)
    MULTIPLY(out, out, _mean_factor(x.shape, axes))
    return out


def _mean_factor(shape, axes):
    count = math.prod(shape[a] for a in axes)
    return 1.0 / count if count else math.nan


def _mean_derivative(g, x_shape, axes):
    return broadcast_to(reshape(g * _mean_factor(x_shape, axes), kept_shape(x_shape, axes)), shape=x_shape)


_mean.derivatives(x=_mean_derivative)


@public("mean")
@in_accumulator
def mean(input: Any, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The mean over ``dim``; NaN if there are no elements.

    Raises:
        DtypeError: an integer tensor.
    """
    return _mean(check_floating(input, "mean"), axes=reduced_dims(input, dim, "mean"), keepdim=keepdim)


@public("var")
@in_accumulator
def var(input: Any, dim: Dims = None, keepdim: bool = False, correction: int = 1, unbiased: bool | None = None) -> Tensor:
    """The variance over ``dim``: the sum of squared deviations / (n - correction); 1 makes it unbiased."""
    correction = correction if unbiased is None else int(unbiased)
    axes = reduced_dims(input, dim, "var")
    count = math.prod(input.shape[a] for a in axes) - correction
    centred = sub(input, mean(input, axes, keepdim=True))
    return sum(centred * centred, axes, keepdim=keepdim) * (1.0 / count if count > 0 else math.nan)


@public("std")
@in_accumulator
def std(input: Any, dim: Dims = None, keepdim: bool = False, correction: int = 1, unbiased: bool | None = None) -> Tensor:
    """The standard deviation, sqrt of :func:`var`."""
    return sqrt(var(input, dim, keepdim, correction, unbiased))


@primitive(name="max/min")
def _extreme(x, *, name, axes, keepdim):
    kept = kept_shape(x.shape, axes)
    out = empty(kept, x.dtype, x.array)
    if 0 in [x.shape[a] for a in axes]:
        raise ShapeError(f"{name}: the tensor has shape {x.shape}; expected at least one element to choose from")
    EXTREMA[name](out, x.array, axis=axes)
    return out if keepdim else out.reshape(dropped_shape(x.shape, axes))


def _extreme_derivative(g, x, out, axes):  # tied extrema share the gradient equally
    kept = kept_shape(x.shape, axes)
    chosen = cast(eq(x, reshape(out, kept)), dtype=g.dtype)
    return chosen * (reshape(g, kept) / sum(chosen, axes, keepdim=True))


_extreme.derivatives(x=_extreme_derivative)


@public("amax")
def amax(input: Any, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The maximum over ``dim``; tied elements share the gradient equally."""
    return _extreme(input, name="max", axes=reduced_dims(input, dim, "amax"), keepdim=keepdim)


@public("amin")
def amin(input: Any, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The minimum over ``dim``; tied elements share the gradient equally."""
    return _extreme(input, name="min", axes=reduced_dims(input, dim, "amin"), keepdim=keepdim)


class ValuesIndices(NamedTuple):
    """Return type of max and min along a dimension, sort and topk."""

    values: Tensor
    indices: Tensor


def _arg_extreme(name: str, x: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    axis = None if dim is None else normalize_dim(dim, x.ndim, name)
    if (x.array.size if axis is None or not x.ndim else x.shape[axis]) == 0:
        raise ShapeError(f"{name}: the tensor has shape {x.shape}; expected at least one element to choose from")
    out = empty(() if axis is None else dropped_shape(x.shape, (axis,)), numpy.dtype("int64"), x.array)
    ARG[name](out, x.array, axis=axis)
    result = make_tensor(out)
    return unsqueeze(result, axis) if keepdim and axis is not None else result


@public("argmax")
def argmax(input: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the first maximum along ``dim`` (None: of the flattened tensor), int64."""
    return _arg_extreme("argmax", input, dim, keepdim)


@public("argmin")
def argmin(input: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the first minimum along ``dim`` (None: of the flattened tensor), int64."""
    return _arg_extreme("argmin", input, dim, keepdim)


def _max_or_min(name: str, x: Tensor, dim: int | None, keepdim: bool) -> Any:
    if dim is None:
        return (amax if name == "max" else amin)(x)
    indices = _arg_extreme(f"arg{name}", x, dim, True) if x.ndim else _arg_extreme(f"arg{name}", x, None, False)
    values = gather(x, dim, indices) if x.ndim else x
    return ValuesIndices(*(v if keepdim or not x.ndim else squeeze(v, dim) for v in (values, indices)))


@public("max")
def max(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """max(input): the maximum.  max(input, dim): (values, indices) along ``dim``.  max(input, tensor): the elementwise maximum."""
    if isinstance(dim, Tensor):
        return input.maximum(dim)
    return _max_or_min("max", input, dim, keepdim)


@public("min")
def min(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """min(input): the minimum.  min(input, dim): (values, indices) along ``dim``.  min(input, tensor): the elementwise minimum."""
    if isinstance(dim, Tensor):
        return input.minimum(dim)
    return _max_or_min("min", input, dim, keepdim)


@public("argsort")
@promote_0d
def argsort(input: Any, dim: int = -1, descending: bool = False) -> Tensor:
    """The indices of a stable sort along ``dim``; NaN sorts as the largest."""
    axis = normalize_dim(dim, input.ndim, "argsort")
    out = empty(input.shape, numpy.dtype("int64"), input.array)
    if not descending:
        ARG["argsort"](out, input.array, axis=axis)
        return make_tensor(out)
    # Sort the reversed tensor ascending and map the indices back.  Sorting -input would be wrong for NaN, unsigned integers
    # and booleans.
    backwards = (slice(None),) * axis + (slice(None, None, -1),)
    ARG["argsort"](out, input.array[backwards], axis=axis)
    return (input.shape[axis] - 1) - make_tensor(out[backwards])


@public("sort")
@promote_0d
def sort(input: Any, dim: int = -1, descending: bool = False) -> ValuesIndices:
    """A stable sort along ``dim``: (values, indices)."""
    indices = argsort(input, dim, descending)
    return ValuesIndices(gather(input, dim, indices), indices)


@public("topk")
@promote_0d
def topk(input: Any, k: int, dim: int = -1, largest: bool = True) -> ValuesIndices:
    """The k largest (or smallest) elements along ``dim``, in descending (ascending) order: (values, indices).

    Raises:
        ArgumentError: k is larger than the dimension.
    """
    axis = normalize_dim(dim, input.ndim, "topk")
    if not 0 <= k <= input.shape[axis]:
        raise ArgumentError(f"topk: k={k}; expected 0 .. {input.shape[axis]}, the size of dimension {dim}")
    indices = argsort(input, dim, largest)[(slice(None),) * axis + (slice(0, k),)]
    return ValuesIndices(gather(input, dim, indices), indices)


@primitive
def _prod(x, *, axes, keepdim):
    kept = kept_shape(x.shape, axes)
    out = empty(kept, x.dtype if is_floating(x.dtype) else numpy.dtype("int64"), x.array)
    PRODUCT(out, x.array, axis=axes)
    return out if keepdim else out.reshape(dropped_shape(x.shape, axes))


def _prod_derivative(g, x, axes):
    # dx_i is the product of the other elements: with one zero, it is nonzero only at that zero; with more, it is 0
    zero = eq(x, 0)
    zeros = sum(zero, axes, keepdim=True)
    others = _prod(where(zero, 1.0, x), axes=axes, keepdim=True)
    nonzero_share = where(eq(zeros, 0), others, 0.0) / where(zero, 1.0, x)
    return reshape(g, kept_shape(x.shape, axes)) * where(zero, where(eq(zeros, 1), others, 0.0), nonzero_share)


_prod.derivatives(x=_prod_derivative)


@public("prod")
def prod(input: Any, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The product over ``dim``.  The gradient is correct for zeros, the second derivative only without zeros."""
    return _prod(input, axes=reduced_dims(input, dim, "prod"), keepdim=keepdim)


@primitive
def _cumsum(x, *, axis, reverse):
    index = (slice(None),) * axis + (slice(None, None, -1),)
    out = empty(x.shape, x.dtype if is_floating(x.dtype) else numpy.dtype("int64"), x.array)
    CUMSUM(out[index] if reverse else out, x.array[index] if reverse else x.array, axis=axis)
    return out


_cumsum.derivatives(x=lambda g, axis, reverse: _cumsum(g, axis=axis, reverse=not reverse))


@public("cumsum")
@promote_0d
def cumsum(input: Any, dim: int) -> Tensor:
    """The cumulative sum along ``dim``."""
    return _cumsum(input, axis=normalize_dim(dim, input.ndim, "cumsum"), reverse=False)


@public("logsumexp")
@in_accumulator
def logsumexp(input: Any, dim: Dims, keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))) over ``dim``, computed without overflow."""
    axes = reduced_dims(input, dim, "logsumexp")
    largest = amax(input.detach(), axes, keepdim=True)
    largest = where(largest.isfinite(), largest, 0.0)
    total = log(sum(exp(input - largest), axes, keepdim=True)) + largest
    return total if keepdim else reshape(total, dropped_shape(input.shape, axes))


@public("norm")
@in_accumulator
def norm(input: Any, p: float | str = 2, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The p-norm over ``dim``: "fro" means 2, math.inf the largest magnitude.  The gradient at zero is zero.

    Raises:
        ArgumentError: p is not positive.
    """
    p = 2 if p == "fro" else p
    if isinstance(p, str) or not p > 0:
        raise ArgumentError(f"norm: p={p!r}; expected a positive number or 'fro'")
    axes = reduced_dims(input, dim, "norm")
    if p == math.inf:
        return amax(abs(input), axes, keepdim)
    if p == 1:
        return sum(abs(input), axes, keepdim)
    total = sum(input * input if p == 2 else abs(input) ** p, axes, keepdim)
    zero = eq(total.detach(), 0)
    root = where(zero, 1.0, total)  # the derivative of the root is infinite at zero
    return where(zero, 0.0, sqrt(root) if p == 2 else root ** (1.0 / p))


def _any_all(name: str) -> Any:
    def reduce(x: Any, dim: Dims = None, keepdim: bool = False) -> Tensor:
        axes = reduced_dims(x, dim, name)
        out = empty(kept_shape(x.shape, axes), numpy.dtype(bool), x.array)
        ANY_ALL[name](out, x.array, axis=axes)
        return make_tensor(out if keepdim else out.reshape(dropped_shape(x.shape, axes)))

    reduce.__name__ = reduce.__qualname__ = name
    reduce.__doc__ = f"Whether {name} elements over ``dim`` are nonzero."
    return public(name)(reduce)


any = _any_all("any")
all = _any_all("all")
