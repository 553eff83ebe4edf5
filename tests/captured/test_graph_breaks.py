"""``capture(fullgraph=False)``: a step with a graph break runs eagerly, and one warning names the line."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import gpunet
from gpunet.errors import CaptureError, GraphBreakWarning
from tests.captured.test_capture import Training, hold_epoch_to_loop

pytestmark = pytest.mark.filterwarnings("ignore::gpunet.errors.GraphBreakWarning")


def partly(step: Any, **options: Any) -> Any:
    return gpunet.capture(step, fullgraph=False, **options)


def reading(x: gpunet.Tensor) -> gpunet.Tensor:
    y = (x * 2.0).exp()
    if y.sum() > 1e6:
        return y * 0.0
    return y + 1.0


def test_a_step_without_graph_breaks_is_recorded(device: str) -> None:
    captured = partly(lambda x: x * 2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [captured(gpunet.full((1,), float(i))).item() for i in range(3)] == [0.0, 2.0, 4.0]
    assert len(captured.recordings) == 1


def test_the_first_graph_break_warns_with_the_line_and_the_way_out(device: str) -> None:
    captured = partly(reading)
    with pytest.warns(GraphBreakWarning) as caught:
        captured(gpunet.ones(2))
    assert len(caught) == 1 and issubclass(GraphBreakWarning, UserWarning)
    text = str(caught[0].message)
    assert text.startswith(
        "reading runs eagerly, because of the truth value of a tensor (if, while, and, or), which reads a tensor's value (test_g"
    )
    assert "if y.sum() > 1e6)" in text and "return the tensor from the step and read it after the call" in text
    assert caught[0].filename.endswith("test_graph_breaks.py")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        captured(gpunet.ones(2))
        captured(gpunet.ones(3))  # another signature
    with pytest.raises(CaptureError, match=r"explain\(\): reading runs eagerly, because of the truth value"):
        captured.explain()


def test_refused_with_fullgraph(device: str) -> None:
    with pytest.raises(CaptureError, match="the truth value of a tensor"):
        gpunet.capture(reading)(gpunet.ones(2))
    captured = partly(reading)
    captured(gpunet.ones(2))
    with pytest.raises(CaptureError, match="requires grad"):  # as for a recorded step
        captured(gpunet.ones(2, requires_grad=True))


def test_only_arguments_with_a_graph_break_run_eagerly(device: str) -> None:
    captured = partly(lambda x, look: x * 2.0 if not look or x.sum() > 0 else -x)
    for _ in range(3):
        assert captured(gpunet.ones(1), False).item() == 2.0
        assert captured(-gpunet.ones(1), True).item() == 1.0
    assert len(captured.recordings) == 1


def test_numbers_that_the_step_changes_and_too_many_recordings(device: str) -> None:
    count = 0

    def counting(x: gpunet.Tensor) -> gpunet.Tensor:
        nonlocal count
        count += 1
        return x * count

    captured = partly(counting)
    with pytest.warns(GraphBreakWarning, match="changes 'count'"):
        assert captured(gpunet.ones(1)).item() == 1.0
    assert [captured(gpunet.ones(1)).item() for _ in range(5)] == [2.0, 3.0, 4.0, 5.0, 6.0]

    factor = 0.0
    scaled = partly(lambda x: x * factor, recordings=2)
    for number in range(6):
        factor = float(number)
        assert scaled(gpunet.ones(1)).item() == factor
    assert len(scaled.recordings) == 2


def test_training_has_the_bits_of_eager(device: str) -> None:
    captured, eager = Training(False), Training(False)
    seen: list[float] = []

    def step(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        loss = captured.step(x, y)
        seen.append(loss.item())
        return loss

    run = partly(step)
    for number in range(4):
        x, y = gpunet.full((4, 5), 0.1 * number), gpunet.ones(4, 3)
        assert run(x, y).item() == eager.step(x, y).item() == seen[-1]
    for mine, theirs in zip(captured.model.parameters(), eager.model.parameters()):
        assert mine.tolist() == theirs.tolist()
    assert len(seen) == 4


def test_arguments_and_results_are_the_callers(device: str) -> None:
    def step(x: gpunet.Tensor) -> dict[str, gpunet.Tensor]:
        x += 1.0
        y = x * 2.0
        y.sum().item()
        return {"x": x, "y": y}

    captured = partly(step)
    given = [gpunet.full((2,), float(i)) for i in range(4)]
    results = [captured(x) for x in given]
    for number, result in enumerate(results):
        assert result["x"] is given[number] and given[number].tolist() == [number + 1.0] * 2
        assert result["y"].tolist() == [2.0 * number + 2.0] * 2


def test_one_captured_step_in_another(device: str) -> None:
    whole, broken = gpunet.capture(lambda x: x * 3.0), partly(reading)
    outer, refused = partly(lambda x: whole(x) + float(broken(x).sum())), gpunet.capture(lambda x: broken(x))
    for number in range(3):
        x = gpunet.full((2,), 0.1 * number)
        assert outer(x).tolist() == (x * 3.0 + float(reading(x).sum())).tolist()
        with pytest.raises(CaptureError, match="the truth"):
            refused(x)


def test_epochs(device: str) -> None:
    training = Training(False)
    captured = Training(False)

    def step(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        loss = captured.step(x, y)
        assert loss.item() >= 0.0
        return loss

    captured.run = partly(step)
    hold_epoch_to_loop(captured, training)


def test_as_a_method(device: str) -> None:
    class Trainer:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        @gpunet.capture(fullgraph=False)
        def step(self, x: gpunet.Tensor) -> float:
            return (x * self.factor).sum().item() * 2.0

    two, three = Trainer(2.0), Trainer(3.0)
    for _ in range(3):
        assert two.step(gpunet.ones(1)) == 4.0
        assert three.step(gpunet.ones(1)) == 6.0
