"""Arguments and results of captured steps, graph breaks, and several steps at once."""

from __future__ import annotations

import copy
import functools
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, CaptureError, LabelError
from tests.captured.test_capture import Training, batches
from tests.ops.test_ops import to_numpy

F = nn.functional


# ---- arguments and results -----------------------------------------------------------------------------------------------


class Weighted:
    """A callable loss with a number as an attribute."""

    weight = 1.0

    def __call__(self, x: gpunet.Tensor) -> gpunet.Tensor:
        return x.square().sum() * self.weight


@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda model, loss: model.eval(),
        lambda model, loss: model[0].weight.requires_grad_(False),
        lambda model, loss: model.append(nn.Tanh()),
        lambda model, loss: setattr(loss, "weight", 0.1),
    ],
)
def test_changes_of_objects_are_guarded(change: Any, bound: bool, device: str) -> None:
    """The step gets models, optimizers and losses as arguments or from its closure."""
    results = []
    for wrap in (gpunet.capture, lambda step: step):
        gpunet.manual_seed(1)
        model, loss = nn.Sequential(nn.Linear(2, 9), nn.Dropout(0.5)), Weighted()
        optimizer = gpunet.optim.SGD(model.parameters(), lr=0.1)

        def step(model: Any, optimizer: Any, parts: Any, x: gpunet.Tensor) -> gpunet.Tensor:
            optimizer.zero_grad()
            result = parts["loss"](model(x))
            result.backward()
            optimizer.step()
            return result

        arguments = model, optimizer, {"loss": loss}
        call = wrap(lambda x: step(*arguments, x)) if bound else functools.partial(wrap(step), *arguments)  # noqa: B023
        losses = [call(gpunet.ones(3, 2)) for _ in range(2)]
        change(model, loss)
        losses += [call(gpunet.ones(3, 2)) for _ in range(3)]
        results.append([to_numpy(t.detach()).tobytes() for t in (*losses, *model.parameters())])
    assert results[0] == results[1]


def test_the_recorded_run_may_fill_a_cache(device: str) -> None:
    cache: dict[int, gpunet.Tensor] = {}

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        if 3 not in cache:
            cache[3] = gpunet.arange(3, device=x.device).float()
        return x * cache[3]

    captured = gpunet.capture(step)
    assert [captured(gpunet.ones(3)).tolist() for _ in range(3)] == [[0.0, 1.0, 2.0]] * 3


class Settings:
    factor = 1.0


