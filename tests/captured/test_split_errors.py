"""Errors in split steps: earlier launches have run, and results of later ones are not left behind."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.captured.compiled import module
from gpunet.captured.ir import Call, View
from gpunet.captured.merge import merge_adjacent_scalings
from gpunet.errors import LabelError, LaunchError
from gpunet.ops.activations import activation_forward
from tests.captured.test_capture_split import split, splits_silently

F = nn.functional
__all__ = ["splits_silently"]

# ---- errors --------------------------------------------------------------------------------------------------------------


def test_launches_before_an_error_in_the_step_run(device: str) -> None:
    state = gpunet.zeros(2)

    def step(x: gpunet.Tensor, fail: bool) -> gpunet.Tensor:
        state.add_(x)
        if float(x.sum()) > 100.0:
            state.mul_(100.0)
        state.mul_(2.0)
        if fail:
            raise ZeroDivisionError
        state.add_(1.0)
        return state * 1.0

    captured = split(step)
    expected = 0.0
    for number in range(9):
        if number % 4 == 3:
            with pytest.raises(ZeroDivisionError):
                captured(gpunet.ones(2), True)
            expected = (expected + 1.0) * 2.0
        else:
            captured(gpunet.ones(2), False)
            expected = (expected + 1.0) * 2.0 + 1.0
        assert state.tolist() == [expected] * 2
        assert gpunet.ones(1).item() == 1.0  # launches are no longer deferred


def test_an_error_in_the_first_call_leaves_arguments_as_the_step_changed_them(device: str) -> None:
    def step(x: gpunet.Tensor) -> None:
        x += 1.0
        if x.sum() > 0:
            raise ZeroDivisionError

    captured, x = split(step), gpunet.zeros(2)
    for number in range(1, 5):
        with pytest.raises(ZeroDivisionError):
            captured(x)
        assert x.tolist() == [number] * 2


def test_an_error_of_a_launch_names_its_line() -> None:
    w = gpunet.ones(1, 3)

    def step(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        loss = F.cross_entropy(x * w, y)  # here
        w.mul_(1.0)
        loss = loss * 1.0
        return loss + loss.item()

    captured = split(step)
    x, good, bad = gpunet.zeros(2, 3), gpunet.tensor([0, 1]), gpunet.tensor([0, 7])
    captured(x, good)
    for calls in (0, 4):  # launch by launch, and lowered
        for _ in range(calls):
            captured(x, good)
        with pytest.raises(LabelError, match="label 7") as caught:
            captured(x, bad)
        (note,) = caught.value.__notes__
        assert note.startswith("cross_entropy_labels, launched at test_split_errors.py:") and "# here" in note
    assert captured(x, good).item() == pytest.approx(2 * numpy.log(3))


def test_a_launch_with_bad_arguments_raises_at_the_split() -> None:
    wrong = False

    def step(x: gpunet.Tensor) -> float:
        y = gpunet.empty(3, 2)
        activation_forward(y.array, x.T.array if wrong else x.array, activation="relu", alpha=0.0)  # here
        return y.sum().item()

    captured, x = split(step), gpunet.ones(3, 2)
    for _ in range(4):
        assert captured(x) == 6.0
    wrong = True
    with pytest.raises(LaunchError, match="is not C-contiguous") as caught:
        captured(x)
    assert "# here" in caught.value.__notes__[0]


def test_labels_that_the_step_computes_are_there_when_they_are_checked() -> None:
    def step(x: gpunet.Tensor, top: int) -> gpunet.Tensor:
        loss = F.cross_entropy(x, (x.sum(1) > 0).long() * top, label_smoothing=0.1)
        return loss + loss.item()

    captured, x = split(step), gpunet.rand(4, 3) - 0.5
    for _ in range(4):
        assert captured(x, 2).item() == step(x, 2).item()
    assert "split by checking the range of the labels" in str(captured.explain())
    for _ in range(2):
        with pytest.raises(LabelError, match="label 3"):
            captured(gpunet.ones(4, 3), 3)


class Failing:
    """A step that sometimes gets a label out of range, between two losses; ``kept`` are tensors that outlive the step."""

    def __init__(self) -> None:
        gpunet.manual_seed(2)
        self.first, self.second, self.third = (gpunet.rand(1, 3).requires_grad_() for _ in range(3))
        self.optimizer = gpunet.optim.SGD([self.first, self.second, self.third], lr=0.1, momentum=0.9)
        self.scale = gpunet.ones(())
        self.kept: list[gpunet.Tensor] = []
        self.held: list[gpunet.Tensor] = []
        self.last = gpunet.ones((), requires_grad=True)
        self.fresh = True

    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> float:
        if self.fresh:
            self.optimizer.zero_grad()
        (x * self.first).square().sum().backward()
        self.held.append(self.first.grad)
        self.scale.add_(1.0)
        loss = F.cross_entropy(x * self.first * self.second, y)  # here
        self.last.grad = loss.detach()
        self.scale.mul_(0.5)
        (loss * 2.0).backward()
        self.third.grad = self.second.grad * 2.0
        self.kept += gpunet.grad((x * self.third).exp().sum(), [self.third])
        self.optimizer.step()
        return loss.item()

    def state(self) -> list[Any]:
        parameters = [self.first, self.second, self.third]
        return [None if t is None else t.tolist() for t in (*parameters, self.scale, *(p.grad for p in parameters))]


BACKENDS = ["numpy", pytest.param("numba", marks=pytest.mark.skipif(not module.available(), reason="Numba is not installed"))]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("calls", [1, 6])  # launch by launch, and lowered
def test_gradients_that_were_never_computed_are_discarded(calls: int, fresh: bool, backend: str) -> None:
    eager, captured = Failing(), Failing()
    run = split(captured.step, backend)
    x, good, bad = gpunet.rand(4, 3), gpunet.tensor([0, 1, 2, 0]), gpunet.tensor([0, 1, 7, 0])
    for _ in range(calls):
        eager.step(x, good.clone())
        run(x, good.clone())
    eager.fresh = captured.fresh = fresh
    captured.kept.clear()
    for _ in range(3):
        for step in (eager.step, run):
            with pytest.raises(LabelError, match="label 7") as caught:
                step(x, bad)
        (note,) = caught.value.__notes__
        assert note.startswith("cross_entropy_labels, launched at test_split_errors.py:") and "# here" in note
        assert len(captured.kept) == 1 and numpy.isnan(captured.kept.pop().tolist()).all()
        assert captured.last.grad is None
        found, expected = captured.state(), eager.state()
        assert found[-1] is None  # the step replaced it after the failing launch, so the old gradient is gone
        if backend == "numpy" or calls == 1:
            assert found[:-1] == expected[:-1]
        else:  # it is not known which launch raised: gradients are those from before the segment
            assert fresh == (found[4:6] == [None] * 2) and all(g is None or numpy.isfinite(g).all() for g in found[4:])
    for _ in range(3):
        if fresh or backend == "numpy":
            numpy.testing.assert_allclose(run(x, good), eager.step(x, good), rtol=1e-5)  # Numba's: rounding


def test_calls_are_not_moved_past_one_that_may_raise() -> None:
    dtype = numpy.dtype("float32")
    a, b, scale = View(0, 0, (4,), (4,), dtype), View(0, 16, (4,), (4,), dtype), View(1, 0, (1,), (4,), dtype)
    first, second = (Call("elementwise", numpy.multiply, (v, scale), {"out": v}, [v, scale], [v]) for v in (a, b))
    twin = Call("opaque", print, (scale,), {}, [scale], [], True)
    assert len(merge_adjacent_scalings([first, second])) == 1
    assert merge_adjacent_scalings([first, twin, second]) == [first, twin, second]
