"""Captured steps have the bits of eager; epochs, explanations, and planning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import ArgumentError, CaptureError
from gpunet.ops.linear import linear_backward_input, linear_backward_weight
from tests.captured.optimizers import OPTIMIZERS
from tests.ops.test_ops import cotangent, tensors, to_numpy
from tests.samples import SAMPLES, Sample

F = nn.functional


# ---- every op ---------------------------------------------------------------------------------------------------------


def differentiate(sample: Sample, g: gpunet.Tensor, *inputs: gpunet.Tensor) -> list[gpunet.Tensor]:
    """Run forward and backward of a sample; return its output and gradients."""
    leaves = [x.detach().requires_grad_() if given.gradient else x for x, given in zip(inputs, sample.inputs)]
    out = sample.call(*leaves)
    out.backward(g)
    return [out, *(x.grad for x in leaves if x.grad is not None)]


def has_graph_break(sample: Sample) -> bool:
    """Whether the shape of the result depends on values."""
    return "mask" in sample.name and sample.op in ("_index", "_unindex", "_with_index")


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_every_op_replays_to_the_bits_of_eager(sample: Sample, dtype: str, device: str) -> None:
    """Forward and backward, on three other inputs than those of the recording."""

    def step(*args: gpunet.Tensor) -> list[gpunet.Tensor]:
        return differentiate(sample, *args)

    captured = gpunet.capture(step)
    out = sample.call(*tensors(sample, sample.arrays(), dtype, device, graph=False))
    g = gpunet.tensor(cotangent(out.shape), dtype=out.dtype, device=device)
    for seed in range(4):
        gpunet.manual_seed(seed)
        given = tensors(sample, sample.arrays(seed), dtype, device, graph=False)
        expected = step(g, *given)
        gpunet.manual_seed(seed)
        if has_graph_break(sample):
            with pytest.raises(CaptureError, match="boolean mask"):
                captured(g, *given)
            return
        found = captured(g, *given)
        assert [to_numpy(a).tobytes() for a in found] == [to_numpy(b).tobytes() for b in expected]
    assert len(captured.recordings) == 1


def test_views_of_constants_belong_to_the_step(device: str) -> None:
    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        return x + gpunet.arange(5)[:3] + gpunet.eye(2, 4)[:, 1:] + gpunet.arange(2).expand(3, 2).T

    captured, x = gpunet.capture(step), gpunet.rand(2, 3)
    for _ in range(2):
        assert captured(x).tolist() == step(x).tolist()


# ---- training -----------------------------------------------------------------------------------------------------------

STEPS = 200


class BatchNorm(nn.Module):
    """Batch normalisation written in primitives; its running statistics change in place at each step."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(gpunet.ones(features))
        self.register_buffer("mean", gpunet.zeros(features))
        self.register_buffer("variance", gpunet.ones(features))

    def forward(self, x: gpunet.Tensor) -> gpunet.Tensor:
        mean, variance = x.mean(0), x.var(0)
        with gpunet.no_grad():
            self.mean.mul_(0.9).add_(mean.detach() * 0.1)
            self.variance.mul_(0.9).add_(variance.detach() * 0.1)
        return (x - mean) / (variance + 1e-5).sqrt() * self.weight


def batches(count: int, rows: int = 12) -> list[tuple[gpunet.Tensor, gpunet.Tensor]]:
    generator = numpy.random.default_rng(3)
    return [
        (
            gpunet.tensor(generator.normal(size=(rows, 5)).astype("float32")),
            gpunet.tensor(generator.integers(0, 3, rows)),
        )
        for _ in range(count)
    ]


