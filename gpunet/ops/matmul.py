"""Batched matrix multiplication with broadcasting."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gpunet.autograd import COPY, MULTIPLY, Tensor, contiguous, make_tensor, method, primitive, wrap
from gpunet.autograd.autocast import casts
from gpunet.backend import blas, devices
from gpunet.backend.devices import Array, real_view
from gpunet.backend.dtypes import is_boolean, is_complex, is_floating, to_real
from gpunet.errors import DtypeError, ShapeError
from gpunet.launch.kernel import kernel
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.ops.broadcast import cast, result_dtype
from gpunet.ops.face import public
from gpunet.ops.gemm import best_cut, cut_of, geometry, math_of, whole_flag, workspace
from gpunet.ops.shape import _reshape

__all__ = ["bmm", "dot", "matmul", "mm"]


@kernel(
    "matmul.cu", outputs=3, types={"partials": "A", "tickets": "uint32"}, optional="partials tickets", strided="a b",
    workspace="partials", tickets="tickets",
)  # fmt: skip
def matmul_forward(out, partials, tickets, a, b, *, cut=None):
    """out[j] = a[j] b[j].  a (j, m, k), b (j, k, n), of any strides (also 0 and negative) -> out (j, m, n).

    ``cut``, ``partials`` and ``tickets`` are as in :func:`gpunet.ops.linear.linear_forward`.
    """
    if out[0].size * a.shape[2] < blas.LEAST:
        numpy.matmul(a, b, out=out)
        return
    for left, right, product in zip(a, b, out):
        blas.dot(left, right, out=product)


@matmul_forward.geometry
def _(out, partials, tickets, a, b, *, cut=None):
    (j, m, n), k = out.shape, a.shape[2]
    strides = [numpy.int64(s // x.itemsize) for x in (a, b) for s in x.strides]
    # for each operand: whether neighbouring threads load along k, the dimension of smaller stride, to coalesce
    along_k = [abs(x.strides[d]) <= abs(x.strides[3 - d]) for x, d in ((a, 2), (b, 1))]
    cut = cut_of(cut, a, m, n, k, j)
    rows = a if along_k[0] else a.transpose(0, 2, 1), b.transpose(0, 2, 1) if along_k[1] else b
    whole = whole_flag(*rows, pack=cut.pack(a.itemsize))
    flags = ("true" if flag else "false" for flag in along_k)
    return geometry(m, n, k, cut, tuple(strides), whole, *flags, batches=j)


def _batched(x: Array, batch: tuple[int, ...]) -> Array:
    """Broadcast x (..., r, c) to the batch and flatten it to (j, r, c): a view if the strides allow it, else a copy."""
    matrix, count, broadcast_to = x.shape[-2:], math.prod(batch), devices.module(x).broadcast_to
    if x.size == math.prod(matrix):  # a single matrix, broadcast with stride 0
        return broadcast_to(x.reshape(matrix) if x.ndim != 2 else x, (count, *matrix))
    return (
        contiguous(broadcast_to(x, (*batch, *matrix))).reshape(count, *matrix) if x.ndim != 3 or count != len(x) else x
    )


#: Of integers, which no BLAS computes, and on the CPU of complex numbers.
MATMUL = Shim("matmul", lambda xp, out, a, b: xp.matmul(a, b, out=out))


@primitive(takes_complex=True)
def _matmul(a, b):
    """a (..., m, k), b (..., k, n) -> (..., m, n)."""
    dtype = result_dtype(a, b)
    x, y = (v.array if v.dtype == dtype else cast(v, dtype=dtype).array for v in (a, b))
    batch = numpy.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    out = empty((*batch, x.shape[-2], y.shape[-1]), dtype, x)
    if not out.size:
        return out
    if is_complex(dtype) and type(out) is not numpy.ndarray:
        _complex_matmul(out, x, y)
    elif is_floating(dtype):
        left, right, product = _batched(x, batch), _batched(y, batch), out.reshape(-1, *out.shape[-2:])
        if type(out) is numpy.ndarray:
            matmul_forward(product, None, None, left, right)
        else:
            cut = best_cut(*product.shape[1:], left.shape[2], len(product), math_of(out))
            matmul_forward(product, *workspace(out, cut), left, right, cut=cut)
    else:
        MATMUL(out, x, y)
    return out


def _complex_matmul(out: Array, a: Array, b: Array) -> None:
    """out = a b, as one real product of twice the depth and width: of rows a = (re, im, re, im ...) as they lie in memory.

    Row k of b becomes two, (re, im, re, im ...) and that times i, (-im, re, -im, re ...).  Our kernels take complex numbers so.
    """
    pairs = empty((*b.shape[:-1], 2, b.shape[-1], 2), to_real(b.dtype), b)
    for row, column, part in ((0, 0, b.real), (0, 1, b.imag), (1, 1, b.real)):
        COPY(pairs[..., row, :, column], part)
    MULTIPLY(pairs[..., 1, :, 0], b.imag, -1.0)  # NumPy 2.4's negative is wrong for some strides
    real_b = pairs.reshape(*b.shape[:-2], 2 * b.shape[-2], 2 * b.shape[-1])
    product = _matmul(make_tensor(real_view(contiguous(a))), make_tensor(real_b)).array
    COPY(real_view(out), product)


_matmul.derivatives(a=lambda g, b: _matmul(g, b.mT), b=lambda g, a: _matmul(a.mT, g))


def _product(function: str, a: Tensor, b: Tensor) -> Tensor:
    for v in (a, b):
        if is_boolean(v.dtype):
            raise DtypeError(f"{function}: an operand has dtype {v.dtype}; expected numbers: convert it with .float() or .long()")
    inner = (a.shape[-1] if a.ndim else None, b.shape[-2] if b.ndim > 1 else b.shape[0] if b.ndim else None)
    if None in inner or inner[0] != inner[1]:
        raise ShapeError(
            f"{function}: shapes {tuple(a.shape)} and {tuple(b.shape)} do not fit: the last dimension of the first ({inner[0]}) "
            f"must be the second to last of the second ({inner[1]})"
        )
    try:
        numpy.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ShapeError(
            f"{function}: batch dimensions of {tuple(a.shape)} and {tuple(b.shape)} cannot be broadcast together"
        ) from None
    row, column = a.ndim == 1, b.ndim == 1
    product = _matmul(_reshape(a, shape=(1, inner[0])) if row else a, _reshape(b, shape=(inner[0], 1)) if column else b)
    if not row and not column:
        return product
    shape = product.array.shape
    kept = shape[:-2] + (() if row else shape[-2:-1]) + (() if column else shape[-1:])
    return _reshape(product, shape=kept)


@method("__matmul__")
@casts("half")
def _matmul_operator(a: Any, b: Any) -> Tensor:
    return _product("matmul", wrap(a), wrap(b))


@method("__rmatmul__")
@casts("half")
def _rmatmul(b: Any, a: Any) -> Tensor:
    return _product("matmul", wrap(a), wrap(b))


@public("matmul", autocast="half", takes_complex=True)
def matmul(input: Any, other: Any) -> Tensor:
    """Matrix product: a 1-d operand is a row (left) or column (right) vector, and batch dimensions broadcast.

    Operands of different dtypes are promoted.  Integers are multiplied in their own dtype, and wrap around.

    Raises:
        ShapeError: the inner dimensions differ, an operand is 0-d, or the batch dimensions cannot be broadcast.
        DtypeError: an operand is boolean.
    """
    return _product("matmul", input, wrap(other))


def _check_shapes(function: str, expected: str, fits: bool, a: Tensor, b: Tensor) -> None:
    if not fits:
        raise ShapeError(f"{function}: shapes {tuple(a.shape)} and {tuple(b.shape)}; expected {expected}")


@public("mm", autocast="half", takes_complex=True)
def mm(input: Any, mat2: Any) -> Tensor:
    """The product of two matrices.

    Raises:
        ShapeError: the operands are no matrices, or the inner dimensions differ.
    """
    mat2 = wrap(mat2)
    _check_shapes("mm", "two matrices: use matmul() for others", input.ndim == mat2.ndim == 2, input, mat2)
    return _product("mm", input, mat2)


@public("bmm", autocast="half", takes_complex=True)
def bmm(input: Any, mat2: Any) -> Tensor:
    """The products of two batches of matrices, (batch, n, k) and (batch, k, m).

    Raises:
        ShapeError: the operands are no batches of one size, or the inner dimensions differ.
    """
    mat2 = wrap(mat2)
    fits = input.ndim == mat2.ndim == 3 and input.shape[0] == mat2.shape[0]
    _check_shapes("bmm", "two batches of matrices of one size: use matmul() to broadcast", fits, input, mat2)
    return _product("bmm", input, mat2)


@public("dot", autocast="cuda: widest", takes_complex=True)
def dot(input: Any, tensor: Any) -> Tensor:
    """The dot product of two vectors, a 0-d tensor.

    Raises:
        ShapeError: the operands are not two vectors of equal length.
    """
    tensor = wrap(tensor)
    _check_shapes("dot", "two vectors of equal length", input.ndim == 1 and input.shape == tensor.shape, input, tensor)
    return _product("dot", input, tensor)
