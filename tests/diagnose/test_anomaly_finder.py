"""AnomalyFinder: planted anomalies, eager, captured and with a Trainer, are named by op, layer, step and range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import gpunet
from gpunet import diagnose, nn, optim
from gpunet.data import DataLoader, TensorDataset
from gpunet.diagnose import Anomaly
from gpunet.errors import ArgumentError, GradientError
from gpunet.nn import functional as F
from gpunet.train import Trainer


class Planted(nn.Module):
    """Two layers with a function between them."""

    def __init__(self, function: Callable[[Any], Any] = F.relu) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(3, 4), Middle(function), nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        return self.last(self.middle(self.first(x)))


class Middle(nn.Module):
    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


def batches(count: int = 5, device: str = "cpu") -> Any:
    gpunet.manual_seed(0)
    return gpunet.randn(count, 8, 3, device=device), gpunet.zeros(8, dtype=gpunet.int64, device=device)


def find(model: nn.Module, x: Any, y: Any, *, backend: str = "", every: int = 1, loss: Any = F.cross_entropy) -> Anomaly:
    """Train, and return the anomaly; the weights must not have been touched by it."""
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def step(inputs: Any, target: Any) -> Any:
        optimizer.zero_grad()
        value = loss(model(inputs), target)
        value.backward()
        optimizer.step()
        return value

    run = gpunet.capture(step, backend=backend) if backend else step
    def train() -> None:
        for inputs in x:
            run(inputs, y)
            finder.step()

    with diagnose.AnomalyFinder(model, optimizer, every=every) as finder, pytest.raises(GradientError) as caught:
        train()
    assert finder.anomaly is not None and str(caught.value) == str(finder.anomaly) == finder.anomaly.text
    assert not model.has_hooks and not any(optimizer._hooks.values())
    return finder.anomaly


BACKENDS = ("", "numpy", "numba")


@pytest.mark.parametrize("backend", BACKENDS)
def test_overflow_in_forward(backend: str) -> None:
    if backend == "numba":
        pytest.importorskip("numba")
    model = Planted(lambda x: (x * 8.0).exp() * 1e-3)
    x, y = batches()
    x[3] *= 100.0
    found = find(model, x, y, backend=backend)
    assert (found.step, found.where, found.op, found.layer) == (4, "forward", "exp", "middle (Middle)")
    assert "test_anomaly_finder.py" in found.line and "exp()" in found.line
    assert found.inputs[0].high > 88.0 and found.inputs[0].is_finite
    assert found.text.startswith("step 4: exp in middle (Middle) is the first to return numbers that are not finite, at test_")
    assert all(p.isfinite().all().item() for p in model.parameters())


@pytest.mark.parametrize("backend", BACKENDS[:2])
def test_nan_in_backward(backend: str) -> None:
    """sqrt(0) is finite, its derivative is not, and 0 times it is NaN."""
    model = Planted(lambda x: x.relu().sqrt())
    with gpunet.no_grad():
        model.first.bias[0] = -50.0
    x, y = batches()
    found = find(model, x, y, backend=backend)
    assert (found.step, found.where, found.op, found.layer) == (1, "backward", "sqrt", "middle (Middle)")
    assert found.line == "" and found.text.startswith("step 1: the backward of sqrt in middle (Middle) is the first")


def test_planted_everywhere() -> None:
    cases: list[tuple[Callable[[Any], Any], str, str]] = [
        (lambda x: x.log(), "forward", "log"),
        (lambda x: 1.0 / (x - x), "forward", "div"),
        (lambda x: (x * 1e30) * 1e30, "forward", "mul"),
        (lambda x: x.relu() ** 0.5, "backward", "pow"),
        (lambda x: F.normalize(x * 0.0, eps=0.0), "forward", "div"),
    ]
    for function, where, op in cases:
        model = Planted(function)
        with gpunet.no_grad():
            model.first.bias[0] = -50.0
        found = find(model, *batches())
        assert (found.where, found.op, found.layer) == (where, op, "middle (Middle)"), found.text


def test_a_layer_that_overflows() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with gpunet.no_grad():
        model[2].weight.fill_(1e38)
        model[0].bias.fill_(100.0)
    found = find(model, *batches())
    assert (found.where, found.op, found.layer) == ("forward", "linear", "2 (Linear)")


def test_input_parameter_and_loss() -> None:
    x, y = batches()
    x[2, 0, 1] = float("nan")
    found = find(Planted(), x, y)
    assert (found.step, found.where) == (3, "input") and "input 0 8 × 3: " in found.text and "1 NaN" in found.text
    model = Planted()
    with gpunet.no_grad():
        model.last.weight[0, 0] = float("inf")
    found = find(model, *batches())
    assert (found.where, found.layer) == ("parameter", "last.weight") and "1 infinite" in found.text
    found = find(Planted(), *batches(), loss=lambda output, target: (output - output).sqrt().sum())
    assert found.where == "loss" and found.text.startswith("step 1: the loss or its derivative is not finite")


def test_infinite_masks_are_no_anomaly() -> None:
    """Infinities that stand in the data, or are given as numbers, are not to blame."""
    mask = gpunet.tensor([0.0, float("-inf"), 0.0, 0.0])
    model = Planted(lambda x: (x + mask).softmax(1).masked_fill(mask < 0, float("inf")).clamp(max=1.0).sqrt().log())
    with gpunet.no_grad():
        model.first.bias[0] = -1e4
    found = find(model, *batches())
    assert (found.where, found.op) == ("forward", "log"), found.text


def test_with_a_trainer() -> None:
    x = gpunet.randn(40, 3)
    x[33, 0] = float("inf")
    model = Planted()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    finder = diagnose.AnomalyFinder(model, optimizer)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, callbacks=[finder], progress=False)
    with pytest.raises(GradientError, match=r"step 5: the input of the network is not finite: input 0 8 × 3"):
        trainer.fit(DataLoader(TensorDataset(x, gpunet.zeros(40, dtype=gpunet.int64)), 8), epochs=2)
    assert finder.anomaly is not None and finder.anomaly.step == 5
    other = diagnose.AnomalyFinder(Planted(), optimizer)
    with pytest.raises(ArgumentError, match="another network or optimizer"):
        other.on_start(trainer)


def test_training_goes_on_unchanged_without_an_anomaly() -> None:
    x, y = batches(20)
    losses = []
    for is_on in (False, True):
        gpunet.manual_seed(1)
        model = Planted()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        finder = diagnose.AnomalyFinder(model, optimizer)
        if is_on:
            finder.__enter__()
        for inputs in x:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), y)
            loss.backward()
            optimizer.step()
            finder.step()
        finder.__exit__()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("backend", ["", "auto"])
def test_on_devices(device: str, backend: str) -> None:
    """On a GPU the weights stay as they are from the bad step on, and the read after ``every`` steps raises."""
    model = Planted(lambda x: (x * 8.0).exp() * 1e-3).to(device)
    x, y = batches(6, device)
    x[2:] *= 100.0
    found = find(model, x, y, backend=backend, every=3 if device == "cuda" else 1)
    assert (found.step, found.op, found.layer) == (3, "exp", "middle (Middle)")
    assert all(p.isfinite().all().item() for p in model.parameters())


@pytest.mark.parametrize("name", ["SGD", "LBFGS"])
@pytest.mark.parametrize("by_name", [False, True])
def test_a_closure_is_checked_behind_its_calls(name: str, by_name: bool) -> None:
    model, (x, y) = Planted(lambda x: (x * 8.0).exp() * 1e-3), batches()
    x[2] *= 100.0
    optimizer = getattr(optim, name)(model.parameters(), lr=0.01)
    weights: list[Any] = []

    def train() -> None:
        for inputs in x:
            def closure(inputs: Any = inputs) -> Any:
                optimizer.zero_grad()
                weights[:] = [p.clone() for p in model.parameters()]
                loss = F.cross_entropy(model(inputs), y)
                loss.backward()
                return loss

            optimizer.step(**{"closure": closure}) if by_name else optimizer.step(closure)
            finder.step()

    with diagnose.AnomalyFinder(model, optimizer) as finder, pytest.raises(GradientError, match="step 3: exp in middle"):
        train()
    assert finder.anomaly is not None and finder.anomaly.op == "exp"
    assert all((p == before).all() and p.isfinite().all() for p, before in zip(model.parameters(), weights))


def test_large_gradients_are_finite() -> None:
    """Their squares overflow."""
    model, (x, y) = Planted(), batches()
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    with diagnose.AnomalyFinder(model, optimizer) as finder:
        (F.cross_entropy(model(x[0]), y) * 1e30).backward()
        optimizer.step()
    assert finder.anomaly is None


def test_a_scaler_is_left_alone() -> None:
    model = Planted()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    scaler = gpunet.amp.GradScaler("cpu", init_scale=2.0**127)
    x, y = batches()
    with diagnose.AnomalyFinder(model, optimizer) as finder:
        for inputs in x:
            optimizer.zero_grad()
            scaler.scale(1e-3 * F.cross_entropy(model(inputs * 1e4), y)).backward()
            scaler.step(optimizer)
            scaler.update()
            finder.step()
    assert finder.anomaly is None


def test_errors() -> None:
    model = Planted()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ArgumentError, match="model is a int; expected a Module"):
        diagnose.AnomalyFinder(3, optimizer)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="optimizer is a float; expected an Optimizer"):
        diagnose.AnomalyFinder(model, 0.1)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="every=0"):
        diagnose.AnomalyFinder(model, optimizer, every=0)
