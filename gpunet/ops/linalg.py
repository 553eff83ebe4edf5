"""Functions of ``torch.linalg``: norms, solvers, factorisations and products of matrices; batches stand in front."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy

from gpunet.autograd import Tensor, make_tensor, wrap
from gpunet.backend import dtypes
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.memory import empty
from gpunet.ops.broadcast import broadcast_shape, in_accumulator
from gpunet.ops.complex_numbers import conj
from gpunet.ops.diagonal import _diagonal, _plane
from gpunet.ops.dims import Dims, kept_shape, normalize_dim, normalize_dims, reduced_dims
from gpunet.ops.elementwise import abs
from gpunet.ops.face import as_integer, as_number, public
from gpunet.ops.factorize import (
    QR,
    SignLogDet,
    _solve,
    _solve_triangular,
    check_matrix,
    cholesky_of,
    inverse_of,
    matrix_power_of,
    qr_of,
    slogdet_of,
)
from gpunet.ops.factorize import det as _public_det
from gpunet.ops.lu import (
    Factors,
    FactorsInfo,
    UnpackedFactors,
    check_singular,
    factored,
    info_of,
    lu_solved,
    lu_unpack,
)
from gpunet.ops.matmul import matmul
from gpunet.ops.norm import _norm
from gpunet.ops.order import _extreme
from gpunet.ops.products import cross_of, product_of_matrices
from gpunet.ops.reduce import _sum, check_floating, converted
from gpunet.ops.shape import _expand, _permute, _reshape
from gpunet.ops.spectral import _eigh, _lstsq, _svd, _svdvals, cutoff, eigen_parts, pinv_of, svd_parts

__all__ = [
    "cholesky", "cond", "cross", "det", "diagonal", "eigh", "eigvalsh", "inv", "lstsq", "lu", "lu_factor",
    "lu_factor_ex", "lu_solve", "matmul", "matrix_norm", "matrix_power",
    "matrix_rank", "multi_dot", "norm", "pinv", "qr", "slogdet", "solve", "solve_triangular", "svd", "svdvals", "vecdot",
    "vector_norm",
]  # fmt: skip


#: Other names of a first parameter that the documentation of PyTorch calls A.
NAMES_OF_A = dict.fromkeys(("input", "x", "a"), "A")


# ---- norms --------------------------------------------------------------------------------------------------------------------


@in_accumulator
def _vector_norm(x: Tensor, p: float, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    return _norm(x, p, axes, keepdim)


def _check_order(function: str, x: Tensor, p: float, axes: Sequence[int]) -> None:
    if (p < 0 or p == math.inf) and 0 in [x.array.shape[a] for a in axes]:
        raise ShapeError(f"{function}: ord={p} of a tensor of shape {tuple(x.array.shape)}; expected at least one element")


def _vector_norm_of(function: str, x: Any, p: Any, dim: Dims, keepdim: bool, dtype: Any) -> Tensor:
    x = check_floating(converted(wrap(x, function), dtype), function)
    if not isinstance(p, (int, float, numpy.number)) or isinstance(p, bool) or math.isnan(p):
        raise ArgumentError(f"{function}: ord={p!r}; expected a number, inf or -inf")
    axes = reduced_dims(x, dim, function)
    _check_order(function, x, float(p), axes)
    return _vector_norm(x, float(p), axes, keepdim)


@public(names={"input": "x", "a": "x"}, autocast="cuda: float32", takes_complex=True)
def vector_norm(x: Any, ord: float = 2, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The norm of vectors: sum(|x|^ord)^(1/ord) over ``dim``, None being all elements.

    Args:
        ord: a number; inf is the largest magnitude, -inf the smallest, 0 the number of nonzero elements.
        dtype: convert the tensor first.

    Raises:
        DtypeError: an integer tensor.
        ShapeError: no element, for an order that needs one.
    """
    return _vector_norm_of("linalg.vector_norm", x, ord, dim, keepdim, dtype)


