"""Fusion by launches: a linear launch absorbs the activation behind it, forward and backward, with the same bits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.launch.kernel import Kernel
from gpunet.nn import functional as F
from gpunet.ops.activations import activation_backward, activation_forward
from tests.ops.test_ops import to_numpy

X = numpy.random.default_rng(0).normal(size=(6, 5)).astype("float32")


class Net(nn.Module):
    """Two linear layers; ``activate`` is called between them."""

    def __init__(self, activate: Callable[..., Any]) -> None:
        super().__init__()
        gpunet.manual_seed(0)
        self.fc1, self.fc2, self.activate = nn.Linear(5, 8), nn.Linear(8, 3), activate

    def forward(self, x: Any) -> Any:
        return self.fc2(self.activate(self.fc1(x)))


def square_loss(net: nn.Module, x: Any) -> Any:
    return (net(x) ** 2).sum()


def training_step(net: nn.Module, loss_of: Callable[..., Any] = square_loss) -> Callable[[Any], Any]:
    optimizer = gpunet.optim.SGD(net.parameters(), lr=0.05)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(net, x)
        loss.backward()
        optimizer.step()
        return loss

    return step


def work(step: Any) -> list[str]:
    """The names of the kernels that a replay launches; on the CPU, of the NumPy functions that it calls."""
    [recording] = step.recordings
    lowering = recording.lowering
    if lowering.tape is None:
        return [call.function.__name__ for call in lowering.calls]
    return [launch.kernel.name for launch in lowering.tape.launches]


def capture_and_compare(net: nn.Module, x: Any, loss_of: Callable[..., Any] = square_loss) -> Any:
    """Capture a training step of ``net`` and run it on three inputs beside an eager copy: the bits must be the same."""
    eager, step = training_step(other := copy.deepcopy(net), loss_of), gpunet.capture(training_step(net, loss_of))
    for number in range(3):
        batch = x * (number + 1)
        assert to_numpy(step(batch)).tobytes() == to_numpy(eager(batch)).tobytes()
    for ours, theirs in zip(net.parameters(), other.parameters()):
        assert to_numpy(ours).tobytes() == to_numpy(theirs).tobytes()
    return step


@pytest.mark.parametrize(
    "activate, module",
    [
        (F.relu, nn.ReLU()), (gpunet.tanh, nn.Tanh()), (F.gelu, nn.GELU()), (F.silu, nn.SiLU()), (F.softplus, nn.Softplus()),
        (lambda x: F.leaky_relu(x, 0.2), nn.LeakyReLU(0.2)), (lambda x: x.sigmoid(), nn.Sigmoid()),
    ],
)  # fmt: skip
def test_function_calls_take_as_many_launches_as_sequential(activate: Any, module: nn.Module, device: str) -> None:
    x = gpunet.tensor(X, device=device)
    net = Net(activate).to(device)
    layers = nn.Sequential(net.fc1, module, net.fc2)
    expected = work(capture_and_compare(copy.deepcopy(layers), x))
    found = work(capture_and_compare(net, x))
    assert found == expected if device != "cpu" else len(found) <= len(expected)


@pytest.mark.parametrize("shape", [(2, 3, 5), (5,)])
def test_inputs_of_other_shapes_fuse(shape: tuple[int, ...], device: str) -> None:
    x = gpunet.tensor(X[: int(numpy.prod(shape)) // 5].reshape(shape), device=device)
    fused = work(capture_and_compare(Net(F.relu).to(device), x))
    net = Net(F.relu).to(device)
    assert fused == work(capture_and_compare(nn.Sequential(net.fc1, nn.ReLU(), net.fc2), x))


def activation_launches(step: Any) -> list[Kernel]:
    launches = step.recordings[0].lowering.tape.launches
    return [launch.kernel for launch in launches if launch.kernel in (activation_forward, activation_backward)]


def skip_on_cpu(device: str) -> None:
    if device == "cpu":
        pytest.skip("a replay on the CPU has no launches")


def test_a_preactivation_that_is_read_is_written_as_well(device: str) -> None:
    """A residual branch reads it; its gradient has two readers, and is not absorbed."""
    skip_on_cpu(device)
    step = capture_and_compare(Net(lambda z: F.relu(z) + z).to(device), gpunet.tensor(X, device=device))
    assert activation_launches(step) == [activation_backward]


class Keep:
    """The activation, which keeps its input, or a gradient, on each call."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.tensor: Any = None
        self.gradients: list[Any] = []

    def __call__(self, z: Any) -> Any:
        y = F.relu(z)
        kept = z if "input" in self.what else y
        if self.what == "hook of the output":
            y.register_hook(self.gradients.append)
        else:
            self.tensor = kept
        if "gradient" in self.what:
            kept.retain_grad()
        return y

    def found(self) -> list[Any]:
        kept = [*self.gradients[-1:], self.tensor, None if self.tensor is None else self.tensor.grad]
        return [to_numpy(t).tolist() for t in kept if t is not None]


@pytest.mark.parametrize(
    "what, left",
    [
        ("the input", []), ("the output", []), ("the input and its gradient", []),
        ("the output and its gradient", [activation_backward]), ("hook of the output", [activation_backward]),
    ],
)  # fmt: skip
def test_a_tensor_that_outlives_the_step_is_written(what: str, left: list[Kernel], device: str) -> None:
    """The gradient of the output is that which the fused launch does not write."""
    skip_on_cpu(device)
    net = Net(Keep(what)).to(device)
    eager = training_step(other := copy.deepcopy(net))
    step = gpunet.capture(training_step(net))
    for number in range(3):
        x = gpunet.tensor(X + number, device=device)
        step(x)
        eager(x)
        assert net.activate.found() == other.activate.found() != []
    assert activation_launches(step) == left


def test_a_change_between_prevents_it(device: str) -> None:
    """The activation reads what the linear layer wrote, then something changed."""
    skip_on_cpu(device)

    def activate(z: gpunet.Tensor) -> gpunet.Tensor:
        z.detach().mul_(2.0)
        return F.relu(z)

    net = Net(activate).to(device)
    x = gpunet.tensor(X, device=device)
    with gpunet.no_grad():
        step = gpunet.capture(net.forward)
        assert step(x).tolist() == step(x).tolist() == net(x).tolist()
    assert activation_launches(step) == [activation_forward]


def gradient_penalty(net: nn.Module, x: Any) -> Any:
    x = x.clone().requires_grad_()
    [gradient] = gpunet.grad(net(x).sum(), [x], create_graph=True)
    return (gradient**2).sum() + square_loss(net, x)


def test_second_derivatives_have_the_same_bits(device: str) -> None:
    capture_and_compare(Net(F.softplus).to(device), gpunet.tensor(X, device=device), gradient_penalty)


def test_halves_keep_both_roundings(device: str) -> None:
    skip_on_cpu(device)
    net = Net(F.relu).to(device)
    for p in net.parameters():
        p.data = p.data.half()
    step = capture_and_compare(net, gpunet.tensor(X, device=device).half())
    assert activation_launches(step) == [activation_forward, activation_backward]
