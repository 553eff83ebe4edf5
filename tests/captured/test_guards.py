"""Guards: a captured step is recorded again when a value outside its arguments has changed."""

from __future__ import annotations

import collections
import functools
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import CaptureError
from gpunet.tools.bench.networks import CASES
from gpunet.tools.bench.peers import ours
from tests.captured.test_capture import Training
from tests.ops.test_ops import to_numpy

X = [[1.0, -2.0], [0.5, 3.0]]


class OneBatch:
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


def set_option(name: str, value: Any, how: str = "item") -> Callable[[OneBatch], None]:
    def change(training: OneBatch) -> None:
        group = training.optimizer.param_groups[0]
        if how == "update":
            group.update({name: value})
        elif how == "|=":
            group |= {name: value}
        else:
            group[name] = value

    return change


def regroup(training: OneBatch) -> None:
    parameter = training.optimizer.param_groups[0]["params"].pop()
    training.optimizer.add_param_group({"params": parameter, "lr": 0.5})


def sgd(parameters: Any) -> gpunet.optim.Optimizer:
    return gpunet.optim.SGD(parameters, lr=0.1, momentum=0.9)


def adam(parameters: Any) -> gpunet.optim.Optimizer:
    return gpunet.optim.Adam(parameters, lr=0.1)


@pytest.mark.parametrize(
    "make, change, recordings",
    [
        (sgd, set_option("momentum", 0.1), 1),
        (sgd, set_option("momentum", 0.0), 2),  # launches without momentum
        (sgd, set_option("nesterov", True), 2),
        (sgd, set_option("nesterov", False), 1),  # unchanged
        (adam, set_option("weight_decay", 0.5), 2),
        (adam, set_option("betas", (0.5, 0.5), how="update"), 1),
        (adam, set_option("eps", 0.1), 1),
        (adam, set_option("lr", 0.01, how="update"), 1),
        (adam, set_option("lr", 0.01, how="|="), 1),
        (sgd, set_option("nesterov", True, how="|="), 2),
        (adam, lambda training: training.model[0].weight.requires_grad_(False), 2),
        (adam, lambda training: training.model[2].requires_grad_(False), 2),
        (sgd, lambda training: training.optimizer.state.clear(), 2),
        (adam, lambda training: setattr(training.optimizer, "state", collections.defaultdict(dict)), 2),
        (sgd, lambda training: training.optimizer.param_groups[0]["params"].pop(), 2),
        (adam, lambda training: training.optimizer.param_groups[0].update(params=[training.model[0].weight]), 2),
        (adam, lambda training: training.optimizer.param_groups.clear(), 2),
        (sgd, lambda training: setattr(training.optimizer, "param_groups", []), 2),
        (sgd, regroup, 3),  # recording splits the joined state, which invalidates that recording
    ],
)
def test_changes_between_steps_are_guarded(make: Any, change: Any, recordings: int, device: str) -> None:
    results = []
    for captured in (False, True):
        training = OneBatch(make, captured)
        losses = [training.run(gpunet.tensor(X)) for _ in range(2)]
        change(training)
        losses += [training.run(gpunet.tensor(X)) for _ in range(3)]
        results.append([to_numpy(t.detach()).tobytes() for t in (*losses, *training.model.parameters())])
    assert results[0] == results[1]
    assert len(training.run.recordings) == recordings  # type: ignore[attr-defined]


def test_replays_follow_hyperparameters_set_outside_the_step(device: str) -> None:
    """Launches read them from a buffer."""
    results = []
    for captured in (False, True):
        training = OneBatch(sgd, captured)
        (group,) = training.optimizer.param_groups
        schedule = gpunet.optim.lr_scheduler.OneCycleLR(training.optimizer, max_lr=0.1, total_steps=50)
        for number in range(20):
            group["weight_decay"] = 0.01 * (number + 1)
            training.run(gpunet.tensor(X))
            schedule.step()
        results.append([to_numpy(p).tobytes() for p in training.model.parameters()])
    assert results[0] == results[1]
    assert len(training.run.recordings) == 1  # type: ignore[attr-defined]


def test_the_error_names_an_option_that_changes_at_each_step(device: str) -> None:
    weight = gpunet.ones(2, device=device, requires_grad=True)
    optimizer = sgd([weight])

    @gpunet.capture(recordings=3)
    def step() -> None:
        optimizer.zero_grad()
        weight.sum().backward()
        optimizer.step()

    for number in range(3):
        optimizer.param_groups[0]["epoch"] = number
        step()
    optimizer.param_groups[0]["epoch"] = 3
    with pytest.raises(CaptureError, match=r"recorded 3 times .*an option of an optimizer \(epoch was 2 and is 3"):
        step()


