"""Checkpoints: the same results as the call itself, with the activations computed again."""

from __future__ import annotations

import weakref
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.autograd import mode
from gpunet.errors import ArgumentError, DtypeError, GradientError, InPlaceError
from gpunet.launch.random import Streams, default_generator
from gpunet.utils.checkpoint import checkpoint, checkpoint_sequential, get_device_states, set_device_states


def derivatives(library: Any, call: Any) -> list[Any]:
    """First and second derivatives through a part that uses arguments, a parameter that is used before, and a tensor of outside."""
    numbers = numpy.random.RandomState(0)
    w = library.tensor(numbers.randn(4, 4), requires_grad=True)
    x = library.tensor(numbers.randn(3, 4), requires_grad=True)
    h = library.tanh(x @ w)
    outside = h * 2
    y, total, kept = call(lambda a, power: (library.sin(a @ w) ** power * outside, a.sum(), a), h, power=2)
    loss = (y * y).sum() + 3 * total + kept.sum()
    dx, dw = library.autograd.grad(loss, [x, w], create_graph=True)
    (dx.pow(2).sum() + dw.pow(3).sum()).backward()
    return [t.detach().numpy() for t in (loss, dx, dw, x.grad, w.grad)]


def test_first_and_second_derivatives_are_pytorchs(torch: Any) -> None:
    expected = derivatives(torch, lambda f, *args, **options: f(*args, **options))
    for found in (derivatives(gpunet, checkpoint), derivatives(gpunet, lambda f, *args, **options: f(*args, **options))):
        for a, b in zip(found, expected):
            numpy.testing.assert_allclose(a, b, rtol=1e-12)


def test_dropout_draws_the_same_mask_again_and_the_stream_goes_on(device: str) -> None:
    def run(wraps: bool) -> list[Any]:
        gpunet.manual_seed(3)
        x = gpunet.ones(200, requires_grad=True)
        y = checkpoint(lambda x: nn.functional.dropout(x), x * 2) if wraps else nn.functional.dropout(x * 2)
        y.sum().backward()
        return [y.tolist(), x.grad.tolist(), gpunet.rand(3).tolist()]

    assert run(True) == run(False)


def test_draws_on_devices_that_no_argument_names(device: str) -> None:
    """Tensors inside of a list; a device on which nothing was drawn before."""
    gpunet.manual_seed(1)
    x = gpunet.ones(200, requires_grad=True)
    y = checkpoint(lambda tensors: nn.functional.dropout(tensors[0]), [x])
    y.sum().backward()
    assert y.tolist() == x.grad.tolist()
    streams = default_generator.exchange(Streams(5, {}))
    try:
        x = gpunet.ones(200, requires_grad=True, device="cpu")
        y = checkpoint(lambda x: nn.functional.dropout(x.to(device)).to("cpu"), x)
        y.sum().backward()
        assert y.tolist() == x.grad.tolist()
    finally:
        default_generator.exchange(streams)


def test_without_the_state_of_random_numbers_another_mask_is_drawn() -> None:
    gpunet.manual_seed(3)
    x = gpunet.ones(200, requires_grad=True)
    y = checkpoint(lambda x: nn.functional.dropout(x), x, preserve_rng_state=False)
    y.sum().backward()
    assert y.tolist() != x.grad.tolist()


