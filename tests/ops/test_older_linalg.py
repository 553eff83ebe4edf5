"""Linear algebra by LAPACK's names, eigenvalues, LDL and factorisations that tell of failures, few singular values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import linalg
from gpunet.errors import ArgumentError, DtypeError, LinAlgError, ShapeError
from tests.ops.beside_torch import check_complex, check_values_and_gradients, complex_normal

RNG = numpy.random.default_rng(0)
MATRIX = RNG.normal(size=(2, 3, 3)) + 3.0 * numpy.eye(3)
SYMMETRIC = MATRIX + MATRIX.swapaxes(-1, -2)
TALL, VECTORS = RNG.normal(size=(2, 4, 3)), RNG.normal(size=(2, 3, 2))
POSITIVE = MATRIX @ MATRIX.swapaxes(-1, -2)
#: Calls whose values, gradients and second derivatives are PyTorch's.
CALLS: dict[str, tuple[Callable[..., Any], list[numpy.ndarray]]] = {
    "triangular_solve": (lambda t, b, a: t.triangular_solve(b, a, False, True, False).solution, [VECTORS, MATRIX]),
    "triangular_solve with ones": (lambda t, b, a: t.triangular_solve(b, a, unitriangular=True)[0], [VECTORS, MATRIX]),
    "cloned_coefficient": (lambda t, b, a: t.triangular_solve(b, a).cloned_coefficient + b.sum() * 0, [VECTORS, MATRIX]),
    "orgqr": (lambda t, a, tau: t.orgqr(a, tau), [TALL, RNG.normal(size=(2, 3))]),
    "frobenius_norm": (lambda t, x: t.frobenius_norm(x, (0, 2), True), [MATRIX]),
    "frobenius_norm of one": (lambda t, x: t.frobenius_norm(x, 1), [MATRIX]),
    "nuclear_norm": (lambda t, x: t.nuclear_norm(x, (1, 2), True), [MATRIX]),
    "nuclear_norm of a matrix": (lambda t, x: t.nuclear_norm(x, True), [TALL[0]]),
    "norm_except_dim": (lambda t, x: t.norm_except_dim(x, 2, 1), [MATRIX]),
    "norm_except_dim 3": (lambda t, x: t.norm_except_dim(x, 3), [MATRIX]),
    "norm_except_dim of a vector": (lambda t, x: t.norm_except_dim(x, 2, 0), [MATRIX[0, 0]]),
    "norm of all": (lambda t, x: t.norm_except_dim(x, 2, -1), [MATRIX]),
    "cholesky_ex": (lambda t, x: t.linalg.cholesky_ex(x @ x.mT + t.eye(3, dtype=x.dtype, device=x.device)).L, [MATRIX]),
    "cholesky_ex upper": (lambda t, x: t.linalg.cholesky_ex(x @ x.mT, upper=True)[0], [MATRIX]),
    "solve_ex": (lambda t, a, b: t.linalg.solve_ex(a, b).result, [MATRIX, VECTORS]),
    "solve_ex from the right": (lambda t, a, b: t.linalg.solve_ex(a, b.mT, left=False)[0], [MATRIX, VECTORS]),
    "eigvals": (lambda t, x: t.linalg.eigvals(x).abs().sort().values, [MATRIX]),
    "eig": (lambda t, x: t.linalg.eig(x).eigenvectors.abs().sum((-1, -2)), [MATRIX]),
    "eig of complex numbers": (lambda t, x: t.linalg.eig(x)[1].abs().sum((-1, -2)), [complex_normal(1, 3, 3)]),
    "lobpcg": (lambda t, x: (t.linalg.eigvalsh if t is not gpunet else _three_largest)(x @ x.mT)[..., -3:].sum(-1), [MATRIX]),
}  # fmt: skip


def _three_largest(x: Any) -> Any:
    return gpunet.lobpcg(x, 3)[0].flip(-1)


@pytest.mark.filterwarnings("ignore:.*is deprecated:UserWarning")
@pytest.mark.parametrize("name", CALLS)
def test_values_and_derivatives(name: str, torch: Any, device: str) -> None:
    call, arrays = CALLS[name]
    check_complex(call, arrays, torch, device, 1e-7)


@pytest.mark.parametrize(("left", "transpose"), [(True, False), (True, True), (False, False), (False, True)])
def test_ormqr(left: bool, transpose: bool, torch: Any, device: str) -> None:
    def call(t: Any, a: Any, tau: Any, other: Any) -> Any:
        return t.ormqr(a, tau, other if left else other.mT, left, transpose)

    check_values_and_gradients(call, ((2, 4, 3), (2, 3), (2, 4, 2)), torch, device, 1e-9)


def test_reflections_give_back_the_matrix(torch: Any) -> None:
    x = gpunet.tensor(TALL)
    a, tau = gpunet.geqrf(x)
    numpy.testing.assert_allclose((gpunet.orgqr(a, tau) @ a[:, :3].triu()).numpy(), TALL, atol=1e-12)
    numpy.testing.assert_allclose(a.ormqr(tau, a.triu()).numpy(), TALL, atol=1e-12)
    theirs = torch.geqrf(torch.tensor(TALL))
    numpy.testing.assert_allclose(abs(a.numpy()), abs(theirs.a.numpy()), rtol=1e-9)
    assert gpunet.geqrf(x.float()).a.dtype == gpunet.float32 and not gpunet.geqrf(x.requires_grad_()).a.requires_grad


def test_eigenvectors_are_eigenvectors(device: str) -> None:
    for given in (MATRIX, complex_normal(2, 3, 3), MATRIX.astype("float32")):
        x = gpunet.tensor(given, device=device)
        values, vectors = linalg.eig(x)
        product = x.to(values.dtype) @ vectors
        error = (product - vectors * values.unsqueeze(-2)).abs().max().item()
        assert error < (1e-5 if given.dtype == numpy.float32 else 1e-11)
        numpy.testing.assert_allclose(vectors.abs().square().sum(-2).cpu().numpy(), 1.0, rtol=1e-5)
    assert values.dtype == gpunet.complex64
    with pytest.raises(ShapeError, match=r"linalg.eig: A has shape"):
        linalg.eig(x[0, :1])
    with pytest.raises(DtypeError, match=r"linalg.eigvals: A has dtype int64"):
        linalg.eigvals(x.real.long())


def test_failures_are_told(torch: Any, device: str) -> None:
    given = numpy.stack([POSITIVE[0], numpy.diag([1.0, -2.0, 3.0]), numpy.ones((3, 3))])
    found = linalg.cholesky_ex(gpunet.tensor(given, device=device))
    assert found.info.tolist() == torch.linalg.cholesky_ex(torch.tensor(given)).info.tolist()
    assert linalg.cholesky_ex(gpunet.tensor(given, device=device).half()).info.dtype == gpunet.int32
    numpy.testing.assert_allclose(found.L[0].cpu().numpy(), numpy.linalg.cholesky(given[0]))
    assert found.L[1].isnan().all() and found.info.dtype == gpunet.int32
    with pytest.raises(LinAlgError):
        linalg.cholesky_ex(gpunet.tensor(given[1:2], device=device), check_errors=True)
    solved = linalg.solve_ex(gpunet.tensor(given, device=device), gpunet.ones(3, 3, 1, dtype=gpunet.float64, device=device))
    assert solved.info.tolist() == [0, 0, 2] and solved.result[2].isnan().all() and solved.result[:2].isfinite().all()
    singular, right = gpunet.tensor(given[2], device=device), gpunet.ones(3, dtype=gpunet.float64, device=device)
    with pytest.raises(LinAlgError):
        linalg.solve_ex(singular, right, check_errors=True)


@pytest.mark.parametrize("seed", range(6))
def test_ldl(seed: int, torch: Any, device: str) -> None:
    x = numpy.random.default_rng(seed).normal(size=(3, 6, 6))
    x = x + x.swapaxes(-1, -2)
    x[1, 0, 0] = x[1, 1, 1] = 0.0  # needs a block of two rows
    ours, theirs = linalg.ldl_factor(gpunet.tensor(x, device=device)), torch.linalg.ldl_factor(torch.tensor(x))
    assert ours.pivots.tolist() == theirs.pivots.tolist()
    numpy.testing.assert_allclose(ours.LD.cpu().numpy(), theirs.LD.numpy(), rtol=1e-9, atol=1e-12)
    b = numpy.random.default_rng(9).normal(size=(6, 2))
    solved = linalg.ldl_solve(*ours, gpunet.tensor(b, device=device))
    numpy.testing.assert_allclose(solved.cpu().numpy(), numpy.linalg.solve(x, b), rtol=1e-7, atol=1e-9)
    assert linalg.ldl_factor_ex(gpunet.zeros(2, 2, device=device)).info.item() == 1
    with pytest.raises(LinAlgError, match=r"linalg.ldl_factor: D\[0\] of matrix 0 of the batch is 0"):
        linalg.ldl_factor(gpunet.zeros(1, 2, 2, device=device))
    with pytest.raises(ShapeError, match=r"linalg.ldl_solve: LD, pivots and B have shapes"):
        linalg.ldl_solve(ours.LD, ours.pivots[:, :2], solved)


def test_few_singular_values() -> None:
    gpunet.manual_seed(0)
    low = RNG.normal(size=(20, 3)) @ RNG.normal(size=(3, 12))
    for given in (low, low.T):
        u, s, v = gpunet.svd_lowrank(gpunet.tensor(given), 5)
        numpy.testing.assert_allclose((u * s @ v.mT).numpy(), given, atol=1e-10)
        numpy.testing.assert_allclose(s.numpy()[:3], numpy.linalg.svd(given)[1][:3], rtol=1e-10)
    mean = gpunet.tensor(low).mean(-2, keepdim=True)
    components = gpunet.pca_lowrank(gpunet.tensor(low), 3)
    centred = gpunet.svd_lowrank(gpunet.tensor(low), 3, M=mean)
    numpy.testing.assert_allclose(components.S.numpy(), centred.S.numpy(), rtol=1e-9)
    numpy.testing.assert_allclose(components.S.numpy(), numpy.linalg.svd(low - low.mean(0))[1][:3], rtol=1e-9)
    with pytest.raises(ArgumentError, match="svd_lowrank: q=13"):
        gpunet.svd_lowrank(low, 13)
    with pytest.raises(ShapeError, match="svd_lowrank: M has shape"):
        gpunet.svd_lowrank(low, 3, M=gpunet.ones(7))


def test_generalized_eigenvalues(torch: Any) -> None:
    a, b = gpunet.tensor(SYMMETRIC[0]), gpunet.tensor(POSITIVE[0])
    for largest in (True, False):
        values, vectors = gpunet.lobpcg(a, 2, b, largest=largest)
        numpy.testing.assert_allclose((a @ vectors).numpy(), (b @ vectors * values).numpy(), atol=1e-10)
        assert (values[0] > values[1]).item() == largest
    big = torch.tensor(numpy.diag(numpy.arange(1.0, 13.0)))
    torch.manual_seed(0)
    ours, theirs = gpunet.lobpcg(gpunet.tensor(big.numpy()), 2)[0], torch.lobpcg(big, 2)[0]
    numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4)
    with pytest.raises(ArgumentError, match="lobpcg: k=4 of matrices of size 3"):
        gpunet.lobpcg(a, 4)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ShapeError, "triangular_solve: input has shape", lambda x: x[:2].triangular_solve(x)),
        (ShapeError, "ormqr: tensors of shapes", lambda x: x.ormqr(x[0, :2], x[:2])),
        (ShapeError, "frobenius_norm: dim=.0, 1, 2.", lambda x: gpunet.frobenius_norm(x.reshape(1, 3, 3), (0, 1, 2))),
        (ShapeError, "nuclear_norm: the tensor has shape", lambda x: gpunet.nuclear_norm(x[0])),
        (ShapeError, "norm_except_dim: dim=0 of a tensor without", lambda x: gpunet.norm_except_dim(x.sum())),
    ],
)
def test_refusals(error: type[Exception], message: str, call: Any) -> None:
    with pytest.raises(error, match=message):
        call(gpunet.tensor(MATRIX[0]))