def test_unfreezing_a_parameter_is_guarded(device: str) -> None:
    training = OneBatch(adam, True)
    weight = training.model[0].weight
    weight.requires_grad_(False)
    before = weight.tolist()
    training.run(gpunet.tensor(X))
    assert weight.tolist() == before
    weight.requires_grad_()
    training.run(gpunet.tensor(X))
    assert weight.tolist() != before


# ---- kinds of values ----------------------------------------------------------------------------------------------------

scale = 2.0


def test_numbers_named_in_the_code_are_guarded(device: str) -> None:
    class Settings:
        offset = 1.0

    settings = Settings()
    power = 1
    more = {"shift": 0.0, "factors": [1.0, 1.0]}

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        return (scale * x + settings.offset) ** power * more["factors"][1] + more["shift"]

    global scale
    captured, x = gpunet.capture(step), gpunet.tensor([3.0])
    assert captured(x).item() == 7.0
    scale = 3.0
    assert captured(x).item() == 10.0
    settings.offset = 2.0
    assert captured(x).item() == 11.0
    power = 2
    assert captured(x).item() == 121.0
    power, settings.offset, scale = 1, 1.0, 2.0
    assert captured(x).item() == 7.0
    assert len(captured.recordings) == 5  # not 4: offset is an instance attribute now, so the first one no longer fits
    power = 2
    captured(x)
    assert len(captured.recordings) == 6
    power = 1
    captured(x)
    assert len(captured.recordings) == 6  # an earlier one fits again
    more["shift"] = 0.5
    assert captured(x).item() == 7.5
    more["factors"][1] = 2.0
    assert captured(x).item() == 14.5


@pytest.mark.parametrize("of_argument", [True, False], ids=["argument", "closure"])
def test_equal_numbers_of_other_types_or_signs_are_distinguished(of_argument: bool, device: str) -> None:
    """1, True and 1.0, which promote to other dtypes, and 0.0 and -0.0; but all NaNs are equal."""
    number: Any = None
    captured = gpunet.capture((lambda x, n: (x * n, x / n)) if of_argument else lambda x: (x * number, x / number))
    for x in (gpunet.tensor([2]), gpunet.tensor([2.0])):
        for number in (1, True, 1.0, 0.0, -0.0, float("nan"), numpy.float64("nan"), -float("nan")):
            for found, expected in zip(captured(x, number) if of_argument else captured(x), (x * number, x / number)):
                assert found.dtype == expected.dtype
                numpy.testing.assert_array_equal(to_numpy(found), to_numpy(expected))
    assert len(captured.recordings) == 14


def test_attributes_of_modules_are_guarded(device: str) -> None:
    dropout = nn.Dropout(0.5)
    captured, x = gpunet.capture(lambda x: dropout(x)), gpunet.ones(200)
    assert 0 < to_numpy(captured(x)).mean() != 1.0
    dropout.eval()
    assert (to_numpy(captured(x)) == 1.0).all()
    dropout.train()
    dropout.p = 1.0
    assert (to_numpy(captured(x)) == 0.0).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.append(SIGMOID),
        lambda net: net.extend([SIGMOID]),
        lambda net: net.add_module("last", SIGMOID),
        lambda net: net.__setitem__(-1, SIGMOID),
        lambda net: net[0].__delattr__("bias") or net[0].register_parameter("bias", None),
        lambda net: net[0].register_parameter("bias", None),
        lambda net: net[2].register_buffer("slope", gpunet.full((1,), 3.0)),
    ],
)
def test_parts_of_modules_are_guarded(change: Any, device: str) -> None:
    class Sloped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("slope", gpunet.full((1,), 2.0))

        def forward(self, x: gpunet.Tensor) -> gpunet.Tensor:
            return x * self.slope

    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), Sloped())
    captured, x = gpunet.capture(lambda x: net(x)), gpunet.tensor(X)
    before = captured(x).tolist()
    change(net)
    assert captured(x).tolist() == captured(x).tolist() == net(x).tolist() != before


