"""Further functions of ``torch.linalg``: products of reflections, equations of tensors, Vandermonde matrices, and those that tell
of each matrix whether it could be inverted or factored."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from gpunet.autograd import Tensor, make_tensor, wrap
from gpunet.backend.dtypes import int32
from gpunet.errors import ArgumentError, ShapeError
from gpunet.launch.memory import empty
from gpunet.ops.arrange import movedim
from gpunet.ops.broadcast import cast, in_accumulator
from gpunet.ops.creation import arange
from gpunet.ops.elementwise import pow, where
from gpunet.ops.face import as_integer, check_flag, public, sizes_of
from gpunet.ops.factorize import check_matrix, cholesky_of, eye_like, inverse_of
from gpunet.ops.index import tril
from gpunet.ops.linalg import NAMES_OF_A, lu_factor_ex, solve
from gpunet.ops.lu import factored
from gpunet.ops.matmul import matmul
from gpunet.ops.order import argmax

__all__ = ["cholesky_ex", "householder_product", "inv_ex", "solve_ex", "tensorinv", "tensorsolve", "vander"]


class InverseInfo(NamedTuple):
    """What :func:`inv_ex` returns."""

    inverse: Tensor
    info: Tensor


class CholeskyInfo(NamedTuple):
    """What :func:`cholesky_ex` returns."""

    L: Tensor
    info: Tensor


class SolutionInfo(NamedTuple):
    """What :func:`solve_ex` returns."""

    result: Tensor
    info: Tensor


@public(names=NAMES_OF_A, autocast="cpu: float32")
def householder_product(A: Any, tau: Any) -> Tensor:  # noqa: N803
    """The first n columns of the product of k reflections I - tau_i v_i v_i^T, where v_i is column i of A below a 1.

    Args:
        A: (..., m, n), m >= n; what is on and above its diagonal has no effect.
        tau: (..., k), k <= n.

    Raises:
        ShapeError: the shapes do not fit.
    """
    a, t = check_matrix("linalg.householder_product", A, name="A"), wrap(tau, "linalg.householder_product")
    rows, columns = a.array.shape[-2:]
    if rows < columns or not t.ndim or t.array.shape[-1] > columns or t.array.shape[:-1] != a.array.shape[:-2]:
        raise ShapeError(
            f"linalg.householder_product: A has shape {tuple(a.shape)}, tau {tuple(t.shape)}; expected (..., m, n) and (..., k), "
            "m >= n >= k"
        )
    if t.dtype != a.dtype:
        raise ArgumentError(f"linalg.householder_product: A has dtype {a.dtype}, tau {t.dtype}; expected the same")
    return _reflected(a, t)


@in_accumulator
def _reflected(a: Tensor, tau: Tensor) -> Tensor:
    return reflected(a, tau, eye_like(a, *a.array.shape[-2:]).expand(a.array.shape))


def reflected(a: Tensor, tau: Tensor, other: Tensor, is_transposed: bool = False) -> Tensor:
    """Q ``other``, or Q^T ``other``, of the product Q of the reflections of :func:`householder_product`."""
    vectors = tril(a, -1) + eye_like(a, *a.array.shape[-2:])
    order = range(tau.array.shape[-1])
    for i in order if is_transposed else reversed(order):
        v = vectors[..., i : i + 1]
        other = other - matmul(v * tau[..., i, None, None], matmul(v.mT, other))
    return other


@public(names=NAMES_OF_A, autocast="cpu: float32")
def inv_ex(A: Any, *, check_errors: bool = False) -> InverseInfo:  # noqa: N803
    """The inverses, NaN of singular matrices, and info: 0, or the place from 1 of the 0 on the diagonal of U.

    Raises:
        LinAlgError: a matrix is singular, and ``check_errors`` is True.
    """
    check_flag("linalg.inv_ex", "check_errors", check_errors)
    a = check_matrix("linalg.inv_ex", A, is_square=True, name="A")
    if check_errors:
        inverse = inverse_of("linalg.inv_ex", a)
        return InverseInfo(inverse, lu_factor_ex(a.detach()).info)
    info = lu_factor_ex(a.detach()).info
    is_singular = (info > 0)[..., None, None]
    inverse = inverse_of("linalg.inv_ex", where(is_singular, eye_like(a, a.array.shape[-1]), a))
    return InverseInfo(where(is_singular, math.nan, inverse), info)


@public(names=NAMES_OF_A, autocast="cpu: float32")
def cholesky_ex(A: Any, *, upper: bool = False, check_errors: bool = False) -> CholeskyInfo:  # noqa: N803
    """:func:`cholesky`, NaN of matrices that are not positive definite, and info: 0, or the order of the first leading minor that
    is not positive.

    Raises:
        LinAlgError: a matrix is not positive definite, and ``check_errors`` is True.
    """
    check_flag("linalg.cholesky_ex", "check_errors", check_errors)
    a = check_matrix("linalg.cholesky_ex", A, is_square=True, name="A")
    info = _minors(a.detach().mT if upper else a.detach())
    if check_errors:
        return CholeskyInfo(cholesky_of("linalg.cholesky_ex", a, upper), info)
    fails = (info > 0)[..., None, None]
    factor = cholesky_of("linalg.cholesky_ex", where(fails, eye_like(a, a.array.shape[-1]), a), upper)
    triangle = factor.triu() if upper else factor.tril()
    return CholeskyInfo(where(fails, math.nan, triangle), info)


@in_accumulator
def _minors(a: Tensor) -> Tensor:
    """The order of the first leading minor that is not positive, int32, of the lower triangles; 0 if all are."""
    lower = tril(a)
    pivots = factored("linalg.cholesky_ex", lower + tril(a, -1).mT, False).LU.diagonal(dim1=-2, dim2=-1)
    count = pivots.array.shape[-1]
    if not count:
        return make_tensor(empty(pivots.array.shape[:-1], int32, a.array)).fill_(0)
    fails = cast(~(pivots > 0), dtype=int32)
    return cast(where(fails.amax(-1) > 0, argmax(fails, -1) + 1, 0), dtype=int32)


@public(names=NAMES_OF_A, autocast="cpu: float32")
def solve_ex(A: Any, B: Any, *, left: bool = True, check_errors: bool = False) -> SolutionInfo:  # noqa: N803
    """:func:`solve`, NaN for singular matrices, and info: 0, or the place from 1 of the 0 on the diagonal of U.

    Raises:
        LinAlgError: a matrix is singular, and ``check_errors`` is True.
        ShapeError: the shapes do not fit.
    """
    check_flag("linalg.solve_ex", "check_errors", check_errors)
    a = check_matrix("linalg.solve_ex", A, is_square=True, name="A")
    info = lu_factor_ex(a.detach()).info
    if check_errors:
        return SolutionInfo(solve(a, B, left=left), info)
    fails = info > 0
    result = solve(where(fails[..., None, None], eye_like(a, a.array.shape[-1]), a), B, left=left)
    is_vector = result.ndim == a.ndim - 1 or result.ndim == 1
    return SolutionInfo(where(fails[..., None] if is_vector else fails[..., None, None], math.nan, result), info)


@public(names={"input": "x"})
def vander(x: Any, *, N: int | None = None) -> Tensor:  # noqa: N803
    """The powers 0 to N - 1 of vectors (..., n) as columns, (..., n, N); N is n by default.

    Raises:
        ArgumentError: N is less than 2.
    """
    values = wrap(x, "linalg.vander")
    if not values.ndim:
        raise ShapeError("linalg.vander: x has no dimensions; expected vectors")
    count = values.array.shape[-1] if N is None else as_integer("linalg.vander", "N", N)
    if count < 2:
        raise ArgumentError(f"linalg.vander: N={count}; expected 2 or more")
    return pow(values.unsqueeze(-1), arange(count, device=values.device))


@public(names=NAMES_OF_A, autocast="cpu: float32")
def tensorinv(A: Any, ind: int = 2) -> Tensor:  # noqa: N803
    """The inverse of A as a matrix of its first ``ind`` dimensions and the others: (others, first).

    Raises:
        ArgumentError: ``ind`` is not positive.
        ShapeError: the matrix is not square.
        LinAlgError: it is singular.
    """
    a, count = wrap(A, "linalg.tensorinv"), as_integer("linalg.tensorinv", "ind", ind)
    if not 1 <= count <= a.ndim:
        raise ArgumentError(f"linalg.tensorinv: ind={count} for {a.ndim} dimensions; expected 1 to {a.ndim}")
    first, rest = tuple(a.array.shape[:count]), tuple(a.array.shape[count:])
    if math.prod(first) != math.prod(rest):
        raise ShapeError(f"linalg.tensorinv: A has shape {tuple(a.shape)}; expected as many elements before ind={count} as behind")
    return inverse_of("linalg.tensorinv", a.reshape(math.prod(first), math.prod(rest))).reshape(*rest, *first)


@public(names={**NAMES_OF_A, "other": "B"}, autocast="cpu: float32")
def tensorsolve(A: Any, B: Any, dims: Any = None) -> Tensor:  # noqa: N803
    """The X of tensordot(A, X, X.ndim) = B, whose shape is that of A behind the dimensions of B.

    Args:
        dims: dimensions of A that are moved to its end first.

    Raises:
        ShapeError: the shapes do not fit.
        LinAlgError: the matrix is singular.
    """
    a, b = wrap(A, "linalg.tensorsolve"), wrap(B, "linalg.tensorsolve")
    if dims is not None:
        moved = sizes_of("linalg.tensorsolve", (), dims=dims)
        a = movedim(a, moved, tuple(range(-len(moved), 0)))
    rest = tuple(a.array.shape[b.ndim :])
    if math.prod(rest) != b.array.size or math.prod(a.array.shape[: b.ndim]) != b.array.size:
        raise ShapeError(f"linalg.tensorsolve: A has shape {tuple(a.shape)}, B {tuple(b.shape)}; expected a square matrix of A")
    size = b.array.size
    return solve(a.reshape(size, size), b.reshape(size)).reshape(rest)
