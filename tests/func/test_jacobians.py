"""jvp, linearize, jacrev, jacfwd and hessian against PyTorch's."""

from __future__ import annotations

from typing import Any

import pytest

import gpunet
from gpunet import func
from gpunet.errors import ArgumentError, DtypeError, GradientError, ShapeError
from tests.func.compare import Call, compare


def two(x: Any, y: Any) -> Any:
    return {"p": (x * y["k"]).exp() * x, "q": (x.sum() + y["k"].sum() * x[0],)}


def scalar(x: Any, y: Any) -> Any:
    return (x * x * y["k"]).exp().sum() + (x[0] * y["k"][1]) ** 3


CALLS: dict[str, Call] = {
    "jvp": lambda t, func, draw: func.jvp(two, (draw(3), {"k": draw(3)}), (draw(3), {"k": draw(3)})),
    "jvp_aux": lambda t, func, draw: func.jvp(lambda x: (x.sin(), (x * 2,)), (draw(3),), (draw(3),), has_aux=True),
    "jvp_of_integers": lambda t, func, draw: func.jvp(lambda x: (x.long(), x * x), (draw(3),), (draw(3),)),
    "jvp_independent": lambda t, func, draw: func.jvp(lambda x: t.ones(3), (draw(2),), (draw(2),)),
    "jvp_vector_requires_grad": lambda t, func, draw: func.jvp(lambda x: x * x, (draw(3),), (draw(3, requires_grad=True),)),
    "jvp_of_jvp": lambda t, func, draw: func.jvp(
        lambda x: func.jvp(lambda y: y**3 * x, (x,), (x * x,))[1], (draw(3),), (draw(3),)
    ),
    "grad_of_jvp": lambda t, func, draw: func.grad(lambda x, v: func.jvp(lambda x: x.sin(), (x,), (v,))[1].sum(), (0, 1))(
        draw(3), draw(3)
    ),
    "hvp": lambda t, func, draw: func.jvp(func.grad(lambda x: (x**3).sum() * x[0]), (draw(3),), (draw(3),))[1],
    "linearize": lambda t, func, draw: (
        lambda value, push: (value, push(draw(3), {"k": draw(3)}), push(draw(3), {"k": draw(3)}))
    )(*func.linearize(two, draw(3), {"k": draw(3)})),
    "jacrev": lambda t, func, draw: [func.jacrev(two, argnums=n)(draw(3), {"k": draw(3)}) for n in (0, 1, (0, 1), (-1,))],
    "jacfwd": lambda t, func, draw: [func.jacfwd(two, argnums=n)(draw(3), {"k": draw(3)}) for n in (0, 1, (0, 1), (1,))],
    "jacrev_chunks": lambda t, func, draw: func.jacrev(lambda x: x.sin(), chunk_size=2)(draw(3)),
    "jacrev_aux": lambda t, func, draw: func.jacrev(lambda x: (x.sin(), {"a": x * 2}), has_aux=True)(draw(2, 2)),
    "jacfwd_aux": lambda t, func, draw: func.jacfwd(lambda x: (x.sin(), {"a": x * 2}), has_aux=True)(draw(2, 2)),
    "of_matrices": lambda t, func, draw: [j(lambda x: x @ x.T)(draw(2, 3)) for j in (func.jacrev, func.jacfwd)],
    "of_jacobians": lambda t, func, draw: [
        a(b(lambda x: x**3 * x.sum()))(draw(2)) for a in (func.jacrev, func.jacfwd) for b in (func.jacrev, func.jacfwd)
    ],
    "empty": lambda t, func, draw: [j(lambda x: x[:0] * 2)(draw(2)) for j in (func.jacrev, func.jacfwd)],
    "by_nothing": lambda t, func, draw: func.jacrev(lambda x: x.sum() * t.ones(2))(draw(0)),
    "requires_grad": lambda t, func, draw: [j(lambda x: x**3)(draw(2, requires_grad=True)) for j in (func.jacrev, func.jacfwd)],
    "jacfwd_of_integers": lambda t, func, draw: func.jacfwd(lambda x: (x.long(), x))(draw(2)),
    "hessian": lambda t, func, draw: [func.hessian(scalar, argnums=n)(draw(3), {"k": draw(3)}) for n in (0, 1, (0, 1))],
    "hessian_of_vector": lambda t, func, draw: func.hessian(lambda x: x**3 * x.sum())(draw(2)),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_equals_pytorch(name: str, device: str, torch: Any) -> None:
    compare(torch, CALLS[name])


def test_gradients_by_tensors_from_outside(device: str, torch: Any) -> None:
    def call(t: Any, func: Any, draw: Any) -> Any:
        x, v, w = draw(2), draw(2), draw(2, requires_grad=True)
        found = [
            func.jacrev(lambda x: x * x * w)(x), func.jacfwd(lambda x: x * x * w)(x), func.hessian(lambda x: (x**3 * w).sum())(x),
            func.jvp(lambda x: x * x * w, (x,), (v,))[1],
        ]  # fmt: skip
        sum(y.sum() for y in found).backward()
        return found, w.grad

    compare(torch, call)


def test_what_pytorch_computes_wrongly() -> None:
    """Its linearize() takes tensors from outside for constants, and its jacfwd() returns zeros for negative positions."""
    x, w = gpunet.tensor([1.0, 2.0]), gpunet.ones(2, requires_grad=True)
    func.linearize(lambda x: x * x * w, x)[1](gpunet.ones(2)).sum().backward()
    assert w.grad is not None and w.grad.tolist() == [2.0, 4.0]
    assert func.jacfwd(lambda x, y: x * y, argnums=-1)(x, x).tolist() == [[1.0, 0.0], [0.0, 2.0]]


def test_linearize_calls_the_function_once() -> None:
    calls = []

    def f(x: Any) -> Any:
        calls.append(x)
        return x * x

    _, push_forward = func.linearize(f, gpunet.ones(2))
    assert push_forward(gpunet.ones(2)).tolist() == push_forward(gpunet.ones(2)).tolist() == [2.0, 2.0]
    assert len(calls) == 1


def test_random_numbers() -> None:
    x = gpunet.ones(3)
    with pytest.raises(ArgumentError, match=r"jacfwd: func draws random numbers, and randomness='error'; pass randomness='same'"):
        func.jacfwd(lambda x: x * gpunet.rand(3))(x)
    gpunet.manual_seed(3)
    expected = gpunet.rand(3).diag()
    gpunet.manual_seed(3)
    assert (func.jacfwd(lambda x: x * gpunet.rand(3), randomness="same")(x) == expected).all()
    with pytest.raises(ArgumentError, match=r"jacfwd: randomness='different' would take each column from other random numbers"):
        func.jacfwd(lambda x: x, randomness="different")
    with pytest.raises(ArgumentError, match=r"jacfwd: randomness='no'; expected 'error', 'different' or 'same'"):
        func.jacfwd(lambda x: x, randomness="no")


def test_wrong_calls() -> None:
    x = gpunet.ones(2)
    with pytest.raises(DtypeError, match=r"jvp: primals has type list; expected a tuple of the arguments"):
        func.jvp(lambda x: x, [x], [x])
    with pytest.raises(ArgumentError, match=r"jvp: the tangents do not have the structure of the primals; expected \(\*,\)"):
        func.jvp(lambda x: x, (x,), (x, x))
    with pytest.raises(ShapeError, match=r"jvp: the tangents have a tensor of shape \(3,\); expected \(2,\)"):
        func.jvp(lambda x: x * x, (x,), (gpunet.ones(3),))
    with pytest.raises(GradientError, match=r"jvp: an output of func does not depend on the primals; pass strict=False"):
        func.jvp(lambda x: (x, gpunet.ones(3)), (x,), (x,), strict=True)
    with pytest.raises(ShapeError, match=r"linearize: the tangents have a tensor of shape \(3,\)"):
        func.linearize(lambda x: x * x, x)[1](gpunet.ones(3))
    with pytest.raises(DtypeError, match=r"jacrev: an argument to differentiate by is complex; expected real tensors: use vjp"):
        func.jacrev(lambda x: x)(gpunet.tensor([1j]))
    with pytest.raises(DtypeError, match=r"jacfwd: the result of func is complex"):
        func.jacfwd(lambda x: x * 1j)(x)
    with pytest.raises(DtypeError, match=r"jacrev: func returned a tensor of int64"):
        func.jacrev(lambda x: x.long())(x)
    with pytest.raises(ArgumentError, match=r"jacrev: chunk_size=0; expected None, or 1 or more"):
        func.jacrev(lambda x: x, chunk_size=0)
