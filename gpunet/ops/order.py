"""Extremes and sorting.  All accept ``axis`` and ``keepdims`` for ``dim`` and ``keepdim``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from gpunet.autograd import Tensor, make_tensor, primitive
from gpunet.backend import devices
from gpunet.backend.dtypes import int64
from gpunet.errors import ArgumentError, OutOfRangeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.ops.broadcast import cast
from gpunet.ops.compare import eq, isnan
from gpunet.ops.dims import Dims, dropped_shape, kept_shape, normalize_dim, reduced_dims
from gpunet.ops.face import as_integer, public
from gpunet.ops.index import gather
from gpunet.ops.reduce import _sum, promote_0d
from gpunet.ops.shape import _reshape, squeeze

__all__ = ["amax", "amin", "argmax", "argmin", "argsort", "max", "min", "sort", "topk"]

EXTREMA = {
    "max": Shim("max", lambda xp, out, x, *, axis: xp.amax(x, axis=axis, keepdims=True, out=out)),
    "min": Shim("min", lambda xp, out, x, *, axis: xp.amin(x, axis=axis, keepdims=True, out=out)),
}
ARG = {
    "argmax": Shim("argmax", lambda xp, out, x, *, axis: xp.copyto(out, xp.argmax(x, axis=axis))),
    "argmin": Shim("argmin", lambda xp, out, x, *, axis: xp.copyto(out, xp.argmin(x, axis=axis))),
    "argsort": Shim("argsort", lambda xp, out, x, *, axis: xp.copyto(out, xp.argsort(x, axis=axis, kind="stable"))),
}


# ---- extremes ---------------------------------------------------------------------------------------------------------


@primitive(name="max/min")
def _extreme(x, *, name, axes, keepdim):
    shape = x.array.shape
    out = empty(kept_shape(shape, axes), x.dtype, x.array)
    _check_not_empty(name, shape, axes)
    if out.size:
        EXTREMA[name.removeprefix("a")](out, x.array, axis=axes)
    return out if keepdim else out.reshape(dropped_shape(shape, axes))


def _check_not_empty(function: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    if 0 in [shape[a] for a in axes]:
        raise OutOfRangeError(f"{function}: the tensor has shape {shape}; expected at least one element to choose from")


def _extreme_derivative(g, x, out, name, axes):  # tied extrema share the gradient equally
    kept = kept_shape(x.array.shape, axes)
    chosen = eq(x, _reshape(out, shape=kept))
    if name in ("max", "min"):  # amax and amin have gradient nan instead, as in PyTorch
        chosen = chosen | isnan(x)
    chosen = cast(chosen, dtype=g.dtype)
    return chosen * (_reshape(g, shape=kept) / _sum(chosen, axes=axes, keepdim=True))


_extreme.derivatives(x=_extreme_derivative)


@public("amax")
def amax(input: Any, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The maximum over ``dim`` (an empty tuple: all dimensions); tied elements share the gradient equally."""
    return _extreme(input, name="amax", axes=reduced_dims(input, dim, "amax"), keepdim=keepdim)


