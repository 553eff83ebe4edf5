"""diagnose.summary: shapes, parameters, multiply-adds and memory, counted by hand."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpunet
from gpunet import diagnose, nn
from gpunet.errors import ArgumentError
from gpunet.vision.models import LeNet, resnet18


def test_lenet(device: str) -> None:
    summary = diagnose.summary(LeNet().to(device), (2, 1, 28, 28))
    rows = {row.name: row for row in summary.rows}
    by_hand = {"conv1": 784 * 6 * 25, "conv2": 100 * 16 * 6 * 25, "fc1": 400 * 120, "fc2": 120 * 84, "fc3": 84 * 10}
    assert {name: row.multiply_adds for name, row in rows.items() if name} == {name: 2 * n for name, n in by_hand.items()}
    assert summary.multiply_adds == 2 * sum(by_hand.values()) == rows[""].multiply_adds
    assert rows["conv2"].shapes == [(2, 16, 10, 10)] and rows[""].shapes == [(2, 10)]
    assert rows["conv1"].num_parameters == 6 * 25 + 6 and summary.num_parameters == summary.num_trainable == 61706
    assert summary.parameter_bytes == 4 * 61706 and summary.input_bytes == 4 * 2 * 784 and summary.buffer_bytes == 0
    lines = str(summary).splitlines()
    assert lines[0].split() == ["module", "output", "parameters", "multiply-adds"]
    assert lines[3].split() == ["Conv2d", "(conv1)", "2×6×28×28", "156", "235,200"]
    assert lines[-2] == f"61,706 parameters; {summary.multiply_adds:,} multiply-adds forward"
    assert lines[-1].startswith("memory: parameters 247 kB, kept for backward ") and lines[-1].endswith("inputs 6.27 kB")


def test_memory_kept_for_backward() -> None:
    model = nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 5))
    # behind a hook each module runs by itself: tanh keeps its result, which is the input that the second layer keeps
    assert diagnose.summary(model, gpunet.zeros(7, 10)).residual_bytes == 4 * 7 * 20
    assert diagnose.summary(nn.Linear(10, 20), (7, 10)).residual_bytes == 0  # inputs and parameters alone


def test_nested_shared_and_unused_modules() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
            self.tied, self.unused = nn.Linear(6, 6, bias=False), nn.Linear(3, 3)
            self.tied.weight = self.body[0].weight
            self.unused.weight.requires_grad_(False)

        def forward(self, x: Any, y: Any) -> Any:
            return self.body(self.body(x)), self.tied(y)

    model = Net()
    before = model.body[1].running_mean.clone()
    given = gpunet.randn(4, 6)
    state = gpunet.get_rng_state()
    summary = diagnose.summary(model, (given, numpy.ones((4, 6), numpy.float32)))
    rows = {row.name: row for row in summary.rows}
    assert (rows["body"].num_runs, rows["body.0"].multiply_adds, rows["unused"].num_runs) == (2, 2 * 4 * 36, 0)
    assert (rows["tied"].num_parameters, rows["tied"].multiply_adds) == (0, 4 * 36) and rows["body.1"].depth == 2
    assert rows[""].shapes == [(4, 6), (4, 6)] and summary.num_parameters - summary.num_trainable == 9
    assert "not run" in str(summary) and ", 2 runs" in str(summary) and "9 of them frozen" in str(summary)
    assert (model.body[1].running_mean == before).all() and model.body[1].num_batches_tracked.item() == 0
    assert not any(module.has_hooks for module in model.modules()) and (gpunet.get_rng_state() == state).all()


def test_attention_and_recurrence_count() -> None:
    attention = diagnose.summary(nn.MultiheadAttention(32, 4, batch_first=True), (gpunet.zeros(2, 40, 32),) * 3)
    projections, scores = 2 * 40 * 4 * 32 * 32, 2 * 2 * 40 * 40 * 32
    assert attention.multiply_adds == projections + scores
    lstm = diagnose.summary(nn.LSTM(16, 32), (10, 4, 16))
    by_hand = 10 * 4 * 4 * 32 * (16 + 32)
    assert lstm.multiply_adds == by_hand


@pytest.mark.parametrize(("model", "shape", "by_hand"), [
    (nn.ConvTranspose2d(4, 8, 2, stride=2), (1, 4, 5, 5), 25 * 4 * 8 * 4),
    (nn.ConvTranspose1d(4, 8, 3, stride=3), (2, 4, 7), 2 * 7 * 4 * 8 * 3),
    (nn.ConvTranspose2d(4, 8, 3, stride=2, groups=2), (1, 4, 5, 5), 25 * 4 * 4 * 9),
    (nn.Conv2d(4, 8, 3, stride=2, groups=2), (1, 4, 9, 9), 16 * 8 * 2 * 9),
    (nn.Conv3d(2, 4, 3), (1, 2, 5, 5, 5), 27 * 4 * 2 * 27),
    (nn.MaxPool2d(7, 1, 3), (1, 4, 32, 32), 0), (nn.AvgPool2d(7, 1, 3), (1, 4, 32, 32), 0),
    (nn.LayerNorm(8), (4, 8), 0), (nn.GELU(), (4, 8), 0),
])  # fmt: skip
def test_multiply_adds_by_hand(model: Any, shape: Any, by_hand: int) -> None:
    assert diagnose.summary(model, shape).multiply_adds == by_hand


def test_a_lazy_network() -> None:
    model = nn.Sequential(nn.LazyLinear(5), nn.LazyBatchNorm1d(), nn.ReLU(), nn.Linear(5, 2))
    last = model[3].weight.clone()
    summary = diagnose.summary(model, (3, 4))
    assert summary.num_parameters == (4 * 5 + 5) + 10 + (5 * 2 + 2) and summary.rows[1].shapes == [(3, 5)]
    assert model[0].weight.shape == (5, 4) and (model[3].weight == last).all()
    assert all(p.grad is None for p in model.parameters())
    assert (model[1].running_mean == 0.0).all() and (model[1].running_var == 1.0).all() and not model[1].num_batches_tracked.item()


def test_resnet18() -> None:
    """The 1.814 G multiply-adds at 224 × 224 and the 11.7 M parameters are published."""
    summary = diagnose.summary(resnet18(), (1, 3, 64, 64))
    assert summary.num_parameters == 11_689_512
    assert summary.multiply_adds == (1_814_073_344 - 512_000) * 4 // 49 + 512_000  # the last layer does not grow with the image


def test_errors() -> None:
    with pytest.raises(ArgumentError, match="model is a int; expected a Module"):
        diagnose.summary(3, (1,))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="input='x'; expected a tensor, an array"):
        diagnose.summary(nn.Linear(1, 1), "x")
    model = nn.Linear(2, 2)
    with pytest.raises(Exception, match="2"):
        diagnose.summary(model, (3, 5))
    assert not model.has_hooks