class Reader(nn.Module):
    """Reads numbers from a dict and from a class, in ``forward`` and in another method."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = {"factor": 1.0}

    @staticmethod
    def scaled_by_class(x: gpunet.Tensor) -> gpunet.Tensor:
        return x * Settings.factor

    def scaled(self, x: gpunet.Tensor) -> gpunet.Tensor:
        return self.scaled_by_class(x * self.settings["factor"] * sum(self.settings.values()))

    def forward(self, x: gpunet.Tensor) -> gpunet.Tensor:
        return self.scaled(x)


@pytest.mark.parametrize("method", ["forward", "scaled"])
@pytest.mark.parametrize(
    "change",
    [
        lambda model, other: model.settings.update(factor=2.0),
        lambda model, other: model.settings.update(more=2.0),
        lambda model, other: setattr(Settings, "factor", 2.0),
        lambda model, other: setattr(other, "factor", 2.0),
        lambda model, other: setattr(other.Settings, "factor", 2.0),
    ],
)
def test_changes_of_classes_modules_and_dicts_are_guarded(
    method: str, change: Any, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = types.ModuleType("other")
    exec("factor = 1.0\nclass Settings:\n    factor = 1.0\ndef f(x):\n    return x * factor * Settings.factor", other.__dict__)
    monkeypatch.setattr(Settings, "factor", 1.0)
    model = Reader()
    steps = {"forward": lambda x: other.f(model(x)), "scaled": lambda x: other.f(model.scaled(x))}
    captured, x = gpunet.capture(steps[method]), gpunet.ones(2)
    assert captured(x).tolist() == [1.0] * 2
    change(model, other)
    assert captured(x).tolist() == other.f(model(x)).tolist() != [1.0] * 2
    captured(x)
    assert len(captured.recordings) == 2


def test_a_copy_has_recordings_of_its_own(device: str) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(gpunet.ones(1))

        @gpunet.capture
        def step(self, x: gpunet.Tensor) -> gpunet.Tensor:
            return x * self.factor

    one, x = Scaled(), gpunet.ones(1)
    one.step(x)
    other = copy.deepcopy(one)
    with gpunet.no_grad():
        other.factor.fill_(3.0)
    assert [m.step(x).item() for m in (one, other, one, other)] == [1.0, 3.0, 1.0, 3.0]
    assert len(one.step.recordings) == len(other.step.recordings) == 1


def test_results_are_not_overwritten_by_the_next_replay(device: str) -> None:
    captured = gpunet.capture(lambda x: (x * 2.0, {"sum": x.sum(), "name": "x"}))
    results = [captured(gpunet.full((3,), float(i))) for i in range(4)]
    assert [doubled.tolist() for doubled, _ in results] == [[2.0 * i] * 3 for i in range(4)]
    assert [more["sum"].item() for _, more in results] == [3.0 * i for i in range(4)]
    assert results[0][1]["name"] == "x"


def test_arguments_may_be_arrays_numbers_and_structures(device: str) -> None:
    def step(batch: dict[str, Any], factor: float, *, flip: bool = False) -> Any:
        x = batch["x"][0] * factor
        return -x if flip else x

    captured = gpunet.capture(step)
    x = gpunet.ones(2)
    assert captured({"x": [x]}, 2.0).tolist() == [2.0, 2.0]
    assert captured({"x": [x * 3.0]}, 2.0).tolist() == [6.0, 6.0]
    assert captured({"x": [x]}, 3.0, flip=True).tolist() == [-3.0, -3.0]
    assert len(captured.recordings) == 2
    if device == "cpu":
        assert captured({"x": [numpy.ones(2, "float32")]}, 2.0).tolist() == [2.0, 2.0]


def test_an_in_place_change_of_an_argument_reaches_the_caller(device: str) -> None:
    def step(x: gpunet.Tensor) -> None:
        x += 1.0

    captured = gpunet.capture(step)
    for _ in range(3):
        x = gpunet.zeros(2)
        captured(x)
        assert x.tolist() == [1.0, 1.0]
        captured(x)
        assert x.tolist() == [2.0, 2.0]


def test_arguments_that_alias_written_memory_are_rejected(device: str) -> None:
    def both(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        x += 1.0
        return x + y

    memory = gpunet.zeros(4)
    captured = gpunet.capture(both)
    assert captured(memory[:2], gpunet.zeros(2)).tolist() == [1.0, 1.0]
    with pytest.raises(CaptureError, match="shares memory"):
        captured(memory[:2], memory[1:3])

    state = gpunet.zeros(2)

    def follow(x: gpunet.Tensor) -> gpunet.Tensor:
        state.add_(1.0)
        return x * 1.0

    with pytest.raises(CaptureError, match="shares memory"):
        gpunet.capture(follow)(state)
    # arguments may alias if nothing is changed in place
    assert gpunet.capture(lambda x, y: x + y)(state, state).tolist() == [2.0, 2.0]


def test_an_argument_that_requires_grad_is_rejected(device: str) -> None:
    with pytest.raises(CaptureError, match="requires grad"):
        gpunet.capture(lambda x: x * 2.0)(gpunet.ones(2, requires_grad=True))


def test_a_kept_intermediate_tensor_is_updated_by_replays(device: str) -> None:
    kept: list[gpunet.Tensor] = []

    def step(x: gpunet.Tensor, keep: Callable[[gpunet.Tensor], None] = kept.append) -> gpunet.Tensor:
        hidden = x * 2.0
        keep(hidden)
        return hidden + 1.0

    captured = gpunet.capture(step)
    for i in range(3):
        captured(gpunet.full((2,), float(i)))
        assert kept[0].tolist() == [2.0 * i] * 2
    assert len(kept) == 1  # Python runs only once


def test_capture_rejects_bad_arguments(device: str) -> None:
    with pytest.raises(ArgumentError, match="'fast'"):
        gpunet.capture(lambda: None, backend="fast")
    with pytest.raises(ArgumentError, match="expected a function"):
        gpunet.capture(3)


# ---- graph breaks ----------------------------------------------------------------------------------------------------

count = 0


def call_in_step(how: Callable[[gpunet.Tensor], Any]) -> Callable[[gpunet.Tensor], gpunet.Tensor]:
    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        how(x * 1.0)
        return x

    return step


@pytest.mark.parametrize(
    ("how", "named"),
    [
        (lambda x: x.sum().item(), "item"),
        (lambda x: float(x.sum()), "item"),
        (lambda x: f"{x.sum():.3f}", "item"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x.numpy(), "numpy"),
        (lambda x: numpy.asarray(x), "numpy"),
        (lambda x: str(x), "printing"),
        (lambda x: 1 if x.sum() > 0 else 2, "truth"),
        (lambda x: x[x > 0.5], "boolean mask"),
        (lambda x: gpunet.nn.functional.one_hot(x.long()), "one_hot"),
    ],
)
def test_reading_a_value_raises_with_the_users_line(how: Any, named: str, device: str) -> None:
    captured = gpunet.capture(call_in_step(how))
    with pytest.raises(CaptureError, match=rf"{named}.*test_capture_limits\.py:\d+") as caught:
        captured(gpunet.ones(3))
    assert "lambda x" in str(caught.value)  # the source of the user's line
    assert not captured.recordings
    assert gpunet.ones(1).item() == 1.0  # recording has ended


def test_a_counter_changed_by_the_step_raises(device: str) -> None:
    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        global count
        count += 1
        return x / count

    with pytest.raises(CaptureError, match="changes 'count'"):
        gpunet.capture(step)(gpunet.ones(1))


def test_arrays_computed_by_numpy_inside_the_step_raise() -> None:
    generator = numpy.random.default_rng(0)

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        noise = gpunet.from_numpy(generator.normal(size=3).astype("float32"))
        return x + noise

    with pytest.raises(CaptureError, match=r"computed by NumPy or CuPy inside the step.*create it outside the step"):
        gpunet.capture(step)(gpunet.ones(3))


def test_constants_and_outside_arrays_are_recorded() -> None:
    weights = numpy.array([1.0, 2.0, 3.0], "float32")

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        return x * gpunet.tensor([1.0, 1.0, 2.0]) + gpunet.tensor(weights) + gpunet.arange(3) + gpunet.zeros(3)

    captured, x = gpunet.capture(step), gpunet.ones(3)
    assert captured(x).tolist() == [2.0, 4.0, 7.0]
    weights *= 10.0
    assert captured(x).tolist() == [11.0, 22.0, 34.0]


def test_a_label_out_of_range_raises_in_a_replay() -> None:
    captured = gpunet.capture(F.cross_entropy)
    x = gpunet.zeros(2, 3)
    captured(x, gpunet.tensor([0, 1]))
    with pytest.raises(LabelError, match="label 7"):
        captured(x, gpunet.tensor([0, 7]))
    assert captured(x, gpunet.tensor([0, 2])).item() == pytest.approx(numpy.log(3))


# ---- several steps ----------------------------------------------------------------------------------------------------


def test_a_captured_step_inside_another_is_inlined(device: str) -> None:
    inner = gpunet.capture(lambda x: x * 3.0)
    outer = gpunet.capture(lambda x: inner(x) + 1.0)
    for i in range(3):
        assert outer(gpunet.full((1,), float(i))).item() == 3.0 * i + 1.0
    assert not inner.recordings


def test_replacing_a_parameter_by_an_equal_one_is_guarded() -> None:
    one, other = (gpunet.zeros(1, requires_grad=True) for _ in range(2))
    optimizer = gpunet.optim.SGD([one], lr=1.0)

    @gpunet.capture
    def step() -> None:
        for parameter in (one, other):
            parameter.grad = None
            parameter.sum().backward()
        optimizer.step()

    step()
    step()
    gpunet.no_grad()(one.zero_)()
    optimizer.param_groups[0]["params"][0] = other
    step()
    assert (one.item(), other.item()) == (0.0, -1.0)


def test_two_captures_may_share_parameters(device: str) -> None:
    results = []
    for wrap in (gpunet.capture, lambda step: step):
        training = Training(False)
        train, evaluate = wrap(training.step), wrap(lambda x, model=training.model: model(x).softmax(1))
        for x, y in batches(20):
            train(x, y)
            results.append(to_numpy(evaluate(x)).tobytes())
    assert results[:20] == results[20:]


def test_threads_replay_one_at_a_time() -> None:
    import threading

    captured = gpunet.capture(lambda x: ((x * 2.0).exp().log() + 1.0).sum())
    captured(gpunet.ones(500))
    wrong = []

    def work(number: int) -> None:
        x = gpunet.full((500,), number / 10.0)
        wrong.extend(1 for _ in range(200) if abs(captured(x).item() - 500 * (number / 5.0 + 1.0)) > 0.1)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_two_steps_run_in_two_threads() -> None:
    import threading

    x, failed = gpunet.rand(20_000), []
    steps = [gpunet.capture(lambda x, n=n: (x * n).exp().sum()) for n in (2.0, 3.0)]
    expected = [step(x).item() for step in steps]

    def work(number: int) -> None:
        try:
            assert {steps[number](x).item() for _ in range(200)} == {expected[number]}
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_an_error_in_the_step_leaves_no_recording(device: str) -> None:
    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        raise ZeroDivisionError

    captured = gpunet.capture(step)
    with pytest.raises(ZeroDivisionError):
        captured(gpunet.ones(1))
    assert not captured.recordings


def test_as_a_decorator_and_a_method(device: str) -> None:
    @gpunet.capture(recordings=2)
    def double(x: gpunet.Tensor) -> gpunet.Tensor:
        """Twice x."""
        return x * 2.0

    assert double(gpunet.ones(1)).item() == 2.0
    assert (double.__name__, double.__doc__) == ("double", "Twice x.")

    class Trainer:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        @gpunet.capture
        def step(self, x: gpunet.Tensor) -> gpunet.Tensor:
            return x * self.factor

    two, three = Trainer(2.0), Trainer(3.0)
    for _ in range(2):
        assert two.step(gpunet.ones(1)).item() == 2.0
        assert three.step(gpunet.ones(1)).item() == 3.0


@pytest.mark.parametrize(
    "move",
    [
        lambda x, weights: x * gpunet.tensor(weights, device=x.device),
        lambda x, weights: x * gpunet.from_numpy(weights).to(x.device),
        lambda x, weights: x.copy_(gpunet.from_numpy(weights)),
    ],
)
def test_copying_a_host_array_to_a_gpu_raises(device: str, move: Any) -> None:
    """On the CPU a replay reads the array again; on a GPU it would use the old copy."""
    weights = numpy.array([1, 0, 1])
    captured = gpunet.capture(lambda x: move(x.clone(), weights))
    x = gpunet.tensor([1.0, 2.0, 3.0], device=device)
    if device != "cpu":
        with pytest.raises(CaptureError, match=r"moving an array from cpu to .* cannot be captured \(test_capture_limits.py:"):
            captured(x)
        return
    for value in (1, 0):
        weights[1] = value
        assert captured(x).tolist() == move(x.clone(), weights).tolist()


def test_host_array_as_an_index_is_guarded(device: str) -> None:
    """On a GPU the index is a constant of the recording, which is made again when the array has other values."""
    weights = numpy.array([1, 0, 1])
    captured = gpunet.capture(lambda x: x.clone()[weights])
    x = gpunet.tensor([1.0, 2.0, 3.0], device=device)
    for value in (1, 0, 2):
        weights[1] = value
        assert captured(x).tolist() == [2.0, x.tolist()[value], 2.0]


def test_numbers_are_copied_to_the_device_once(device: str) -> None:
    captured = gpunet.capture(lambda x: x[[2, 0]] * gpunet.tensor([2.0, 3.0]).to(x.device))
    x = gpunet.tensor([1.0, 2.0, 3.0], device=device)
    for _ in range(3):
        assert captured(x).tolist() == [6.0, 3.0]
    assert len(captured.recordings) == 1


def test_constants_used_through_a_view_are_recorded_once(device: str) -> None:
    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        weights = gpunet.tensor([1.0, 2.0], device=x.device)
        return x * weights + weights.expand(3, 2)

    captured, x = gpunet.capture(step), gpunet.ones(3, 2, device=device)
    for _ in range(3):
        assert captured(x).tolist() == [[2.0, 4.0]] * 3
    assert len(captured.recordings) == 1


def test_another_thread_may_reorder_recordings_before_a_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    captured = gpunet.capture(lambda x: x * 2.0)
    arguments = [gpunet.ones(n) for n in (1, 2, 3)]
    for x in arguments:
        captured(x)
    chosen = captured.recordings[0]
    hold = chosen.guards.hold

    def interrupted() -> bool:
        monkeypatch.undo()
        other = threading.Thread(target=captured, args=(arguments[0],))
        other.start()
        other.join()
        return hold()

    monkeypatch.setattr(chosen.guards, "hold", interrupted)
    captured(arguments[0])
    assert captured.recordings[-1] is chosen
    assert len(captured.recordings) == 3
