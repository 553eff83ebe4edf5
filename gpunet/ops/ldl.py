"""LDL factorisation of symmetric matrices that are not definite, as LAPACK stores it; computed on the CPU, outside of the graph.

Source: J. Bunch and L. Kaufman, Some stable methods for calculating inertia and solving symmetric linear systems, 1977.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy

from gpunet.autograd import Tensor, make_tensor, wrap
from gpunet.backend import devices
from gpunet.backend.dtypes import int32, is_half
from gpunet.errors import DtypeError, LinAlgError, ShapeError
from gpunet.launch.tape import graph_break_on_read
from gpunet.ops.broadcast import broadcast_shape
from gpunet.ops.face import check_flag, public
from gpunet.ops.factorize import check_matrix
from gpunet.ops.linalg import NAMES_OF_A

__all__ = ["ldl_factor", "ldl_factor_ex", "ldl_solve"]

_ALPHA = (1.0 + math.sqrt(17.0)) / 8.0


class LDLFactors(NamedTuple):
    """What :func:`ldl_factor` returns."""

    LD: Tensor
    pivots: Tensor


class LDLInfo(NamedTuple):
    """What :func:`ldl_factor_ex` returns."""

    LD: Tensor
    pivots: Tensor
    info: Tensor


def _pivot(a: numpy.ndarray, k: int) -> tuple[int, int]:
    """The row that comes to place k or, of a block of 2, to place k + 1; and the size of the block, 0 for a column of zeros."""
    n, size = len(a), abs(a[k, k])
    if k + 1 == n:
        return k, 1 if size else 0
    row = k + 1 + int(numpy.argmax(abs(a[k + 1 :, k])))
    largest = abs(a[row, k])
    if not max(size, largest):
        return k, 0
    if size >= _ALPHA * largest:
        return k, 1
    others = numpy.concatenate([abs(a[row, k:row]), abs(a[row + 1 :, row])]).max()
    if size >= _ALPHA * largest * (largest / others):
        return k, 1
    return row, 1 if abs(a[row, row]) >= _ALPHA * others else 2


def _exchange(a: numpy.ndarray, k: int, at: int, row: int) -> None:
    """Exchange rows and columns ``at`` and ``row`` of the lower triangle from column k on."""
    full = numpy.tril(a[k:, k:])
    full += numpy.tril(full, -1).T
    order = numpy.arange(len(full))
    order[[at - k, row - k]] = order[[row - k, at - k]]
    a[k:, k:] = numpy.where(numpy.tri(len(full), dtype=bool), full[order][:, order], a[k:, k:])


def _factor(a: numpy.ndarray, pivots: numpy.ndarray) -> int:
    """Factor the lower triangle of a (n, n) in place; return the place, from 1, of a block of D that is 0, else 0."""
    k, info = 0, 0
    while k < len(a):
        row, size = _pivot(a, k)
        if not size:
            info, size = info or k + 1, 1
        elif row != k + size - 1:
            _exchange(a, k, k + size - 1, row)
        end = k + size
        pivots[k:end] = row + 1 if size == 1 else -(row + 1)
        block = a[k:end, k:end]
        if size == 2:
            block = numpy.array([[block[0, 0], block[1, 0]], [block[1, 0], block[1, 1]]])
        if block.any():
            below = a[end:, k:end].copy()
            factors = below @ numpy.linalg.inv(block)
            a[end:, end:] -= numpy.tril(factors @ below.T)
            a[end:, k:end] = factors
        k = end
    return info


def _factored(function: str, A: Any, hermitian: Any) -> LDLInfo:  # noqa: N803
    check_flag(function, "hermitian", hermitian)
    x = check_matrix(function, A, is_square=True, name="A").detach()
    if is_half(x.dtype):
        raise DtypeError(f"{function}: A has dtype {x.dtype}; expected float32 or float64: convert it with .float()")
    graph_break_on_read(f"{function}, which computes on the CPU")
    packed = numpy.tril(devices.to_host(x.array))
    pivots = numpy.zeros(packed.shape[:-1], int32)
    infos = numpy.zeros(packed.shape[:-2], int32)
    for place in numpy.ndindex(*infos.shape):
        infos[place] = _factor(packed[place], pivots[place])
    return LDLInfo(*(make_tensor(devices.move(array, x.device)) for array in (packed, pivots, infos)))


@public(names=NAMES_OF_A)
def ldl_factor_ex(A: Any, *, hermitian: bool = False, check_errors: bool = False) -> LDLInfo:  # noqa: N803
    """:func:`ldl_factor` and info (...), int32: the place, from 1, of a block of D that is 0, else 0.

    Raises:
        LinAlgError: there is such a block, and ``check_errors`` is True.
    """
    check_flag("linalg.ldl_factor_ex", "check_errors", check_errors)
    found = _factored("linalg.ldl_factor_ex", A, hermitian)
    if check_errors:
        _check(found.info)
    return found


@public(names=NAMES_OF_A)
def ldl_factor(A: Any, *, hermitian: bool = False) -> LDLFactors:  # noqa: N803
    """(LD, pivots): the factors of symmetric matrices (..., n, n) of which the lower triangle is read, for :func:`ldl_solve`.

    L has ones on its diagonal, D blocks of one or two rows; the lower triangle of LD holds both.  Row k was exchanged with row
    pivots[k] - 1; of two equal negative numbers, the second row of the block with row -pivots[k] - 1.

    Args:
        hermitian: has no effect: complex matrices are not taken.

    Raises:
        LinAlgError: a block of D is 0.
        ShapeError, DtypeError: A is no tensor of square floating matrices.
    """
    found = _factored("linalg.ldl_factor", A, hermitian)
    _check(found.info)
    return LDLFactors(found.LD, found.pivots)


def _check(info: Tensor) -> None:
    values = numpy.asarray(devices.to_host(info.array)).reshape(-1)
    if values.any():
        place = int(numpy.flatnonzero(values)[0])
        raise LinAlgError(f"linalg.ldl_factor: D[{values[place] - 1}] of matrix {place} of the batch is 0: ldl_solve divides by it")


def _blocks(pivots: numpy.ndarray) -> list[tuple[int, int]]:
    """The first row and the size of each block of D."""
    found, k = [], 0
    while k < len(pivots):
        size = 1 if pivots[k] > 0 else 2
        found.append((k, size))
        k += size
    return found


def _solve(packed: numpy.ndarray, pivots: numpy.ndarray, x: numpy.ndarray) -> None:
    """Solve with factors (n, n) and pivots (n,), in place of the right-hand sides x (n, k)."""
    for k, size in _blocks(pivots):
        end, row = k + size, abs(int(pivots[k])) - 1
        x[[end - 1, row]] = x[[row, end - 1]]
        x[end:] -= packed[end:, k:end] @ x[k:end]
        block = numpy.tril(packed[k:end, k:end])
        x[k:end] = numpy.linalg.solve(block + numpy.tril(block, -1).T, x[k:end])
    for k, size in reversed(_blocks(pivots)):
        end, row = k + size, abs(int(pivots[k])) - 1
        x[k:end] -= packed[end:, k:end].T @ x[end:]
        x[[end - 1, row]] = x[[row, end - 1]]


@public()
def ldl_solve(LD: Any, pivots: Any, B: Any, *, hermitian: bool = False) -> Tensor:  # noqa: N803
    """The X of A X = B, (..., n, k), by what :func:`ldl_factor` returns of A; batches broadcast.

    Raises:
        LinAlgError: a block of D is 0.
        ShapeError, DtypeError: the arguments do not fit.
    """
    name = "linalg.ldl_solve"
    check_flag(name, "hermitian", hermitian)
    factors, b = check_matrix(name, LD, is_square=True, name="LD").detach(), check_matrix(name, B, name="B").detach()
    places = wrap(pivots, name)
    if places.array.shape != factors.array.shape[:-1] or b.array.shape[-2] != factors.array.shape[-1]:
        shapes = f"{tuple(factors.shape)}, {tuple(places.shape)} and {tuple(b.shape)}"
        raise ShapeError(f"{name}: LD, pivots and B have shapes {shapes}; expected (..., n, n), (..., n) and (..., n, k)")
    if places.dtype != int32 or b.dtype != factors.dtype:
        raise DtypeError(f"{name}: LD of {factors.dtype}, pivots of {places.dtype}, B of {b.dtype}; expected int32, and one dtype")
    graph_break_on_read(f"{name}, which computes on the CPU")
    batch = broadcast_shape(name, factors.array.shape[:-2], b.array.shape[:-2])
    packed, rows, given = (devices.to_host(t.array) for t in (factors, places, b))
    packed, rows = numpy.broadcast_to(packed, batch + packed.shape[-2:]), numpy.broadcast_to(rows, batch + rows.shape[-1:])
    x = numpy.array(numpy.broadcast_to(given, batch + given.shape[-2:]))
    for place in numpy.ndindex(*batch):
        try:
            _solve(packed[place], rows[place], x[place])
        except numpy.linalg.LinAlgError:
            raise LinAlgError(f"{name}: a block of D is 0") from None
    return make_tensor(devices.move(x, b.device))
