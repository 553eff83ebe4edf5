"""Linear algebra: singular and degenerate matrices, ranks, errors, and what a captured step does with it."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet import linalg
from gpunet.backend import devices
from gpunet.errors import DtypeError, GradientError, LinAlgError, MissingDependencyError, ShapeError
from gpunet.ops import factorize
from tests.ops.test_ops import to_numpy


def test_the_determinant_of_a_singular_matrix_has_a_gradient(device: str) -> None:
    """The matrix of cofactors, of ranks 2, 1 and 0."""
    for values in ([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]], [[1.0, 2, 3]] * 3, [[0.0] * 3] * 3):
        x = gpunet.tensor(values, dtype=gpunet.float64, device=device, requires_grad=True)
        linalg.det(x).backward()
        array = numpy.array(values)
        minors = [[numpy.linalg.det(numpy.delete(numpy.delete(array, i, 0), j, 1)) for j in range(3)] for i in range(3)]
        expected = numpy.array(minors) * [[1, -1, 1], [-1, 1, -1], [1, -1, 1]]
        numpy.testing.assert_allclose(to_numpy(x.grad), expected, atol=1e-12)


def test_equal_eigenvalues_have_finite_gradients(device: str) -> None:
    """Of what does not depend on the choice of vectors: the values, and a function of the matrix."""
    x = (2 * gpunet.eye(3, dtype=gpunet.float64, device=device)).requires_grad_()
    values, vectors = linalg.eigh(x)
    (values.sum() + ((vectors * values) @ vectors.mT).trace()).backward()
    numpy.testing.assert_allclose(to_numpy(x.grad), 2 * numpy.eye(3), atol=1e-14)
    x.grad = None
    linalg.svdvals(x).sum().backward()
    numpy.testing.assert_allclose(to_numpy(x.grad), numpy.eye(3), atol=1e-14)


def test_least_squares_of_a_matrix_without_full_rank(device: str, torch: Any) -> None:
    generator = numpy.random.default_rng(0)
    a, b = generator.normal(size=(2, 5, 2)) @ generator.normal(size=(2, 2, 3)), generator.normal(size=(2, 5, 2))
    found = linalg.lstsq(gpunet.tensor(a, device=device), gpunet.tensor(b, device=device), driver="gelsd")
    expected = torch.linalg.lstsq(torch.tensor(a), torch.tensor(b), driver="gelsd")
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.shape == tuple(theirs.shape)
        numpy.testing.assert_allclose(to_numpy(mine), theirs.numpy(), atol=1e-12)
    assert to_numpy(linalg.matrix_rank(gpunet.tensor(a, device=device))).tolist() == [2, 2]


def test_errors_name_function_and_cause(device: str) -> None:
    ones = gpunet.ones(2, 2, device=device)
    assert gpunet._C._LinAlgError is LinAlgError  # the name that scripts for older versions of PyTorch catch
    with pytest.raises(LinAlgError, match="inverse: singular matrix"):
        linalg.inv(ones)
    with pytest.raises(LinAlgError, match="cholesky: matrix is not positive definite"):
        linalg.cholesky(-ones)
    with pytest.raises(ShapeError, match=r"linalg.det: the tensor has shape \(2, 3\); expected square matrices"):
        linalg.det(gpunet.ones(2, 3, device=device))
    with pytest.raises(DtypeError, match="linalg.eigh: the tensor has dtype int64; expected a floating dtype"):
        linalg.eigh(ones.long())
    with pytest.raises(GradientError, match="the complete factorisation has no gradient"):
        linalg.qr(gpunet.ones(3, 2, device=device, requires_grad=True), mode="complete")
    with pytest.raises(ShapeError, match=r"linalg.norm: dim=\(\); expected one or two dimensions"):
        linalg.norm(ones, dim=())
    with pytest.raises(DtypeError, match="pinverse: rcond=None"):
        gpunet.pinverse(ones, None)
    assert issubclass(LinAlgError, RuntimeError) and issubclass(LinAlgError, ValueError)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_library(xp: Any, out: Any, x: Any) -> None:
        raise ImportError("libcusolver.so.11: cannot open shared object file")

    launch = factorize.library_launch("inverse", without_library)
    monkeypatch.setattr(factorize, "INVERSE", launch)
    with pytest.raises(MissingDependencyError, match=r"inverse on a GPU needs NVIDIA's cuSOLVER .*libcuso.* x.cpu\(\)") as raised:
        linalg.inv(gpunet.eye(2))
    assert raised.value.name == "cusolver"


def test_a_captured_step_solves_again(device: str) -> None:
    weight = gpunet.eye(3, device=device) * 2
    step = gpunet.capture(lambda x: linalg.solve(x, weight).sum())
    for scale in (1.0, 4.0):
        x = gpunet.eye(3, device=device) * scale
        assert step(x).item() == pytest.approx(6.0 / scale)
    assert devices.to_host(weight.array).sum() == 6.0


def test_a_negative_tolerance_leaves_the_default(device: str) -> None:
    x = gpunet.ones(3, 3, dtype=gpunet.float64, device=device)
    numpy.testing.assert_allclose(to_numpy(linalg.pinv(x, atol=-0.5)), numpy.full((3, 3), 1 / 9))
    assert linalg.matrix_rank(x, atol=-0.5).item() == 1


def test_the_gradient_of_an_orthogonal_matrix_is_below_the_diagonal(device: str) -> None:
    """Of a square Q, in the coordinates of Q and R; its other elements are exactly 0, though R is nearly singular."""
    x = gpunet.tensor([[0.93, 0.75], [-2.625, -2.135]], dtype=gpunet.float64, device=device, requires_grad=True)
    linalg.qr(x).Q.backward(gpunet.tensor([[3.0, -1.0], [1.0, -1.0]], dtype=gpunet.float64, device=device))
    numpy.testing.assert_allclose(to_numpy(x.grad)[:, 0], [-1.276150, -0.452122], rtol=1e-5)
    assert to_numpy(x.grad)[:, 1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("p, value", [(2**40, 2.5), (-7, 2.5), (0.5, 2.5), (2, 2.0**80)])
def test_the_norm_of_one_element_is_its_magnitude(p: float, value: float, device: str) -> None:
    x = gpunet.tensor([-value], device=device, requires_grad=True)
    (first,) = gpunet.autograd.grad(gpunet.norm(x, p), x, create_graph=True)
    first.backward()
    assert gpunet.norm(x, p).item() == value and first.tolist() == [-1.0] and x.grad.tolist() == [0.0]
