"""Samples of inverses, solvers and factorisations; of results that are determined up to signs, the magnitudes."""

from __future__ import annotations

import numpy

import gpunet
from gpunet import linalg
from gpunet.autograd import OPS
from tests.samples.inputs import matrices, normal
from tests.samples.row import row


def symmetric(x: numpy.ndarray) -> numpy.ndarray:
    return x + x.swapaxes(-1, -2)


def positive(x: numpy.ndarray) -> numpy.ndarray:
    return x @ x.swapaxes(-1, -2)


def cofactors(x: numpy.ndarray) -> numpy.ndarray:
    return numpy.linalg.det(x)[..., None, None] * numpy.linalg.inv(x).swapaxes(-1, -2)


def least_squares(a: numpy.ndarray, b: numpy.ndarray) -> numpy.ndarray:
    return numpy.linalg.pinv(a) @ b


row(
    "_inverse", linalg.inv, numpy.linalg.inv, matrices(2, 3, 3), torch=lambda torch, x: torch.linalg.inv(x), name="batch",
)  # fmt: skip
row("_solve", linalg.solve, numpy.linalg.solve, matrices(2, 3, 3), normal(3, 2), torch=lambda torch, *x: torch.linalg.solve(*x))
row(
    "_solve", lambda a, b: linalg.solve(a, b, left=False), lambda a, b: b @ numpy.linalg.inv(a), matrices(3, 3), normal(2, 3),
    torch=lambda torch, *x: torch.linalg.solve(*x, left=False), name="from the right",
)  # fmt: skip
for _upper, _unit in ((True, False), (False, False), (True, True)):
    row(
        "_solve_triangular", lambda a, b, u=_upper, v=_unit: linalg.solve_triangular(a, b, upper=u, unitriangular=v),
        lambda a, b, u=_upper, v=_unit: numpy.linalg.solve(
            (numpy.triu if u else numpy.tril)(a - v * numpy.eye(3) * (a - numpy.eye(3))), b
        ),
        matrices(2, 3, 3), normal(2, 3, 2), name=f"{'upper' if _upper else 'lower'}{' unit' if _unit else ''}",
        torch=lambda torch, a, b, u=_upper, v=_unit: torch.linalg.solve_triangular(a, b, upper=u, unitriangular=v),
    )  # fmt: skip
row("_det", linalg.det, numpy.linalg.det, matrices(2, 3, 3), torch="det")
row("_cofactors", OPS["_cofactors"].call, cofactors, matrices(2, 3, 3))
row("_slogdet", lambda x: linalg.slogdet(x).logabsdet, lambda x: numpy.linalg.slogdet(x)[1], matrices(2, 3, 3), torch="logdet")
row(
    "_cholesky", lambda x: linalg.cholesky(x @ x.mT), lambda x: numpy.linalg.cholesky(positive(x)), matrices(2, 3, 3),
    torch=lambda torch, x: torch.linalg.cholesky(x @ x.mT),
)  # fmt: skip
row(
    "_solve_triangular", lambda x: gpunet.cholesky_inverse(x, True), lambda x: numpy.linalg.inv(positive(numpy.triu(x).T)),
    matrices(3, 3), name="cholesky_inverse",
)  # fmt: skip
row(
    "_solve_triangular", lambda b, x: gpunet.cholesky_solve(b, x), lambda b, x: numpy.linalg.solve(positive(numpy.tril(x)), b),
    normal(3, 2), matrices(3, 3), name="cholesky_solve",
)  # fmt: skip
for _shape in ((2, 3, 3), (4, 3), (3, 4)):
    row(
        "_orthogonal", lambda x: linalg.qr(x).Q, lambda x: numpy.linalg.qr(x)[0], matrices(*_shape),
        torch=lambda torch, x: torch.linalg.qr(x).Q, name=f"q of {_shape}",
    )  # fmt: skip
    row(
        "_orthogonal", lambda x: linalg.qr(x).R, lambda x: numpy.linalg.qr(x)[1], matrices(*_shape),
        torch=lambda torch, x: torch.linalg.qr(x).R, name=f"r of {_shape}",
    )  # fmt: skip
    row(
        "_svd", lambda x: linalg.svd(x, False).U.abs(), lambda x: numpy.abs(numpy.linalg.svd(x, False)[0]), matrices(*_shape),
        torch=lambda torch, x: torch.linalg.svd(x, False).U.abs(), name=f"u of {_shape}",
    )  # fmt: skip
    row(
        "_svd", lambda x: linalg.svd(x).Vh[..., :3, :].abs(), lambda x: numpy.abs(numpy.linalg.svd(x)[2][..., :3, :]),
        matrices(*_shape), torch=lambda torch, x: torch.linalg.svd(x).Vh[..., :3, :].abs(), name=f"vh of {_shape}",
    )  # fmt: skip
    row(
        "_svdvals", linalg.svdvals, lambda x: numpy.linalg.svd(x, compute_uv=False), matrices(*_shape),
        torch=lambda torch, x: torch.linalg.svdvals(x), name=f"of {_shape}",
    )  # fmt: skip
    row("_pinv", linalg.pinv, numpy.linalg.pinv, matrices(*_shape), torch="pinverse", name=f"of {_shape}")
    row(
        "_lstsq", lambda a, b: linalg.lstsq(a, b).solution, least_squares, matrices(*_shape), normal(*_shape[:-1], 2),
        torch=lambda torch, a, b: torch.linalg.lstsq(a, b).solution, name=f"of {_shape}",
    )  # fmt: skip
