"""Cholesky decomposition and triangular systems of small matrices, column by column, in ops on tensors.

The number of launches grows with the size of the matrices, not with the size of the batch, and everything can be differentiated.
"""

from __future__ import annotations

from gpunet.autograd import Tensor
from gpunet.ops.creation import eye, zeros
from gpunet.ops.elementwise import where
from gpunet.ops.join import cat, stack


def cholesky(matrices: Tensor) -> Tensor:
    """L (..., n, n), lower triangular, with L Lᵀ = matrices; NaN in the rest of a matrix that is not positive definite.

    The gradient is symmetric, as the matrices are.
    """
    n, matrices = matrices.shape[-1], 0.5 * (matrices + matrices.transpose(-2, -1))
    columns: list[Tensor] = []
    for j in range(n):
        column = matrices[..., j:, j]
        for done in columns:
            column = column - done[..., j:] * done[..., j : j + 1]
        pivot = column[..., :1]
        root = where(pivot > 0, pivot, float("nan")).sqrt()
        padding = [zeros(size=(*matrices.shape[:-2], j), dtype=matrices.dtype, device=matrices.device)] if j else []
        columns.append(cat([*padding, root, column[..., 1:] / root], -1))
    return stack(columns, -1)


def solve_lower(lower: Tensor, right: Tensor) -> Tensor:
    """X (..., n, k) with lower X = right, for lower triangular matrices (..., n, n) and right (..., n, k)."""
    rows: list[Tensor] = []
    for i in range(lower.shape[-1]):
        row = right[..., i, :]
        if rows:
            row = row - (lower[..., i : i + 1, :i] @ stack(rows, -2)).squeeze(-2)
        rows.append(row / lower[..., i, i : i + 1])
    return stack(rows, -2)


def inverse_lower(lower: Tensor) -> Tensor:
    """The inverses of lower triangular matrices (..., n, n)."""
    n = lower.shape[-1]
    return solve_lower(lower, eye(n, dtype=lower.dtype, device=lower.device).expand(tuple(lower.shape)))


def cholesky_of_inverse(matrices: Tensor) -> Tensor:
    """The Cholesky factor of the inverse of positive definite matrices (..., n, n).

    Reversed in both dimensions, the matrix is R Rᵀ; so the matrix is U Uᵀ with an upper triangular U, and U⁻ᵀ is the factor.
    """
    upper = cholesky(matrices.flip((-2, -1))).flip((-2, -1))
    return inverse_lower(upper.transpose(-2, -1))
