"""LU factorisation with row exchanges, in functions that NumPy and CuPy share; batches stand in front.

P A = L U, where L has ones on its diagonal; both stand in one matrix.  Row k was exchanged with row pivots[k] - 1.  The
derivative is that of P A, whose rows are in the order of the pivots (S. Walter and L. Lehmann, Algorithmic differentiation of
linear algebra functions, 2010); rows and columns beyond the square part are products with triangular inverses.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gpunet.autograd import Tensor, ignore_fp_errors, make_tensor, primitive, wrap
from gpunet.backend.dtypes import int32, int64
from gpunet.errors import DtypeError, LinAlgError, ShapeError
from gpunet.launch.faults import fault_code, fault_record, report
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.ops.broadcast import broadcast_shape, cast, in_accumulator
from gpunet.ops.compare import eq
from gpunet.ops.creation import arange
from gpunet.ops.diagonal import _diagonal
from gpunet.ops.elementwise import where
from gpunet.ops.face import check_flag, public
from gpunet.ops.factorize import _solve_triangular, check_matrix, eye_like
from gpunet.ops.index import gather, tril, triu
from gpunet.ops.join import cat
from gpunet.ops.matmul import _matmul
from gpunet.ops.order import argmax
from gpunet.ops.shape import _expand, _reshape

__all__ = ["lu", "lu_solve", "lu_unpack"]


def _store_factors(xp: Any, factors: Any, pivots: Any, x: Any, *, exchanges: bool) -> None:
    """Gaussian elimination of matrices x (..., n, m), all at once; pivots (..., min(n, m)), from 1."""
    xp.copyto(factors, x)
    rows, chosen = factors.reshape(-1, *x.shape[-2:]), pivots.reshape(-1, pivots.shape[-1])
    each = xp.arange(len(rows))
    for k in range(pivots.shape[-1]):
        pivot = k + xp.abs(rows[:, k:, k]).argmax(1) if exchanges else xp.full(len(rows), k)
        chosen[:, k] = pivot + 1
        top = rows[each, pivot]
        rows[each, pivot] = rows[:, k]
        rows[:, k] = top
        rows[:, k + 1 :, k] /= xp.where(top[:, k] == 0, 1, top[:, k])[:, None]  # then those below are 0, too
        rows[:, k + 1 :, k + 1 :] -= rows[:, k + 1 :, k, None] * top[:, None, k + 1 :]


def _store_order(xp: Any, order: Any, pivots: Any) -> None:
    """order (..., n): which row of A is row i of P A."""
    order[...] = xp.arange(order.shape[-1])
    if not pivots.size:
        return
    rows, chosen = order.reshape(-1, order.shape[-1]), pivots.reshape(-1, pivots.shape[-1])
    each = xp.arange(len(rows))
    for k in range(pivots.shape[-1]):
        pivot = xp.clip(chosen[:, k] - 1, 0, rows.shape[1] - 1)
        top = rows[each, pivot]
        rows[each, pivot] = rows[:, k]
        rows[:, k] = top


_FACTORS, _ORDER = Shim("lu_factor", _store_factors, reads_values=True), Shim("lu_unpack", _store_order, reads_values=True)
_FACTORS.outputs = 2


@primitive(name="lu_factor")
def _factors_of(rows, factors):
    """The factors of P A, whose rows are in the order of the pivots."""
    return factors.array


def _factors_derivative(g, out):
    rows, columns = out.array.shape[-2:]
    size = min(rows, columns)
    square, g_square = out[..., :size, :size], g[..., :size, :size]
    lower, upper = tril(square, -1) + eye_like(out, size), triu(square)
    below, right = g[..., size:, :size], g[..., :size, size:]
    of_upper = triu(g_square)
    of_lower = _matmul(lower.mT, tril(g_square, -1)) - _matmul(of_upper, upper.mT)
    if columns > size:
        of_lower = of_lower - _matmul(right, out[..., :size, size:].mT)
    inner = tril(of_lower, -1)
    if rows > size:
        inner = inner - triu(_matmul(out[..., size:, :size].mT, below))
    # triu(g U^T) U^-T = g - tril(g U^T, -1) U^-T: the last pivot of a square U divides nothing
    found = _solve_triangular(square.mT, of_upper + _from_right(inner, square), upper=True, unit=True)
    if rows > size:
        found = cat([found, _from_right(below, square)], -2)
    if columns > size:
        found = cat([found, _solve_triangular(square.mT, right, upper=True, unit=True)], -1)
    return found


def _from_right(x: Tensor, factors: Tensor) -> Tensor:
    """x U^-T."""
    return _solve_triangular(factors, x.mT, upper=True).mT


_factors_of.derivatives(rows=_factors_derivative)


class Factors(NamedTuple):
    """Return type of lu_factor."""

    LU: Tensor
    pivots: Tensor


class FactorsInfo(NamedTuple):
    """Return type of lu_factor_ex."""

    LU: Tensor
    pivots: Tensor
    info: Tensor


class UnpackedFactors(NamedTuple):
    """Return type of lu and lu_unpack."""

    P: Tensor
    L: Tensor
    U: Tensor


@in_accumulator
@ignore_fp_errors
def _factored(x: Tensor, exchanges: bool) -> Factors:
    shape = x.array.shape
    factors, pivots = empty(shape, x.dtype, x.array), empty((*shape[:-2], min(shape[-2:])), int32, x.array)
    if factors.size:
        _FACTORS(factors, pivots, x.array, exchanges=exchanges)
    found = make_tensor(factors)
    return Factors(_factors_of(_exchanged(x, _order(pivots, shape[-2])), found), make_tensor(pivots))


def _order(pivots: Any, size: int) -> Tensor:
    order = empty((*pivots.shape[:-1], size), int64, pivots)
    if order.size:
        _ORDER(order, pivots)
    return make_tensor(order)


def _exchanged(x: Tensor, order: Tensor) -> Tensor:
    """The rows of matrices in another order; batches broadcast."""
    batch = broadcast_shape("lu_solve", x.array.shape[:-2], order.array.shape[:-1])
    shape = (*batch, *x.array.shape[-2:])
    index = _reshape(order, shape=(*order.array.shape, 1))
    return gather(_expand("lu_solve", x, shape), -2, _expand("lu_solve", index, shape))


def factored(function: str, A: Any, pivot: Any) -> Factors:  # noqa: N803
    """The factors and pivots of matrices, on behalf of ``function``."""
    check_flag(function, "pivot", pivot)
    found: Factors = _factored(check_matrix(function, A, name="A"), pivot)
    return found


def info_of(factors: Tensor) -> Tensor:
    """The place, from 1, of the first 0 on the diagonal of U, int32; 0 if there is none."""
    diagonal = _diagonal(factors.detach(), offset=0, dim1=factors.ndim - 2, dim2=factors.ndim - 1)
    if not diagonal.array.shape[-1]:
        return make_tensor(empty(diagonal.array.shape[:-1], int32, diagonal.array)).fill_(0)
    is_zero = eq(diagonal, 0)
    return cast(where(is_zero.any(-1), argmax(cast(is_zero, dtype=int32), -1) + 1, 0), dtype=int32)


_SINGULAR = fault_code(lambda fault: LinAlgError(
    f"linalg.lu_factor: matrix {fault.position} of the batch is singular: its U[{fault.value - 1}, {fault.value - 1}] is 0, which "
    "lu_solve would divide by; call linalg.lu or linalg.lu_factor_ex for the factors"
))  # fmt: skip
_CHECK = Shim(
    "lu_factor", lambda xp, out, info, fault: report(xp, fault, info.reshape(-1) > 0, _SINGULAR, info.reshape(-1), 0),
    reads_values=True,
)  # fmt: skip


def check_singular(info: Tensor) -> None:
    """Report a matrix that is singular.

    Raises:
        LinAlgError: on the CPU; on a GPU when the host next reads a value or synchronizes.
    """
    _CHECK(info.array, info.array, fault_record(info.array))


def _permutation(order: Tensor, dtype: Any) -> Tensor:
    """The P of A = P L U, where row i of P^T A is row order[..., i] of A."""
    rows = order.array.shape[-1]
    place = _reshape(arange(rows, device=order.device), shape=(rows, 1))
    return cast(eq(place, _reshape(order, shape=(*order.array.shape[:-1], 1, rows))), dtype=dtype)


@public("lu")
def lu(input: Any, pivot: bool = True, get_infos: bool = False) -> Any:
    """:func:`linalg.lu_factor_ex`: (LU, pivots), or (LU, pivots, infos) with ``get_infos``."""
    found = factored("lu", input, pivot)
    return (*found, info_of(found.LU)) if get_infos else tuple(found)


def _checked_pivots(function: str, factors: Tensor, pivots: Any) -> Any:
    """The pivots of factors (..., n, m) as an array (..., min(n, m)).

    Raises:
        ShapeError, DtypeError: they have another shape or dtype.
    """
    given = wrap(pivots, function)
    expected = (*factors.array.shape[:-2], min(factors.array.shape[-2:]))
    if given.array.shape != expected:
        raise ShapeError(f"{function}: pivots have shape {tuple(given.shape)}, LU {tuple(factors.shape)}; expected {expected}")
    if given.dtype != int32:
        raise DtypeError(f"{function}: pivots of dtype {given.dtype}; expected int32, as lu_factor returns them")
    return given.array


@public()
def lu_unpack(LU_data: Any, LU_pivots: Any, unpack_data: bool = True, unpack_pivots: bool = True) -> UnpackedFactors:  # noqa: N803
    """The matrices (P, L, U) of what lu_factor returns, with A = P L U.

    Args:
        LU_data: (..., n, m).
        LU_pivots: (..., min(n, m)), int32.
        unpack_data, unpack_pivots: without them L and U, or P, are empty.

    Raises:
        ShapeError, DtypeError: the arguments are no factors and pivots.
    """
    factors = check_matrix("lu_unpack", LU_data, name="LU_data")
    rows, columns = factors.array.shape[-2:]
    size = min(rows, columns)
    permutation = lower = upper = make_tensor(empty((0,), factors.dtype, factors.array))
    if unpack_pivots:
        permutation = _permutation(_order(_checked_pivots("lu_unpack", factors, LU_pivots), rows), factors.dtype)
    if unpack_data:
        lower = tril(factors[..., :, :size], -1) + eye_like(factors, rows, size)
        upper = triu(factors[..., :size, :])
    return UnpackedFactors(permutation, lower, upper)


@in_accumulator
def _lu_solved(factors: Tensor, order: Tensor, b: Tensor, left: bool, adjoint: bool) -> Tensor:
    if not left:
        return _lu_solved(factors, order, b.mT, True, not adjoint).mT
    if not adjoint:
        lower = _solve_triangular(factors, _exchanged(b, order), upper=False, unit=True)
        return _solve_triangular(factors, lower, upper=True)
    upper = _solve_triangular(factors.mT, b, upper=False)
    return _exchanged(_solve_triangular(factors.mT, upper, upper=True, unit=True), order.argsort(-1))


def lu_solved(function: str, factors: Any, pivots: Any, b: Any, left: bool = True, adjoint: bool = False) -> Tensor:
    """The X of A X = B by the factors of A, on behalf of ``function``."""
    lu = check_matrix(function, factors, is_square=True, name="LU")
    order = _order(_checked_pivots(function, lu, pivots), lu.array.shape[-1])
    b = check_matrix(function, b, name="B")
    if b.array.shape[-2 if left else -1] != lu.array.shape[-1]:
        raise ShapeError(f"{function}: LU has shape {tuple(lu.shape)}, B {tuple(b.shape)}; expected sizes that fit")
    if b.dtype != lu.dtype:
        raise DtypeError(f"{function}: LU of {lu.dtype}, B of {b.dtype}; expected one dtype: convert with .to(dtype)")
    found: Tensor = _lu_solved(lu, order, b, left, adjoint)
    return found


@public("lu_solve", autocast="cpu: float32")
def lu_solve(input: Any, LU_data: Any, LU_pivots: Any) -> Tensor:  # noqa: N803
    """The X of A X = ``input`` by the factors of A; :func:`linalg.lu_solve` with its arguments in another order.

    Raises:
        ShapeError, DtypeError: the arguments do not fit.
        LinAlgError: U is singular.
    """
    return lu_solved("lu_solve", LU_data, LU_pivots, input)
