"""Reductions: sums, means, extrema, sorting, norms.  ``axis`` and ``keepdims`` are accepted beside dim and keepdim."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from gpunet.autograd import MULTIPLY, Tensor, method, primitive
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.ops.broadcast import SUM, broadcast_to, cast
from gpunet.ops.compare import eq
from gpunet.ops.dims import Dims, dropped_shape, kept_shape, normal_dim, numpy_names, reduced_dims
from gpunet.ops.elementwise import abs, exp, log, sqrt, sub, where
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


def of_dimensions(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a tensor without dimensions be one of one element."""

    @functools.wraps(function)
    def call(x: Tensor, *args: Any, **options: Any) -> Any:
        if x.ndim:
            return function(x, *args, **options)
        result = function(unsqueeze(x, 0), *args, **options)
        return squeeze(result, 0) if isinstance(result, Tensor) else ValuesIndices(*(squeeze(t, 0) for t in result))

    return call


def floating(x: Tensor, name: str) -> Tensor:
    if x.dtype.kind != "f":
        raise DtypeError(f"{name} of a tensor of dtype {x.dtype}; convert it with .float() first")
    return x


@primitive
def _sum(x, *, axes, keepdim):
    source, kept = x.shape, kept_shape(x.shape, axes)
    dtype = x.dtype if x.dtype.kind == "f" else numpy.dtype("int64")
    out = empty(kept if keepdim else dropped_shape(x.shape, axes), dtype, x.array)
    SUM(out, x.array, axis=axes, keepdims=keepdim)
    return out, lambda g: broadcast_to(reshape(g, kept), shape=source)


