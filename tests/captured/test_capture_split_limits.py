"""Split steps: warnings and explanations, direct memory access, threads, nested steps."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.captured.lowering import share
from gpunet.errors import CaptureError, SplitWarning
from gpunet.launch.random import default_generator
from tests.captured.test_capture import Training, hold_epoch_to_loop
from tests.captured.test_capture_split import Reading, split, splits_silently
from tests.ops.test_ops import to_numpy

F = nn.functional
__all__ = ["splits_silently"]


# ---- warnings and explanations -------------------------------------------------------------------------------------------


def reading(x: gpunet.Tensor) -> gpunet.Tensor:
    y = (x * 2.0).exp()
    if y.sum() > 1e6:
        return y * 0.0
    return y + 1.0


def test_without_a_split_it_is_recorded(device: str) -> None:
    captured = split(lambda x: x * 2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [captured(gpunet.full((1,), float(i))).item() for i in range(3)] == [0.0, 2.0, 4.0]
    assert len(captured.recordings) == 1 and captured._split is None


def test_the_first_split_warns_with_the_line_and_the_way_out(device: str) -> None:
    captured = split(reading)
    with pytest.warns(SplitWarning) as caught:
        captured(gpunet.ones(2))
    assert len(caught) == 1 and issubclass(SplitWarning, UserWarning)
    text = str(caught[0].message)
    split_at = "reading is split: the truth value of a tensor (if, while, and, or), which reads a tensor's value"
    assert text.startswith(f"{split_at} (test_c")
    assert "if y.sum() > 1e6)" in text and "return the tensor from the step and read it after the call" in text
    assert caught[0].filename.endswith("test_capture_split_limits.py")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        captured(gpunet.ones(2))
        captured(gpunet.ones(3))  # another signature


def test_fullgraph_refuses_as_before(device: str) -> None:
    with pytest.raises(CaptureError, match="the truth value of a tensor"):
        gpunet.capture(reading)(gpunet.ones(2))
    with pytest.raises(CaptureError, match="requires grad"):
        split(reading)(gpunet.ones(2, requires_grad=True))
    captured = split(reading)
    captured(gpunet.ones(2))
    with pytest.raises(CaptureError, match="requires grad"):
        captured(gpunet.ones(2, requires_grad=True))


def test_only_the_arguments_that_split_run_in_parts(device: str) -> None:
    captured = split(lambda x, look: x * 2.0 if not look or x.sum() > 0 else -x)
    for _ in range(3):
        assert captured(gpunet.ones(1), False).item() == 2.0
        assert captured(-gpunet.ones(1), True).item() == 1.0
    assert len(captured.recordings) == 1 and len(captured._split_keys) == 1


def test_numbers_that_the_step_moves_and_too_many_recordings_split(device: str) -> None:
    count = 0

    def counting(x: gpunet.Tensor) -> gpunet.Tensor:
        nonlocal count
        count += 1
        return x * count

    captured = split(counting)
    with pytest.warns(SplitWarning, match="changes 'count'"):
        assert captured(gpunet.ones(1)).item() == 1.0
    assert "no recording: the step changes 'count'" in str(captured.explain())
    assert [captured(gpunet.ones(1)).item() for _ in range(5)] == [2.0, 3.0, 4.0, 5.0, 6.0]
    assert "no recording: the step changes 'count'" in str(captured.explain())

    factor = 0.0
    scaled = gpunet.capture(lambda x: x * factor, fullgraph=False, recordings=2)
    for number in range(6):
        factor = float(number)
        assert scaled(gpunet.ones(1)).item() == factor
    assert len(scaled.recordings) == 2 and scaled._split is not None


def test_explain_shows_the_parts_and_the_splits(device: str) -> None:
    training = Reading(True)
    training.train(1)
    assert "part 1 of 2" in str(training.run.explain())  # from the first call
    training.train(4)
    weights = [to_numpy(p).tobytes() for p in training.model.parameters()]
    explanation = training.run.explain()
    assert weights == [to_numpy(p).tobytes() for p in training.model.parameters()]
    first, second = ([row.launch for row in part.rows] for part in explanation.parts)
    assert first == ["linear_forward", "linear_forward", "cross_entropy_labels"] and second[-1] == "adam_step"
    assert all("test_capture_split.py:" in row.line for row in explanation.rows)
    (where,) = explanation.splits
    assert where.action.startswith("item()") and "self.seen.append(loss.item())" in where.line
    text = str(explanation)
    assert "split by item(), which reads a tensor's value (test_capture_split.py:" in text and "12×5" in text
    if device == "cpu":
        assert text.count("one function") == 2 and all(part.seconds > 0 for part in explanation.parts)
    else:
        assert text.count("one CUDA graph" if device.startswith("cuda") else "launch by launch, on planned memory") == 2


# ---- direct memory access -----------------------------------------------------------------------------------------------


def saved(x: gpunet.Tensor, path: Any) -> Any:
    gpunet.save({"x": x}, path)
    return gpunet.load(path)["x"].tolist()


TOUCHES: dict[str, Callable[..., Any]] = {
    "item": lambda x, o, p: x.sum().item(),
    "numpy": lambda x, o, p: x.cpu().numpy().copy().tolist(),
    "asarray": lambda x, o, p: numpy.asarray(x.cpu()).tolist(),
    "numpy of a view": lambda x, o, p: x[1:].T.cpu().numpy().copy().tolist(),
    "written through numpy": lambda x, o, p: x.cpu().numpy().fill(3.0),
    "repr": lambda x, o, p: repr(x),
    "format": lambda x, o, p: f"{x.sum():.4f}",
    "iteration": lambda x, o, p: [float(v) for v in x.reshape(-1)],
    "tensor": lambda x, o, p: gpunet.tensor(x).sum().item(),
    "tensor of tensors": lambda x, o, p: gpunet.tensor([x.sum(), x.max()]).tolist(),
    "deepcopy": lambda x, o, p: copy.deepcopy(x).tolist(),
    "equal": lambda x, o, p: (gpunet.equal(x, x * 1.0), gpunet.allclose(x, x + 1e-9)),
    "other device": lambda x, o, p: (x.to("cpu") + 1.0).tolist(),
    "back again": lambda x, o, p: x.to("cpu").to(x.device).copy_(x.to("cpu") * 2.0).tolist(),
    "index": lambda x, o, p: x.reshape(-1)[x.argmax()].item() + x[(x.sum(1) > 0).long()].sum().item(),
    "boolean index": lambda x, o, p: len(x[x > 0.5]),
    "one_hot": lambda x, o, p: F.one_hot(x.abs().long()).sum().item(),
    "generator": lambda x, o, p: (gpunet.rand(3), default_generator.get_state(x.device))[1],
    "seed": lambda x, o, p: [t.tolist() for t in (gpunet.rand(3), gpunet.manual_seed(5) and gpunet.rand(3))],
    "to a GPU": lambda x, o, p: [x.cpu().to("emulated").tolist(), gpunet.tensor(x.cpu() * 2.0, device="emulated").tolist()],
    "learning rate": lambda x, o, p: o.param_groups[0]["lr"],
    "other rate": lambda x, o, p: o.param_groups[0].__setitem__("lr", abs(x.sum().item())),
    "state_dict": lambda x, o, p: {k: v.tolist() for k, v in o.state_dict()["state"][0].items()},
    "load_state_dict": lambda x, o, p: o.load_state_dict(o.state_dict()),
    "save": lambda x, o, p: saved(x, p),
    "clip": lambda x, o, p: nn.utils.get_total_norm([x, x * 2.0], error_if_nonfinite=True).item(),
    "length": lambda x, o, p: (len(x), x.shape),
}


@pytest.mark.parametrize("name", TOUCHES)
def test_direct_memory_access_sees_earlier_launches(name: str, device: str, tmp_path: Path) -> None:
    def run(wrap: Callable[..., Any]) -> list[Any]:
        gpunet.manual_seed(3)
        w = gpunet.rand(3, 4).requires_grad_()
        optimizer = gpunet.optim.Adam([w], lr=0.1)
        seen: list[Any] = []

        def step(x: gpunet.Tensor) -> gpunet.Tensor:
            optimizer.zero_grad()
            y = (x * w - 0.3).tanh()
            y.square().sum().backward()
            optimizer.step()
            z = w.detach() * 3.0 - y.detach()
            seen.append(TOUCHES[name](z, optimizer, tmp_path / "x.safetensors"))
            seen.append(len(seen) > 0 and (z + w.detach()).sum().item())
            return z - w.detach()

        captured = wrap(step)
        for _ in range(5):
            seen.append(captured(gpunet.rand(3, 4)).tolist())
        return seen

    assert run(split) == run(lambda step: step)


def test_a_numpy_array_may_change_behind_tensor(device: str) -> None:
    buffer = numpy.zeros(3, "float32")

    def step(x: gpunet.Tensor, number: float) -> gpunet.Tensor:
        buffer[...] = number
        y = x + gpunet.tensor(buffer)
        buffer[...] = -1.0
        return y * float(x[0])

    captured = split(step)
    for number in (1.0, 1.0, 1.0):
        assert captured(gpunet.ones(3), number).tolist() == [2.0, 2.0, 2.0]


# ---- results, threads, other steps ------------------------------------------------------------------------------------


def test_results_are_the_callers(device: str) -> None:
    def step(x: gpunet.Tensor) -> dict[str, gpunet.Tensor]:
        y = x * 2.0
        y.sum().item()
        return {"y": y, "view": (y + 1.0).reshape(-1)[1:], "x": x}

    captured = split(step)
    given = [gpunet.full((2, 2), float(i)) for i in range(8)]
    results = [captured(x) for x in given]
    for number, result in enumerate(results):
        assert result["x"] is given[number]
        assert result["y"].tolist() == [[2.0 * number] * 2] * 2
        assert result["view"].tolist() == [2.0 * number + 1.0] * 3


def test_arguments_may_share_memory_with_what_changes(device: str) -> None:
    state = gpunet.zeros(4)

    def step(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        if float(y.sum()) < -1e6:
            return y
        x += 1.0
        state[1:3] *= 2.0
        return x + y

    captured = split(step)
    captured(gpunet.zeros(2), gpunet.zeros(2))
    for shared in (False, True, False, True, True, False):
        memory, other = gpunet.zeros(4), gpunet.zeros(2)
        given = (memory[:2], memory[1:3]) if shared else (memory[:2], other)
        assert captured(*given).tolist() == ([2.0, 1.0] if shared else [1.0, 1.0])
        assert memory.tolist() == [1.0, 1.0, 0.0, 0.0]
    state.fill_(1.0)
    for _ in range(3):
        captured(state[:2], state[2:])
    assert state.tolist() == [4.0, 22.0, 8.0, 1.0]


def test_unreferenced_memory_is_reused() -> None:
    import tracemalloc

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        y = (x * 2.0 + 1.0).relu()
        float(y.sum())
        return ((y * 3.0).exp() + y).sum()

    captured, x = split(step), gpunet.rand(100_000)
    for _ in range(6):
        captured(x)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(5):
        captured(x)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - before < 100_000  # an array has 400 kB


def test_threads_and_recursion_run_it_as_it_is_written(device: str) -> None:
    inside, go = threading.Event(), threading.Event()

    def step(x: gpunet.Tensor, depth: int) -> gpunet.Tensor:
        y = x * 2.0
        if depth == 9:
            inside.set()
            assert go.wait(30)
        if float(y.sum()) > 0.0 and 0 < depth < 9:
            return captured(y, depth - 1)
        return y + 1.0

    captured = split(step)
    for _ in range(4):
        assert captured(gpunet.ones(2), 2).tolist() == [9.0, 9.0]
        assert captured(gpunet.ones(2), 0).tolist() == [3.0, 3.0]
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(captured(gpunet.full((2,), 5.0), 9).tolist()))
    thread.start()
    assert inside.wait(30)
    assert captured(gpunet.ones(2), 0).tolist() == [3.0, 3.0]
    go.set()
    thread.join()
    assert results == [[11.0, 11.0]]


def test_two_split_steps_in_two_threads() -> None:
    failed: list[Any] = []

    def work(factor: float) -> None:
        try:
            captured = split(lambda x: (x * factor + float((x * factor).sum())).exp().sum())
            x = gpunet.rand(500, generator=gpunet.Generator(1)) * 0.001
            assert len({captured(x).item() for _ in range(200)}) == 1
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(factor,)) for factor in (0.5, 0.25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_one_captured_step_in_another(device: str) -> None:
    whole = gpunet.capture(lambda x: x * 3.0)
    parted = split(reading)
    outer = split(lambda x: whole(x) + float(parted(x).sum()) + whole(parted(x)))
    refused = gpunet.capture(lambda x: parted(x))
    for number in range(5):
        x = gpunet.full((2,), 0.1 * number)
        inner = reading(x)
        assert outer(x).tolist() == (x * 3.0 + float(inner.sum()) + inner * 3.0).tolist()
        with pytest.raises(CaptureError, match="the truth"):
            refused(x)
    assert not whole.recordings and not parted.recordings


def test_grad_modes_within_a_split_step(device: str) -> None:
    w = gpunet.ones(2, requires_grad=True)

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        with gpunet.no_grad():
            scale = float((w * x).sum())
        y = (w * x).sum() * scale
        y.backward()
        return y

    captured = split(step)
    for number in range(1, 6):
        y = captured(gpunet.ones(2))
        assert w.grad.tolist() == [2.0 * number] * 2 and y.requires_grad
    with gpunet.no_grad(), pytest.raises(gpunet.errors.GradientError):
        captured(gpunet.ones(2))


def test_an_epoch_of_a_split_step(device: str) -> None:
    hold_epoch_to_loop(Reading(True), Training(False))


def test_a_pass_and_an_explanation_inside_a_split_step(device: str) -> None:
    data = gpunet.arange(6).float()
    inner = split(lambda x: x.sum() * float(x.sum() >= 0))
    epoch = inner.epoch(data, batch_size=2, shuffle=False)

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        data.add_(x)
        y = epoch() + float(data[0])
        with pytest.raises(CaptureError, match="while step runs|no recording yet"):
            captured.explain()
        return y + data.sum()

    captured = split(step)
    captured(gpunet.zeros(1))
    for number in range(1, 6):
        assert captured(gpunet.ones(1)).item() == 5.0 + 2.0 * number + number + 15.0 + 6.0 * number
    with pytest.raises(CaptureError, match="a pass over the data"):
        gpunet.capture(lambda: epoch())()


def test_as_a_method(device: str) -> None:
    class Trainer:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        @gpunet.capture(fullgraph=False)
        def step(self, x: gpunet.Tensor) -> float:
            return (x * self.factor).sum().item() * 2.0

    two, three = Trainer(2.0), Trainer(3.0)
    for _ in range(4):
        assert two.step(gpunet.ones(1)) == 4.0
        assert three.step(gpunet.ones(1)) == 6.0


def test_a_split_step_holds_no_reference_to_outside_arrays(device: str) -> None:
    """Guards of recordings, and the reuse of memory, count references to arrays."""
    w, state = gpunet.rand(3, 2), gpunet.zeros(2)

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        y = x @ w.T.T
        float(y.sum())
        state.add_((y @ w.T).sum(0)[:2])
        return y.T + w[0, 0]

    captured = split(step)
    before = [share(t.array).references() for t in (w, state)]
    for _ in range(6):
        x = gpunet.rand(4, 3)
        y = captured(x)
        held = share(x.array)
    assert [share(t.array).references() for t in (w, state)] == before
    del x, y
    assert held.references() == 0