@in_accumulator
def _matrix_norm(x: Tensor, order: Any, axes: tuple[int, int], keepdim: bool) -> Tensor:
    if order == "fro":
        return _norm(x, 2.0, axes, keepdim)
    kept = kept_shape(x.array.shape, axes)
    if order == "nuc" or math.fabs(order) == 2:
        rest = [d for d in range(x.ndim) if d not in axes]
        values = _svdvals(_permute(x, dims=(*rest, *axes)))
        last = (values.ndim - 1,)
        if order == "nuc":
            result = _sum(values, axes=last, keepdim=False)
        else:
            result = _extreme(values, name="amax" if order > 0 else "amin", axes=last, keepdim=False)
        return _reshape(result, shape=kept) if keepdim else result
    summed, chosen = axes if math.fabs(order) == 1 else axes[::-1]
    sums = _sum(abs(x), axes=(summed,), keepdim=True)
    result = _extreme(sums, name="amax" if order > 0 else "amin", axes=(chosen,), keepdim=True)
    return result if keepdim else _reshape(result, shape=tuple([n for d, n in enumerate(kept) if d not in axes]))


def _matrix_norm_of(function: str, x: Any, order: Any, dim: Any, keepdim: bool, dtype: Any) -> Tensor:
    x = check_floating(converted(wrap(x, function), dtype), function)
    if x.ndim < 2:
        raise ShapeError(f"{function}: the tensor has shape {tuple(x.shape)}; expected matrices, (..., n, m)")
    axes = normalize_dims(dim, x.ndim, function)
    if len(axes) != 2:
        raise ShapeError(f"{function}: dim={dim!r}; expected two dimensions")
    is_number = isinstance(order, (int, float, numpy.number)) and not isinstance(order, bool)
    if order not in ("fro", "nuc") and not (is_number and math.fabs(order) in (1, 2, math.inf)):
        raise ArgumentError(f"{function}: ord={order!r}; expected 'fro', 'nuc', 1, 2, inf, -1, -2 or -inf")
    if not isinstance(order, str):
        _check_order(function, x, math.inf, axes)
    found: Tensor = _matrix_norm(x, order, axes, keepdim)
    return found


@public(names=NAMES_OF_A, autocast="cuda: float32", takes_complex=True)
def matrix_norm(
    A: Any, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None  # noqa: N803
) -> Tensor:
    """The norm of matrices in two dimensions.

    Args:
        ord: "fro": the root of the sum of squares; "nuc": the sum of singular values; 2 and -2: the largest and smallest one; 1
            and -1: the largest and smallest sum of magnitudes of a column; inf and -inf: of a row.
        dtype: convert the tensor first.

    Raises:
        ShapeError: fewer than two dimensions, or no element.
    """
    return _matrix_norm_of("linalg.matrix_norm", A, ord, dim, keepdim, dtype)


