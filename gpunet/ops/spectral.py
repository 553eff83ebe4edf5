"""Eigenvalues, singular values and what is computed by them: pseudo-inverses, least squares; batches stand in front.

Sources of the derivatives: M. Giles, Collected matrix derivative results for forward and reverse mode algorithmic differentiation,
2008; J. Townsend, Differentiating the singular value decomposition, 2016; G. Golub and V. Pereyra, The differentiation of
pseudo-inverses, 1973.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy

from gpunet.autograd import Tensor, make_tensor, primitive
from gpunet.backend import dtypes
from gpunet.errors import ShapeError
from gpunet.launch.memory import empty
from gpunet.ops.broadcast import in_accumulator, result_dtype
from gpunet.ops.compare import eq
from gpunet.ops.diagonal import _undiagonal
from gpunet.ops.elementwise import reciprocal, where
from gpunet.ops.face import as_number, public
from gpunet.ops.factorize import check_matrix, library_launch
from gpunet.ops.index import _index
from gpunet.ops.matmul import _matmul
from gpunet.ops.shape import _reshape

__all__ = ["pinverse", "svd"]


# ---- eigenvalues --------------------------------------------------------------------------------------------------------------


def _store_eigh(xp: Any, out: Any, x: Any) -> None:
    out[..., -1], out[..., :-1] = xp.linalg.eigh(x)


EIGH = library_launch("eigh", _store_eigh)


@primitive
def _eigh(x):
    """(..., n, n + 1): the eigenvectors as columns, then the eigenvalues; reads the lower triangle of x."""
    out = empty((*x.array.shape[:-1], x.array.shape[-1] + 1), x.dtype, x.array)
    if out.size:
        EIGH(out, x.array)
    return out


def eigen_parts(packed: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvalues (..., n), contiguous, and the eigenvectors (..., n, n) of the result of :func:`_eigh`."""
    return _index(packed, pattern=(Ellipsis, -1)).contiguous(), _index(packed, pattern=(Ellipsis, slice(0, -1)))


def _inverse_differences(s):
    """1 / (s[j] - s[i]) at (i, j), 0 where they are equal: there the vectors are not determined."""
    difference = _reshape(s, shape=(*s.array.shape[:-1], 1, s.array.shape[-1])) - _reshape(s, shape=(*s.array.shape, 1))
    is_equal = eq(difference, 0)
    return where(is_equal, 0.0, reciprocal(where(is_equal, 1.0, difference)))


def _diagonal_matrix(s):
    n = s.array.shape[-1]
    return _undiagonal(s, shape=(*s.array.shape, n), offset=0, dim1=s.ndim - 1, dim2=s.ndim)


def _eigh_derivative(g, out):
    values, vectors = eigen_parts(out)
    g_values, g_vectors = eigen_parts(g)
    rotation = _matmul(vectors.mT, g_vectors)
    inner = _diagonal_matrix(g_values) + (0.5 * (rotation - rotation.mT)) * _inverse_differences(values)
    return _matmul(_matmul(vectors, inner), vectors.mT)


_eigh.derivatives(x=_eigh_derivative)

# ---- singular values ----------------------------------------------------------------------------------------------------------


class SVD(NamedTuple):
    """Return type of svd."""

    U: Tensor
    S: Tensor
    V: Tensor


def _store_svd(xp: Any, out: Any, x: Any, *, full: bool) -> None:
    start = 0
    for part in xp.linalg.svd(x, full_matrices=full):
        flat = part.reshape(*x.shape[:-2], -1)
        out[..., start : start + flat.shape[-1]] = flat
        start += flat.shape[-1]


SVD_OF = library_launch("svd", _store_svd)


@primitive
def _svd(x, *, full):
    """u, s and vh of x = u diag(s) vh, flattened and concatenated along the last dimension."""
    *batch, n, m = x.array.shape
    k = min(n, m)
    out = empty((*batch, (n * n if full else n * k) + k + (m * m if full else k * m)), x.dtype, x.array)
    if out.size:
        SVD_OF(out, x.array, full=full)
    return out


