"""Singular values and eigenvalues of which few are wanted.

Source: N. Halko, P. Martinsson and J. Tropp, Finding structure with randomness: Probabilistic algorithms for constructing
approximate matrix decompositions, 2011, algorithms 4.4 and 5.1.
"""

from __future__ import annotations

from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.errors import ArgumentError, ShapeError
from gpunet.ops.broadcast import broadcasts_to
from gpunet.ops.face import as_integer, as_positive, check_flag
from gpunet.ops.factorize import check_matrix
from gpunet.ops.linalg import SingularValues, cholesky, eigh, qr, solve_triangular, svd
from gpunet.ops.matmul import matmul
from gpunet.ops.random import randn
from gpunet.ops.spectral import SVD

__all__ = ["lobpcg", "pca_lowrank", "svd_lowrank"]


def _basis(a: Tensor, count: int, niter: int) -> Tensor:
    """Orthonormal columns (..., n, count) that nearly span the largest singular vectors of a (..., n, m)."""
    start = randn(a.shape[-1], count, dtype=a.dtype, device=a.device)
    basis = qr(matmul(a, start)).Q
    for _ in range(niter):
        basis = qr(matmul(a.mT, basis)).Q
        basis = qr(matmul(a, basis)).Q
    return basis


def _low_rank(a: Tensor, count: int, niter: int) -> SVD:
    if a.shape[-2] < a.shape[-1]:  # the smaller side has the basis
        found = _low_rank(a.mT, count, niter)
        return SVD(found.V, found.S, found.U)
    basis = _basis(a, count, niter)
    small: SingularValues = svd(matmul(basis.mT, a), full_matrices=False)
    return SVD(matmul(basis, small.U), small.S, small.Vh.mT)


def svd_lowrank(A: Any, q: int | None = 6, niter: int | None = 2, M: Any = None) -> SVD:  # noqa: N803
    """(U, S, V) with U diag(S) V^T near A (..., n, m): its largest singular values, by random projections.

    Args:
        q: how many; somewhat more than the rank of A.  None means 6.
        niter: iterations, which make the result more accurate; None means 2.
        M: subtracted from A, of its shape or broadcast to it.

    Raises:
        ArgumentError: q is less than 1 or larger than n or m, or niter is negative.
        ShapeError: A has fewer than two dimensions, or M does not fit.
    """
    a = check_matrix("svd_lowrank", A, name="A")
    count = as_positive("svd_lowrank", "q", 6 if q is None else q)
    rounds = as_integer("svd_lowrank", "niter", 2 if niter is None else niter)
    most = min(a.shape[-2:])
    if count > most or rounds < 0:
        raise ArgumentError(f"svd_lowrank: q={q}, niter={niter} for A of shape {tuple(a.shape)}; expected q of 1 to {most}")
    if M is None:
        return _low_rank(a, count, rounds)
    mean = wrap(M, "svd_lowrank")
    if not broadcasts_to(tuple(mean.shape), tuple(a.shape)):
        raise ShapeError(f"svd_lowrank: M has shape {tuple(mean.shape)}; expected one that broadcasts to {tuple(a.shape)}")
    return _low_rank(a - mean, count, rounds)


def pca_lowrank(A: Any, q: int | None = None, center: bool = True, niter: int = 2) -> SVD:  # noqa: N803
    """The principal components of the rows of A (..., n, m): (U, S, V), with the directions as the columns of V.

    Args:
        q: how many; min(6, n, m) if None.
        center: subtract the mean row first.
        niter: iterations, which make the result more accurate.

    Raises:
        ArgumentError: q is less than 1 or larger than n or m, or niter is negative.
    """
    check_flag("pca_lowrank", "center", center)
    a = check_matrix("pca_lowrank", A, name="A")
    most = min(a.shape[-2:])
    count = min(6, most) if q is None else as_integer("pca_lowrank", "q", q)
    if not 1 <= count <= most or as_integer("pca_lowrank", "niter", niter) < 0:
        raise ArgumentError(f"pca_lowrank: q={q}, niter={niter} for A of shape {tuple(a.shape)}; expected q of 1 to {most}")
    return _low_rank(a - a.mean(-2, keepdim=True) if center else a, count, niter)


def lobpcg(
    A: Any, k: int | None = None, B: Any = None, X: Any = None, n: int | None = None, iK: Any = None,  # noqa: N803
    niter: int | None = None, tol: float | None = None, largest: bool | None = None, method: str | None = None, tracker: Any = None,
    ortho_iparams: Any = None, ortho_fparams: Any = None, ortho_bparams: Any = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The k largest or smallest eigenvalues (..., k) of A x = e B x, the extreme one first, and eigenvectors (..., n, k).

    All tensors here are dense, so the eigenvalues are those of :func:`gpunet.linalg.eigh`, exact to rounding: what directs
    PyTorch's iterations (``X`` but for its number of columns, ``iK``, ``niter``, ``tol``, ``method``, ``ortho_*``) has no effect.

    Args:
        A: symmetric matrices (..., n, n).
        k: how many; by default ``n``, or as many as ``X`` has columns, or 1.
        B: positive definite matrices (..., n, n); the unit matrix by default.
        largest: False for the smallest ones.
        tracker: None.

    Raises:
        ArgumentError: k is less than 1 or larger than the size of A, or there is a tracker.
        ShapeError: A is not square, or B has another shape.
        LinAlgError: B is not positive definite.
    """
    if tracker is not None:
        raise ArgumentError("lobpcg: tracker is not called, since there are no iterations; expected None")
    a = check_matrix("lobpcg", A, is_square=True, name="A")
    size = a.shape[-1]
    given = k if k is not None else n if n is not None else 1 if X is None else wrap(X).shape[-1]
    count = as_integer("lobpcg", "k", given)
    if not 1 <= count <= size:
        raise ArgumentError(f"lobpcg: k={count} of matrices of size {size}; expected 1 to {size}")
    vectors: Any
    if B is None:
        values, vectors = eigh(a)
    else:
        b = check_matrix("lobpcg", B, is_square=True, name="B")
        if b.shape[-1] != size:
            raise ShapeError(f"lobpcg: B has shape {tuple(b.shape)}, A {tuple(a.shape)}; expected the same size")
        factor = cholesky(b)
        half = solve_triangular(factor, a, upper=False)
        values, inner = eigh(solve_triangular(factor, half.mT, upper=False))
        vectors = solve_triangular(factor.mT, inner, upper=True)
    if largest is None or largest:
        values, vectors = values.flip(-1), vectors.flip(-1)
    return values[..., :count], vectors[..., :count]
