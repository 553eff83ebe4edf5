"""Batched matrix multiplication with broadcasting."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import Tensor, contiguous, method, primitive, wrap
from gpunet.backend import blas, devices
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import is_floating
from gpunet.errors import DtypeError, ShapeError
from gpunet.launch.kernel import Geometry, ceil_div, kernel
from gpunet.launch.memory import empty
from gpunet.ops.broadcast import cast, result_dtype

__all__ = ["dot", "matmul"]


@kernel("matmul.cu", outputs=1, strided="a b")
def matmul_forward(out, a, b):
    """out[j] = a[j] b[j].  a (j, m, k), b (j, k, n), of any strides (also 0 and negative) -> out (j, m, n)."""
    if out[0].size * a.shape[2] < blas.LEAST:
        numpy.matmul(a, b, out=out)
        return
    for left, right, product in zip(a, b, out):
        blas.dot(left, right, out=product)


@matmul_forward.geometry
def _(out, a, b):
    j, m, n = out.shape
    strides = [s // x.itemsize for x in (a, b) for s in x.strides]
    tile = 128 if ceil_div(m, 128) * ceil_div(n, 128) * j >= 96 else 64
    grid = (ceil_div(m, tile) * ceil_div(n, tile), min(j, 65535))
    # for each operand: whether neighbouring threads load along k, the dimension of smaller stride, to coalesce
    along_k = tuple("true" if abs(x.strides[d]) <= abs(x.strides[3 - d]) else "false" for x, d in ((a, 2), (b, 1)))
    return Geometry(grid, 256, (j, m, n, a.shape[2], *map(numpy.int64, strides)), (str(tile), *along_k))


def _batched(x: Array, batch: tuple[int, ...]) -> Array:
    """Broadcast x (..., r, c) to the batch and flatten it to (j, r, c): a view if the strides allow it, else a copy."""
    matrix, count, broadcast_to = x.shape[-2:], math.prod(batch), devices.module(x).broadcast_to
    if x.size == math.prod(matrix):  # a single matrix, broadcast with stride 0
        return broadcast_to(x.reshape(matrix) if x.ndim != 2 else x, (count, *matrix))
    return (
        contiguous(broadcast_to(x, (*batch, *matrix))).reshape(count, *matrix) if x.ndim != 3 or count != len(x) else x
    )


@primitive
def _matmul(a, b):
    """a (..., m, k), b (..., k, n) -> (..., m, n)."""
    dtype = result_dtype(a, b)
    x, y = (v.array if v.dtype == dtype else cast(v, dtype=dtype).array for v in (a, b))
    batch = numpy.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    out = empty((*batch, x.shape[-2], y.shape[-1]), dtype, x)
    if out.size:
        matmul_forward(out.reshape(-1, *out.shape[-2:]), _batched(x, batch), _batched(y, batch))
    return out


_matmul.derivatives(a=lambda g, b: _matmul(g, b.mT), b=lambda g, a: _matmul(a.mT, g))


@method("matmul __matmul__ mm bmm")
def matmul(a: Any, b: Any) -> Tensor:
    """Matrix product: a 1-d operand is a row (left) or column (right) vector, and batch dimensions broadcast.

    Raises:
        ShapeError: the inner dimensions differ, an operand is 0-d, or the batch dimensions cannot be broadcast.
        DtypeError: an operand is not floating.
    """
    a, b = (wrap(v) for v in (a, b))
    for v in (a, b):
        if not is_floating(v.dtype):
            raise DtypeError(f"matmul: an operand has dtype {v.dtype}; expected a floating dtype, see .float()")
    inner = (a.shape[-1] if a.ndim else None, b.shape[-2] if b.ndim > 1 else b.shape[0] if b.ndim else None)
    if None in inner or inner[0] != inner[1]:
        raise ShapeError(
            f"matmul: shapes {a.shape} and {b.shape} do not fit: the last dimension of the first ({inner[0]}) must be "
            f"the second to last of the second ({inner[1]})"
        )
    try:
        numpy.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ShapeError(f"matmul: batch dimensions of {a.shape} and {b.shape} cannot be broadcast together") from None
    row, column = a.ndim == 1, b.ndim == 1
    product = _matmul(a.reshape(1, -1) if row else a, b.reshape(-1, 1) if column else b)
    if row and column:
        return product.reshape(())
    if row:
        return product.squeeze(-2)
    return product.squeeze(-1) if column else product


@method("__rmatmul__")
def _rmatmul(b: Any, a: Any) -> Tensor:
    return matmul(a, b)


@method("dot")
def dot(a: Any, b: Any) -> Tensor:
    """The dot product of two vectors, a 0-d tensor.

    Raises:
        ShapeError: the operands are not two vectors of equal length.
    """
    a, b = (wrap(v) for v in (a, b))
    if a.ndim != 1 or a.shape != b.shape:
        raise ShapeError(f"dot: shapes {a.shape} and {b.shape}; expected two vectors of equal length")
    return matmul(a, b)