def test_replacing_a_tensor_is_guarded(device: str) -> None:
    model = nn.Linear(2, 1, bias=False)
    offset = gpunet.zeros(1)

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        return model(x) + offset

    captured, x = gpunet.capture(step), gpunet.ones(1, 2)
    captured(x)
    for change in range(4):
        if change == 0:
            model.weight.data = gpunet.ones(1, 2)
        elif change == 1:
            model.weight = nn.Parameter(gpunet.full((1, 2), 5.0))
        elif change == 2:
            offset = gpunet.ones(1)
        else:
            model.load_state_dict({"weight": gpunet.full((1, 2), 7.0)})
        assert captured(x).item() == step(x).item()


def test_in_place_changes_outside_the_step_need_no_new_recording(device: str) -> None:
    w = gpunet.ones(3)
    captured = gpunet.capture(lambda x: x * w)
    captured(gpunet.ones(3))
    w.mul_(4.0)
    assert captured(gpunet.ones(3)).tolist() == [4.0, 4.0, 4.0]
    assert len(captured.recordings) == 1


def test_gradients_accumulate_onto_existing_ones(device: str) -> None:
    w = gpunet.ones(2, requires_grad=True)

    def step(x: gpunet.Tensor) -> None:
        (x * w).sum().backward()

    captured, x = gpunet.capture(step), gpunet.tensor([1.0, 2.0])
    for expected in ([1.0, 2.0], [2.0, 4.0], [3.0, 6.0]):
        captured(x)
        assert w.grad.tolist() == expected
    w.grad = None
    captured(x)
    assert w.grad.tolist() == [1.0, 2.0]
    w.grad = gpunet.tensor([10.0, 10.0])
    captured(x)
    assert w.grad.tolist() == [11.0, 12.0]


def test_grad_mode_is_guarded(device: str) -> None:
    w = gpunet.ones(2, requires_grad=True)

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        y = (x * w).sum()
        if gpunet.is_grad_enabled():
            y.backward()
        return y

    captured, x = gpunet.capture(step), gpunet.ones(2)
    captured(x)
    w.grad = None
    with gpunet.no_grad():
        captured(x)
    assert w.grad is None
    captured(x)
    assert w.grad.tolist() == [1.0, 1.0]


def test_adam_steps_of_other_parameters_are_guarded(device: str) -> None:
    """Adam updates parameters that always step together as one vector; a recording is stale once one has stepped alone."""

    def make() -> tuple[Any, Any, Any]:
        a, b = (gpunet.full((3,), v, requires_grad=True) for v in (1.0, 2.0))
        optimizer = gpunet.optim.Adam([a, b], lr=0.1)

        def step(x: gpunet.Tensor) -> None:
            optimizer.zero_grad()
            (a * b * x).sum().backward()
            optimizer.step()

        def alone() -> None:
            optimizer.zero_grad()
            a.square().sum().backward()
            optimizer.step()

        return step, alone, (a, b)

    results = []
    for wrap in (gpunet.capture, lambda step: step):
        step, alone, weights = make()
        step = wrap(step)
        for number in range(12):
            step(gpunet.full((3,), number + 1.0))
            if number == 5:
                alone()
        results.append([to_numpy(w).tobytes() for w in weights])
    assert results[0] == results[1]


def test_loading_an_optimizer_state_is_guarded(device: str) -> None:
    captured, eager = Training(True), Training(False)
    for training in (captured, eager):
        training.train(4)
        state = training.optimizer.state_dict()
        state = {**state, "state": {k: {n: t.clone() for n, t in v.items()} for k, v in state["state"].items()}}
        training.train(3)
        training.optimizer.load_state_dict(state)
    assert captured.train(5) == eager.train(5)


def test_too_many_recordings_raise(device: str) -> None:
    captured = gpunet.capture(lambda x: x + 1.0, recordings=3)
    for rows in range(1, 4):
        captured(gpunet.ones(rows))
    with pytest.raises(CaptureError, match="recorded 3 times already"):
        captured(gpunet.ones(9))


# ---- where values are found ---------------------------------------------------------------------------------------------


class Scaled:
    """Its step calls another of its methods, which reads a number."""

    def __init__(self) -> None:
        self.factor = 2.0

    def times(self, x: gpunet.Tensor) -> gpunet.Tensor:
        return x * self.factor

    def step(self, x: gpunet.Tensor) -> gpunet.Tensor:
        return self.times(x)

    def __call__(self, x: gpunet.Tensor) -> gpunet.Tensor:
        return self.times(x)


