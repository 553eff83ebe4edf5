"""Diagonals of matrices, and matrices of diagonals or blocks."""

from __future__ import annotations

import itertools
from typing import Any

from gpunet.autograd import COPY, FILL, Tensor, primitive, wrap
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.errors import ArgumentError, ShapeError
from gpunet.launch.memory import empty
from gpunet.ops.arrange import atleast_2d
from gpunet.ops.broadcast import cast, result_dtype
from gpunet.ops.convert import clone
from gpunet.ops.dims import normalize_dim
from gpunet.ops.face import as_integer, public
from gpunet.ops.join import _cat
from gpunet.ops.pad import _pad_constant
from gpunet.ops.reduce import _sum
from gpunet.ops.shape import _reshape

__all__ = ["block_diag", "diag", "diag_embed", "diagflat", "diagonal", "trace"]


def _diagonal_view(array: Array, offset: int, dim1: int, dim2: int) -> Array:
    """The diagonal of dim1 and dim2, as the last dimension; NumPy's own function returns a view that cannot be written."""
    rest = [d for d in range(array.ndim) if d not in (dim1, dim2)]
    matrices = array.transpose(*rest, dim1, dim2)[..., max(-offset, 0) :, max(offset, 0) :]
    count = min(matrices.shape[-2:])
    if not matrices.size:
        return matrices[..., :0].reshape(*matrices.shape[:-2], 0) if not count else matrices[..., 0, :count]
    strides = matrices.strides
    return devices.as_strided(matrices, (*matrices.shape[:-2], count), (*strides[:-2], strides[-2] + strides[-1]))


@primitive(view=True, takes_complex=True)
def _diagonal(x, *, offset, dim1, dim2):
    return _diagonal_view(x.array, offset, dim1, dim2)


@primitive(name="diagonal", takes_complex=True)
def _undiagonal(g, *, shape, offset, dim1, dim2):
    """Zeros of ``shape`` with g on the diagonal of dim1 and dim2."""
    out = empty(shape, g.dtype, g.array)
    FILL(out, value=0)
    COPY(_diagonal_view(out, offset, dim1, dim2), g.array)
    return out


_diagonal.derivatives(
    x=lambda g, x_shape, offset, dim1, dim2: _undiagonal(g, shape=x_shape, offset=offset, dim1=dim1, dim2=dim2)
)
_undiagonal.derivatives(g=lambda g, offset, dim1, dim2: _diagonal(g, offset=offset, dim1=dim1, dim2=dim2))


def _plane(function: str, ndim: int, dim1: Any, dim2: Any) -> tuple[int, int]:
    if ndim < 2:
        raise ShapeError(f"{function}: the tensor has {ndim} dimensions; expected at least 2")
    first, second = normalize_dim(dim1, ndim, function, "dim1"), normalize_dim(dim2, ndim, function, "dim2")
    if first == second:
        raise ArgumentError(f"{function}: dim1={dim1} and dim2={dim2} are the same dimension; expected different ones")
    return first, second


@public("diagonal", out=False, takes_complex=True)
def diagonal(input: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A view of the diagonal of the matrices in two dimensions, as the last dimension.

    Args:
        offset: 0 is the main diagonal, positive numbers are above it.

    Raises:
        ArgumentError: the dimensions are the same.
        ShapeError: the tensor has fewer than two dimensions.
    """
    first, second = _plane("diagonal", input.ndim, dim1, dim2)
    return _diagonal(input, offset=as_integer("diagonal", "offset", offset), dim1=first, dim2=second)


@public("diag_embed", out=False, takes_complex=True)
def diag_embed(input: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices of zeros in two new dimensions, with the last dimension of ``input`` as their diagonal.

    Raises:
        ArgumentError: the dimensions are the same.
        ShapeError: ``input`` has no dimension.
    """
    if not input.ndim:
        raise ShapeError("diag_embed: the tensor has no dimensions; expected at least one")
    first, second = _plane("diag_embed", input.ndim + 1, dim1, dim2)
    shift = as_integer("diag_embed", "offset", offset)
    shape = list(input.array.shape[:-1])
    for dim in sorted((first, second)):
        shape.insert(dim, input.array.shape[-1] + abs(shift))
    if first > second:  # the rows stand behind the columns
        first, second, shift = second, first, -shift
    return _undiagonal(input, shape=tuple(shape), offset=shift, dim1=first, dim2=second)


@public("diag", takes_complex=True)
def diag(input: Any, diagonal: int = 0) -> Tensor:
    """Of a vector, the matrix with it on the diagonal; of a matrix, a copy of its diagonal.

    Raises:
        ShapeError: the tensor has another number of dimensions.
    """
    offset = as_integer("diag", "diagonal", diagonal)
    if input.ndim == 1:
        return diag_embed(input, offset)
    if input.ndim != 2:
        raise ShapeError(f"diag: the tensor has shape {tuple(input.shape)}; expected one or two dimensions: use diagonal()")
    return clone(_diagonal(input, offset=offset, dim1=0, dim2=1))


@public("diagflat", out=False, takes_complex=True)
def diagflat(input: Any, offset: int = 0) -> Tensor:
    """The matrix of zeros with all elements of ``input`` on the diagonal."""
    return diag_embed(_reshape(input, shape=(input.array.size,)), as_integer("diagflat", "offset", offset))


@public("trace", autocast="cpu: float32", takes_complex=True)
def trace(input: Any) -> Tensor:
    """The sum of the diagonal of a matrix, a 0-d tensor; of integers int64.

    Raises:
        ShapeError: the tensor is no matrix.
    """
    if input.ndim != 2:
        raise ShapeError(f"trace: the tensor has shape {tuple(input.shape)}; expected a matrix")
    return _sum(_diagonal(input, offset=0, dim1=0, dim2=1), axes=(0,), keepdim=False)


@public(out=False, takes_complex=True)
def block_diag(*tensors: Any) -> Tensor:
    """The matrix of zeros with the given matrices along its diagonal; numbers and vectors are single rows.

    Raises:
        ShapeError: a tensor has more than two dimensions.
    """
    given = [wrap(x, "block_diag") for x in tensors] or [wrap([[]], "block_diag")]
    dtype = result_dtype(*given)  # of numbers among matrices, too
    blocks = atleast_2d([x if x.dtype == dtype else cast(x, dtype=dtype) for x in given])
    for x in blocks:
        if x.ndim > 2:
            raise ShapeError(f"block_diag: a tensor has shape {tuple(x.shape)}; expected at most two dimensions")
    ends = [0, *itertools.accumulate(x.array.shape[1] for x in blocks)]
    padded = [_pad_constant(x, widths=((0, 0), (a, ends[-1] - b)), value=0) for x, a, b in zip(blocks, ends, ends[1:])]
    return _cat(*padded, dim=0, starts=(0, *itertools.accumulate(x.array.shape[0] for x in blocks)))