@method("sum")
@numpy_names
def sum(x: Any, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The sum over ``dim`` (all dimensions for None); integers and booleans give int64."""
    return _sum(x, axes=reduced_dims(x, dim, "sum"), keepdim=keepdim)


@primitive
def _mean(x, *, axes, keepdim):
    source, kept = x.shape, kept_shape(x.shape, axes)
    count = math.prod(source[a] for a in axes)
    factor = 1.0 / count if count else math.nan
    out = empty(kept if keepdim else dropped_shape(x.shape, axes), x.dtype, x.array)
    SUM(out, x.array, axis=axes, keepdims=keepdim)
    MULTIPLY(out, out, factor)
    return out, lambda g: broadcast_to(reshape(g * factor, kept), shape=source)


@method("mean")
@numpy_names
def mean(x: Any, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The mean over ``dim``; NaN of nothing.

    Raises:
        DtypeError: an integer tensor.
    """
    return _mean(floating(x, "mean"), axes=reduced_dims(x, dim, "mean"), keepdim=keepdim)


@method("var")
@numpy_names
def var(x: Any, dim: Dims = None, keepdim: bool = False, correction: int = 1, unbiased: bool | None = None) -> Tensor:
    """The variance: squared deviations over n - correction (1: unbiased)."""
    correction = correction if unbiased is None else int(unbiased)
    axes = reduced_dims(x, dim, "var")
    count = math.prod(x.shape[a] for a in axes) - correction
    centred = sub(x, mean(x, axes, keepdim=True))
    return sum(centred * centred, axes, keepdim=keepdim) * (1.0 / count if count > 0 else math.nan)


@method("std")
@numpy_names
def std(x: Any, dim: Dims = None, keepdim: bool = False, correction: int = 1, unbiased: bool | None = None) -> Tensor:
    """The standard deviation, the root of :func:`var`."""
    return sqrt(var(x, dim, keepdim, correction, unbiased))


@primitive(output=True)
def _extreme(x, *, name, axes, keepdim):
    kept = kept_shape(x.shape, axes)
    out = empty(kept, x.dtype, x.array)
    if 0 in [x.shape[a] for a in axes]:
        raise ShapeError(f"{name} of a tensor of shape {x.shape}: there is no element to choose")
    EXTREMA[name](out, x.array, axis=axes)

    def rule(g, result):  # equal extrema share the gradient
        chosen = cast(eq(x, reshape(result, kept)), dtype=g.dtype)
        return chosen * (reshape(g, kept) / sum(chosen, axes, keepdim=True))

    return out if keepdim else out.reshape(dropped_shape(x.shape, axes)), rule


@method("amax")
@numpy_names
def amax(x: Any, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The largest element over ``dim``; equal ones share the gradient."""
    return _extreme(x, name="max", axes=reduced_dims(x, dim, "amax"), keepdim=keepdim)


@method("amin")
@numpy_names
def amin(x: Any, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The smallest element over ``dim``; equal ones share the gradient."""
    return _extreme(x, name="min", axes=reduced_dims(x, dim, "amin"), keepdim=keepdim)


class ValuesIndices(NamedTuple):
    """What max, min and sort along a dimension return."""

    values: Tensor
    indices: Tensor


def _positions(name: str, x: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    axis = None if dim is None else normal_dim(dim, x.ndim, name)
    if (x.array.size if axis is None or not x.ndim else x.shape[axis]) == 0:
        raise ShapeError(f"{name} of a tensor of shape {x.shape}: there is no element to choose")
    out = empty(() if axis is None else dropped_shape(x.shape, (axis,)), numpy.dtype("int64"), x.array)
    ARG[name](out, x.array, axis=axis)
    result = Tensor(out)
    return unsqueeze(result, axis) if keepdim and axis is not None else result


@method("argmax")
@numpy_names
def argmax(x: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the (first) largest element, int64."""
    return _positions("argmax", x, dim, keepdim)


@method("argmin")
@numpy_names
def argmin(x: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the (first) smallest element, int64."""
    return _positions("argmin", x, dim, keepdim)


def _choose(name: str, x: Tensor, dim: int | None, keepdim: bool) -> Any:
    if dim is None:
        return (amax if name == "max" else amin)(x)
    indices = _positions(f"arg{name}", x, dim, True) if x.ndim else _positions(f"arg{name}", x, None, False)
    values = gather(x, dim, indices) if x.ndim else x
    return ValuesIndices(*(v if keepdim or not x.ndim else squeeze(v, dim) for v in (values, indices)))


@method("max")
@numpy_names
def max(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest element; with ``dim`` (values, indices) along it; with a tensor the larger of each pair."""
    if isinstance(dim, Tensor):
        return x.maximum(dim)
    return _choose("max", x, dim, keepdim)


@method("min")
@numpy_names
def min(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest element; with ``dim`` (values, indices) along it; with a tensor the smaller of each pair."""
    if isinstance(dim, Tensor):
        return x.minimum(dim)
    return _choose("min", x, dim, keepdim)


@method("argsort")
@numpy_names
@of_dimensions
def argsort(x: Any, dim: int = -1, descending: bool = False) -> Tensor:
    """The indices that sort along ``dim``, stably; NaN counts as the largest."""
    axis = normal_dim(dim, x.ndim, "argsort")
    out = empty(x.shape, numpy.dtype("int64"), x.array)
    if not descending:
        ARG["argsort"](out, x.array, axis=axis)
        return Tensor(out)
    # from behind, and counted from there: -x would not do, for there are NaN, unsigned numbers and booleans
    backwards = (slice(None),) * axis + (slice(None, None, -1),)
    ARG["argsort"](out, x.array[backwards], axis=axis)
    return (x.shape[axis] - 1) - Tensor(out[backwards])


@method("sort")
@numpy_names
@of_dimensions
def sort(x: Any, dim: int = -1, descending: bool = False) -> ValuesIndices:
    """(values, indices) sorted along ``dim``, stably."""
    indices = argsort(x, dim, descending)
    return ValuesIndices(gather(x, dim, indices), indices)


@method("topk")
@numpy_names
@of_dimensions
def topk(x: Any, k: int, dim: int = -1, largest: bool = True) -> ValuesIndices:
    """The k largest (or smallest) along ``dim``, best first.

    Raises:
        ArgumentError: k is larger than the dimension.
    """
    axis = normal_dim(dim, x.ndim, "topk")
    if not 0 <= k <= x.shape[axis]:
        raise ArgumentError(f"topk: k={k} of a dimension of size {x.shape[axis]}")
    indices = argsort(x, dim, largest)[(slice(None),) * axis + (slice(0, k),)]
    return ValuesIndices(gather(x, dim, indices), indices)


@primitive
def _prod(x, *, axes, keepdim):
    kept = kept_shape(x.shape, axes)
    out = empty(kept, x.dtype if x.dtype.kind == "f" else numpy.dtype("int64"), x.array)
    PRODUCT(out, x.array, axis=axes)

    def rule(g):  # the product of all others: of the nonzero ones where there is one zero, 0 where there are more
        zero = eq(x, 0)
        zeros = sum(zero, axes, keepdim=True)
        others = _prod(where(zero, 1.0, x), axes=axes, keepdim=True)
        nonzero_share = where(eq(zeros, 0), others, 0.0) / where(zero, 1.0, x)
        return reshape(g, kept) * where(zero, where(eq(zeros, 1), others, 0.0), nonzero_share)

    return out if keepdim else out.reshape(dropped_shape(x.shape, axes)), rule


@method("prod")
@numpy_names
def prod(x: Any, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The product over ``dim``.  Its gradient is right with zeros, too; its second derivative where there are none."""
    return _prod(x, axes=reduced_dims(x, dim, "prod"), keepdim=keepdim)


@primitive
def _cumsum(x, *, axis, reverse):
    index = (slice(None),) * axis + (slice(None, None, -1),)
    out = empty(x.shape, x.dtype if x.dtype.kind == "f" else numpy.dtype("int64"), x.array)
    CUMSUM(out[index] if reverse else out, x.array[index] if reverse else x.array, axis=axis)
    return out, lambda g: _cumsum(g, axis=axis, reverse=not reverse)


@method("cumsum")
@numpy_names
@of_dimensions
def cumsum(x: Any, dim: int) -> Tensor:
    """Running sums along ``dim``."""
    return _cumsum(x, axis=normal_dim(dim, x.ndim, "cumsum"), reverse=False)


@method("logsumexp")
@numpy_names
def logsumexp(x: Any, dim: Dims, keepdim: bool = False) -> Tensor:
    """log of the sum of exp, without overflow."""
    axes = reduced_dims(x, dim, "logsumexp")
    largest = amax(x.detach(), axes, keepdim=True)
    largest = where(largest.isfinite(), largest, 0.0)
    total = log(sum(exp(x - largest), axes, keepdim=True)) + largest
    return total if keepdim else reshape(total, dropped_shape(x.shape, axes))


@method("norm")
@numpy_names
def norm(x: Any, p: float | str = 2, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The p-norm over ``dim``; "fro" is 2; math.inf the largest magnitude.  The gradient at zero is zero.

    Raises:
        ArgumentError: p is not positive.
    """
    p = 2 if p == "fro" else p
    if isinstance(p, str) or not p > 0:
        raise ArgumentError(f"norm: p={p!r}; expected a positive number or 'fro'")
    axes = reduced_dims(x, dim, "norm")
    if p == math.inf:
        return amax(abs(x), axes, keepdim)
    if p == 1:
        return sum(abs(x), axes, keepdim)
    total = sum(x * x if p == 2 else abs(x) ** p, axes, keepdim)
    zero = eq(total.detach(), 0)
    root = where(zero, 1.0, total)  # so that the slope of the root, infinite at zero, is never taken there
    return where(zero, 0.0, sqrt(root) if p == 2 else root ** (1.0 / p))


def _any_all(name: str) -> Any:
    def reduce(x: Any, dim: Dims = None, keepdim: bool = False) -> Tensor:
        axes = reduced_dims(x, dim, name)
        out = empty(kept_shape(x.shape, axes), numpy.dtype(bool), x.array)
        ANY_ALL[name](out, x.array, axis=axes)
        return Tensor(out if keepdim else out.reshape(dropped_shape(x.shape, axes)))

    reduce.__name__ = reduce.__qualname__ = name
    reduce.__doc__ = f"Whether {name} of the elements over ``dim`` are true or nonzero."
    return method(name)(numpy_names(reduce))


any = _any_all("any")
all = _any_all("all")
