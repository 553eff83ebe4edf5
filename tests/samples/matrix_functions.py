"""Samples of functions of matrices: reflections, norms, factors, and solvers under their older names."""

from __future__ import annotations

from typing import Any

import numpy
import scipy.linalg

import gpunet
from gpunet import linalg
from tests.samples.inputs import distinct, matrices, normal, positive, uniform
from tests.samples.row import row


def _reflections(a: numpy.ndarray, tau: numpy.ndarray) -> numpy.ndarray:
    """The square product of the reflections I - tau v v^T, whose vectors stand below the diagonal of ``a``."""
    n, count = a.shape[-2], tau.shape[-1]
    vectors = numpy.tril(a, -1) + numpy.eye(*a.shape[-2:])
    found = numpy.eye(n)
    for i in range(count):
        v = vectors[..., i, None]
        found = found @ (numpy.eye(n) - tau[..., i, None, None] * (v @ v.swapaxes(-1, -2)))
    return found


for _name, _shape in (("tall", (2, 4, 3)), ("square", (3, 3))):
    row(
        "_sub", linalg.householder_product, lambda a, tau: _reflections(a, tau)[..., : a.shape[-1]], normal(*_shape),
        positive(*_shape[:-2], 2), torch=lambda torch, *x: torch.linalg.householder_product(*x),
        name=f"householder_product of {_name} matrices",
    )  # fmt: skip
for _left, _transposed in ((True, False), (True, True), (False, False)):

    def _ormqr(a: Any, tau: Any, c: Any, left: bool = _left, transposed: bool = _transposed) -> Any:
        q = _reflections(a, tau)
        q = q.T if transposed else q
        return q @ c if left else c @ q

    row(
        "_sub", lambda *x, o=(_left, _transposed): gpunet.ormqr(*x, *o), _ormqr, uniform(-1.0, 1.0, 4, 3), uniform(0.5, 1.0, 3),
        normal(*((4, 2) if _left else (2, 4))), torch=lambda torch, *x, o=(_left, _transposed): torch.ormqr(*x, *o),
        name=f"ormqr {'from the left' if _left else 'from the right'}{', transposed' if _transposed else ''}",
    )  # fmt: skip
row("_inverse", lambda x: linalg.inv_ex(x).inverse, numpy.linalg.inv, matrices(2, 3, 3), name="inv_ex",
    torch=lambda torch, x: torch.linalg.inv_ex(x).inverse)  # fmt: skip
row("_solve", lambda a, b: linalg.solve_ex(a, b).result, numpy.linalg.solve, matrices(2, 3, 3), normal(2, 3, 2), name="solve_ex",
    torch=lambda torch, *x: torch.linalg.solve_ex(*x).result)  # fmt: skip
row("_cholesky", lambda x: linalg.cholesky_ex(x @ x.mT).L, lambda x: numpy.linalg.cholesky(x @ x.swapaxes(-1, -2)),
    matrices(2, 3, 3), name="cholesky_ex", takes_halves=False,
    torch=lambda torch, x: torch.linalg.cholesky_ex(x @ x.mT).L)  # fmt: skip
row("_inverse", lambda x: linalg.tensorinv(x.reshape(2, 3, 6)), lambda x: numpy.linalg.inv(x).reshape(6, 2, 3), matrices(6, 6),
    name="tensorinv", torch=lambda torch, x: torch.linalg.tensorinv(x.reshape(2, 3, 6)))  # fmt: skip
row(
    "_solve", lambda a, b: linalg.tensorsolve(a.reshape(2, 3, 3, 2), b),
    lambda a, b: numpy.linalg.solve(a, b.ravel()).reshape(3, 2), matrices(6, 6), normal(2, 3), name="tensorsolve",
    torch=lambda torch, a, b: torch.linalg.tensorsolve(a.reshape(2, 3, 3, 2), b),
)  # fmt: skip
row("_pow", lambda x: linalg.vander(x, N=4), lambda x: x[..., None] ** numpy.arange(4), distinct(2, 3), name="linalg.vander",
    torch=lambda torch, x: torch.linalg.vander(x, N=4))  # fmt: skip
for _upper, _transposed, _unit in ((True, False, False), (False, True, False), (True, True, True)):

    def _triangular(b: Any, a: Any, upper: bool = _upper, transposed: bool = _transposed, unit: bool = _unit) -> Any:
        factor = (numpy.triu if upper else numpy.tril)(a - unit * numpy.eye(3) * (a - numpy.eye(3)))
        return numpy.linalg.solve(factor.swapaxes(-1, -2) if transposed else factor, b)

    row(
        "_solve_triangular", lambda b, a, o=(_upper, _transposed, _unit): gpunet.triangular_solve(b, a, *o).solution, _triangular,
        normal(2, 3, 2), matrices(2, 3, 3), name=f"triangular_solve {_upper, _transposed, _unit}",
    )  # fmt: skip