@pytest.mark.parametrize("make", [lambda s: s.step, lambda s: s, lambda s: lambda x: s.step(x), lambda s: functools.partial(s)])
def test_numbers_read_by_called_methods_are_guarded(make: Any) -> None:
    scaled = Scaled()
    step = gpunet.capture(make(scaled))
    assert step(gpunet.ones(1)).item() == 2.0
    scaled.factor = 3.0
    assert step(gpunet.ones(1)).item() == 3.0


class Slots:
    __slots__ = ("factor",)


class Computed:
    factor_of = 2.0

    @property
    def factor(self) -> float:
        return self.factor_of


@pytest.mark.parametrize("kind, name", [(Slots, "factor"), (Computed, "factor_of")])
def test_slots_and_properties_are_guarded(kind: Any, name: str) -> None:
    settings = kind()
    setattr(settings, name, 2.0)
    step = gpunet.capture(lambda x: x * settings.factor)
    assert step(gpunet.ones(1)).item() == 2.0
    setattr(settings, name, 3.0)
    assert step(gpunet.ones(1)).item() == 3.0
    setattr(settings, name, 2.0)
    assert step(gpunet.ones(1)).item() == 2.0 and len(step.recordings) == 2


FACTORS, SIGMOID = [0.5], nn.Sigmoid()


@pytest.mark.parametrize(
    "hook",
    [
        lambda model: model[0].register_forward_hook(lambda module, inputs, output: output * FACTORS[0]),
        lambda model: model[1].register_forward_pre_hook(lambda module, inputs: (inputs[0] * FACTORS[0],)),
        lambda model: model[2].weight.register_hook(lambda gradient: gradient * FACTORS[0]),
    ],
)
def test_hooks_are_guarded(hook: Any, device: str) -> None:
    """Hooks are added and removed between steps, and a number that they read changes."""
    results = []
    for captured in (False, True):
        training = OneBatch(sgd, captured)
        for number in range(8):
            if number == 2:
                handle = hook(training.model)
            if number == 6:
                handle.remove()
            FACTORS[0] = 0.25 if number == 4 else 0.5
            training.run(gpunet.tensor(X))
        results.append([to_numpy(p).tobytes() for p in training.model.parameters()])
    assert results[0] == results[1]
    assert len(training.run.recordings) == 3  # type: ignore[attr-defined]


def test_arguments_of_a_partial_are_guarded() -> None:
    factors = [2.0]
    step = gpunet.capture(functools.partial(lambda f, x: x * f[0], factors))
    assert step(gpunet.ones(1)).item() == 2.0
    factors[0] = 3.0
    assert step(gpunet.ones(1)).item() == 3.0


@pytest.mark.parametrize("seed", [lambda: gpunet.manual_seed(3), lambda: gpunet.Generator(3)])
def test_seeding_in_a_step_raises(seed: Any) -> None:
    def step() -> gpunet.Tensor:
        seed()
        return gpunet.rand(2)

    with pytest.raises(CaptureError, match="seeding random numbers cannot be captured.*before the step"):
        gpunet.capture(step)()


def test_deleted_names_are_guarded(device: str) -> None:
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


def test_a_step_is_freed_with_its_last_reference(device: str) -> None:
    """GPU memory must not wait for the garbage collector."""
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


def test_a_step_of_the_library_is_watched() -> None:
    """Its closure leads to the model, as that of a user's function does: gpunet bench captures steps of its own."""
    runner = ours.make(CASES["tiny"], "forward", "numpy", "cpu")
    eager = ours.make(CASES["tiny"], "forward", "eager", "cpu")
    for batch, other in zip(runner.batches[:3], eager.batches[:3]):
        assert runner.step(*batch).item() == pytest.approx(eager.step(*other).item(), rel=1e-6)


def test_what_an_import_in_a_step_reads_is_not_guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the code of the module nor hooks of imports run in a replay."""
    code = "for name in ('a', 'b'):\n    def read():\n        return name\n    read()\nfactor = 2.0\n"
    (tmp_path / "imported_in_a_step.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)

    @gpunet.capture
    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        import imported_in_a_step  # type: ignore[import-not-found]

        return x * imported_in_a_step.factor

    x = gpunet.tensor(X)
    assert step(x).tolist() == step(x).tolist() == (2.0 * x).tolist()
    assert 1 <= len(step.recordings) <= 2  # the module is there before the second call