@public(names=NAMES_OF_A, autocast="cuda: float32", takes_complex=True)
def norm(A: Any, ord: Any = None, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:  # noqa: N803
    """:func:`vector_norm` over one dimension, :func:`matrix_norm` over two; without ``ord`` the root of the sum of squares.

    Args:
        dim: None means the dimensions of a vector or matrix if ``ord`` is given, else all.

    Raises:
        ShapeError: ``ord`` is given for a tensor of more dimensions without ``dim``, or ``dim`` is not one or two dimensions.
    """
    x = wrap(A, "linalg.norm")
    if isinstance(dim, (tuple, list)) and len(dim) not in (1, 2):
        raise ShapeError(f"linalg.norm: dim={dim!r}; expected one or two dimensions: linalg.vector_norm takes any number")
    if ord is None:
        return _vector_norm_of("linalg.norm", x, 2, dim, keepdim, dtype)
    if dim is None and x.ndim not in (1, 2):
        raise ShapeError(f"linalg.norm: ord={ord!r} of a tensor of shape {tuple(x.shape)}; expected dim=, or one or two dimensions")
    axes = (*range(x.ndim),) if dim is None else dim if isinstance(dim, (tuple, list)) else (dim,)
    if len(axes) == 1:
        return _vector_norm_of("linalg.norm", x, ord, axes, keepdim, dtype)
    return _matrix_norm_of("linalg.norm", x, ord, axes, keepdim, dtype)


@public(names=NAMES_OF_A, autocast="cpu: float32")
def cond(A: Any, p: Any = None) -> Tensor:  # noqa: N803
    """The condition number: norm(A) * norm(inv(A)) of order ``p``; without it the ratio of the extreme singular values."""
    if p is None or p in (2, -2):
        values = in_accumulator(_svdvals)(check_matrix("linalg.cond", A))
        last = (values.ndim - 1,)
        largest, smallest = (_extreme(values, name=name, axes=last, keepdim=False) for name in ("amax", "amin"))
        return smallest / largest if p == -2 else largest / smallest
    x = check_matrix("linalg.cond", A, is_square=True)
    return _matrix_norm_of("linalg.cond", x, p, (-2, -1), False, None) * _matrix_norm_of(
        "linalg.cond", inverse_of("linalg.cond", x), p, (-2, -1), False, None
    )


# ---- solvers --------------------------------------------------------------------------------------------------------------------


@public(autocast="cpu: float32")
def inv(A: Any) -> Tensor:  # noqa: N803
    """The inverse of square matrices.

    Raises:
        LinAlgError: a matrix is singular.
    """
    return inverse_of("linalg.inv", A)


@in_accumulator
def _solved(a: Tensor, b: Tensor, left: bool) -> Tensor:
    return _solve(a, b) if left else _solve(a.mT, b.mT).mT


@public(autocast="cpu: float32")
def solve(A: Any, B: Any, *, left: bool = True) -> Tensor:  # noqa: N803
    """The X of A X = B, or of X A = B, for square matrices A (..., n, n).

    Args:
        B: (..., n, k), or vectors (n,) or (..., n) with the batch of A; batches of matrices broadcast.
        left: A stands on the left of X.

    Raises:
        LinAlgError: a matrix is singular.
        ShapeError: the shapes do not fit.
    """
    a, b = check_matrix("linalg.solve", A, is_square=True, name="A"), wrap(B, "linalg.solve")
    is_vector = b.ndim == 1 or (b.ndim == a.ndim - 1 and b.array.shape == a.array.shape[:-1])
    if is_vector:
        b = _reshape(b, shape=(*b.array.shape, 1))
    if b.ndim < 2 or b.array.shape[-2 if left or is_vector else -1] != a.array.shape[-1] or (is_vector and not left):
        shapes = f"A has shape {tuple(a.shape)}, B {tuple(wrap(B).shape)}"
        raise ShapeError(f"linalg.solve: {shapes}; expected (..., n, n) and (..., n, k)")
    _check_dtypes("linalg.solve", a, b)
    x = _solved(a, b, left)
    return _reshape(x, shape=x.array.shape[:-1]) if is_vector else x


def _check_dtypes(function: str, a: Tensor, b: Tensor) -> None:
    if a.dtype != b.dtype:
        raise DtypeError(f"{function}: tensors of {a.dtype} and {b.dtype}; expected one dtype: convert with .to(dtype)")
    broadcast_shape(function, a.array.shape[:-2], b.array.shape[:-2])


@in_accumulator
def _triangular_solved(a: Tensor, b: Tensor, upper: bool, left: bool, unit: bool) -> Tensor:
    if left:
        return _solve_triangular(a, b, upper=upper, unit=unit)
    return _solve_triangular(a.mT, b.mT, upper=not upper, unit=unit).mT


@public(names=NAMES_OF_A)
def solve_triangular(A: Any, B: Any, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:  # noqa: N803
    """The X of A X = B, or of X A = B, for triangular matrices A (..., n, n), the other triangle of which is not read.

    Args:
        upper: A is an upper triangle.
        left: A stands on the left of X.
        unitriangular: the diagonal of A is not read, and taken as ones.

    Raises:
        LinAlgError: a number on the diagonal is 0.
        ShapeError: the shapes do not fit.
    """
    a = check_matrix("linalg.solve_triangular", A, is_square=True, name="A")
    b = check_matrix("linalg.solve_triangular", B, name="B")
    if b.array.shape[-2 if left else -1] != a.array.shape[-1]:
        raise ShapeError(f"linalg.solve_triangular: A has shape {tuple(a.shape)}, B {tuple(b.shape)}; expected sizes that fit")
    _check_dtypes("linalg.solve_triangular", a, b)
    found: Tensor = _triangular_solved(a, b, upper, left, unitriangular)
    return found


@public(names=NAMES_OF_A)
def lu(A: Any, *, pivot: bool = True) -> UnpackedFactors:  # noqa: N803
    """(P, L, U) with A = P L U: a permutation (..., n, n), L (..., n, k) with ones on its diagonal, U (..., k, m), k = min(n, m).

    Args:
        A: (..., n, m).
        pivot: exchange rows, so that no element of L is greater than 1; else A = L U, and P is empty.

    Raises:
        LinAlgError: the gradient of a singular matrix is computed.
    """
    return lu_unpack(*factored("linalg.lu", A, pivot), unpack_pivots=pivot)


@public(names=NAMES_OF_A)
def lu_factor(A: Any, *, pivot: bool = True) -> Factors:  # noqa: N803
    """(LU, pivots): the factors in one matrix (..., n, m), and int32 pivots (..., k) from 1, for :func:`lu_solve`.

    Raises:
        LinAlgError: a matrix is singular; on a GPU raised when the host next reads a value or synchronizes.
    """
    found = factored("linalg.lu_factor", A, pivot)
    check_singular(info_of(found.LU))
    return found


@public(names=NAMES_OF_A)
def lu_factor_ex(A: Any, *, pivot: bool = True, check_errors: bool = False) -> FactorsInfo:  # noqa: N803
    """:func:`lu_factor` and info (...), int32: the place, from 1, of the first 0 on the diagonal of U, else 0.

    Raises:
        LinAlgError: a matrix is singular, and ``check_errors`` is True.
    """
    found = factored("linalg.lu_factor_ex", A, pivot)
    info = info_of(found.LU)
    if check_errors:
        check_singular(info)
    return FactorsInfo(*found, info)


@public()
def lu_solve(LU: Any, pivots: Any, B: Any, *, left: bool = True, adjoint: bool = False) -> Tensor:  # noqa: N803
    """The X of A X = B, or of X A = B, by what :func:`lu_factor` returns of A (..., n, n); batches broadcast.

    Args:
        left: A stands on the left of X.
        adjoint: solve with the transpose of A.

    Raises:
        LinAlgError: U is singular.
        ShapeError, DtypeError: the arguments do not fit.
    """
    return lu_solved("linalg.lu_solve", LU, pivots, B, left, adjoint)


class LeastSquares(NamedTuple):
    """Return type of lstsq."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


@public(out=False, names={**NAMES_OF_A, "b": "B"}, autocast="cpu: float32")
def lstsq(A: Any, B: Any, rcond: float | None = None, *, driver: str | None = None) -> LeastSquares:  # noqa: N803
    """The X (..., m, k) of least |A X - B|, of several that of least norm.

    Args:
        A: (..., n, m).
        B: (..., n, k); batches broadcast.
        rcond: singular values of at most ``rcond`` times the largest count as 0; by default, and with "gels", eps * max(n, m).
        driver: "gels", "gelsy", "gelsd" or "gelss", LAPACK's name of the algorithm: it is always that of "gelsd".

    Returns:
        (solution, residuals, rank, singular_values).  The residuals (..., k), sums of squares, are empty for "gelsy", which None
        means, and unless n > m and all ranks are m; the rank is empty for "gels", the singular values are for "gels" and "gelsy".

    Raises:
        ShapeError: the shapes do not fit.
    """
    name = "linalg.lstsq"
    a, b = check_matrix(name, A, name="A"), wrap(B, name)
    if driver not in (None, "gels", "gelsy", "gelsd", "gelss"):
        raise ArgumentError(f"{name}: driver={driver!r}; expected None, 'gels', 'gelsy', 'gelsd' or 'gelss'")
    is_vector = b.ndim == a.ndim - 1 and b.array.shape == a.array.shape[:-1]
    b = _reshape(b, shape=(*b.array.shape, 1)) if is_vector else b
    n, m = a.array.shape[-2:]
    if b.ndim < 2 or b.array.shape[-2] != n:
        raise ShapeError(f"{name}: A has shape {tuple(a.shape)}, B {tuple(wrap(B).shape)}; expected (..., n, m) and (..., n, k)")
    _check_dtypes(name, a, b)
    batch = broadcast_shape(name, a.array.shape[:-2], b.array.shape[:-2])
    a, b = _expand(name, a, (*batch, n, m)), _expand(name, b, (*batch, n, b.array.shape[-1]))
    tolerance = None if rcond is None else as_number(name, "rcond", rcond)
    low, relative = cutoff(name, a, None, tolerance if driver != "gels" else None)
    solution = in_accumulator(functools.partial(_lstsq, rcond=relative))(a, b)
    values = in_accumulator(_svdvals)(a.detach())
    rank = _rank(values, low, relative)
    nothing = make_tensor(empty((0,), a.dtype, a.array))
    residuals = nothing
    if n > m and driver not in (None, "gelsy") and (driver == "gels" or bool((rank == m).all())):
        difference = matmul(a, solution) - b
        residuals = _sum(difference * difference, axes=(difference.ndim - 2,), keepdim=False)
    return LeastSquares(
        _reshape(solution, shape=solution.array.shape[:-1]) if is_vector else solution,
        residuals,
        make_tensor(empty((0,), dtypes.int64, a.array)) if driver == "gels" else rank,
        values if driver in ("gelsd", "gelss") else nothing,
    )


@public(names=NAMES_OF_A)
def pinv(
    A: Any, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None  # noqa: N803
) -> Tensor:
    """The pseudo-inverse (..., m, n) of matrices (..., n, m), by singular values.

    Args:
        rcond: an older name of ``rtol``.
        hermitian: the matrices are symmetric, and the lower triangles are read.
        atol, rtol: singular values of at most the larger of atol and rtol times the largest one count as 0; by default rtol is
            eps * max(n, m).
    """
    x = check_matrix("linalg.pinv", A, is_square=hermitian)
    if rcond is not None:
        if atol is not None or rtol is not None:
            raise ArgumentError("linalg.pinv: got rcond beside atol or rtol; pass atol and rtol")
        rtol = rcond
    return pinv_of("linalg.pinv", x.tril() + x.tril(-1).mT if hermitian else x, atol, rtol)


def _rank(values: Tensor, atol: float, rtol: float) -> Tensor:
    if not values.array.shape[-1]:
        return _sum(values > 0, axes=(values.ndim - 1,), keepdim=False)
    largest = _extreme(values, name="amax", axes=(values.ndim - 1,), keepdim=True)
    return _sum(values > (largest * rtol).clamp_min(atol), axes=(values.ndim - 1,), keepdim=False)


@public(names=NAMES_OF_A, autocast="cpu: float32")
def matrix_rank(
    A: Any, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None  # noqa: N803
) -> Tensor:
    """The number of singular values of matrices that are not 0; int64.

    Args:
        tol: an older name of ``atol``.
        hermitian: the matrices are symmetric, and the lower triangles are read.
        atol, rtol: as for :func:`pinv`.
    """
    x = check_matrix("linalg.matrix_rank", A, is_square=hermitian).detach()
    x = x.tril() + x.tril(-1).mT if hermitian else x
    if tol is not None and (atol is not None or rtol is not None):
        raise ArgumentError("linalg.matrix_rank: got tol beside atol or rtol; pass atol and rtol")
    low, relative = cutoff("linalg.matrix_rank", x, atol if tol is None else tol, 0.0 if tol is not None else rtol)
    return _rank(in_accumulator(_svdvals)(x), low, relative)


# ---- factorisations -------------------------------------------------------------------------------------------------------------


@public()
def det(A: Any) -> Tensor:  # noqa: N803
    """The determinant of square matrices; it has a gradient for singular ones, too."""
    return _public_det(check_matrix("linalg.det", A, is_square=True))


@public()
def slogdet(A: Any) -> SignLogDet:  # noqa: N803
    """The sign of the determinant of square matrices, and the logarithm of its magnitude: 0 and -inf for singular ones.

    Raises:
        LinAlgError: the gradient of a singular matrix is computed.
    """
    return slogdet_of("linalg.slogdet", A)


@public(names=NAMES_OF_A, autocast="cpu: float32")
def cholesky(A: Any, *, upper: bool = False) -> Tensor:  # noqa: N803
    """The lower triangular L with L L^T = A, or the upper U with U^T U = A, of positive definite matrices.

    Raises:
        LinAlgError: a matrix is not positive definite.
    """
    return cholesky_of("linalg.cholesky", A, upper)


@public(autocast="cpu: float32")
def qr(A: Any, mode: str = "reduced") -> QR:  # noqa: N803
    """Q with orthonormal columns and the upper triangular R with Q R = A.

    Args:
        mode: "reduced": Q (..., n, k), R (..., k, m) with k = min(n, m); "complete": Q (..., n, n), R (..., n, m); "r": an empty Q,
            and the R of "reduced".

    Raises:
        GradientError: a tensor that requires grad, of more rows than columns, with "complete".
    """
    if mode not in ("reduced", "complete", "r"):
        raise ArgumentError(f"linalg.qr: mode={mode!r}; expected 'reduced', 'complete' or 'r'")
    return qr_of("linalg.qr", A, mode)


class Eigen(NamedTuple):
    """Return type of eigh."""

    eigenvalues: Tensor
    eigenvectors: Tensor


@in_accumulator
def _eigen(x: Tensor) -> Eigen:
    return Eigen(*eigen_parts(_eigh(x)))


def _symmetric(function: str, x: Any, triangle: Any) -> Tensor:
    x = check_matrix(function, x, is_square=True)
    if triangle not in ("L", "U", "l", "u"):
        raise ArgumentError(f"{function}: UPLO={triangle!r}; expected 'L' or 'U', the triangle that is read")
    return x if triangle in "Ll" else x.mT


@public(names=NAMES_OF_A, autocast="cpu: float32")
def eigh(A: Any, UPLO: str = "L") -> Eigen:  # noqa: N803
    """The eigenvalues (..., n), ascending, and orthonormal eigenvectors, the columns (..., n, n), of symmetric matrices.

    The gradient of the vectors is that of a matrix without equal eigenvalues; equal ones contribute nothing to it.

    Args:
        UPLO: the triangle that is read.

    Raises:
        LinAlgError: the eigenvalues do not converge.
    """
    found: Eigen = _eigen(_symmetric("linalg.eigh", A, UPLO))
    return found


@public(names=NAMES_OF_A, autocast="cpu: float32")
def eigvalsh(A: Any, UPLO: str = "L") -> Tensor:  # noqa: N803
    """The eigenvalues (..., n) of symmetric matrices, ascending; see :func:`eigh`."""
    return _eigen(_symmetric("linalg.eigvalsh", A, UPLO)).eigenvalues


class SingularValues(NamedTuple):
    """Return type of linalg.svd."""

    U: Tensor
    S: Tensor
    Vh: Tensor


@in_accumulator
def _u_s_vh(x: Tensor, full: bool) -> SingularValues:
    return SingularValues(*svd_parts(_svd(x, full=full), x.array.shape, full))


@public(autocast="cpu: float32")
def svd(A: Any, full_matrices: bool = True, *, driver: str | None = None) -> SingularValues:  # noqa: N803
    """(U, S, Vh) with A = U diag(S) Vh, the singular values S (..., k), descending, k = min(n, m).

    The gradient of the vectors is that of a matrix without equal singular values; equal ones contribute nothing to it.

    Args:
        full_matrices: U (..., n, n) and Vh (..., m, m); the gradients of columns without a singular value are not used, as in
            PyTorch.  Else U (..., n, k) and Vh (..., k, m).
        driver: None; PyTorch has others on a GPU.
    """
    if driver is not None:
        raise ArgumentError(f"linalg.svd: driver={driver!r}; expected None")
    found: SingularValues = _u_s_vh(check_matrix("linalg.svd", A), full_matrices)
    return found


@public(autocast="cpu: float32")
def svdvals(A: Any, *, driver: str | None = None) -> Tensor:  # noqa: N803
    """The singular values (..., k) of matrices, descending; their gradient is defined for equal ones, too."""
    if driver is not None:
        raise ArgumentError(f"linalg.svdvals: driver={driver!r}; expected None")
    return in_accumulator(_svdvals)(check_matrix("linalg.svdvals", A))


# ---- products -------------------------------------------------------------------------------------------------------------------


@public(names=NAMES_OF_A, autocast="half")
def matrix_power(A: Any, n: int) -> Tensor:  # noqa: N803
    """The n-th power of square matrices; a negative one is a power of the inverse.

    Raises:
        LinAlgError: n is negative, and a matrix is singular.
    """
    return matrix_power_of("linalg.matrix_power", A, n)


@public(autocast="half")
def multi_dot(tensors: Sequence[Any]) -> Tensor:
    """The product of two or more matrices, in the order of the fewest multiplications; the first and the last may be vectors.

    Raises:
        ShapeError: the shapes do not fit.
        ArgumentError: fewer than two tensors.
    """
    if not isinstance(tensors, (tuple, list)):
        raise DtypeError(f"linalg.multi_dot: tensors has type {type(tensors).__name__}; expected a list or tuple of tensors")
    given = [wrap(x, "linalg.multi_dot") for x in tensors]
    if len(given) < 2:
        raise ArgumentError(f"linalg.multi_dot: got {len(given)} tensors; expected at least two")
    first, last = given[0].ndim == 1, given[-1].ndim == 1
    given[0] = _reshape(given[0], shape=(1, given[0].array.size)) if first else given[0]
    given[-1] = _reshape(given[-1], shape=(given[-1].array.size, 1)) if last else given[-1]
    for x in given:
        if x.ndim != 2:
            raise ShapeError(f"linalg.multi_dot: a tensor has shape {tuple(x.shape)}; expected matrices, or vectors at the ends")
    product = product_of_matrices("linalg.multi_dot", given)
    rows, columns = product.array.shape
    return _reshape(product, shape=(() if first else (rows,)) + (() if last else (columns,))) if first or last else product


@public(autocast="half", takes_complex=True)
def vecdot(x: Any, y: Any, *, dim: int = -1) -> Tensor:
    """The dot products of vectors along ``dim``; the tensors broadcast, and a complex first one is conjugated.

    Raises:
        ShapeError: the sizes of the dimension differ.
    """
    x, y = wrap(x, "linalg.vecdot"), wrap(y, "linalg.vecdot")
    ndim = max(x.ndim, y.ndim)
    if not ndim:
        raise ShapeError("linalg.vecdot: the tensors have no dimensions; expected vectors")
    at = normalize_dim(dim, ndim, "linalg.vecdot")
    return in_accumulator(lambda a, b: _sum(a * b, axes=(at,), keepdim=False))(conj(x), y)


@public(autocast="cuda: widest", takes_complex=True)
def cross(input: Any, other: Any, *, dim: int = -1) -> Tensor:
    """The cross product of vectors of three elements along ``dim``; the tensors broadcast.

    Raises:
        ShapeError: the size of the dimension is not 3.
    """
    return cross_of("linalg.cross", input, other, as_integer("linalg.cross", "dim", dim))


@public(out=False, takes_complex=True)
def diagonal(A: Any, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:  # noqa: N803
    """:func:`gpunet.diagonal` of the last two dimensions."""
    x = wrap(A, "linalg.diagonal")
    first, second = _plane("linalg.diagonal", x.ndim, dim1, dim2)
    return _diagonal(x, offset=as_integer("linalg.diagonal", "offset", offset), dim1=first, dim2=second)