class Training:
    """A model, an optimizer, and a step on a batch."""

    middle: tuple[Callable[[], nn.Module], ...] = (nn.Tanh,)

    def __init__(self, capture: bool, **options: Any) -> None:
        gpunet.manual_seed(5)
        self.model = nn.Sequential(nn.Linear(5, 8), *(make() for make in self.middle), nn.Linear(8, 3))
        self.optimizer = self.make_optimizer([*self.model.parameters()], **options)
        self.run = gpunet.capture(self.step) if capture else self.step

    def make_optimizer(self, parameters: list[gpunet.Tensor], **options: Any) -> gpunet.optim.Optimizer:
        return gpunet.optim.Adam(parameters, lr=0.01)

    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def before(self, number: int) -> None:
        """Hook: runs before each step, outside it."""

    def train(self, steps: int = STEPS) -> list[bytes]:
        """Return the bits of every loss, and of the final weights, buffers and gradients."""
        result = []
        for number, (x, y) in enumerate(batches(steps)):
            self.before(number)
            result.append(to_numpy(self.run(x, y)).tobytes())
        tensors = [*self.model.parameters(), *self.model.buffers()]
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        return result + [to_numpy(t).tobytes() for t in [*tensors, *gradients]]


def make_optimizer_of(kind: Any, **options: Any) -> Any:
    return type(kind.__name__, (Training,), {"make_optimizer": lambda self, p: kind(p, **options)})


class Dropout(Training):
    middle = (nn.ReLU, lambda: nn.Dropout(0.4))


class Statistics(Training):
    middle = (nn.ReLU, lambda: BatchNorm(8))


