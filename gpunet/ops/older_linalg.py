"""Linear algebra that PyTorch has at its top level, by LAPACK's names or as older forms of ``torch.linalg``."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy

from gpunet.autograd import Tensor, make_tensor, wrap
from gpunet.errors import DtypeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.ops.broadcast import broadcast_shape, in_accumulator
from gpunet.ops.convert import clone
from gpunet.ops.dims import normalize_dim
from gpunet.ops.face import as_integer, public
from gpunet.ops.factorize import _solve_triangular, check_matrix, library_launch
from gpunet.ops.linalg import _matrix_norm_of, _vector_norm_of
from gpunet.ops.matrix_functions import householder_product, reflected
from gpunet.ops.norm import norm
from gpunet.ops.reduce import takes_flag_first

__all__ = ["frobenius_norm", "geqrf", "norm_except_dim", "nuclear_norm", "orgqr", "ormqr", "triangular_solve"]


# ---- QR by reflections --------------------------------------------------------------------------------------------------


class Reflections(NamedTuple):
    """What :func:`geqrf` returns."""

    a: Tensor
    tau: Tensor


def _store_reflections(xp: Any, packed: Any, x: Any) -> None:
    """packed (matrices, n m + k): R and, below its diagonal, the vectors of the reflections; then their factors tau."""
    count = x.shape[-2] * x.shape[-1]
    for out, matrix in zip(packed, x):
        h, tau = xp.linalg.qr(matrix, mode="raw")
        out[:count], out[count:] = h.T.reshape(-1), tau


GEQRF = library_launch("geqrf", _store_reflections)


@public("geqrf", autocast="cpu: float32")
def geqrf(input: Any) -> Reflections:
    """The QR factorisation of matrices (..., n, m) as LAPACK has it, outside of the graph; :func:`gpunet.linalg.qr` has gradients.

    Returns:
        (a, tau): R in the upper triangle of a, below it the vectors of the reflections whose product is Q, and their factors
        tau (..., min(n, m)); see :func:`orgqr`.
    """
    found: Reflections = _factored(check_matrix("geqrf", input).detach())
    return found


@in_accumulator
def _factored(x: Tensor) -> Reflections:
    *batch, n, m = x.array.shape
    k = min(n, m)
    packed = empty((*batch, n * m + k), x.dtype, x.array)
    if packed.size:
        GEQRF(packed.reshape(-1, n * m + k), x.array.reshape(-1, n, m))
    return Reflections(make_tensor(packed[..., : n * m].reshape(x.array.shape)), make_tensor(packed[..., n * m :]))


@public("orgqr", names={"tau": "input2"}, autocast="cpu: float32")
def orgqr(input: Any, input2: Any) -> Tensor:
    """:func:`gpunet.linalg.householder_product`: the first m columns of the Q of what :func:`geqrf` returns."""
    found: Tensor = householder_product(input, input2)
    return found


@public("ormqr", names={"tau": "input2", "other": "input3"}, autocast="cpu: float32")
def ormqr(input: Any, input2: Any, input3: Any, left: bool = True, transpose: bool = False) -> Tensor:
    """The product of the square Q of what :func:`geqrf` returns with another matrix.

    Args:
        input: the vectors of the reflections, (..., n, m).
        input2: their factors (..., k), k <= m.
        input3: (..., n, l), or (..., l, n) without ``left``.
        left: Q stands on the left.
        transpose: multiply by the transpose of Q.

    Raises:
        ShapeError, DtypeError: the tensors do not fit.
    """
    a, tau = check_matrix("ormqr", input), wrap(input2, "ormqr")
    other = check_matrix("ormqr", input3, name="input3")
    n, m = a.array.shape[-2:]
    batch = a.array.shape[:-2]
    fits = tau.ndim == a.ndim - 1 and tau.array.shape[:-1] == batch and tau.array.shape[-1] <= min(n, m)
    if not fits or other.array.shape[:-2] != batch or other.array.shape[-2 if left else -1] != n:
        shapes = ", ".join(str(tuple(t.shape)) for t in (a, tau, other))
        wanted = "(..., n, l)" if left else "(..., l, n)"
        raise ShapeError(f"ormqr: tensors of shapes {shapes}; expected (..., n, m), (..., k) and {wanted}")
    if len({t.dtype for t in (a, tau, other)}) > 1:
        raise DtypeError(f"ormqr: tensors of {a.dtype}, {tau.dtype} and {other.dtype}; expected one dtype")
    return _multiplied(a, tau, other, left, transpose)


@in_accumulator
def _multiplied(a: Tensor, tau: Tensor, other: Tensor, left: bool, is_transposed: bool) -> Tensor:
    found = reflected(a, tau, other if left else other.mT, is_transposed if left else not is_transposed)
    return clone(found) if found is other else found if left else found.mT


class TriangularSolution(NamedTuple):
    """What :func:`triangular_solve` returns."""

    solution: Tensor
    cloned_coefficient: Tensor


@public("triangular_solve", autocast="cpu: float32")
def triangular_solve(
    input: Any, A: Any, upper: bool = True, transpose: bool = False, unitriangular: bool = False  # noqa: N803
) -> TriangularSolution:
    """The X of A X = input, (..., n, k), for triangular matrices A (..., n, n), and a copy of A; batches broadcast.

    :func:`gpunet.linalg.solve_triangular` has its arguments in another order.

    Args:
        upper: the triangle that is read.
        transpose: solve with the transpose of A.
        unitriangular: the diagonal of A is not read, and taken as ones.

    Raises:
        LinAlgError: a number on the diagonal is 0.
        ShapeError, DtypeError: the tensors do not fit.
    """
    b, a = check_matrix("triangular_solve", input), check_matrix("triangular_solve", A, is_square=True, name="A")
    if b.array.shape[-2] != a.array.shape[-1]:
        shapes = f"input has shape {tuple(b.shape)}, A {tuple(a.shape)}"
        raise ShapeError(f"triangular_solve: {shapes}; expected (..., n, k) and (..., n, n)")
    if a.dtype != b.dtype:
        raise DtypeError(f"triangular_solve: input of {b.dtype}, A of {a.dtype}; expected one dtype")
    batch = broadcast_shape("triangular_solve", a.array.shape[:-2], b.array.shape[:-2])
    solution = _solved(a, b, upper, transpose, unitriangular)
    return TriangularSolution(solution, clone(a.expand((*batch, *a.shape[-2:]))))


@in_accumulator
def _solved(a: Tensor, b: Tensor, upper: bool, is_transposed: bool, unit: bool) -> Tensor:
    found: Tensor = _solve_triangular(a.mT if is_transposed else a, b, upper=upper != is_transposed, unit=unit)
    return found


# ---- norms --------------------------------------------------------------------------------------------------------------


@public(autocast="cuda: float32", takes_complex=True)
def frobenius_norm(input: Any, dim: Any, keepdim: bool = False) -> Tensor:
    """The root of the sum of squares over one or two dimensions, or all for an empty tuple.

    Raises:
        ShapeError: more than two dimensions.
    """
    axes = tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
    if len(axes) > 2:
        raise ShapeError(f"frobenius_norm: dim={dim!r}; expected at most two dimensions: use linalg.vector_norm")
    return _vector_norm_of("frobenius_norm", input, 2, axes, keepdim, None)


@public(autocast="cuda: float32")
@takes_flag_first
def nuclear_norm(input: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The sum of the singular values of matrices: ``nuclear_norm(x, keepdim)`` of a matrix, or in two dimensions ``dim``.

    Raises:
        ShapeError: the tensor is no matrix, or ``dim`` is not two dimensions.
    """
    if dim is None and input.ndim != 2:
        raise ShapeError(f"nuclear_norm: the tensor has shape {tuple(input.shape)}; expected a matrix, or dim=")
    return _matrix_norm_of("nuclear_norm", input, "nuc", (-2, -1) if dim is None else dim, keepdim, None)


def norm_except_dim(v: Any, pow: int = 2, dim: int = 0) -> Tensor:
    """The norms of the slices along a dimension, of size 1 in the others; ``dim=-1`` is the norm of all elements.

    Args:
        pow: the order of the norm.
    """
    x, order = wrap(v, "norm_except_dim"), as_integer("norm_except_dim", "pow", pow)
    if isinstance(dim, (int, numpy.integer)) and dim == -1:
        return norm(x, order)
    if not x.ndim:
        raise ShapeError(f"norm_except_dim: dim={dim} of a tensor without dimensions; expected dim=-1")
    kept = normalize_dim(dim, x.ndim, "norm_except_dim")
    if x.ndim == 1:
        return norm(x.unsqueeze(-1), order, -1)
    return norm(x, order, [d for d in range(x.ndim) if d != kept], keepdim=True)