row(
    "_svd", lambda x: (lambda u, s, vh: (u * s.unsqueeze(-2)) @ vh)(*linalg.svd(x, False)), lambda x: x, matrices(4, 3),
    name="product",
)  # fmt: skip
row(
    "_eig", lambda x: linalg.eigvals(x).real.sum(-1) + linalg.eigvals(x).abs().prod(-1),
    lambda x: numpy.trace(x, axis1=-2, axis2=-1) + abs(numpy.linalg.det(x)), matrices(2, 3, 3), name="values",
    torch=lambda torch, x: torch.linalg.eigvals(x).real.sum(-1) + torch.linalg.eigvals(x).abs().prod(-1),
    takes_halves=False,  # the eigenvalues are complex, so their parts are float32
)  # fmt: skip
row(
    "_eigh", lambda x: linalg.eigh(x + x.mT).eigenvectors.abs(), lambda x: numpy.abs(numpy.linalg.eigh(symmetric(x))[1]),
    matrices(2, 3, 3), torch=lambda torch, x: torch.linalg.eigh(x + x.mT).eigenvectors.abs(), name="vectors",
)  # fmt: skip
row(
    "_eigh", lambda x: linalg.eigvalsh(x + x.mT, "U"), lambda x: numpy.linalg.eigvalsh(symmetric(x)), matrices(2, 3, 3),
    torch=lambda torch, x: torch.linalg.eigvalsh(x + x.mT), name="values",
)  # fmt: skip
for _power in (3, -2):
    row(
        "_matmul", lambda x, n=_power: linalg.matrix_power(x, n), lambda x, n=_power: numpy.linalg.matrix_power(x, n),
        matrices(3, 3), torch=lambda torch, x, n=_power: torch.linalg.matrix_power(x, n), name=f"matrix_power {_power}",
    )  # fmt: skip
for _order in ("fro", "nuc", 1, -1, 2, -2, numpy.inf, -numpy.inf):
    row(
        {"fro": "_sum", "nuc": "_svdvals", 2: "_svdvals", -2: "_svdvals"}.get(_order, "_extreme"),
        lambda x, p=_order: linalg.matrix_norm(x, p), lambda x, p=_order: numpy.linalg.norm(x, p, (-2, -1)), matrices(2, 4, 3),
        torch=lambda torch, x, p=_order: torch.linalg.matrix_norm(x, p), name=f"matrix_norm {_order}",
    )  # fmt: skip
row("_matmul", lambda a, b, c: linalg.multi_dot([a, b, c]), lambda a, b, c: a @ b @ c, normal(4), normal(4, 3), normal(3, 2),
    torch=lambda torch, *x: torch.linalg.multi_dot(x), name="multi_dot")  # fmt: skip
row("_roll", gpunet.cross, numpy.cross, normal(2, 3), normal(2, 3), torch=lambda torch, *x: torch.linalg.cross(*x), name="cross")
row("_sum", linalg.vecdot, lambda a, b: (a * b).sum(-1), normal(2, 3), normal(3), name="vecdot",
    torch=lambda torch, *x: torch.linalg.vecdot(*x))  # fmt: skip


def factors(x: numpy.ndarray) -> numpy.ndarray:
    """Gaussian elimination without exchanges: U, and L below the diagonal."""
    out = numpy.array(x)
    for k in range(out.shape[-1]):
        out[..., k + 1 :, k] /= out[..., k, None, k]
        out[..., k + 1 :, k + 1 :] -= out[..., k + 1 :, k, None] * out[..., k, None, k + 1 :]
    return out


row(
    "_factors_of", lambda x: linalg.lu_factor(x, pivot=False).LU, factors, matrices(2, 3, 3), name="without exchanges",
)  # fmt: skip
