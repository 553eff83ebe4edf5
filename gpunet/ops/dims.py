"""Dimension arguments: the one place that reads ``dim`` of all functions, negative, in tuples, out of range or twice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpunet.autograd import Tensor
from gpunet.errors import ArgumentError, OutOfRangeError, ShapeError
from gpunet.ops.face import as_integer

Dims = int | Sequence[int] | None
#: Largest number of elements of a new tensor: with 8 bytes each, more are beyond a 64-bit address.
MAX_ELEMENTS = 2**59


def normalize_dim(dim: Any, ndim: int, function: str, name: str = "dim") -> int:
    """Return ``dim`` as an index from 0 to ndim - 1; a 0-d tensor counts as 1-d.

    Args:
        function, name: of the function and its parameter, for messages.

    Raises:
        OutOfRangeError: ``dim`` is out of range.
        DtypeError: ``dim`` is not an integer.
    """
    dim, limit = as_integer(function, name, dim), max(ndim, 1)
    if not -limit <= dim < limit:
        raise OutOfRangeError(f"{function}: {name}={dim} for a tensor with {ndim} dimensions; expected {-limit} .. {limit - 1}")
    return dim + limit if dim < 0 else dim


def normalize_slice_dim(dim: Any, x: Tensor, function: str) -> int:
    """:func:`normalize_dim` for an op that slices along ``dim``, which a 0-d tensor does not support.

    Raises:
        ShapeError: ``dim`` is out of range, or x is 0-d.
    """
    if not x.ndim:
        raise ShapeError(f"{function}: the tensor has no dimensions; expected at least one: use x.unsqueeze(0), or stack()")
    return normalize_dim(dim, x.ndim, function)


def resolved_sizes(function: str, sizes: tuple[int, ...], count: int, what: str) -> tuple[int, ...]:
    """Return the sizes of ``count`` elements with the actual number for -1.

    Args:
        what: the elements, for messages: "6 elements of shape (2, 3)".

    Raises:
        ShapeError: the sizes do not hold that number of elements, or are negative, or -1 is ambiguous.
    """
    known, unknown = math.prod(s for s in sizes if s != -1), sizes.count(-1)
    if all(s >= -1 for s in sizes):
        if unknown == 1 and known and count % known == 0:
            return tuple(count // known if s == -1 else s for s in sizes)
        if not unknown and known == count:
            return sizes
    raise ShapeError(f"{function}: {what} cannot have shape {sizes}")


def normalize_dims(dims: Any, ndim: int, function: str, name: str = "dim") -> tuple[int, ...]:
    """Return an integer or a sequence of integers as a tuple of different indices from 0.

    Raises:
        ArgumentError: a dimension is given twice.
    """
    items = dims if isinstance(dims, (tuple, list)) else (dims,)
    axes = tuple(normalize_dim(item, ndim, function, name) for item in items)
    if len(set(axes)) != len(axes):
        raise ArgumentError(f"{function}: {name}={dims} contains a dimension twice")
    return axes


def reduced_dims(x: Tensor, dim: Dims, function: str) -> tuple[int, ...]:
    """The dimensions to reduce as a tuple of indices from 0; None and an empty tuple mean all."""
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return tuple(range(x.ndim))
    axes = normalize_dims(dim, x.ndim, function)
    return axes if x.ndim else ()


def kept_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a reduction over ``axes`` with ``keepdim=True``: size 1 in each of them."""
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def dropped_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a reduction over ``axes`` with ``keepdim=False``: without them."""
    return tuple(n for i, n in enumerate(shape) if i not in axes)
