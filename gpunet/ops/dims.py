"""Dimensions as arguments: counted from the front, checked, under PyTorch's and NumPy's names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.autograd import Tensor, wrap
from gpunet.errors import ArgumentError, DtypeError, ShapeError

Dims = int | Sequence[int] | None


def numpy_names(function: Callable[..., Any]) -> Callable[..., Any]:
    """Accept ``axis`` and ``keepdims`` for ``dim`` and ``keepdim``, and an array for the tensor."""

    @functools.wraps(function)
    def call(x: Any, *args: Any, **options: Any) -> Any:
        if "axis" in options:
            options["dim"] = options.pop("axis")
        if "keepdims" in options:
            options["keepdim"] = options.pop("keepdims")
        return function(wrap(x), *args, **options)

    return call


def normal_dim(dim: int, ndim: int, name: str) -> int:
    """A dimension counted from the front.

    Raises:
        ShapeError: there is no such dimension.
        DtypeError: not a whole number.
    """
    if not isinstance(dim, (int, numpy.integer)):
        raise DtypeError(f"{name}: dim={dim!r} is a {type(dim).__name__}; expected a whole number")
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        raise ShapeError(
            f"{name}: dim={dim} for a tensor of {ndim} dimensions; expected {-max(ndim, 1)} .. {max(ndim, 1) - 1}"
        )
    return dim + ndim if dim < 0 else dim


def sliced_dim(dim: int, x: Tensor, name: str) -> int:
    """:func:`normal_dim` of an op on slices, which a tensor without dimensions has none of.

    Raises:
        ShapeError: there is no such dimension.
    """
    if not x.ndim:
        raise ShapeError(f"{name}: the tensor has no dimensions; expected one at least: x.unsqueeze(0), or stack()")
    return normal_dim(dim, x.ndim, name)


def reduced_dims(x: Tensor, dim: Dims, name: str) -> tuple[int, ...]:
    """The dimensions to reduce, from the front; all for None."""
    if dim is None:
        return tuple(range(x.ndim))
    dims = dim if isinstance(dim, (tuple, list)) else (dim,)
    axes = tuple(normal_dim(d, x.ndim, name) for d in dims)
    if len(set(axes)) != len(axes):
        raise ArgumentError(f"{name}: dim={dim} names a dimension twice")
    return axes if x.ndim else ()


def kept_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def dropped_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for i, n in enumerate(shape) if i not in axes)
