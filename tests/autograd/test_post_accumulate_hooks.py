"""Hooks that run when the gradient of a leaf was accumulated, as those that step each parameter within backward."""

from __future__ import annotations

from typing import Any

import pytest

import gpunet
from gpunet.errors import GradientError


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
