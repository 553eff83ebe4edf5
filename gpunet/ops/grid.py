"""Grids: tensors broadcast against each other, products of sets, indices of triangles, powers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy

from gpunet.autograd import Tensor, make_tensor, wrap
from gpunet.backend import devices, dtypes
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.tape import constant
from gpunet.ops.broadcast import broadcast_shape
from gpunet.ops.creation import creates, from_values
from gpunet.ops.elementwise import pow
from gpunet.ops.face import as_integer, public
from gpunet.ops.index import index_select
from gpunet.ops.join import stack
from gpunet.ops.shape import _expand, _reshape, flip

__all__ = [
    "broadcast_tensors", "cartesian_prod", "combinations", "meshgrid", "tril_indices", "triu_indices", "vander",
]  # fmt: skip


def _listed(function: str, tensors: tuple[Any, ...]) -> list[Tensor]:
    """The tensors of a call f(a, b) or f((a, b))."""
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    return [wrap(x, function) for x in given]


@public(out=False)
def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """Views of the tensors in the shape to which they broadcast.

    Raises:
        ShapeError: they cannot be broadcast together.
    """
    given = _listed("broadcast_tensors", tensors)
    shape = broadcast_shape("broadcast_tensors", *(x.array.shape for x in given))
    return tuple(_expand("broadcast_tensors", x, shape) for x in given)


@public(out=False, takes_complex=True)
def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """The coordinates of a grid: views of n vectors or 0-d tensors in n dimensions, the i-th of which varies along the i-th.

    Args:
        tensors: of one dtype; also as one list.
        indexing: "ij", which None means, or "xy": the first two dimensions are exchanged.

    Raises:
        ShapeError: a tensor has more than one dimension.
        DtypeError: the dtypes differ.
    """
    given = _listed("meshgrid", tensors)
    if indexing not in (None, "ij", "xy"):
        raise ArgumentError(f"meshgrid: indexing={indexing!r}; expected 'ij' or 'xy'")
    if not given:
        raise ArgumentError("meshgrid: got no tensors; expected at least one")
    for x in given:
        if x.ndim > 1:
            raise ShapeError(f"meshgrid: a tensor has shape {tuple(x.shape)}; expected vectors")
        if x.dtype != given[0].dtype:
            raise DtypeError(f"meshgrid: tensors of {given[0].dtype} and {x.dtype}; expected one dtype: convert with .to(dtype)")
    order = [*range(len(given))]
    if indexing == "xy" and len(given) > 1:
        order[:2] = 1, 0
    shape = tuple(given[i].array.size for i in order)
    along = [order.index(i) for i in range(len(given))]
    return tuple(
        _expand("meshgrid", _reshape(x, shape=(x.array.size,) + (1,) * (len(given) - 1 - at)), shape)
        for x, at in zip(given, along)
    )


@public(out=False, takes_complex=True)
def cartesian_prod(*tensors: Any) -> Tensor:
    """All tuples of an element of each vector, as the rows of a matrix; of one vector the vector itself.

    Raises:
        ShapeError: a tensor is no vector.
    """
    given = _listed("cartesian_prod", tensors)
    for x in given:
        if x.ndim != 1:
            raise ShapeError(f"cartesian_prod: a tensor has shape {tuple(x.shape)}; expected vectors")
    if len(given) == 1:
        return given[0]
    return stack([_reshape(x, shape=(x.array.size,)) for x in meshgrid(*given)], 1)


@public(out=False, takes_complex=True)
def combinations(input: Any, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All subsets of ``r`` elements of a vector, in their order, as the rows of a matrix.

    Args:
        with_replacement: an element may occur more than once.

    Raises:
        ShapeError: the tensor is no vector.
        ArgumentError: r is negative.
    """
    count = as_integer("combinations", "r", r)
    if input.ndim != 1:
        raise ShapeError(f"combinations: the tensor has shape {tuple(input.shape)}; expected a vector")
    if count < 0:
        raise ArgumentError(f"combinations: r={count}; expected 0 or more")
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = numpy.array([*choose(range(input.array.size), count)], numpy.int64)
    if not count:
        return _reshape(input.detach()[:0], shape=(0,))
    index = make_tensor(constant(devices.move(rows.reshape(-1), input.device)))
    return _reshape(index_select(input, 0, index), shape=(rows.size // count, count))


def _triangle_indices(function: str, row: Any, col: Any, offset: Any, dtype: Any, device: Any, is_lower: bool) -> Tensor:
    rows, columns = as_integer(function, "row", row), as_integer(function, "col", col)
    shift = as_integer(function, "offset", offset)
    if rows < 0 or columns < 0:
        raise ArgumentError(f"{function}: row={rows}, col={columns}; expected numbers >= 0")
    found = numpy.tril_indices(rows, shift, columns) if is_lower else numpy.triu_indices(rows, shift, columns)
    kind = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    if not dtypes.is_integer(kind):
        raise DtypeError(f"{function}: dtype={kind}; expected an integer dtype")
    return from_values(numpy.stack(found), kind, device)


@creates
def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """The row and column indices (2, n) of the lower triangle of a matrix (row, col), int64 by default.

    Args:
        offset: of the last diagonal that belongs to the triangle.
    """
    return _triangle_indices("tril_indices", row, col, offset, dtype, device, is_lower=True)


@creates
def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """The row and column indices (2, n) of the upper triangle of a matrix (row, col), int64 by default.

    Args:
        offset: of the first diagonal that belongs to the triangle.
    """
    return _triangle_indices("triu_indices", row, col, offset, dtype, device, is_lower=False)


@public(out=False)
def vander(x: Any, N: int | None = None, increasing: bool = False) -> Tensor:  # noqa: N803
    """The powers of a vector as columns, from N - 1 down to 0, or from 0 up.

    Raises:
        ShapeError: x is no vector.
    """
    x = wrap(x, "vander")
    if x.ndim != 1:
        raise ShapeError(f"vander: x has shape {tuple(x.shape)}; expected a vector")
    count = x.array.size if N is None else as_integer("vander", "N", N)
    if count < 0:
        raise ArgumentError(f"vander: N={count}; expected 0 or more")
    powers = make_tensor(constant(devices.move(numpy.arange(count), x.device)))
    rows = pow(_reshape(x, shape=(x.array.size, 1)), powers)
    return rows if increasing else flip(rows, 1)