def svd_parts(packed: Tensor, shape: tuple[int, ...], full: bool) -> tuple[Tensor, Tensor, Tensor]:
    """u (..., n, k), s (..., k) and vh (..., k, m) of the result of :func:`_svd` of a tensor of this shape, (..., n, m).

    With ``full``, k is n for u and m for vh.
    """
    n, m = shape[-2:]
    k, batch = min(n, m), packed.array.shape[:-1]
    columns, rows = (n, m) if full else (k, k)
    u = _reshape(_index(packed, pattern=(Ellipsis, slice(0, n * columns))), shape=(*batch, n, columns))
    s = _index(packed, pattern=(Ellipsis, slice(n * columns, n * columns + k)))
    return u, s, _reshape(_index(packed, pattern=(Ellipsis, slice(n * columns + k, None))), shape=(*batch, rows, m))


def _thin(parts, k):
    u, s, vh = parts
    return _index(u, pattern=(Ellipsis, slice(0, k))), s, _index(vh, pattern=(Ellipsis, slice(0, k), slice(None)))


def _svd_derivative(g, x_shape, out, full):
    """As for the reduced factorisation: the gradients of further columns are not used, as in PyTorch."""
    n, m = x_shape[-2:]
    (u, s, vh), (gu, gs, gvh) = (_thin(svd_parts(packed, x_shape, full), min(n, m)) for packed in (out, g))
    row, column = _reshape(s, shape=(*s.array.shape[:-1], 1, s.array.shape[-1])), _reshape(s, shape=(*s.array.shape, 1))
    gaps = _inverse_differences(s * s)
    left, right = _matmul(u.mT, gu), _matmul(vh, gvh.mT)
    inner = _diagonal_matrix(gs) + ((left - left.mT) * gaps) * row + column * ((right - right.mT) * gaps)
    gradient = _matmul(_matmul(u, inner), vh)
    is_zero = eq(s, 0)
    inverse = where(is_zero, 0.0, reciprocal(where(is_zero, 1.0, s)))
    inverse = _reshape(inverse, shape=(*s.array.shape[:-1], 1, s.array.shape[-1]))
    if n > m:
        gradient = gradient + _matmul((gu - _matmul(u, left)) * inverse, vh)
    if m > n:
        gradient = gradient + _matmul(u * inverse, gvh - _matmul(right.mT, vh))
    return gradient


_svd.derivatives(x=_svd_derivative)

SVDVALS = library_launch("svdvals", lambda xp, out, x: xp.copyto(out, xp.linalg.svd(x, compute_uv=False)))


@primitive
def _svdvals(x):
    """The singular values: their gradient is defined for equal ones, too, unlike that of the vectors."""
    out = empty((*x.array.shape[:-2], min(x.array.shape[-2:])), x.dtype, x.array)
    if out.size:
        SVDVALS(out, x.array)
    return out


def _svdvals_derivative(g, x):
    u, _, vh = svd_parts(_svd(x, full=False), x.array.shape, False)
    return _matmul(u * _reshape(g, shape=(*g.array.shape[:-1], 1, g.array.shape[-1])), vh)


_svdvals.derivatives(x=_svdvals_derivative)


@in_accumulator
def _u_s_v(x: Tensor, some: bool) -> SVD:
    u, s, vh = svd_parts(_svd(x, full=not some), x.array.shape, not some)
    return SVD(u, s, vh.mT)


@public("svd", autocast="cpu: float32")
def svd(input: Any, some: bool = True, compute_uv: bool = True) -> SVD:
    """(U, S, V) with input = U diag(S) V^T; V is transposed in :func:`gpunet.linalg.svd`.

    Args:
        some: the columns of U and V that belong to singular values; False gives square U and V.
        compute_uv: False gives zeros for U and V.
    """
    x = check_matrix("svd", input)
    n, m = x.array.shape[-2:]
    if compute_uv:
        return _u_s_v(x, some)
    batch = x.array.shape[:-2]
    zeros = [make_tensor(empty((*batch, size, size), x.dtype, x.array)).fill_(0) for size in (n, m)]
    return SVD(zeros[0], in_accumulator(_svdvals)(x), zeros[1])


# ---- pseudo-inverse, least squares ----------------------------------------------------------------------------------------------