class Schedule(Training):
    def before(self, number: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = 0.05 / (1 + number // 7)


class Clipping(Training):
    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        with gpunet.no_grad():
            norm = sum((p.grad.square().sum() for p in self.model.parameters()), gpunet.zeros(())).sqrt()
            for p in self.model.parameters():
                p.grad.mul_((0.1 / (norm + 1e-6)).clamp(max=1.0))
        self.optimizer.step()
        return loss


class TwoBackwards(Training):
    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        self.optimizer.zero_grad()
        for part in (slice(0, 6), slice(6, None)):
            loss = F.cross_entropy(self.model(x[part]), y[part])
            loss.backward()
        self.optimizer.step()
        return loss


class Accumulation(Training):
    """Only forward and backward are captured; the optimizer steps outside, after every third batch."""

    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        return loss

    def before(self, number: int) -> None:
        if number % 3 == 0 and number:
            self.optimizer.step()
            self.optimizer.zero_grad()


class ZeroInPlace(Training):
    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        self.optimizer.zero_grad(set_to_none=False)
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss


class Hooks(Training):
    """A hook on the gradient of a hidden layer, and one on a parameter."""

    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        self.optimizer.zero_grad()
        hidden = self.model[0](x).tanh()
        hidden.register_hook(lambda g: g * 0.5)
        handle = self.model[2].weight.register_hook(lambda g: g.clamp(-0.01, 0.01))
        loss = F.cross_entropy(self.model[2](hidden), y)
        loss.backward()
        handle.remove()
        self.optimizer.step()
        return loss


class GradientsByHand(Training):
    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        for p in self.model.parameters():
            p.grad = None
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        with gpunet.no_grad():
            for p in self.model.parameters():
                p -= 0.1 * p.grad
        return loss


class Penalty(Training):
    """A gradient penalty: the gradient of a gradient."""

    middle = (nn.GELU,)

    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        self.optimizer.zero_grad()
        x = x.detach().requires_grad_()
        loss = F.cross_entropy(self.model(x), y)
        (slope,) = gpunet.grad(loss, x, create_graph=True)
        total = loss + slope.square().sum()
        total.backward()
        self.optimizer.step()
        return total


TRAININGS = {
    **{name: make_optimizer_of(make) for name, make in OPTIMIZERS.items()},
    "amsgrad that maximizes": make_optimizer_of(gpunet.optim.Adam, lr=0.01, amsgrad=True, maximize=True),
    "dropout": Dropout,
    "running statistics": Statistics,
    "schedule": Schedule,
    "clipping": Clipping,
    "two backwards": TwoBackwards,
    "accumulation": Accumulation,
    "zero in place": ZeroInPlace,
    "hooks": Hooks,
    "by hand": GradientsByHand,
    "penalty": Penalty,
}


@pytest.mark.parametrize("name", TRAININGS)
def test_training_has_the_bits_of_eager(name: str, device: str) -> None:
    steps = STEPS if device == "cpu" else 40
    captured = TRAININGS[name](True)
    assert captured.train(steps) == TRAININGS[name](False).train(steps)
    # a step that adds to existing gradients is recorded again after the first one, which finds none; Muon does not zero those
    # of the biases
    assert len(captured.run.recordings) == (2 if name in ("accumulation", "zero in place", "muon") else 1)


def test_gradients_after_a_step_are_those_of_eager(device: str) -> None:
    captured, eager = Training(True), Training(False)
    for x, y in batches(3):
        captured.run(x, y), eager.run(x, y)
        for p, q in zip(captured.model.parameters(), eager.model.parameters()):
            assert to_numpy(p.grad).tobytes() == to_numpy(q.grad).tobytes()


def test_a_replay_uses_no_more_memory_than_eager() -> None:
    import tracemalloc

    captured, eager = Training(True), Training(False)
    (x, y), _ = batches(2, rows=20_000)
    for training in (captured, captured, eager):  # the first replay compiles the guards
        training.run(x, y)
    tracemalloc.start()
    training.run(x, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    captured.run(x, y)
    after, peak_of_replay = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert captured.run.recordings[0].lowering.arena_bytes <= peak
    # NumPy's iterators buffer 8192 elements per operand; one activation has 640 kB
    assert peak_of_replay - before < 200_000


def test_temporaries_share_memory_and_dead_launches_are_dropped(device: str) -> None:
    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        with gpunet.no_grad():
            for factor in range(1, 9):
                x.exp()
                x = (x * factor).tanh()
            return x

    captured, x = gpunet.capture(step), gpunet.rand(100, 100, device=device)
    for _ in range(3):
        assert to_numpy(captured(x)).tobytes() == to_numpy(step(x)).tobytes()
    assert captured.recordings[0].lowering.arena_bytes <= 2 * 40_192  # two arrays, rounded up to the alignment
    assert captured.explain().dropped == 8


# ---- epochs and explanations -------------------------------------------------------------------------------------------


def hold_epoch_to_loop(captured: Training, eager: Training) -> None:
    """Check that epochs of a captured step have the bits of an eager loop over the batches."""
    (x, y), _ = batches(2, rows=50)
    epoch = captured.run.epoch(x, y, batch_size=12, engine="replay")
    assert len(epoch) == 5
    for number in range(3):
        gpunet.manual_seed(number)
        mean = epoch()
        gpunet.manual_seed(number)
        losses = [(eager.step(x[rows], y[rows]).item(), len(rows)) for rows in gpunet.randperm(50).split(12)]
        assert mean.item() == pytest.approx(sum(loss * n for loss, n in losses) / 50, rel=1e-12)
    for p, q in zip(captured.model.parameters(), eager.model.parameters()):
        assert to_numpy(p).tobytes() == to_numpy(q).tobytes()


def test_an_epoch_has_the_bits_of_a_loop(device: str) -> None:
    captured = Training(True)
    hold_epoch_to_loop(captured, Training(False))
    assert len(captured.run.recordings) == 2  # full batches, and the smaller last one


def test_an_epoch_without_shuffling_drops_the_last_batch(device: str) -> None:
    x = gpunet.arange(10).float()
    epoch = gpunet.capture(lambda x: {"sum": x.sum(), "first": x[0]}).epoch(x, batch_size=4, shuffle=False, drop_last=True)
    for _ in range(2):
        means = epoch()
        assert means["sum"].item() == (6 + 22) / 2 and means["first"].item() == 2.0


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ((), {"batch_size": 2}, "expected tensors"),
        ((gpunet.ones(3), gpunet.ones(4)), {"batch_size": 2}, r"\[3, 4\] rows"),
        ((gpunet.ones(3),), {"batch_size": 0}, "batch_size=0"),
        ((gpunet.ones(3),), {"batch_size": 4, "drop_last": True}, "less than one batch"),
    ],
)
def test_epoch_rejects_bad_arguments(data: Any, options: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        gpunet.capture(lambda *x: x).epoch(*data, **options)


def test_explain_lists_every_launch_and_changes_no_tensor(device: str) -> None:
    training = Training(True)
    with pytest.raises(CaptureError, match="no recording yet"):
        training.run.explain()
    training.train(2)
    before = [to_numpy(t).copy() for t in training.model.parameters()]
    explanation = training.run.explain()
    assert [(b == to_numpy(t)).all() for b, t in zip(before, training.model.parameters())] == [True] * 4
    names = [row.launch for row in explanation.rows]
    if device == "cpu":
        assert names[:3] == ["linear_forward", "linear_forward", "cross_entropy_labels"] and names[-1] == "adam_step"
    else:
        assert names == ["linear_forward", "linear_forward_loss", "linear_backward_input", "linear_backward_weights"]
    assert all(row.bytes > 0 and row.seconds >= 0 and "test_capture.py:" in row.line for row in explanation.rows)
    text = str(explanation)
    assert "12×5" in text and "limits measured here" in text
    if device == "cpu":
        # x (12, 5) by w (8, 5): 2 * 12 * 8 * 5 in the product, then bias and tanh
        assert explanation.rows[0].flops == 960 + 2 * 96


def test_launches_with_unread_results_are_dropped() -> None:
    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        x.exp().sum()  # unread
        return x * 2.0

    captured = gpunet.capture(step)
    captured(gpunet.ones(3))
    assert [row.launch for row in captured.explain().rows] == ["multiply"]
    assert captured.explain().dropped == 2


def test_lowering_has_the_source_of_a_replay() -> None:
    captured = gpunet.capture(lambda x: (x + 1.0).relu().sum())
    captured(gpunet.ones(3))
    source = captured.recordings[0].lowering.source
    assert [line.strip().partition("(")[0] for line in source.splitlines()[2:-1]] == ["add", "maximum", "add_reduce"]


# ---- plans ------------------------------------------------------------------------------------------------------------


def test_gradients_are_computed_in_the_vector_of_the_optimizer() -> None:
    training = Training(True)
    training.train(2)
    source = training.run.recordings[0].lowering.source
    assert "concatenate" not in source
    # all gradients are scaled by the batch mean in one call
    explained = {row.launch: row.calls for row in training.run.explain().rows}
    assert explained[linear_backward_weight.name] + explained[linear_backward_input.name] <= 7


def test_long_elementwise_runs_are_split_into_chunks() -> None:
    def step(x: gpunet.Tensor, row: gpunet.Tensor) -> gpunet.Tensor:
        return ((x + row) * 2.0 - 1.0).relu()

    x, row = gpunet.randn(5000, 100), gpunet.randn(100)
    captured = gpunet.capture(step)
    captured(x, row)
    calls = captured.recordings[0].lowering.calls
    assert [c.function.__name__ for c in calls[:5]] == ["add", "multiply", "subtract", "maximum", "add"]
    assert len(calls) > 8
    assert captured(x * 3.0, row).tolist() == step(x * 3.0, row).tolist()


def test_a_run_is_not_split_at_a_transposed_operand() -> None:
    """Row 0 of ``2x + 2x.T`` needs all rows of ``2x``."""

    def step(x: gpunet.Tensor) -> gpunet.Tensor:
        doubled = x * 2.0
        return doubled + doubled.mT

    x = gpunet.randn(700, 700)
    captured = gpunet.capture(step)
    captured(x)
    assert captured(x + 1.0).tolist() == step(x + 1.0).tolist()


def test_a_run_is_not_split_at_an_operand_broadcast_along_rows() -> None:
    """The operand ``2 row`` has as many rows as ``x``, but each row of ``x`` needs all of it."""

    def step(x: gpunet.Tensor, row: gpunet.Tensor) -> gpunet.Tensor:
        return x + row * 2.0

    captured = gpunet.capture(step, backend="numpy")
    for _ in range(2):
        x, row = gpunet.randn(2, 2, 70000), gpunet.randn(2, 70000)
        assert (captured(x, row).numpy() == step(x, row).numpy()).all()
