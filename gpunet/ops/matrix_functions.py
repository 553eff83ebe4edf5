"""Further functions of ``torch.linalg``: products of reflections, equations of tensors, Vandermonde matrices."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from gpunet.autograd import Tensor, wrap
from gpunet.errors import ArgumentError, ShapeError
from gpunet.ops.arrange import movedim
from gpunet.ops.broadcast import in_accumulator
from gpunet.ops.creation import arange
from gpunet.ops.elementwise import pow, where
from gpunet.ops.face import as_integer, check_flag, public, sizes_of
from gpunet.ops.factorize import check_matrix, eye_like, inverse_of
from gpunet.ops.index import tril
from gpunet.ops.linalg import NAMES_OF_A, lu_factor_ex, solve
from gpunet.ops.matmul import matmul

__all__ = ["householder_product", "inv_ex", "tensorinv", "tensorsolve", "vander"]


class InverseInfo(NamedTuple):
    """What :func:`inv_ex` returns."""

    inverse: Tensor
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
    eye = eye_like(a, a.array.shape[-2])[:, : a.array.shape[-1]]
    vectors = tril(a, -1) + eye
    result = eye.expand(a.array.shape)
    for i in range(tau.array.shape[-1] - 1, -1, -1):
        v = vectors[..., i : i + 1]
        result = result - matmul(v * tau[..., i, None, None], matmul(v.mT, result))
    return result


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
