"""Eigenvalues and eigenvectors of matrices that are not symmetric: complex numbers.  LAPACK computes them, on the CPU.

Source of the derivative: C. Boeddeker, P. Hanebrink, L. Drude, J. Heymann and R. Haeb-Umbach, On the computation of
complex-valued gradients with application to statistically optimum beamforming, 2017, section 4.
"""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.autograd import Tensor, primitive, wrap
from gpunet.backend import devices
from gpunet.backend.dtypes import accumulator, is_inexact, to_complex
from gpunet.errors import DtypeError, LinAlgError, ShapeError
from gpunet.launch.memory import empty
from gpunet.launch.shims import Shim
from gpunet.ops.complex_numbers import real
from gpunet.ops.diagonal import _diagonal
from gpunet.ops.elementwise import where
from gpunet.ops.face import public
from gpunet.ops.factorize import _solve, eye_like
from gpunet.ops.linalg import NAMES_OF_A, Eigen
from gpunet.ops.matmul import _matmul
from gpunet.ops.spectral import _diagonal_matrix, eigen_parts

__all__ = ["eig", "eigvals"]


def _store_eig(xp: Any, out: Any, x: Any) -> None:
    matrices = numpy.asarray(devices.to_host(x))
    try:
        values, vectors = numpy.linalg.eig(matrices)
    except numpy.linalg.LinAlgError as error:
        raise LinAlgError(f"linalg.eig: {str(error)[:1].lower()}{str(error)[1:]}") from None
    packed = numpy.concatenate([vectors, values[..., None]], -1).astype(out.dtype)
    devices.assign(out, devices.move(packed, devices.of(out)))


EIG = Shim("eig", _store_eig, reads_values=True)


@primitive(name="eig", takes_complex=True)
def _eig(x):
    """(..., n, n + 1), complex: the eigenvectors as columns, then the eigenvalues."""
    out = empty((*x.array.shape[:-1], x.array.shape[-1] + 1), to_complex(x.dtype), x.array)
    if out.size:
        EIG(out, x.array)
    return out


def _eig_derivative(g, out):
    """The arguments are those of a real matrix: the engine passes the conjugates of complex ones."""
    values, vectors = eigen_parts(out)
    g_values, g_vectors = eigen_parts(g)
    product = _matmul(vectors.mT, g_vectors)
    gram = _matmul(vectors.mT, _conjugate_of(vectors))
    lengths = real(_diagonal(product, offset=0, dim1=product.ndim - 2, dim2=product.ndim - 1))
    tangent = product - gram * lengths.unsqueeze(-2)
    gaps = values.unsqueeze(-2) - values.unsqueeze(-1)
    is_own = eye_like(real(values), values.array.shape[-1]) > 0
    inner = where(is_own, 0.0, tangent / where(is_own, 1.0, gaps)) + _diagonal_matrix(g_values)
    return _solve(vectors.mT, _matmul(inner, vectors.mT))


def _conjugate_of(x):
    return x.conj()


_eig.derivatives(x=_eig_derivative)


def _matrices(function: str, A: Any) -> Tensor:  # noqa: N803
    x = wrap(A, function)
    if x.ndim < 2 or x.array.shape[-1] != x.array.shape[-2]:
        raise ShapeError(f"{function}: A has shape {tuple(x.shape)}; expected square matrices in the last two dimensions")
    if not is_inexact(x.dtype):
        raise DtypeError(f"{function}: A has dtype {x.dtype}; expected a floating or complex dtype: convert it with .float()")
    return x if accumulator(x.dtype) == x.dtype else x.float()


@public(names=NAMES_OF_A, autocast="cpu: float32", takes_complex=True)
def eig(A: Any) -> Eigen:  # noqa: N803
    """The complex eigenvalues (..., n), in no order, and eigenvectors of length 1, the columns (..., n, n).

    The gradient holds for matrices with different eigenvalues, and for functions that do not depend on the phases of the vectors.

    Raises:
        LinAlgError: the eigenvalues do not converge.
        ShapeError, DtypeError: A is no tensor of square matrices.
    """
    return Eigen(*eigen_parts(_eig(_matrices("linalg.eig", A))))


@public(names=NAMES_OF_A, autocast="cpu: float32", takes_complex=True)
def eigvals(A: Any) -> Tensor:  # noqa: N803
    """The complex eigenvalues (..., n) of square matrices, in no order; see :func:`eig`."""
    return eigen_parts(_eig(_matrices("linalg.eigvals", A)))[0]
