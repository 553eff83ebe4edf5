"""Steps captured with ``fullgraph=False`` are split at graph breaks and have the bits of eager."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.autograd import make_tensor
from gpunet.backend import devices
from gpunet.captured.compiled import module
from gpunet.errors import SplitWarning
from tests.captured.test_capture import BatchNorm, Training
from tests.ops.test_ops import cotangent, tensors, to_numpy
from tests.samples import SAMPLES, Sample

F = nn.functional


def split(step: Callable[..., Any], backend: str = "numpy") -> Any:
    return gpunet.capture(step, fullgraph=False, backend=backend)


@pytest.fixture(autouse=True)
def splits_silently() -> Iterator[None]:
    """Ignore the warning of a split step; tests of the warning catch it themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SplitWarning)
        yield


# ---- training -----------------------------------------------------------------------------------------------------------


class Reading(Training):
    """Looks at the loss between forward and backward."""

    def __init__(self, capture: bool, **options: Any) -> None:
        super().__init__(False, **options)
        self.seen: list[float] = []
        self.prepare()
        self.run = split(self.step) if capture else self.step

    def prepare(self) -> None:
        """Hook: set up further state of a variant."""

    def loss(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        return F.cross_entropy(self.model(x), y)

    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        self.optimizer.zero_grad()
        loss = self.loss(x, y)
        self.seen.append(loss.item())
        loss.backward()
        self.optimizer.step()
        return loss

    def train(self, steps: int = 100) -> list[Any]:
        return [*super().train(steps), *self.seen]


class Branch(Reading):
    """Two ways of a step that alternate as the data decide."""

    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        self.optimizer.zero_grad()
        loss = self.loss(x, y)
        if x[0, 0] > 0:
            loss = loss * 0.5 + self.model[0].weight.square().sum() * 0.01
            self.seen.append(1.0)
        loss.backward()
        if loss > 0.4:
            self.optimizer.step()
            self.seen.append(2.0)
        return loss


class EarlyReturn(Reading):
    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        loss = self.loss(x, y)
        if float(x.sum()) < 0:
            return loss.detach() * 2.0
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss


class Masked(Reading):
    """A batch whose size depends on its values."""

    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        keep = x[:, 1] > -0.3
        return super().step(x[keep], y[keep])


class ClipByNumber(Reading):
    """Python numbers that change at each step."""

    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        self.optimizer.zero_grad()
        loss = self.loss(x, y)
        loss.backward()
        norm = sum((p.grad.square().sum() for p in self.model.parameters()), gpunet.zeros(())).sqrt().item()
        for p in self.model.parameters():
            p.grad.mul_(min(1.0, 0.5 / norm))
        self.optimizer.step()
        return loss * (1.0 + norm)


class Several(Reading):
    middle = (nn.ReLU, lambda: nn.Dropout(0.3))

    def prepare(self) -> None:
        self.schedule = gpunet.optim.lr_scheduler.StepLR(self.optimizer, 5, 0.9)

    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        hidden = self.model[0](x)
        self.seen.append(len(repr(hidden)))
        loss = F.cross_entropy(self.model[3](self.model[2](self.model[1](hidden))), y)
        self.optimizer.zero_grad()
        self.seen += loss.detach().numpy().reshape(-1).tolist() if loss.device == "cpu" else [loss.item()]
        loss.backward()
        self.seen.append(self.model[3].weight.grad.abs().max().item())
        self.optimizer.step()
        self.schedule.step()
        self.seen.append(self.optimizer.param_groups[0]["lr"])
        return loss


class Statistics(Reading):
    middle = (nn.ReLU, lambda: BatchNorm(8))


class Accumulation(Reading):
    """Three batches make a step of the optimizer, counted by Python."""

    count = 0

    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        self.count += 1
        loss = self.loss(x, y) / self.count
        loss.backward()
        if self.count % 3 == 0:
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=self.count % 2 == 0)
        return loss


class OwnNoise(Reading):
    """Arrays that NumPy makes inside the step."""

    def prepare(self) -> None:
        self.generator = numpy.random.default_rng(1)

    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        noise = gpunet.tensor(self.generator.normal(size=tuple(x.shape)).astype("float32"))
        return super().step(x + noise, y)


class TwoModels(Reading):
    """Two models of the same shapes, and a learning rate that is set by hand."""

    def prepare(self) -> None:
        self.models = [self.model, nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))]
        self.optimizers = [self.optimizer, gpunet.optim.SGD(self.models[1].parameters(), lr=0.1, momentum=0.9)]

    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        total = gpunet.zeros(())
        for model, optimizer in zip(self.models, self.optimizers):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            self.seen.append(loss.item())
            loss.backward()
            optimizer.step()
            total = total + loss.detach()
        self.optimizers[1].param_groups[0]["lr"] = 0.1 / (1 + len(self.seen))
        return total


class Until(Reading):
    """A loop that goes on until the loss is small enough."""

    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        for _ in range(4):
            loss = super().step(x, y)
            if loss < 0.9:
                break
        return loss


