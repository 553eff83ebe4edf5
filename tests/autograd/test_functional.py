"""Jacobians, Hessians and their products, against PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet.autograd import functional
from gpunet.errors import ArgumentError, DtypeError, GradientError, ShapeError


def two(x: Any, y: Any) -> Any:
    return (x * y).exp() * x, (x + y).sum()


def scalar(x: Any, y: Any) -> Any:
    return (x * x * y).exp().sum() + (x[0] * y[1]) ** 3


def leaves(value: Any) -> list[numpy.ndarray]:
    return [a for v in value for a in leaves(v)] if isinstance(value, (tuple, list)) else [numpy.asarray(value.detach())]


@pytest.mark.parametrize(
    ("name", "func", "vectors"),
    [
        ("jacobian", two, ()), ("vjp", two, ((3,), ())), ("jvp", two, ((3,), (3,))), ("hessian", scalar, ()),
        ("vhp", scalar, ((3,), (3,))), ("hvp", scalar, ((3,), (3,))),
    ],
)  # fmt: skip
def test_equals_pytorch(name: str, func: Any, vectors: Any, torch: Any) -> None:
    random, found = numpy.random.default_rng(0), []
    x, y = random.normal(size=3), random.normal(size=3)
    given = [random.normal(size=shape) for shape in vectors]
    for library in (gpunet, torch):
        inputs = tuple(library.tensor(a, dtype=library.float64) for a in (x, y))
        v = tuple(library.tensor(a, dtype=library.float64) for a in given)
        result = getattr(library.autograd.functional, name)(func, inputs, *((v,) if v else ()))
        found.append(result)
    mine, theirs = map(leaves, found)
    assert [a.shape for a in mine] == [a.shape for a in theirs]
    for a, b in zip(mine, theirs):
        numpy.testing.assert_allclose(a, b, rtol=1e-12)
    assert not any(t.requires_grad for t in tensors(found[0]))


def tensors(value: Any) -> list[Any]:
    return [t for v in value for t in tensors(v)] if isinstance(value, tuple) else [value]


def test_one_tensor_and_differentiable_results() -> None:
    x = gpunet.tensor([1.0, 2.0], dtype=gpunet.float64, requires_grad=True)
    found = functional.jacobian(lambda x: x**3, x, create_graph=True)
    assert found.tolist() == [[3.0, 0.0], [0.0, 12.0]]
    found.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [6.0, 12.0]
    assert functional.hessian(lambda x: (x**3).sum(), x).tolist() == [[6.0, 0.0], [0.0, 12.0]]
    assert functional.jacobian(lambda x: x[:0], x).shape == (0, 2)
    with gpunet.no_grad():
        assert functional.vjp(lambda x: x.sum(), x)[1].tolist() == [1.0, 1.0]


def test_independent_results() -> None:
    x = gpunet.ones(2)
    assert functional.jacobian(lambda x: gpunet.ones(3), x).tolist() == [[0.0, 0.0]] * 3
    with pytest.raises(GradientError, match=r"jacobian: an output of func does not depend on the inputs.*strict=False"):
        functional.jacobian(lambda x: gpunet.ones(3), x, strict=True)
    with pytest.raises(GradientError, match=r"vjp: the result of func does not depend on input 1"):
        functional.vjp(lambda x, y: x.sum(), (x, x), strict=True)


def test_wrong_arguments() -> None:
    x = gpunet.ones(2)
    with pytest.raises(GradientError, match=r"vjp: v=None for the result of shapes \[\(2,\)\]"):
        functional.vjp(lambda x: x * 2, x)
    with pytest.raises(ShapeError, match=r"jvp: v has shapes \[\(3,\)\]; expected those of inputs, \[\(2,\)\]"):
        functional.jvp(lambda x: x * 2, x, gpunet.ones(3))
    with pytest.raises(DtypeError, match=r"jacobian: inputs has type float"):
        functional.jacobian(lambda x: x, 1.0)
    with pytest.raises(GradientError, match=r"hessian: func returned a tensor of shape \(2,\)"):
        functional.hessian(lambda x: x, x)
    with pytest.raises(ArgumentError, match=r"strategy='backward'"):
        functional.jacobian(lambda x: x, x, strategy="backward")