row("sqrt_0", lambda x: gpunet.frobenius_norm(x, (0, 2)), lambda x: numpy.sqrt((x * x).sum((0, 2))), normal(2, 4, 3),
    name="frobenius_norm", torch=lambda torch, x: torch.linalg.vector_norm(x, 2, (0, 2)))  # fmt: skip
row("_svdvals", lambda x: gpunet.nuclear_norm(x, (2, 0), True), lambda x: numpy.linalg.norm(x, "nuc", (2, 0), True),
    matrices(4, 2, 3), name="nuclear_norm", torch=lambda torch, x: torch.linalg.matrix_norm(x, "nuc", (2, 0), True))  # fmt: skip
for _order, _dim in ((2, 1), (3, 0), (2, -1)):
    row(
        "_sum", lambda x, p=_order, d=_dim: gpunet.norm_except_dim(x, p, d),
        lambda x, p=_order, d=_dim: (abs(x) ** p).sum(None if d < 0 else (1 - d, 2), keepdims=d >= 0) ** (1 / p),
        normal(2, 4, 3), name=f"norm_except_dim {_order, _dim}",
        torch=lambda torch, x, p=_order, d=_dim: torch.norm_except_dim(x, p, d),
    )  # fmt: skip
row("_where", lambda x: linalg.vector_norm(x, 3.5, (0, 2)), lambda x: (abs(x) ** 3.5).sum((0, 2)) ** (1 / 3.5), distinct(2, 4, 3),
    name="vector_norm", torch=lambda torch, x: torch.linalg.vector_norm(x, 3.5, (0, 2)))  # fmt: skip
row("_svdvals", lambda x: linalg.norm(x, "nuc"), lambda x: numpy.linalg.norm(x, "nuc"), matrices(4, 3), name="linalg.norm",
    torch=lambda torch, x: torch.linalg.norm(x, "nuc"))  # fmt: skip
row("_svdvals", linalg.cond, numpy.linalg.cond, matrices(2, 3, 3), name="cond", takes_halves=False,
    torch=lambda torch, x: torch.linalg.cond(x))  # fmt: skip
row("_inverse", lambda x: linalg.cond(x, 1), lambda x: numpy.linalg.cond(x, 1), matrices(3, 3), name="cond 1", takes_halves=False)


def _factors(x: numpy.ndarray) -> numpy.ndarray:
    lower, upper = scipy.linalg.lu(x, permute_l=False)[1:]
    return lower @ upper.T


def _product_of_factors(library: Any, x: Any) -> Any:
    p, lower, upper = library.lu_unpack(*library.linalg.lu_factor_ex(x)[:2])
    return p @ lower @ upper


row("_factors_of", lambda x: linalg.lu(x).L @ linalg.lu(x).U.mT, _factors, matrices(3, 3), name="lu",
    torch=lambda torch, x: torch.linalg.lu(x).L @ torch.linalg.lu(x).U.mT)  # fmt: skip
row("_factors_of", lambda x: _product_of_factors(gpunet, x), lambda x: x, matrices(2, 4, 3), name="lu_unpack",
    torch=_product_of_factors)  # fmt: skip
row("_factors_of", lambda a, b: linalg.lu_solve(*linalg.lu_factor(a), b), numpy.linalg.solve, matrices(2, 3, 3), normal(2, 3, 2),
    name="lu_solve", torch=lambda torch, a, b: torch.linalg.lu_solve(*torch.linalg.lu_factor(a), b))  # fmt: skip
row("_eigh", lambda x: gpunet.lobpcg(x @ x.mT, 2)[0], lambda x: numpy.linalg.eigvalsh(x @ x.T)[:0:-1], matrices(3, 3),
    name="lobpcg", takes_halves=False)
row(
    "_eigh", lambda a, b: gpunet.lobpcg(a @ a.mT, 1, b @ b.mT, largest=False)[0],
    lambda a, b: scipy.linalg.eigvalsh(a @ a.T, b @ b.T)[:1], matrices(3, 3), matrices(3, 3), name="lobpcg of two matrices",
    takes_halves=False,
)  # fmt: skip
row("_eig", lambda x: linalg.eig(x + x.mT).eigenvectors.abs().prod(-1), lambda x: abs(numpy.linalg.eigh(x + x.T)[1]).prod(-1),
    matrices(3, 3), name="vectors", takes_halves=False)  # fmt: skip
