"""Normalize and check ``dim`` arguments, and accept NumPy's names ``axis`` and ``keepdims``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.autograd import Tensor, wrap
from gpunet.errors import ArgumentError, DtypeError, ShapeError

Dims = int | Sequence[int] | None


def accept_numpy_names(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: accept ``axis`` and ``keepdims`` for ``dim`` and ``keepdim``, and an array for the tensor."""

    @functools.wraps(function)
    def call(x: Any, *args: Any, **options: Any) -> Any:
        if "axis" in options:
            options["dim"] = options.pop("axis")
        if "keepdims" in options:
            options["keepdim"] = options.pop("keepdims")
        return function(wrap(x), *args, **options)

    return call


def normalize_dim(dim: int, ndim: int, name: str) -> int:
    """Return ``dim`` as an index from 0 to ndim - 1; ``name`` is the public function, for messages.

    Raises:
        ShapeError: ``dim`` is out of range.
        DtypeError: ``dim`` is not an integer.
    """
    if not isinstance(dim, (int, numpy.integer)):
        raise DtypeError(f"{name}: dim={dim!r} has type {type(dim).__name__}; expected an integer")
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        raise ShapeError(
            f"{name}: dim={dim} for a tensor with {ndim} dimensions; expected {-max(ndim, 1)} .. {max(ndim, 1) - 1}"
        )
    return dim + ndim if dim < 0 else dim


def normalize_slice_dim(dim: int, x: Tensor, name: str) -> int:
    """:func:`normalize_dim` for an op that slices along ``dim``, which a 0-d tensor does not support.

    Raises:
        ShapeError: ``dim`` is out of range, or x is 0-d.
    """
    if not x.ndim:
        raise ShapeError(f"{name}: the tensor has no dimensions; expected at least one: use x.unsqueeze(0), or stack()")
    return normalize_dim(dim, x.ndim, name)


def reduced_dims(x: Tensor, dim: Dims, name: str) -> tuple[int, ...]:
    """The dimensions to reduce as a tuple of indices from 0; None means all."""
    if dim is None:
        return tuple(range(x.ndim))
    dims = dim if isinstance(dim, (tuple, list)) else (dim,)
    axes = tuple(normalize_dim(d, x.ndim, name) for d in dims)
    if len(set(axes)) != len(axes):
        raise ArgumentError(f"{name}: dim={dim} contains a dimension twice")
    return axes if x.ndim else ()


def kept_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def dropped_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for i, n in enumerate(shape) if i not in axes)
