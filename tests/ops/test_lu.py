"""LU factorisations against PyTorch, with gradients, and what singular matrices do."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet import linalg
from gpunet.errors import DtypeError, LinAlgError, ShapeError
from tests.ops.test_ops import to_numpy

pytestmark = pytest.mark.filterwarnings("ignore:torch.lu")  # deprecated in PyTorch


def matrices(*shape: int) -> numpy.ndarray:
    return numpy.random.default_rng(sum(shape)).normal(size=shape)


@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 3), (5, 3), (3, 5), (2, 1, 4), (0, 3, 3), (3, 0)])
def test_factors_are_those_of_torch(shape: tuple[int, ...], device: str, torch: Any) -> None:
    a = matrices(*shape)
    x, y = gpunet.tensor(a, device=device), torch.tensor(a)
    for mine, theirs in (
        (linalg.lu_factor(x), torch.linalg.lu_factor(y)),
        (linalg.lu_factor_ex(x), torch.linalg.lu_factor_ex(y)),
        (linalg.lu(x), torch.linalg.lu(y)),
        (gpunet.lu_unpack(*linalg.lu_factor(x)), torch.lu_unpack(*torch.linalg.lu_factor(y))),
        (x.lu(get_infos=True), y.lu(get_infos=True)),
    ):
        for found, expected in zip(mine, theirs, strict=True):
            assert str(found.dtype) == str(expected.dtype).removeprefix("torch.")
            numpy.testing.assert_allclose(to_numpy(found), expected.numpy(), atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 3), (5, 3), (2, 3, 5)])
def test_gradients_are_those_of_torch(shape: tuple[int, ...], device: str, torch: Any) -> None:
    a, found = matrices(*shape), []
    for module, options in ((gpunet, {"device": device}), (torch, {})):
        x = module.tensor(a, requires_grad=True, **options)
        _, lower, upper = module.linalg.lu(x)
        value = (lower**2).sum() + (upper**3).sum()
        (first,) = module.autograd.grad(value, x, create_graph=True)
        (second,) = module.autograd.grad((first**2).sum(), x)
        found.append([first.detach(), second])
    for mine, theirs in zip(*found, strict=True):
        expected = theirs.numpy()
        numpy.testing.assert_allclose(to_numpy(mine), expected, rtol=1e-9, atol=1e-9 * abs(expected).max())


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("adjoint", [True, False])
def test_solutions_are_those_of_torch(left: bool, adjoint: bool, device: str, torch: Any) -> None:
    a, b, found = matrices(2, 3, 3), matrices(4, 1, 3, 3), []
    for module, options in ((gpunet, {"device": device}), (torch, {})):
        x, y = (module.tensor(array, requires_grad=True, **options) for array in (a, b))
        solution = module.linalg.lu_solve(*module.linalg.lu_factor(x), y, left=left, adjoint=adjoint)
        found.append([solution.detach(), *module.autograd.grad((solution**2).sum(), [x, y])])
    for mine, theirs in zip(*found, strict=True):
        numpy.testing.assert_allclose(to_numpy(mine), theirs.numpy(), rtol=1e-9, atol=1e-9)
    if left and not adjoint:
        x, y = gpunet.tensor(a[0]), gpunet.tensor(b[0, 0])
        numpy.testing.assert_allclose(to_numpy(y.lu_solve(*x.lu())), numpy.linalg.solve(a[0], b[0, 0]), rtol=1e-10)


def test_without_exchanges_the_rows_keep_their_order(device: str) -> None:
    x = gpunet.tensor(matrices(4, 4), device=device)
    permutation, lower, upper = linalg.lu(x, pivot=False)
    assert permutation.shape == (0,)
    numpy.testing.assert_allclose(to_numpy(lower @ upper), to_numpy(x), atol=1e-12)


def test_halves_are_factored_in_float32() -> None:
    x = gpunet.tensor(matrices(3, 3), dtype=gpunet.float16)
    lu, _ = linalg.lu_factor(x)
    assert lu.dtype == gpunet.float16
    assert lu.tolist() == linalg.lu_factor(x.float())[0].half().tolist()


def test_a_captured_step_factors_other_matrices(device: str) -> None:
    step = gpunet.capture(lambda x: linalg.lu_solve(*linalg.lu_factor(x), x * 2.0))
    for seed in range(3):
        x = gpunet.tensor(matrices(3, 3) + seed * numpy.eye(3)[::-1], device=device)
        numpy.testing.assert_allclose(to_numpy(step(x)), 2 * numpy.eye(3), atol=1e-12)


def test_singular_matrices_and_wrong_arguments(device: str, torch: Any) -> None:
    a = numpy.array([numpy.eye(3), [[1, 2, 0], [2, 4, 1], [0, 0, 1]], numpy.zeros((3, 3))])
    x = gpunet.tensor(a, device=device)
    for mine, theirs in zip(linalg.lu_factor_ex(x), torch.linalg.lu_factor_ex(torch.tensor(a)), strict=True):
        assert to_numpy(mine).tolist() == theirs.tolist()
    for function in (linalg.lu_factor, lambda x: linalg.lu_factor_ex(x, check_errors=True)):
        with pytest.raises(LinAlgError, match=r"lu_factor: matrix 1 of the batch is singular: its U\[1, 1\] is 0"):
            function(x)[0].tolist()
    lu, pivots = linalg.lu_factor(x[0])
    with pytest.raises(ShapeError, match=r"linalg.lu_solve: pivots have shape \(2,\), LU \(3, 3\); expected \(3,\)"):
        linalg.lu_solve(lu, pivots[:2], x[0])
    with pytest.raises(DtypeError, match=r"lu_unpack: pivots of dtype int64; expected int32"):
        gpunet.lu_unpack(lu, pivots.long())
    with pytest.raises(ShapeError, match=r"linalg.lu_solve: LU has shape \(3, 3\), B \(2, 3\); expected sizes that fit"):
        linalg.lu_solve(lu, pivots, x[0, :2])
    with pytest.raises(ShapeError, match=r"linalg.lu: A has shape \(3,\); expected matrices"):
        linalg.lu(x[0, 0])