@public("amin")
def amin(input: Any, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The minimum over ``dim`` (an empty tuple: all dimensions); tied elements share the gradient equally."""
    return _extreme(input, name="amin", axes=reduced_dims(input, dim, "amin"), keepdim=keepdim)


class ValuesIndices(NamedTuple):
    """Return type of max and min along a dimension, sort and topk."""

    values: Tensor
    indices: Tensor


def _arg_extreme(function: str, name: str, x: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    """The indices of the first maxima or minima on behalf of ``function``; ``name`` is argmax or argmin."""
    shape = x.array.shape
    axes = tuple(range(len(shape))) if dim is None or not shape else (normalize_dim(dim, len(shape), function),)
    if dim is not None and not shape:
        normalize_dim(dim, 0, function)
    _check_not_empty(function, shape, axes)
    out = empty(dropped_shape(shape, axes), int64, x.array)
    if out.size:
        ARG[name](out, x.array, axis=None if dim is None or not shape else axes[0])
    return make_tensor(out.reshape(kept_shape(shape, axes)) if keepdim else out)


@public("argmax")
def argmax(input: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the first maximum along ``dim`` (None: of the flattened tensor), int64."""
    return _arg_extreme("argmax", "argmax", input, dim, keepdim)


@public("argmin")
def argmin(input: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the first minimum along ``dim`` (None: of the flattened tensor), int64."""
    return _arg_extreme("argmin", "argmin", input, dim, keepdim)


@promote_0d
def _extreme_along(x: Tensor, function: str, dim: int, keepdim: bool) -> ValuesIndices:
    indices = _arg_extreme(function, f"arg{function}", x, dim, True)
    values = gather(x, dim, indices)
    return ValuesIndices(values, indices) if keepdim else ValuesIndices(squeeze(values, dim), squeeze(indices, dim))


def _takes_other_first(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: PyTorch's overload f(input, other), in which a tensor stands in the place of ``dim``."""

    @functools.wraps(function)
    def call(input: Tensor, *args: Any, **options: Any) -> Any:
        if len(args) == 1 and not options and (isinstance(args[0], Tensor) or devices.is_array(args[0])):
            return function(input, other=args[0])
        return function(input, *args, **options)

    return call


def _extreme_overload(function: str, x: Tensor, dim: Any, keepdim: bool, other: Any) -> Any:
    if dim is not None:
        if other is not None:
            raise ArgumentError(f"{function}: got both dim={dim!r} and other; pass one of them")
        return _extreme_along(x, function, dim, keepdim)
    if keepdim:
        raise ArgumentError(f"{function}: keepdim=True needs dim=; a{function}() keeps all dimensions without it")
    if other is not None:
        return x.maximum(other) if function == "max" else x.minimum(other)
    return _extreme(x, name=function, axes=tuple(range(x.ndim)), keepdim=False)


@public("max")
@_takes_other_first
def max(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """max(input): the maximum.  max(input, dim): (values, indices) along ``dim``.  max(input, other): the elementwise maximum."""
    return _extreme_overload("max", input, dim, keepdim, other)


@public("min")
@_takes_other_first
def min(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """min(input): the minimum.  min(input, dim): (values, indices) along ``dim``.  min(input, other): the elementwise minimum."""
    return _extreme_overload("min", input, dim, keepdim, other)


# ---- sorting ----------------------------------------------------------------------------------------------------------


def _argsort(x: Tensor, axis: int, descending: bool) -> Tensor:
    out = empty(x.array.shape, int64, x.array)
    if not descending:
        ARG["argsort"](out, x.array, axis=axis)
        return make_tensor(out)
    # Sort the reversed tensor ascending and map the indices back.  Sorting -input would be wrong for NaN, unsigned integers
    # and booleans.
    backwards = (slice(None),) * axis + (slice(None, None, -1),)
    ARG["argsort"](out, x.array[backwards], axis=axis)
    return (x.array.shape[axis] - 1) - make_tensor(out[backwards])


@public("argsort")
@promote_0d
def argsort(input: Any, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Tensor:
    """The indices of a sort along ``dim``; NaN sorts as the largest.  It is always stable."""
    return _argsort(input, normalize_dim(dim, input.ndim, "argsort"), descending)


@public("sort")
@promote_0d
def sort(input: Any, dim: int = -1, descending: bool = False, *, stable: bool | None = False) -> ValuesIndices:
    """A sort along ``dim``: (values, indices).  It is always stable; NaN sorts as the largest."""
    indices = _argsort(input, normalize_dim(dim, input.ndim, "sort"), descending)
    return ValuesIndices(gather(input, dim, indices), indices)


@promote_0d
def _topk(x: Tensor, k: int, dim: int, largest: bool) -> ValuesIndices:
    axis = normalize_dim(dim, x.ndim, "topk")
    if not 0 <= k <= x.array.shape[axis]:
        raise OutOfRangeError(f"topk: k={k}; expected 0 .. {x.array.shape[axis]}, the size of dimension {dim}")
    indices = _argsort(x, axis, largest)[(slice(None),) * axis + (slice(0, k),)]
    return ValuesIndices(gather(x, dim, indices), indices)


@public("topk")
def topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> ValuesIndices:
    """The k largest (or smallest) elements along ``dim``, in descending (ascending) order: (values, indices).

    Args:
        sorted: has no effect: the elements are always sorted.

    Raises:
        OutOfRangeError: k is larger than the dimension.
    """
    k = as_integer("topk", "k", k)
    if not input.ndim and k != 1:
        raise OutOfRangeError(f"topk: k={k} of a tensor without dimensions; expected 1")
    return _topk(input, k, dim, largest)
