"""Inverses, determinants, Cholesky and QR factorisations, by LAPACK (NumPy) and cuSOLVER (CuPy); batches stand in front.

The library functions are opaque launches; derivatives are ops on tensors, so that they can be differentiated again.  Sources of
the derivatives: M. Giles, Collected matrix derivative results for forward and reverse mode algorithmic differentiation, 2008;
S. Walter and L. Lehmann, Algorithmic differentiation of linear algebra functions, 2010 (QR).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from gpunet.autograd import Tensor, make_tensor, primitive, wrap
from gpunet.backend import devices
from gpunet.backend.dtypes import is_floating
from gpunet.errors import DtypeError, GradientError, LinAlgError, MissingDependencyError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.launch.tape import constant
from gpunet.ops.broadcast import broadcast_shape, in_accumulator, result_dtype
from gpunet.ops.convert import clone
from gpunet.ops.diagonal import _diagonal, _undiagonal
from gpunet.ops.elementwise import where
from gpunet.ops.face import as_integer, public
from gpunet.ops.index import _index, tril, triu
from gpunet.ops.matmul import _matmul
from gpunet.ops.reduce import _sum
from gpunet.ops.shape import _expand, _reshape

__all__ = [
    "cholesky", "cholesky_inverse", "cholesky_solve", "det", "inverse", "logdet", "matrix_power", "qr", "slogdet",
]  # fmt: skip


# ---- arguments, launches ------------------------------------------------------------------------------------------------


def check_matrix(function: str, x: Any, is_square: bool = False, name: str = "the tensor") -> Tensor:
    """Return an argument as a tensor of floating matrices.

    Raises:
        ShapeError: it has fewer than two dimensions, or the matrices are not square.
        DtypeError: the dtype is not floating.
    """
    x = wrap(x, function)
    if x.ndim < 2 or (is_square and x.array.shape[-1] != x.array.shape[-2]):
        kind = "square matrices" if is_square else "matrices"
        raise ShapeError(f"{function}: {name} has shape {tuple(x.shape)}; expected {kind} in the last two dimensions")
    if not is_floating(x.dtype):
        raise DtypeError(f"{function}: {name} has dtype {x.dtype}; expected a floating dtype: convert it with .float()")
    return x


def library_launch(name: str, function: Callable[..., None]) -> Shim:
    """A launch of a function of ``xp.linalg``, which reads values; its errors become ours."""

    def run(xp: Any, *arrays: Any, **options: Any) -> None:
        if isinstance(arrays[0], devices.EmulatedArray):  # LAPACK computes in its memory; its own functions allocate on the CPU
            xp, arrays = numpy, tuple([array.view(numpy.ndarray) for array in arrays])
        try:
            function(xp, *arrays, **options)
        except numpy.linalg.LinAlgError as error:
            raise LinAlgError(f"{name}: {str(error)[:1].lower()}{str(error)[1:]}") from None
        except (ImportError, OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not re.search("NOT_(SUPPORTED|INITIALIZED)", str(error)):
                raise
            raise MissingDependencyError(
                f"{name} on a GPU needs NVIDIA's cuSOLVER and cuBLAS ({error}): install the packages nvidia-cusolver-cu12 and "
                "nvidia-cublas-cu12, or compute it on the CPU, as in x.cpu()",
                name="cusolver",
            ) from None

    return Shim(name, run, reads_values=True)


def _mirrored(x: Tensor) -> Tensor:
    """The lower triangle of x, reflected in the diagonal."""
    return tril(x) + tril(x, -1).mT


def eye_like(x: Tensor, rows: int, columns: int | None = None) -> Tensor:
    """Ones on the diagonal, zeros elsewhere; a constant of recorded steps, in which a slice of one would not be known on a GPU."""
    return make_tensor(constant(devices.module(x.array).eye(rows, columns, dtype=x.dtype)))


# ---- inverse, solve -------------------------------------------------------------------------------------------------------

INVERSE = library_launch("inverse", lambda xp, out, x: xp.copyto(out, xp.linalg.inv(x)))
def _solved(xp: Any, out: Any, a: Any, b: Any) -> None:
    """out = a^-1 b.  CuPy does not broadcast the batches."""
    batch = out.shape[:-2]
    xp.copyto(out, xp.linalg.solve(xp.broadcast_to(a, batch + a.shape[-2:]), xp.broadcast_to(b, batch + b.shape[-2:])))


SOLVE = library_launch("solve", _solved)


@primitive
def _inverse(x):
    out = empty(x.array.shape, x.dtype, x.array)
    if out.size:
        INVERSE(out, x.array)
    return out


_inverse.derivatives(x=lambda g, out: -_matmul(_matmul(out.mT, g), out.mT))


@primitive(takes_complex=True)
def _solve(a, b):
    """a (..., n, n), b (..., n, k) -> x with a x = b; batches broadcast."""
    batch = broadcast_shape("solve", a.array.shape[:-2], b.array.shape[:-2])
    out = empty((*batch, *b.array.shape[-2:]), result_dtype(a, b), b.array)
    if out.size:
        SOLVE(out, a.array, b.array)
    return out


_solve.derivatives(a=lambda g, a, out: -_matmul(_solve(a.mT, g), out.mT), b=lambda g, a: _solve(a.mT, g))


def _triangle_of(xp: Any, a: Any, upper: bool, unit: bool) -> Any:
    triangle = xp.triu(a, int(unit)) if upper else xp.tril(a, -int(unit))
    return triangle + xp.eye(a.shape[-1], dtype=a.dtype) if unit else triangle


SOLVE_TRIANGULAR = library_launch(
    "solve_triangular",
    lambda xp, out, a, b, *, upper, unit: _solved(xp, out, _triangle_of(xp, a, upper, unit), b),
)


@primitive
def _solve_triangular(a, b, *, upper, unit=False):
    """:func:`_solve` of the upper or lower triangle of a, with ones on the diagonal if ``unit``."""
    batch = broadcast_shape("solve_triangular", a.array.shape[:-2], b.array.shape[:-2])
    out = empty((*batch, *b.array.shape[-2:]), result_dtype(a, b), b.array)
    if out.size:
        SOLVE_TRIANGULAR(out, a.array, b.array, upper=upper, unit=unit)
    return out


def _triangular_derivative(g, a, out, upper, unit):
    full = -_matmul(_solve_triangular(a.mT, g, upper=not upper, unit=unit), out.mT)
    return triu(full, int(unit)) if upper else tril(full, -int(unit))


_solve_triangular.derivatives(
    a=_triangular_derivative, b=lambda g, a, upper, unit: _solve_triangular(a.mT, g, upper=not upper, unit=unit)
)


def inverse_of(function: str, x: Any) -> Tensor:
    """The inverse, on behalf of ``function``."""
    return in_accumulator(_inverse)(check_matrix(function, x, is_square=True))


@public("inverse", autocast="cpu: float32")
def inverse(input: Any) -> Tensor:
    """The inverse of square matrices.

    Raises:
        LinAlgError: a matrix is singular.
    """
    return inverse_of("inverse", input)


def matrix_power_of(function: str, x: Any, n: Any) -> Tensor:
    """The n-th power by repeated squaring, on behalf of ``function``."""
    x, power = check_matrix(function, x, is_square=True), as_integer(function, "n", n)
    return in_accumulator(_power)(x, power)


def _power(x: Tensor, n: int) -> Tensor:
    if n == 0:
        return clone(_expand("matrix_power", eye_like(x, x.array.shape[-1]), x.array.shape))
    base, n = (_inverse(x), -n) if n < 0 else (x, n)
    result: Tensor | None = None
    while n:
        if n & 1:
            result = base if result is None else _matmul(result, base)
        n >>= 1
        base = _matmul(base, base) if n else base
    assert result is not None
    return clone(result) if result is x else result


@public("matrix_power", autocast="half")
def matrix_power(input: Any, n: int) -> Tensor:
    """The n-th power of square matrices; a negative one is a power of the inverse.

    Raises:
        LinAlgError: n is negative, and a matrix is singular.
    """
    return matrix_power_of("matrix_power", input, n)


# ---- determinant ----------------------------------------------------------------------------------------------------------

DET = library_launch("det", lambda xp, out, x: xp.copyto(out, xp.linalg.det(x)))


@primitive
def _det(x):
    out = empty(x.array.shape[:-2], x.dtype, x.array)
    DET(out, x.array)
    return out


_det.derivatives(x=lambda g, x: _reshape(g, shape=(*g.array.shape, 1, 1)) * _cofactors(x))


def _cofactors_by_svd(xp: Any, out: Any, x: Any) -> None:
    """det(x) x^-T without a division, so that it holds for singular matrices: det(u vh) u diag(products of other values) vh."""
    u, s, vh = xp.linalg.svd(x)
    ones = xp.ones_like(s[..., :1])
    before = xp.cumprod(xp.concatenate([ones, s[..., :-1]], axis=-1), axis=-1)
    behind = xp.cumprod(xp.concatenate([ones, s[..., :0:-1]], axis=-1), axis=-1)[..., ::-1]
    sign = xp.rint(xp.linalg.det(u) * xp.linalg.det(vh))[..., None, None]
    xp.copyto(out, sign * xp.matmul(u * (before * behind)[..., None, :], vh))


COFACTORS = library_launch("det", _cofactors_by_svd)


@primitive(name="det")
def _cofactors(x):
    out = empty(x.array.shape, x.dtype, x.array)
    if out.size:
        COFACTORS(out, x.array)
    return out


def _cofactors_derivative(g, x, out):
    inverse = _inverse(x).mT
    scale = _sum(g * out, axes=(x.ndim - 2, x.ndim - 1), keepdim=True)
    return inverse * scale - _matmul(_matmul(out, g.mT), inverse)


_cofactors.derivatives(x=_cofactors_derivative)


def _store_slogdet(xp: Any, out: Any, x: Any) -> None:
    out[..., 0], out[..., 1] = xp.linalg.slogdet(x)


SLOGDET = library_launch("slogdet", _store_slogdet)


@primitive
def _slogdet(x):
    """(..., 2): the sign of the determinant, and the logarithm of its magnitude."""
    out = empty((*x.array.shape[:-2], 2), x.dtype, x.array)
    SLOGDET(out, x.array)
    return out


def _slogdet_derivative(g, x):
    return _reshape(_index(g, pattern=(Ellipsis, 1)), shape=(*g.array.shape[:-1], 1, 1)) * _inverse(x).mT


_slogdet.derivatives(x=_slogdet_derivative)


class SignLogDet(NamedTuple):
    """Return type of slogdet."""

    sign: Tensor
    logabsdet: Tensor


@in_accumulator
def _sign_and_log(x: Tensor) -> SignLogDet:
    packed = _slogdet(x)
    return SignLogDet(_index(packed.detach(), pattern=(Ellipsis, 0)), _index(packed, pattern=(Ellipsis, 1)))


def slogdet_of(function: str, x: Any) -> SignLogDet:
    """(sign, logarithm of the magnitude) of the determinant, on behalf of ``function``."""
    found: SignLogDet = _sign_and_log(check_matrix(function, x, is_square=True))
    return found


@public("det")
def det(input: Any) -> Tensor:
    """The determinant of square matrices; it has a gradient for singular ones, too."""
    return in_accumulator(_det)(check_matrix("det", input, is_square=True))


@public("slogdet")
def slogdet(input: Any) -> SignLogDet:
    """The sign of the determinant of square matrices, and the logarithm of its magnitude: 0 and -inf for singular ones.

    Raises:
        LinAlgError: the gradient of a singular matrix is computed.
    """
    return slogdet_of("slogdet", input)


@public("logdet", out=False)
def logdet(input: Any) -> Tensor:
    """The logarithm of the determinant of square matrices: -inf of 0, NaN of a negative one."""
    sign, logarithm = slogdet_of("logdet", input)
    return where(sign < 0, math.nan, logarithm)


# ---- Cholesky ---------------------------------------------------------------------------------------------------------------

CHOLESKY = library_launch("cholesky", lambda xp, out, x: xp.copyto(out, xp.linalg.cholesky(x)))


@primitive
def _cholesky(x):
    """The lower triangle l with l l^T = x; reads the lower triangle of x."""
    out = empty(x.array.shape, x.dtype, x.array)
    if out.size:
        CHOLESKY(out, x.array)
    return out


def _cholesky_derivative(g, out):
    inner = tril(_matmul(out.mT, g))
    inner = inner - 0.5 * _on_diagonal(inner)
    left = _solve_triangular(out.mT, inner, upper=True)  # l^-T inner
    full = _solve_triangular(out.mT, left.mT, upper=True)  # (l^-T inner l^-1)^T
    return 0.5 * (full + full.mT)


def _on_diagonal(x):
    ndim = x.ndim
    return _undiagonal(
        _diagonal(x, offset=0, dim1=ndim - 2, dim2=ndim - 1), shape=x.array.shape, offset=0, dim1=ndim - 2, dim2=ndim - 1
    )


_cholesky.derivatives(x=_cholesky_derivative)


def cholesky_of(function: str, x: Any, upper: bool) -> Tensor:
    """The triangle of the Cholesky factorisation, on behalf of ``function``."""
    x = check_matrix(function, x, is_square=True)
    lower = in_accumulator(_cholesky)(x.mT if upper else x)
    return lower.mT if upper else lower


@public("cholesky", autocast="cpu: float32")
def cholesky(input: Any, upper: bool = False) -> Tensor:
    """The lower triangular l with l l^T = input, or the upper u with u^T u = input, of positive definite matrices.

    Raises:
        LinAlgError: a matrix is not positive definite.
    """
    return cholesky_of("cholesky", input, upper)


def _solve_by_cholesky(b: Tensor, triangle: Tensor, upper: bool) -> Tensor:
    lower = triangle.mT if upper else triangle
    return _solve_triangular(lower.mT, _solve_triangular(lower, b, upper=False), upper=True)


@public("cholesky_solve", names={"input2": "L"}, autocast="cpu: float32")
def cholesky_solve(input: Any, L: Any, upper: bool = False) -> Tensor:  # noqa: N803
    """The x of a x = input, (..., n, k), for a given by its Cholesky factor ``L``, (..., n, n).

    Raises:
        LinAlgError: a factor is singular.
    """
    b, factor = check_matrix("cholesky_solve", input), check_matrix("cholesky_solve", L, is_square=True, name="L")
    if b.array.shape[-2] != factor.array.shape[-1]:
        raise ShapeError(f"cholesky_solve: shapes {tuple(b.shape)} and {tuple(factor.shape)}; expected (..., n, k), (..., n, n)")
    return in_accumulator(_solve_by_cholesky)(b, factor, upper)


@public("cholesky_inverse", autocast="cpu: float32")
def cholesky_inverse(input: Any, upper: bool = False) -> Tensor:
    """The inverse of positive definite matrices given by their Cholesky factors.

    Raises:
        LinAlgError: a factor is singular.
    """
    factor = check_matrix("cholesky_inverse", input, is_square=True)
    return in_accumulator(_solve_by_cholesky)(eye_like(factor, factor.array.shape[-1]), factor, upper)


# ---- QR -----------------------------------------------------------------------------------------------------------------------


class QR(NamedTuple):
    """Return type of qr."""

    Q: Tensor
    R: Tensor


Q_OF = library_launch(
    "qr", lambda xp, out, x, *, mode: xp.copyto(out, xp.linalg.qr(x, mode=mode)[0])
)


@primitive
def _orthogonal(x):
    """q (..., n, m) of the QR factorisation of x (..., n, m), n >= m."""
    out = empty(x.array.shape, x.dtype, x.array)
    if out.size:
        Q_OF(out, x.array, mode="reduced")
    return out


def _orthogonal_derivative(g, x, out):
    r = _matmul(out.mT, x)
    if out.array.shape[-2] == out.array.shape[-1]:  # the same, without differences that cancel
        product = _matmul(out.mT, g)
        inner = _matmul(out, tril(product - product.mT, -1))
    else:
        inner = g - _matmul(out, _mirrored(_matmul(g.mT, out)))
    return _solve_triangular(r, inner.mT, upper=True).mT


_orthogonal.derivatives(x=_orthogonal_derivative)


def qr_of(function: str, x: Any, mode: str) -> QR:
    """The QR factorisation; ``mode`` is "reduced", "complete" or "r"."""
    x = check_matrix(function, x)
    if mode == "complete" and x.array.shape[-2] > x.array.shape[-1]:
        if x.requires_grad:
            raise GradientError(
                f"{function} of a tensor that requires grad, of shape {tuple(x.shape)}: the complete factorisation has no gradient "
                "for more rows than columns; use the reduced one, or .detach()"
            )
        return in_accumulator(_complete_qr)(x)
    found = in_accumulator(_reduced_qr)(x)
    return QR(make_tensor(empty((0,), x.dtype, x.array)), found.R) if mode == "r" else found


def _reduced_qr(x: Tensor) -> QR:
    k = min(x.array.shape[-2:])
    q = _orthogonal(_index(x, pattern=(Ellipsis, slice(0, k))) if k < x.array.shape[-1] else x)
    return QR(q, triu(_matmul(q.mT, x)))


def _complete_qr(x: Tensor) -> QR:
    n, out = x.array.shape[-2], empty((*x.array.shape[:-1], x.array.shape[-2]), x.dtype, x.array)
    if x.array.size:
        Q_OF(out, x.array, mode="complete")
    q = make_tensor(out) if x.array.size else clone(_expand("qr", eye_like(x, n), out.shape))
    return QR(q, triu(_matmul(q.mT, x)))


@public("qr", autocast="cpu: float32")
def qr(input: Any, some: bool = True) -> QR:
    """Q with orthonormal columns and the upper triangular R with Q R = input; see :func:`gpunet.linalg.qr`.

    Args:
        some: Q (..., n, k) and R (..., k, m) with k = min(n, m); False gives Q (..., n, n) and R (..., n, m).
    """
    return qr_of("qr", input, "reduced" if some else "complete")
