"""Hooks that run when the gradient of a leaf was accumulated, as those that step each parameter within backward."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import GradientError, InPlaceError


def test_optimizers_step_within_backward(device: str, torch: Any) -> None:
    """One optimizer for each parameter; its gradient is dropped at once."""
    results = []
    for library, place in ((gpunet, {"device": device}), (torch, {})):
        params = [library.full((3,), value, requires_grad=True, **place) for value in (1.0, -2.0)]
        optimizers = {p: library.optim.SGD([p], lr=0.25) for p in params}
        seen = []

        def step(p: Any, optimizers: Any = optimizers, seen: Any = seen) -> None:
            seen.append(p.grad.tolist())
            optimizers[p].step()
            optimizers[p].zero_grad()

        handles = [p.register_post_accumulate_grad_hook(step) for p in params]
        params[0].register_hook(lambda g: g * 2)
        for _ in range(2):
            (params[0] * params[1]).sum().backward()
        assert all(p.grad is None for p in params)
        handles[0].remove()
        (params[0] * params[1]).sum().backward(inputs=params)
        results.append([sorted(seen), *(p.tolist() for p in params), params[0].grad.tolist()])
    assert results[0] == results[1]


def test_grad_calls_no_hook() -> None:
    x, seen = gpunet.ones(2, requires_grad=True), []
    x.register_post_accumulate_grad_hook(seen.append)
    gpunet.autograd.grad((x * 2).sum(), x)
    assert seen == [] and x.grad is None


def test_only_leaves_have_such_hooks() -> None:
    for tensor in (gpunet.ones(2), gpunet.ones(2, requires_grad=True) * 2):
        with pytest.raises(GradientError, match="register_post_accumulate_grad_hook on a tensor that is no leaf"):
            tensor.register_post_accumulate_grad_hook(print)


def test_hooks_run_as_soon_as_the_gradient_is_complete(torch: Any) -> None:
    """A parameter that is used twice is complete behind its first use, before the layers below are differentiated."""
    found = []
    for library in (gpunet, torch):
        v, w, order = library.ones(2, requires_grad=True), library.ones(2, requires_grad=True), []
        h = v * 3.0
        h.register_hook(lambda g, order=order: order.append("h"))
        for name, p in (("v", v), ("w", w)):
            p.register_post_accumulate_grad_hook(lambda p, name=name, order=order: order.append((name, p.grad.tolist())))
        (h * w * w).sum().backward()
        found.append(order)
    assert found[0] == found[1] == [("w", [6.0, 6.0]), "h", ("v", [3.0, 3.0])]


def test_layers_of_a_chain_are_complete_one_by_one() -> None:
    """With hooks, a chain of layers passes on each gradient when it is computed; the bits are the same."""
    gpunet.manual_seed(0)
    nn = gpunet.nn
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4, bias=False), nn.Linear(4, 2))
    x = gpunet.randn(5, 3, requires_grad=True)
    model(x).sum().backward()
    expected = [p.grad.tolist() for p in (x, *model.parameters())]  # type: ignore[union-attr]
    model.zero_grad()
    x.grad, order = None, []
    for name, p in model.named_parameters():
        p.register_post_accumulate_grad_hook(lambda p, name=name: order.append(name))
    model(x).sum().backward()
    assert order == ["3.weight", "3.bias", "2.weight", "0.weight", "0.bias"]
    assert [p.grad.tolist() for p in (x, *model.parameters())] == expected  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["chain", "tied"])
@pytest.mark.parametrize("takes_gradient", [False, True])
def test_hooks_change_parameters_while_backward_runs(kind: str, takes_gradient: bool, torch: Any) -> None:
    """A hook may change its own parameter, which backward no longer needs; changing one that it needs is an error."""
    values = numpy.random.default_rng(0).normal(size=(3, 4, 4)).astype("float32")

    def backward(library: Any, hook: Any) -> list[numpy.ndarray]:
        layers = [library.nn.Linear(4, 4) for _ in range(3 if kind == "chain" else 1)]
        for layer, value in zip(layers, values):
            layer.load_state_dict({"weight": library.tensor(value), "bias": library.tensor(value[0])})
        layers *= 1 if kind == "chain" else 3
        model = library.nn.Sequential(layers[0], library.nn.Tanh(), layers[1], library.nn.ReLU(), layers[2])
        found: dict[str, list[Any]] = {name: [] for name, _ in model.named_parameters()}

        def note(name: str, p: Any) -> None:
            found[name].append(p.grad.numpy().copy())
            hook(p, model)

        for name, p in model.named_parameters():
            p.register_post_accumulate_grad_hook(lambda p, name=name: note(name, p))
        x = library.tensor(values[1], requires_grad=takes_gradient)
        model(x).square().sum().backward()
        assert all(len(each) == 1 for each in found.values())
        return [*(each[0] for each in found.values()), *([x.grad.numpy()] if takes_gradient else [])]

    def step(p: Any, model: Any) -> None:
        p.data.mul_(0.5)
        p.grad = None

    def clear_all(p: Any, model: Any) -> None:
        for q in model.parameters():
            q.detach().zero_()

    expected = backward(torch, lambda p, model: None)
    for hook in (step, lambda p, model: p.detach().zero_(), lambda p, model: p.grad.zero_()):
        for found, wanted in zip(backward(gpunet, hook), expected, strict=True):
            numpy.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    if kind == "chain":
        with pytest.raises(InPlaceError, match="saved a tensor for backward that was then changed in place"):
            backward(gpunet, clear_all)