def test_captured_steps_follow_eager_ones(device: str) -> None:
    def losses(captures: bool) -> list[float]:
        gpunet.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 1))
        optimizer = gpunet.optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = checkpoint(model, x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        run = gpunet.capture(step) if captures else step
        return [run(gpunet.randn(6, 4)).item() for _ in range(4)]

    assert losses(True) == losses(False)


def test_activations_are_released_after_the_forward_pass() -> None:
    alive: list[Any] = []

    def part(x: Any) -> Any:
        h = x.exp()
        alive.append(weakref.ref(h))
        return h.tanh()

    x = gpunet.ones(3, requires_grad=True)
    y = checkpoint(part, x)
    assert alive[0]() is None
    y.sum().backward()
    assert len(alive) == 2 and alive[1]() is None


def test_the_second_call_says_that_it_is_one() -> None:
    seen = []

    def part(x: Any) -> Any:
        seen.append(mode.current.recomputes)
        return x * 2

    checkpoint(part, gpunet.ones(2, requires_grad=True)).sum().backward()
    assert seen == [False, True] and not mode.current.recomputes


@pytest.mark.parametrize("name", ["x", "w"])
def test_changes_in_place_before_the_second_call_are_noticed(name: str) -> None:
    x, w = gpunet.ones(2) * 1, gpunet.ones(2, requires_grad=True)
    y = checkpoint(lambda x: x * w * w, x)
    with gpunet.no_grad():
        {"x": x, "w": w}[name].mul_(2)
    with pytest.raises(InPlaceError, match="changed in place"):
        y.sum().backward()


def test_changes_in_place_of_a_tensor_in_a_list_are_noticed() -> None:
    x = gpunet.ones(2, requires_grad=True)
    h = x * 1
    y = checkpoint(lambda tensors: tensors["h"][0] ** 2, {"h": (h,)})
    with gpunet.no_grad():
        h.mul_(10)
    with pytest.raises(InPlaceError, match="changed in place"):
        y.sum().backward()


def test_running_statistics_behind_an_inner_checkpoint_move_once() -> None:
    norm = nn.BatchNorm1d(3)

    def part(x: Any) -> Any:
        (g,) = gpunet.autograd.grad(checkpoint(lambda x: (x**3).sum(), x), x, create_graph=True)
        return norm(g)

    checkpoint(part, gpunet.randn(5, 3).requires_grad_()).square().sum().backward()
    assert norm.num_batches_tracked.item() == 1


def test_pytorchs_other_arguments() -> None:
    x = gpunet.ones(2, requires_grad=True)
    checkpoint(lambda x: x * 2, x, use_reentrant=False, determinism_check="none", debug=True, early_stop=False).sum().backward()
    with pytest.raises(ArgumentError, match="context_fn is not supported"):
        checkpoint(lambda x: x * 2, x, context_fn=lambda: None)


def test_second_call_that_returns_other_shapes_is_an_error() -> None:
    sizes = iter([2, 3])
    y = checkpoint(lambda x: x.sum() * gpunet.ones(next(sizes)), gpunet.ones(2, requires_grad=True))
    with pytest.raises(GradientError, match="must do the same at both calls"):
        y.sum().backward()


def test_results_are_tensors_tuples_or_lists() -> None:
    x = gpunet.ones(2, requires_grad=True)
    assert isinstance(checkpoint(lambda x: [x * 2, 3, None], x), list)
    y, number, index = checkpoint(lambda x: (x * 2, 3, (x > 0).long()), x)
    assert y.requires_grad and number == 3 and not index.requires_grad


def test_nothing_to_differentiate() -> None:
    x = gpunet.ones(2)
    assert checkpoint(lambda x: x * 2, x, use_reentrant=False).tolist() == [2, 2]
    with pytest.warns(UserWarning, match="requires grad"):
        checkpoint(lambda x: x * 2, x, use_reentrant=True)
    with gpunet.no_grad():
        assert not checkpoint(lambda x: x * 2, x.requires_grad_()).requires_grad


def test_sequential_in_segments() -> None:
    model = nn.Sequential(*[layer for _ in range(3) for layer in (nn.Linear(4, 4), nn.Tanh())])
    x = gpunet.randn(5, 4)
    gradients = []
    for call in (model, lambda x: checkpoint_sequential(model, 2, x, use_reentrant=False)):
        model.zero_grad()
        call(x).sum().backward()
        gradients.append([p.grad.tolist() for p in model.parameters()])
    assert gradients[0] == gradients[1]


def test_wrong_arguments() -> None:
    with pytest.raises(DtypeError, match="expected a function or a module"):
        checkpoint(gpunet.ones(2), gpunet.ones(2))
    for segments in (0, 3, 1.5, True):
        with pytest.raises(ArgumentError, match="expected 1 to 2"):
            checkpoint_sequential([abs, abs], segments, gpunet.ones(2))  # type: ignore[arg-type]


def test_states_of_the_devices_of_tensors(device: str) -> None:
    arguments = ([gpunet.ones(1), gpunet.ones(2, device=device)], {"x": 3})
    numbers, states = get_device_states(*arguments)
    assert numbers == ([0, 0] if gpunet.device(device).type == "cuda" else [])
    drawn = [gpunet.rand(2, device=f"cuda:{number}").tolist() for number in numbers]
    set_device_states(numbers, states)
    assert [gpunet.rand(2, device=f"cuda:{number}").tolist() for number in numbers] == drawn
    with pytest.raises(ArgumentError, match=r"set_device_states: device_type='mps'; expected 'cuda'"):
        set_device_states([], [], device_type="mps")
