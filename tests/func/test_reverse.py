"""grad, grad_and_value and vjp against PyTorch's."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import pytest

import gpunet
from gpunet import func
from gpunet.errors import ArgumentError, DtypeError, GradientError, InPlaceError, ShapeError
from tests.func.compare import Call, compare

Pair = namedtuple("Pair", ["first", "second"])


def f(x: Any) -> Any:
    return (x * x * x.sin()).sum()


def g(x: Any, y: Any) -> Any:
    return (x.exp() * y).sum() + (x * x).sum() * y[0]


def nested(d: Any, x: Any) -> Any:
    return (d["a"] * d["b"][0] * x).sum() + (d["b"][1].first ** 3 * d["b"][1].second).sum()


def without_graph_inside(t: Any, func: Any, x: Any) -> Any:
    def inner(x: Any) -> Any:
        with t.no_grad():
            c = func.grad(f)(x)
        return (x * c).sum()

    return func.grad(inner)(x)


def in_no_grad(t: Any, transform: Any, *args: Any) -> Any:
    with t.no_grad():
        return transform(*args)


CALLS: dict[str, Call] = {
    "grad": lambda t, func, draw: func.grad(f)(draw(3)),
    "second": lambda t, func, draw: func.grad(lambda x: func.grad(f)(x).sum())(draw(3)),
    "third": lambda t, func, draw: func.grad(func.grad(func.grad(lambda x: x**4 + x.sin())))(draw()),
    "of_both_levels": lambda t, func, draw: func.grad(lambda x: x * func.grad(lambda y: x * y**3)(x))(draw()),
    "argnums": lambda t, func, draw: [func.grad(g, argnums=n)(draw(3), draw(3)) for n in (0, 1, -1, (1, 0), (0,))],
    "keywords": lambda t, func, draw: func.grad(lambda x, k: (x * k).sum())(draw(3), k=draw(3)),
    "trees": lambda t, func, draw: func.grad(nested, argnums=(1, 0))(
        {"a": draw(2), "b": [draw(2), Pair(draw(3), draw(3))]}, draw(2)
    ),
    "unused": lambda t, func, draw: func.grad(lambda x, y: x.sum(), argnums=(0, 1))(draw(2), draw(3)),
    "constant": lambda t, func, draw: func.grad(lambda x: t.ones(()))(draw(2)),
    "aux": lambda t, func, draw: func.grad(lambda x: (f(x), {"y": x * 2, "z": x}), has_aux=True)(draw(3)),
    "value": lambda t, func, draw: func.grad_and_value(f)(draw(3)),
    "value_aux": lambda t, func, draw: func.grad_and_value(lambda x: (f(x), (x * 2,)), has_aux=True)(draw(3)),
    # results are attached to what they depend on outside
    "argument_requires_grad": lambda t, func, draw: func.grad_and_value(f)(draw(3, requires_grad=True)),
    "linear_argument_requires_grad": lambda t, func, draw: func.grad(lambda x: x.sum())(draw(3, requires_grad=True)),
    "in_no_grad": lambda t, func, draw: in_no_grad(t, func.grad_and_value(f), draw(3, requires_grad=True)),
    "no_grad_inside": lambda t, func, draw: without_graph_inside(t, func, draw(3)),
    "detached_inside": lambda t, func, draw: func.grad(lambda x: (x.detach() * x).sum())(draw(3)),
    "vjp": lambda t, func, draw: func.vjp(lambda x, y: {"p": x * y, "q": (x.sum(),)}, draw(3), draw(3))[1](
        {"p": draw(3), "q": (draw(),)}
    ),
    "vjp_value": lambda t, func, draw: func.vjp(lambda x: x.sin(), draw(3))[0],
    "vjp_aux": lambda t, func, draw: func.vjp(lambda x: (x.sin(), x * 2), draw(3), has_aux=True)[::2],
    "vjp_of_trees": lambda t, func, draw: func.vjp(lambda d, x: d["a"] * x, {"a": draw(3), "b": draw(2)}, draw(3))[1](draw(3)),
    "vjp_vector_requires_grad": lambda t, func, draw: func.vjp(lambda x: x * x, draw(3))[1](draw(3, requires_grad=True)),
    "grad_of_vjp": lambda t, func, draw: func.grad(lambda x, v: (func.vjp(lambda x: x.sin(), x)[1](v)[0] ** 2).sum(), (0, 1))(
        draw(3), draw(3)
    ),
    "grad_by_vector": lambda t, func, draw: (
        lambda pull_back: func.grad(lambda v: (pull_back(v)[0] ** 2).sum())(draw(3))
    )(func.vjp(lambda x: x.sin(), draw(3))[1]),
    "complex": lambda t, func, draw: func.grad(lambda x: (x * x.conj()).real.sum())(t.complex(draw(3), draw(3))),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_equals_pytorch(name: str, device: str, torch: Any) -> None:
    compare(torch, CALLS[name])


def test_gradients_by_tensors_from_outside(device: str, torch: Any) -> None:
    """They flow through the result, and through the gradient, as in PyTorch; nothing hangs on the argument itself."""

    def call(t: Any, func: Any, draw: Any) -> Any:
        x, w = draw(3), draw(3, requires_grad=True)
        gradient, (value, aux) = func.grad_and_value(lambda x: ((x * x * w).sum(), {"x": x, "w": w * x}), has_aux=True)(x)
        assert not x.requires_grad
        (gradient.sum() + value + aux["w"].sum()).backward()
        return gradient, value, aux, w.grad

    compare(torch, call)


def test_a_result_that_depends_on_the_argument_alone_has_no_graph(device: str) -> None:
    w = gpunet.ones(2, requires_grad=True)
    square, mixed = func.grad(lambda xs: (xs[0] ** 2).sum() + (xs[1] * w).sum())([gpunet.ones(2), gpunet.ones(2)])
    assert not square.requires_grad  # 2 x, although the function depends on w
    assert mixed.requires_grad
    mixed.sum().backward()
    assert w.grad is not None and w.grad.tolist() == [1.0, 1.0]


def test_a_function_that_pulls_back_can_be_called_again(device: str) -> None:
    value, pull_back = func.vjp(lambda x: x**2, gpunet.tensor([1.0, 2.0]))
    assert value.tolist() == [1.0, 4.0]
    for _ in range(2):
        assert pull_back(gpunet.ones(2))[0].tolist() == [2.0, 4.0]


def test_modules_and_arrays_are_taken(device: str) -> None:
    net = gpunet.nn.Linear(2, 1, bias=False)
    gradient = func.grad(lambda x: net(x).sum())(gpunet.ones(3, 2))
    assert (gradient == net.weight).all()
    if device == "cpu":
        assert func.grad(lambda x: (x**2).sum())(gpunet.ones(2).numpy()).tolist() == [2.0, 2.0]
    assert func.grad(gpunet.nn.MSELoss())(gpunet.ones(2), gpunet.zeros(2)).tolist() == [1.0, 1.0]


def test_name_is_that_of_the_function() -> None:
    assert func.grad(g).__name__ == "g"
    assert func.grad(gpunet.nn.ReLU()) is not None


def test_changes_in_place() -> None:
    x = gpunet.ones(2)
    with pytest.raises(InPlaceError, match=r"mul_ on a view, and a gradient is required.*clone"):
        func.grad(lambda x: x.mul_(2).sum())(x)
    assert x.tolist() == [1.0, 1.0]
    assert func.grad(lambda x: (x * 1).mul_(2).sum())(x).tolist() == [2.0, 2.0]

    def changes_outside(y: Any) -> Any:
        z = y * y
        x.mul_(2)
        return z.sum()

    with pytest.raises(InPlaceError, match=r"grad: func changed an argument of shape \(2,\) in place.*\.clone\(\)"):
        func.grad(changes_outside)(x)


def test_wrong_calls() -> None:
    x = gpunet.ones(2)
    for argnums, error, message in [
        (2, ArgumentError, r"grad: argnums=2, but the function was called with 2 positional arguments"),
        ((0, -2), ArgumentError, r"grad: argnums=\(0, -2\) names an argument twice"),
        ((), ArgumentError, r"grad: argnums=\(\) is empty"),
        ([0], DtypeError, r"grad: argnums=\[0\]; expected an integer, or a tuple of integers"),
        (True, DtypeError, r"grad: argnums=True; expected an integer"),
    ]:
        with pytest.raises(error, match=message):
            func.grad(g, argnums=argnums)(x, x)  # type: ignore[arg-type]
    with pytest.raises(DtypeError, match=r"grad: an argument to differentiate by has a float, 2.0; expected tensors"):
        func.grad(g)(2.0, x)
    with pytest.raises(DtypeError, match=r"grad: an argument to differentiate by has dtype int64; expected floating"):
        func.grad(g)(gpunet.tensor([1, 2]), x)
    with pytest.raises(GradientError, match=r"grad: func returned a tensor of shape \(2,\).*\.sum\(\).*vjp or jacrev"):
        func.grad(lambda x: x)(x)
    with pytest.raises(DtypeError, match=r"grad_and_value: func returned a float; expected a tensor without dimensions"):
        func.grad_and_value(lambda x: 1.0)(x)
    with pytest.raises(GradientError, match=r"grad: has_aux=True, but func returned a Tensor; expected a tuple \(result, aux\)"):
        func.grad(f, has_aux=True)(x)
    with pytest.raises(DtypeError, match=r"grad: func has type int; expected a function of tensors, or a module"):
        func.grad(3)  # type: ignore[arg-type]
    pull_back = func.vjp(lambda x: {"a": x, "b": (x,)}, x)[1]
    with pytest.raises(ArgumentError, match=r"vjp: the cotangents do not have the structure of the result; expected {'a': \*, 'b'"):
        pull_back({"a": x})
    with pytest.raises(ShapeError, match=r"vjp: the cotangents have a tensor of shape \(3,\); expected \(2,\)"):
        pull_back({"a": x, "b": (gpunet.ones(3),)})
    with pytest.raises(DtypeError, match=r"vjp: func returned a tensor of int64; expected floating"):
        func.vjp(lambda x: x.long(), x)
    with pytest.raises(DtypeError, match=r"vjp: func returned no tensor; expected a tensor, or a tuple"):
        func.vjp(lambda x: (), x)


def test_a_connected_argument_as_the_result_is_a_view(device: str) -> None:
    x = gpunet.ones(2, requires_grad=True) * 1
    result = func.vjp(lambda x: x, x)[0]
    with pytest.raises(InPlaceError, match=r"mul_ on a view, and a gradient is required"):
        result.mul_(2)
    aux = func.grad(lambda x: ((x * x).sum(), x), has_aux=True)(x)[1]
    with pytest.raises(InPlaceError, match=r"mul_ on a view, and a gradient is required"):
        aux.mul_(2)


def test_dictionaries_of_other_classes(device: str) -> None:
    x = gpunet.tensor([1.0, 2.0])
    result, pull_back = func.vjp(lambda d: OrderedDict(y=d["x"] ** 2), OrderedDict(x=x))
    assert pull_back(result)[0]["x"].tolist() == [2.0, 16.0]
    assert func.jvp(lambda d: d["x"] ** 2, (OrderedDict(x=x),), ({"x": x},))[1].tolist() == [2.0, 8.0]
