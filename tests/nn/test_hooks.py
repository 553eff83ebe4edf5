"""Backward hooks, hooks of states, hooks of all modules, and extra state, beside PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, GradientError, StateDictError
from gpunet.nn import module as nn_module


def numbers(gradients: Any) -> Any:
    return [None if g is None else g.detach().tolist() for g in gradients]


class TwoInputs:
    """A module of two inputs and a number, with a tuple as its result; made for both libraries."""

    def __new__(cls, lib: Any) -> Any:
        class Made(lib.nn.Module):  # type: ignore[misc,name-defined]
            def forward(self, x: Any, y: Any, factor: float) -> Any:
                return x * y * factor, x + y

        return Made()


def backward_calls(lib: Any, replace: bool) -> Any:
    """What backward hooks receive, and the gradients of the leaves."""
    found: list[Any] = []
    module = TwoInputs(lib)

    def pre(m: Any, grad_output: Any) -> Any:
        found.append(("pre", numbers(grad_output)))
        return tuple(g * 2 if g is not None else None for g in grad_output) if replace else None

    def post(m: Any, grad_input: Any, grad_output: Any) -> Any:
        found.append(("post", numbers(grad_input), numbers(grad_output)))
        return tuple(g * 3 if g is not None else None for g in grad_input) if replace else None

    module.register_full_backward_pre_hook(pre)
    handle = module.register_full_backward_hook(post)
    x, y, z = (lib.tensor(v, requires_grad=r) for v, r in (([1.0, 2.0], True), ([3.0, 4.0], True), ([5.0, 6.0], False)))
    a, b = module(x, y, 2.0)
    (a.sum() + (b * b).sum()).backward()
    found += [x.grad.tolist(), y.grad.tolist()]
    a, _ = module(z, y * 1, 2.0)  # one input without a gradient, one output that is not used
    a.sum().backward()
    found.append(y.grad.tolist())
    handle.remove()
    module(x, y, 1.0)[0].sum().backward()
    return [*found, x.grad.tolist()]


@pytest.mark.parametrize("replace", [False, True])
def test_backward_hooks_are_those_of_torch(replace: bool, torch: Any) -> None:
    assert backward_calls(gpunet, replace) == backward_calls(torch, replace)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # PyTorch's
def test_hooks_of_a_module_whose_inputs_need_no_gradient(torch: Any) -> None:
    results = []
    for lib in (gpunet, torch):
        found: list[Any] = []
        layer = lib.nn.Linear(2, 1)
        layer.register_full_backward_hook(lambda m, i, o, found=found: found.append((numbers(i), numbers(o))))
        layer(lib.ones(3, 2)).sum().backward()
        results.append(found)
    assert results[0] == results[1] == [([None], [[[1.0]] * 3])]


def test_gradients_with_hooks_have_second_derivatives() -> None:
    layer = nn.Tanh()
    layer.register_full_backward_hook(lambda m, i, o: (i[0] * 2,))
    x = gpunet.tensor([0.3], dtype="float64", requires_grad=True)
    (g,) = gpunet.grad(layer(x), x, create_graph=True)
    (second,) = gpunet.grad(g, x)
    t = numpy.tanh(0.3)
    numpy.testing.assert_allclose(g.item(), 2 * (1 - t * t))
    numpy.testing.assert_allclose(second.item(), 2 * -2 * t * (1 - t * t) * 2)  # the hook runs in the second backward, too


def test_a_hook_must_return_as_many_gradients() -> None:
    layer = nn.ReLU()
    layer.register_full_backward_hook(lambda m, i, o: (i[0], i[0]))
    with pytest.raises(GradientError, match="returned 2 gradients for grad_input; expected 1"):
        layer(gpunet.ones(2, requires_grad=True)).sum().backward()


def test_sequential_calls_backward_hooks_of_layers_that_it_would_fuse() -> None:
    model, seen = nn.Sequential(nn.Linear(2, 3), nn.ReLU()), []
    model[1].register_full_backward_hook(lambda m, i, o: seen.append(i[0].shape))
    model(gpunet.ones(4, 2)).sum().backward()
    assert seen == [(4, 3)]


def test_hooks_of_all_modules() -> None:
    seen: list[str] = []
    handles = [
        nn_module.register_module_forward_pre_hook(lambda m, args: seen.append("pre")),
        nn_module.register_module_forward_hook(lambda m, args, out: seen.append("post")),
        nn_module.register_module_full_backward_pre_hook(lambda m, o: seen.append("backward pre")),
        nn_module.register_module_full_backward_hook(lambda m, i, o: seen.append("backward")),
    ]
    try:
        nn.Tanh()(gpunet.ones(1, requires_grad=True)).backward()
    finally:
        for handle in handles:
            handle.remove()
    assert seen == ["pre", "post", "backward pre", "backward"]
    nn.Tanh()(gpunet.ones(1))
    assert len(seen) == 4


def states(lib: Any) -> Any:
    """Keys after hooks have changed the states."""
    found: list[Any] = []
    model = lib.nn.Sequential(lib.nn.Linear(1, 1), lib.nn.Linear(1, 1))
    model[1].register_state_dict_pre_hook(lambda m, prefix, keep_vars: found.append((prefix, keep_vars)))
    model[0].register_state_dict_post_hook(lambda m, state, prefix, _: state.update({prefix + "note": lib.ones(1)}) and None)
    state = model.state_dict()
    found.append(sorted(state))

    def rename(m: Any, state: Any, prefix: str, _: Any, strict: bool, missing: Any, unexpected: Any, errors: Any) -> None:
        found.append((prefix, strict))
        state.pop(prefix + "note")

    model[0].register_load_state_dict_pre_hook(rename)
    model.register_load_state_dict_post_hook(lambda m, keys: found.append([list(part) for part in keys]))
    before = sorted(state)
    model.load_state_dict(state)
    assert sorted(state) == before  # the caller's dict stays
    return found


def test_hooks_of_states_are_those_of_torch(torch: Any) -> None:
    assert states(gpunet) == states(torch)


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.count = nn.Linear(1, 1), 0

    def get_extra_state(self) -> Any:
        return {"count": self.count}

    def set_extra_state(self, state: Any) -> None:
        self.count = state["count"]


def test_extra_state_is_saved_and_loaded() -> None:
    source, target = nn.Sequential(Counter()), nn.Sequential(Counter())
    source[0].count = 7
    state = source.state_dict()
    assert list(state) == ["0.layer.weight", "0.layer.bias", "0._extra_state"] or state["0._extra_state"] == {"count": 7}
    target.load_state_dict(state)
    assert target[0].count == 7
    del state["0._extra_state"]
    with pytest.raises(StateDictError, match="missing keys: 0._extra_state"):
        target.load_state_dict(state)


def test_parameters_buffers_and_submodules_by_name() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    model[0].register_buffer("seen", gpunet.zeros(1))
    assert model.get_parameter("0.weight") is model[0].weight and model.get_buffer("0.seen") is model[0].seen
    with pytest.raises(ArgumentError, match=r"get_parameter\('0.w'\): Linear has no parameter 'w'; it has \['weight', 'bias'\]"):
        model.get_parameter("0.w")
    model.set_submodule("0", nn.Tanh())
    assert isinstance(model[0], nn.Tanh)
    with pytest.raises(ArgumentError, match="has no submodule 'x'; pass strict=False"):
        model.set_submodule("x", nn.Tanh(), strict=True)


def test_halves_and_to_empty(device: str) -> None:
    model = nn.Linear(2, 3)
    assert model.half().weight.dtype == gpunet.float16 and model.bfloat16().weight.dtype == gpunet.bfloat16
    assert model.type(gpunet.float64).bias.dtype == gpunet.float64  # type: ignore[union-attr]
    weight = model.weight
    assert model.to_empty(device=device).weight is weight and weight.device == gpunet.device(device) and weight.shape == (3, 2)
