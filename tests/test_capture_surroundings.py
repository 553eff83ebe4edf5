"""What a captured step depends on beyond its arguments: options of optimizers, frozen parameters, helpers of its own."""

from __future__ import annotations

import collections
import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import gpunet
from gpunet import nn
from gpunet.errors import CaptureError
from test_ops import to_numpy

X = [[1.0, -2.0], [0.5, 3.0]]


class Training:
    """Two layers, trained on one batch."""

    def __init__(self, make: Callable[..., gpunet.optim.Optimizer], captured: bool) -> None:
        gpunet.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        self.optimizer = make(self.model.parameters())
        self.run = gpunet.capture(self.step) if captured else self.step

    def step(self, x: gpunet.Tensor) -> gpunet.Tensor:
        self.optimizer.zero_grad()
        loss = (self.model(x) ** 2).mean()
        loss.backward()
        self.optimizer.step()
        return loss


def set_option(name: str, value: Any, by_update: bool = False) -> Callable[[Training], None]:
    def change(training: Training) -> None:
        group = training.optimizer.param_groups[0]
        if by_update:
            group.update({name: value})
        else:
            group[name] = value

    return change


def sgd(parameters: Any) -> gpunet.optim.Optimizer:
    return gpunet.optim.SGD(parameters, lr=0.1, momentum=0.9)


def adam(parameters: Any) -> gpunet.optim.Optimizer:
    return gpunet.optim.Adam(parameters, lr=0.1)


@pytest.mark.parametrize(
    "make, change, recordings",
    [
        (sgd, set_option("momentum", 0.1), 2),
        (sgd, set_option("momentum", 0.9), 1),  # as it was
        (adam, set_option("weight_decay", 0.5), 2),
        (adam, set_option("betas", (0.5, 0.5), by_update=True), 2),
        (adam, set_option("lr", 0.01, by_update=True), 1),
        (adam, lambda training: training.model[0].weight.requires_grad_(False), 2),
        (adam, lambda training: training.model[2].requires_grad_(False), 2),
    ],
)
def test_what_changes_between_steps_is_followed(make: Any, change: Any, recordings: int, device: str) -> None:
    results = []
    for captured in (False, True):
        training = Training(make, captured)
        losses = [training.run(gpunet.tensor(X)) for _ in range(2)]
        change(training)
        losses += [training.run(gpunet.tensor(X)) for _ in range(3)]
        results.append([to_numpy(t.detach()).tobytes() for t in (*losses, *training.model.parameters())])
    assert results[0] == results[1]
    assert len(training.run.recordings) == recordings  # type: ignore[attr-defined]


def test_a_parameter_that_thaws_is_followed(device: str) -> None:
    training = Training(adam, True)
    weight = training.model[0].weight
    weight.requires_grad_(False)
    before = weight.tolist()
    training.run(gpunet.tensor(X))
    assert weight.tolist() == before
    weight.requires_grad_()
    training.run(gpunet.tensor(X))
    assert weight.tolist() != before


# ---- where numbers may be -----------------------------------------------------------------------------------------------


class Scaled:
    """Its step calls a method of its own, which reads a number."""

    def __init__(self) -> None:
        self.factor = 2.0

    def times(self, x: gpunet.Tensor) -> gpunet.Tensor:
        return x * self.factor

    def step(self, x: gpunet.Tensor) -> gpunet.Tensor:
        return self.times(x)

    def __call__(self, x: gpunet.Tensor) -> gpunet.Tensor:
        return self.times(x)


@pytest.mark.parametrize("make", [lambda s: s.step, lambda s: s, lambda s: lambda x: s.step(x), lambda s: functools.partial(s)])
def test_methods_that_the_step_calls_are_looked_into(make: Any) -> None:
    scaled = Scaled()
    step = gpunet.capture(make(scaled))
    assert step(gpunet.ones(1)).item() == 2.0
    scaled.factor = 3.0
    assert step(gpunet.ones(1)).item() == 3.0


def test_what_a_partial_binds_is_looked_into() -> None:
    factors = [2.0]
    step = gpunet.capture(functools.partial(lambda f, x: x * f[0], factors))
    assert step(gpunet.ones(1)).item() == 2.0
    factors[0] = 3.0
    assert step(gpunet.ones(1)).item() == 3.0


@pytest.mark.parametrize("seed", [lambda: gpunet.manual_seed(3), lambda: gpunet.Generator(3)])
def test_seeding_in_a_step_is_refused(seed: Any) -> None:
    def step() -> gpunet.Tensor:
        seed()
        return gpunet.rand(2)

    with pytest.raises(CaptureError, match="seeding random numbers cannot be recorded.*before the step"):
        gpunet.capture(step)()


def test_names_that_come_and_go_are_followed(device: str) -> None:
    x = gpunet.tensor(X, device=device)
    sizes: collections.defaultdict[str, float] = collections.defaultdict(lambda: 10.0, scale=2.0)
    here: dict[str, Any] = {"sizes": sizes, "scale": 3.0}
    exec("def step(x):\n    return x * sizes['scale'] * (scale if 'scale' in globals() else 1.0)", here)
    step = gpunet.capture(here["step"])
    expected = [6.0, 6.0, 3.0 * 4.0, 1.0 * 4.0, 1.0 * 10.0]

    def change(number: int) -> None:
        if number == 2:
            sizes["scale"] = 4.0
        elif number == 3:
            del here["scale"]
        elif number == 4:
            del sizes["scale"]

    for number, factor in enumerate(expected):
        change(number)
        assert (to_numpy(step(x)) == to_numpy(x * factor)).all(), number
        if number == 1:
            assert len(step.recordings) == 1


def test_a_step_is_gone_with_its_last_reference(device: str) -> None:
    """A card's memory must not wait for the garbage collector."""
    model = nn.Linear(2, 3).to(device)
    optimizer = sgd(model.parameters())
    x = gpunet.tensor(X, device=device)

    @gpunet.capture
    def step(x: gpunet.Tensor) -> tuple[gpunet.Tensor, ...]:
        optimizer.zero_grad()
        y = model(x)
        y.sum().backward()
        optimizer.step()
        return x, y

    step(x), step(x)
    recording = weakref.ref(step.recordings[0])
    gc.disable()
    try:
        del step
        assert recording() is None
    finally:
        gc.enable()
