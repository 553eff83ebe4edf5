"""Exponentials, reflections, equations of tensors and Vandermonde matrices, beside PyTorch's; gradients of both orders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.autograd import gradcheck, gradgradcheck
from gpunet.errors import ArgumentError, LinAlgError, ShapeError
from tests.ops.beside_torch import check_values_and_gradients

CALLS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "matrix_exp": (lambda t, a: t.linalg.matrix_exp(a), ((2, 3, 3),)),
    "matrix_exp of a large matrix": (lambda t, a: (9.0 * a).matrix_exp(), ((3, 3),)),
    "householder_product": (lambda t, a, b: t.linalg.householder_product(a, b), ((2, 4, 3), (2, 2))),
    "inv_ex": (lambda t, a: t.linalg.inv_ex(a).inverse, ((2, 3, 3),)),
    "tensorinv": (lambda t, a: t.linalg.tensorinv(a, ind=1), ((4, 2, 2),)),
    "tensorsolve": (lambda t, a, b: t.linalg.tensorsolve(a, b, (0, 1)), ((2, 2, 4), (4,))),
    "vander": (lambda t, a: t.linalg.vander(a, N=4), ((2, 3),)),
}


@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients(name: str, torch: Any, device: str) -> None:
    call, shapes = CALLS[name]
    check_values_and_gradients(call, shapes, torch, device, 1e-9)


@pytest.mark.parametrize("name", ["matrix_exp", "householder_product", "vander"])
def test_second_derivatives(name: str) -> None:
    call, shapes = CALLS[name]
    inputs = [gpunet.tensor(numpy.random.default_rng(i).normal(size=s), requires_grad=True) for i, s in enumerate(shapes)]
    assert gradcheck(lambda *x: call(gpunet, *x), inputs)
    assert gradgradcheck(lambda *x: call(gpunet, *x), inputs)


def test_singular_matrices() -> None:
    a = gpunet.tensor([[[1.0, 2.0], [2.0, 4.0]], [[1.0, 0.0], [0.0, 2.0]]])
    assert gpunet.linalg.inv_ex(a).info.tolist() == [2, 0]
    with pytest.raises(LinAlgError):
        gpunet.linalg.inv_ex(a, check_errors=True)


def test_refusals() -> None:
    with pytest.raises(ShapeError, match="as many elements"):
        gpunet.linalg.tensorinv(gpunet.ones(2, 3, 4))
    with pytest.raises(ArgumentError, match="N=1"):
        gpunet.linalg.vander(gpunet.ones(3), N=1)
    with pytest.raises(ShapeError, match="m >= n >= k"):
        gpunet.linalg.householder_product(gpunet.ones(2, 3), gpunet.ones(2))
