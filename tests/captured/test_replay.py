"""Replays of a tape have the bits of eager, for hundreds of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.backend import devices
from gpunet.backend.heap import return_freed_memory
from gpunet.captured import step as captured_step
from gpunet.captured.lowering import Lowering
from gpunet.errors import GpunetError
from gpunet.launch import memory
from gpunet.launch.random import default_generator
from gpunet.launch.shims import Ufunc
from gpunet.launch.tape import Tape, record
from gpunet.ops.index_launches import add_rows
from tests.captured.optimizers import OPTIMIZERS

F = nn.functional
STEPS = 200


def batches(count: int, rows: int = 12, seed: int = 3) -> list[tuple[numpy.ndarray, numpy.ndarray]]:
    generator = numpy.random.default_rng(seed)
    return [
        (generator.normal(size=(rows, 5)).astype("float32"), generator.integers(0, 3, rows)) for _ in range(count)
    ]


def weights(model: nn.Module) -> list[bytes]:
    return [p.detach().cpu().numpy().tobytes() for p in model.parameters()]


class Training:
    """A model, an optimizer, and a step on the buffers ``x`` and ``y``."""

    def __init__(self, model: nn.Module, optimizer: Callable[[Any], Any], loss: Callable[[Any, Any], Any], device: str) -> None:
        self.model, self.optimizer, self.loss = model, optimizer(list(model.parameters())), loss
        first_x, first_y = batches(1)[0]
        self.x, self.y = gpunet.tensor(first_x, device=device), gpunet.tensor(first_y, device=device)

    def load(self, batch: tuple[numpy.ndarray, numpy.ndarray]) -> None:
        for buffer, new in zip((self.x, self.y), batch):
            devices.assign(buffer.array, gpunet.tensor(new, device=buffer.device).array)

    def step(self) -> gpunet.Tensor:
        self.optimizer.zero_grad()
        loss = self.loss(self.model(self.x), self.y)
        loss.backward()
        self.optimizer.step()
        return loss


def train(make: Callable[[], Training], replayed: bool, before: Callable[[Training, int], None] | None = None) -> Any:
    """Return losses, weights and generator state after STEPS steps; if ``replayed``, record the first and replay it."""
    gpunet.manual_seed(5)
    training, tape, losses = make(), Tape(), []
    for number, batch in enumerate(batches(STEPS)):
        training.load(batch)
        if before is not None:
            before(training, number)
        if not replayed:
            loss = training.step()
        elif number == 0:
            with record(tape):
                loss = training.step()
        else:
            tape.replay()
        losses.append(loss.item())
    return losses, weights(training.model), default_generator.position(training.x.device)


def small_model(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), *middle, nn.Linear(8, 3))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers(optimizer: str, device: str) -> None:
    def make() -> Training:
        return Training(small_model(nn.Tanh()), OPTIMIZERS[optimizer], F.cross_entropy, device)

    eager, replayed = train(make, False), train(make, True)
    assert eager == replayed
    assert len(set(eager[0])) > STEPS // 2  # the model did train


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU(), nn.LeakyReLU(), nn.Sigmoid(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.ELU(), nn.Softplus()],
    ids=repr,
)
def test_activations(activation: nn.Module, device: str) -> None:
    def make() -> Training:
        return Training(small_model(activation), OPTIMIZERS["adam"], F.cross_entropy, device)

    assert train(make, False) == train(make, True)


LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "ignore_index": lambda x, y: F.cross_entropy(x, y, ignore_index=1),
    "weights and smoothing": lambda x, y: F.cross_entropy(x, y, gpunet.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1),
    "per row": lambda x, y: F.cross_entropy(x, y, reduction="none").square().mean(),
    "mse": lambda x, y: F.mse_loss(x.sum(1), y.float()),
    "huber": lambda x, y: F.huber_loss(x[:, 0], y.float()),
    "binary": lambda x, y: F.binary_cross_entropy_with_logits(x[:, 0], (y == 1).float()),
    "in primitives": lambda x, y: -x.log_softmax(1).gather(1, y.reshape(-1, 1)).mean(),
    "hardest row": lambda x, y: (x.max(1).values - x.gather(1, y.reshape(-1, 1)).squeeze(1)).topk(4, 0).values.sum(),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_losses(loss: str, device: str) -> None:
    def make() -> Training:
        return Training(small_model(nn.Tanh()), OPTIMIZERS["momentum"], LOSSES[loss], device)

    assert train(make, False) == train(make, True)


def test_each_replay_draws_a_new_dropout_mask(device: str) -> None:
    def make() -> Training:
        return Training(small_model(nn.ReLU(), nn.Dropout(0.5)), OPTIMIZERS["adamw"], F.cross_entropy, device)

    assert train(make, False) == train(make, True)
    dropout, x = nn.Dropout(0.5), gpunet.ones(100)
    with record(Tape()) as tape:
        y = dropout(x)
    masks = set()
    for _ in range(20):
        masks.add(y.cpu().numpy().tobytes())
        tape.replay()
    assert len(masks) == 20


def test_a_replay_follows_the_learning_rate(device: str) -> None:
    def schedule(training: Training, number: int) -> None:
        for group in training.optimizer.param_groups:
            group["lr"] = 0.1 / (1 + number)

    def make() -> Training:
        return Training(small_model(nn.ReLU()), OPTIMIZERS["momentum"], F.cross_entropy, device)

    eager = train(make, False, schedule)
    assert eager == train(make, True, schedule)
    assert eager[1] != train(make, True)[1]


def test_replay_of_accumulated_gradients(device: str) -> None:
    """A step with two backward passes: the second adds to the gradients of the first."""

    class Twice(Training):
        def step(self) -> gpunet.Tensor:
            self.optimizer.zero_grad()
            for part in (slice(0, 6), slice(6, None)):
                loss = self.loss(self.model(self.x[part]), self.y[part])
                loss.backward()
            self.optimizer.step()
            return loss

    def make() -> Training:
        return Twice(small_model(nn.Tanh()), OPTIMIZERS["adam"], F.cross_entropy, device)

    assert train(make, False) == train(make, True)


def test_replay_of_second_derivatives(device: str) -> None:
    """A gradient penalty: the gradient of a gradient."""

    class Penalised(Training):
        def step(self) -> gpunet.Tensor:
            self.optimizer.zero_grad()
            x = self.x.detach().requires_grad_()
            loss = self.loss(self.model(x), self.y)
            (slope,) = gpunet.grad(loss, x, create_graph=True)
            total = loss + slope.square().sum()
            total.backward()
            self.optimizer.step()
            return total

    def make() -> Training:
        return Penalised(small_model(nn.GELU()), OPTIMIZERS["adam"], F.cross_entropy, device)

    assert train(make, False) == train(make, True)


def test_replay_of_in_place_changes(device: str) -> None:
    x = gpunet.rand(3, 4)
    with record(Tape()) as tape:
        y = x * 1.0
        y += 2.0
        y[0] = 5.0
        y[:, gpunet.tensor([0, 1])] = x[:, :2]
        y.clamp_(max=3.0)
        y[1].zero_()
    expected = y.cpu().numpy().copy()
    devices.assign(y.array, -1.0)
    tape.replay()
    assert (y.cpu().numpy() == expected).all()


def test_a_replayed_scatter_sorts_its_indices_again(device: str) -> None:
    """The kernel sums runs of equal indices, so a replay on new indices has to sort them."""
    x, index = gpunet.rand(6, requires_grad=True), gpunet.tensor([0, 1, 2, 3, 4, 5])
    with record(Tape()) as tape:
        (x[index] * 2.0).sum().backward()
    devices.assign(index.array, gpunet.tensor([5, 3, 5, 0, 3, 5]).array)
    tape.replay()
    (positions,) = [launch.arrays[2] for launch in tape.launches if launch.kernel is add_rows]
    assert positions.tolist() == [0, 3, 3, 5, 5, 5]
    assert x.grad.tolist() == [2.0, 0.0, 0.0, 4.0, 0.0, 6.0]


def test_recordings_do_not_nest_and_errors_end_them(device: str) -> None:
    with record(Tape()) as tape:
        gpunet.ones(2) + 1.0
        with pytest.raises(GpunetError, match="already recording"), record(Tape()):
            pass
        assert len(tape) > 0
    with pytest.raises(ZeroDivisionError), record(Tape()):
        raise ZeroDivisionError
    recorded = len(tape)
    gpunet.ones(2) + 1.0
    assert len(tape) == recorded


def test_a_numpy_scalar_keeps_its_dtype_in_a_lowered_step() -> None:
    """NumPy multiplies a float32 array by a numpy.float64 in float64, which gives other bits than float32."""
    x, out = numpy.random.default_rng(0).random(1000, numpy.float32), numpy.empty(1000, numpy.float32)
    tape = Tape()
    with record(tape):
        Ufunc("multiply")(out, x, numpy.float64(0.1))
    expected = out.copy()
    out[...] = 0
    run, _ = Lowering(tape.launches, [out]).finish([False, False])
    run()
    assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize("rows, times", [(4, 0), (1000, 1)])
def test_the_recording_of_a_large_step_returns_its_memory(rows: int, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    returned = []
    monkeypatch.setattr(captured_step, "return_freed_memory", lambda: returned.append(len(memory._scratch.buffers)))
    step = gpunet.capture(lambda x: F.cross_entropy(x * 2, gpunet.zeros(rows, dtype="int64")), backend="numpy")
    for _ in range(3):
        step(gpunet.randn(rows, 1100))
    assert returned == [0] * times  # without the scratch memory of the recorded run


def test_memory_of_the_heap_can_be_returned() -> None:
    array = numpy.ones(100)
    return_freed_memory()
    assert array.sum() == 100