class Views(Reading):
    """Views, changes in place through them, indices, and a state of the step's own."""

    def prepare(self) -> None:
        self.state = gpunet.zeros(8, 3)
        self.order = gpunet.tensor([2, 0, 1])

    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        w = self.model[0].weight.detach().T
        hidden = (x @ w).clone()
        hidden[:, 2:4] += 1.0
        hidden[0] = hidden[1] * 2.0
        with gpunet.no_grad():
            self.state[1:, 1] += hidden.mean(0)[1:]
            self.state.mul_(0.9)
        if hidden.sum() > 0:
            hidden = hidden[:, hidden.sum(0).argsort()]
        picked = gpunet.cat([hidden[3:6], hidden.reshape(-1, 8)[6:9]])
        super().step(x, y)
        return (picked @ self.state)[:, self.order].sum(0) + self.state.sum()


class KeptHidden(Reading):
    """Tensors that outlive the step, now and then."""

    def prepare(self) -> None:
        self.kept: list[gpunet.Tensor] = []

    def step(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        hidden = self.model[0](x).tanh()
        if len(self.kept) < 40 and float(x[0, 0]) > 0.5:
            self.kept.append(hidden)
        super().step(x, y)
        return hidden.sum()

    def train(self, steps: int = 100) -> list[Any]:
        return [*super().train(steps), *(to_numpy(t.detach()).tobytes() for t in self.kept)]


class Penalty(Reading):
    """The gradient of a gradient, with a hook that looks."""

    middle = (nn.GELU,)

    def loss(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        x = x.detach().requires_grad_()
        loss = super().loss(x, y)
        (slope,) = gpunet.grad(loss, x, create_graph=True)
        slope.register_hook(lambda g: self.seen.append(g.sum().item()))
        return loss + slope.square().sum()


VARIANTS = [
    Reading, Branch, EarlyReturn, Masked, ClipByNumber, Several, Statistics, Accumulation, OwnNoise, TwoModels, Until, Views,
    KeptHidden, Penalty,
]  # fmt: skip


@pytest.mark.parametrize("kind", VARIANTS)
def test_split_steps_have_the_bits_of_eager(kind: type[Reading], device: str) -> None:
    steps = 100 if device == "cpu" else 12
    expected = kind(False).train(steps)
    captured = kind(True)
    assert captured.train(steps) == expected
    assert not captured.run.recordings
    segments = [*captured.run._split.segments]
    assert any(segment.lowering is not None for segment in segments)
    refusal = "captured as a CUDA graph: (cudaErrorStreamCaptureUns|the current stream is capturing, so D2H)"
    for segment in segments:
        assert not segment.refused or (kind is Masked and re.search(refusal, segment.refused))


@pytest.mark.skipif(not module.available(), reason="Numba is not installed")
@pytest.mark.parametrize("kind", [Reading, ClipByNumber, Several])
def test_compiled_segments_agree_with_eager(kind: type[Reading]) -> None:
    eager = kind(False)
    eager.train(30)
    captured = kind(False)
    captured.run = split(captured.step, "numba")
    captured.train(30)
    assert all(segment.lowering is not None for segment in captured.run._split.segments)
    # rounding, carried through thirty steps
    numpy.testing.assert_allclose(captured.seen, eager.seen, rtol=1e-3)
    for p, q in zip(captured.model.parameters(), eager.model.parameters()):
        numpy.testing.assert_allclose(to_numpy(p.detach()), to_numpy(q.detach()), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_every_op_before_and_behind_a_split(sample: Sample, device: str) -> None:
    def step(g: gpunet.Tensor, *inputs: gpunet.Tensor) -> list[gpunet.Tensor]:
        leaves = [x.detach().requires_grad_() if given.gradient else x for x, given in zip(inputs, sample.inputs)]
        out = sample.call(*leaves)
        assert out.array.size == 0 or out.reshape(-1)[0].tolist() is not None
        out.backward(g)
        return [out.detach(), *(x.grad for x in leaves if x.grad is not None)]

    captured = split(step)
    out = sample.call(*tensors(sample, sample.arrays(), "float32", device, graph=False))
    g = gpunet.tensor(cotangent(out.shape), dtype=out.dtype, device=device)
    for seed in (0, 1, 2, 3, 1) if device == "cpu" else (0, 1):
        gpunet.manual_seed(seed)
        given = tensors(sample, sample.arrays(seed), "float32", device, graph=False)
        expected = step(g, *given)
        gpunet.manual_seed(seed)
        found = captured(g, *given)
        assert [to_numpy(a).tobytes() for a in found] == [to_numpy(b).tobytes() for b in expected]


# ---- changes after a segment was lowered --------------------------------------------------------------------------------


class Slightly:
    """State that the steps of the table below use; ``late`` becomes true after their segments were lowered."""

    def __init__(self) -> None:
        self.late = False
        self.kept: list[gpunet.Tensor] = []
        self.state = gpunet.arange(6).float()
        self.number = 0

    def pick(self, tensor: gpunet.Tensor) -> gpunet.Tensor:
        return tensor[2:5] if self.late else tensor[1:4]

    def keep(self, tensor: gpunet.Tensor, always: bool = False) -> gpunet.Tensor:
        if self.late or always:
            self.kept.append(tensor)
        return tensor

    def parts(self, tensor: gpunet.Tensor) -> gpunet.Tensor:
        part = tensor[1:5]
        part = part + part[1:3].sum()
        self.keep(tensor, always=True)
        return part

    def fresh(self) -> gpunet.Tensor:
        array = gpunet.empty(6)
        with gpunet.no_grad():
            self.number += 1
            devices.assign(array.numpy() if array.device == "cpu" else array.array, float(self.number))
        return array

    def changed(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        self.state.add_(1.0)
        return y * 2.0 + self.state

    def added(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        x.add_(1.0)
        return y * 2.0

    def begun(self, x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        x[:1].add_(1.0)
        return x * 2.0


def same(x: gpunet.Tensor) -> gpunet.Tensor:
    return make_tensor(x.array[:])


#: name -> the step, and its late arguments as a function of the usual ones, or None
CHANGES: dict[str, tuple[Any, Any]] = {
    "a tensor is kept": (lambda s, x, y: s.keep(x * 2.0) + 1.0, None),
    "a view is kept": (lambda s, x, y: s.keep((x * 2.0).reshape(2, 3).T) + 1.0, None),
    "a view is always kept": (lambda s, x, y: s.keep((x * 2.0).reshape(2, 3).T, always=True) + 1.0, None),
    "views of a view are always kept": (lambda s, x, y: s.parts(x * 2.0), None),
    "part of something new": (lambda s, x, y: s.pick(x * 2.0) + 1.0, None),
    "part of something old": (lambda s, x, y: s.pick(s.state) + x[:3], None),
    "part of an argument": (lambda s, x, y: s.pick(x) + 1.0, None),
    "an option": (lambda s, x, y: F.leaky_relu(x - 3.0, float("0.3" if s.late else "0.2")), None),
    "a number": (lambda s, x, y: x * float("0.3" if s.late else "0.2") + 1.0, None),
    "written by NumPy": (lambda s, x, y: s.fresh() * 2.0 + x, None),
    "an argument twice": (lambda s, x, y: x * y, lambda s, x, y: (x, y)),
    "an argument that the step changes": (Slightly.changed, lambda s, x, y: (x, s.state)),
    "a view of what the step changes": (Slightly.changed, lambda s, x, y: (x, same(s.state))),
    "a changed argument": (Slightly.added, lambda s, x, y: (x, same(x))),
    "changing the state as an argument": (Slightly.added, lambda s, x, y: (s.state, same(s.state))),
    "a changed part": (Slightly.begun, lambda s, x, y: (x, same(x))),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_segment_is_used_only_where_it_is_right(name: str, device: str) -> None:
    compute, late_arguments = CHANGES[name]

    def run(wrap: Callable[..., Any]) -> list[Any]:
        world = Slightly()

        def step(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
            z = compute(world, x, y)
            float(z.sum())
            return z

        captured, found = wrap(step), []
        for number in range(12):
            world.late = number in (7, 9, 10)
            x, y = gpunet.arange(6).float() + number, gpunet.arange(6).float() * number
            arguments = (x, x) if name == "an argument twice" else (x, y)
            if world.late and late_arguments is not None:
                arguments = late_arguments(world, x, y)
            found.append(captured(*arguments).tolist())
            found.append([t.tolist() for t in (x, y, world.state, *world.kept)])
            gpunet.rand(6), gpunet.rand(3, 2)  # overwrite freed memory
        return found

    assert run(split) == run(lambda step: step)


@pytest.mark.parametrize("values", [(0.0, -0.0), (1, True), (2, 2.0), (0.5, 0.25)])
def test_numbers_are_told_apart_exactly(values: tuple[Any, Any], device: str) -> None:
    def run(wrap: Callable[..., Any]) -> list[bytes]:
        number: Any = None

        def step(x: gpunet.Tensor) -> gpunet.Tensor:
            y = x * 1.5
            float(y.sum())
            return (y * number + number).clamp(min=number) + gpunet.full((2,), number)

        captured, found = wrap(step), []
        for number in values * 4:  # noqa: B007
            found.append(to_numpy(captured(-gpunet.ones(2))).tobytes())
        return found

    assert run(split) == run(lambda step: step)


def test_the_segments_are_bounded(device: str) -> None:
    captured = split(lambda x: x[x > 0] * 2.0)
    for rows in range(1, 80):
        x = gpunet.ones(90)
        x[rows:] = -1.0
        assert captured(x).tolist() == [2.0] * rows
    assert len(captured._split.segments) == captured._split.segments.max_recordings == 32