def cutoff(function: str, x: Tensor, atol: Any, rtol: Any) -> tuple[float, float]:
    """(atol, rtol) of a rank: a singular value counts if it is above the larger of atol and rtol times the largest one."""
    for name, tolerance in (("atol", atol), ("rtol", rtol)):
        if isinstance(tolerance, Tensor) and tolerance.ndim:
            raise ShapeError(f"{function}: {name} has shape {tuple(tolerance.shape)}; expected a number or a 0-d tensor")
    low = 0.0 if atol is None else as_number(function, "atol", atol)
    if rtol is not None:
        return low, as_number(function, "rtol", rtol)
    eps = float(dtypes.finfo(dtypes.accumulator(x.dtype)).eps)
    return low, max(x.array.shape[-2:]) * eps if low <= 0.0 else 0.0


def _store_pinv(xp: Any, out: Any, x: Any, *, atol: float, rtol: float) -> None:
    u, s, vh = xp.linalg.svd(x, full_matrices=False)
    is_kept = s > xp.maximum(rtol * s[..., :1], atol)
    inverse = xp.where(is_kept, 1.0 / xp.where(is_kept, s, 1.0), 0.0)
    xp.matmul(xp.swapaxes(vh, -1, -2) * inverse[..., None, :], xp.swapaxes(u, -1, -2), out=out)


PINV = library_launch("pinv", _store_pinv)


@primitive
def _pinv(x, *, atol, rtol):
    *batch, n, m = x.array.shape
    out = empty((*batch, m, n), x.dtype, x.array)
    if out.size:
        PINV(out, x.array, atol=atol, rtol=rtol)
    return out


def _pinv_derivative(g, x, out):
    """The gradient for a rank that does not change."""
    p, pt, gt = out, out.mT, g.mT
    first = _matmul(_matmul(pt, g), pt)
    gtp = _matmul(_matmul(gt, p), pt)  # (n, n)
    ppg = _matmul(_matmul(pt, p), gt)  # (n, m)
    second = gtp - _matmul(x, _matmul(p, gtp))
    third = ppg - _matmul(_matmul(ppg, p), x)
    return second + third - first


_pinv.derivatives(x=_pinv_derivative)


def pinv_of(function: str, x: Any, atol: Any, rtol: Any) -> Tensor:
    """The pseudo-inverse, on behalf of ``function``."""
    x = check_matrix(function, x)
    low, relative = cutoff(function, x, atol, rtol)
    return in_accumulator(functools.partial(_pinv, atol=low, rtol=relative))(x)


@public("pinverse", out=False, autocast="cpu: float32")
def pinverse(input: Any, rcond: float = 1e-15) -> Tensor:
    """The pseudo-inverse of matrices; singular values of at most ``rcond`` times the largest count as 0."""
    return pinv_of("pinverse", input, None, as_number("pinverse", "rcond", rcond))


def _store_lstsq(xp: Any, out: Any, a: Any, b: Any, *, rcond: float) -> None:
    if rcond >= 1.0:  # no singular value counts; LAPACK's gelsd would take another tolerance
        out.fill(0)
        return
    for place in numpy.ndindex(*out.shape[:-2]):
        out[place] = xp.linalg.lstsq(a[place], b[place], rcond=rcond)[0]


LSTSQ = library_launch("lstsq", _store_lstsq)


@primitive
def _lstsq(a, b, *, rcond):
    """a (..., n, m), b (..., n, k) of equal batches -> x (..., m, k) of least |a x - b|, and of least norm."""
    out = empty((*a.array.shape[:-2], a.array.shape[-1], b.array.shape[-1]), result_dtype(a, b), b.array)
    if out.size:
        LSTSQ(out, a.array, b.array, rcond=rcond)
    return out


def _lstsq_derivative(g, a, b, rcond):
    return _pinv_derivative(_matmul(g, b.mT), a, _pinv(a, atol=0.0, rtol=rcond))


_lstsq.derivatives(a=_lstsq_derivative, b=lambda g, a, rcond: _matmul(_pinv(a, atol=0.0, rtol=rcond).mT, g))
