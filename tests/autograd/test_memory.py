"""Graphs are freed by reference counting alone, without reference cycles, and deep graphs need no recursion."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gpunet
from gpunet import nn
from gpunet.autograd import OPS, Node, Tensor
from gpunet.errors import GpunetError
from tests.samples import SAMPLES, Sample

F = nn.functional


@pytest.fixture(autouse=True, scope="module")
def disable_garbage_collector() -> Iterator[None]:
    """Disable the garbage collector, and exclude the objects that exist already from its later collections.

    Memory that a cycle keeps until the collector runs is released too late on a GPU.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def live_nodes_and_tensors() -> int:
    return sum(issubclass(type(o), (Node, Tensor)) for o in gc.get_objects())


def assert_no_leak(work: Callable[[], Any]) -> None:
    """Check that ``work`` leaves no tensor and no node alive; a first run may fill caches."""
    work()
    gc.collect()
    before = live_nodes_and_tensors()
    work()
    assert live_nodes_and_tensors() == before


def inputs_of(sample: Sample, device: str) -> list[Tensor]:
    return [
        gpunet.tensor(a, dtype="float32" if a.dtype.kind == "f" else None, device=device, requires_grad=given.gradient)
        for a, given in zip(sample.arrays(), sample.inputs)
    ]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_forward_and_backward_do_not_leak(sample: Sample, device: str) -> None:
    def forward() -> None:
        sample.call(*inputs_of(sample, device))

    def both() -> None:
        out = sample.call(*inputs_of(sample, device))
        out.backward(gpunet.ones_like(out))

    assert_no_leak(forward)
    assert_no_leak(both)


@pytest.mark.parametrize(
    "name",
    ["_mul-by itself", "_exp-0", "_matmul-matrices", "activation-tanh 0.0", "linear_chain-gelu 0.0", "labels_loss-labels mean"],
)
def test_second_derivatives_do_not_leak(name: str, device: str) -> None:
    sample = next(s for s in SAMPLES if s.name == name)

    def work() -> None:
        inputs = inputs_of(sample, device)
        differentiable = [x for x in inputs if x.requires_grad]
        gradients = gpunet.grad(sample.call(*inputs).sum(), differentiable, create_graph=True)
        gpunet.grad(sum((g * g).sum() for g in gradients), differentiable, allow_unused=True)

    assert_no_leak(work)


def test_a_training_step_does_not_leak(device: str) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Dropout(0.2), nn.Linear(8, 3))
    optimizer = gpunet.optim.Adam(model.parameters())
    x, y = gpunet.randn(6, 4), gpunet.tensor([0, 1, 2, 0, 1, 2])

    def step() -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()

    assert_no_leak(step)


def test_hooks_and_retained_gradients_do_not_leak(device: str) -> None:
    def work() -> None:
        x = gpunet.ones(3, requires_grad=True)
        y = x * 2.0
        y.retain_grad()
        y.register_hook(lambda g: g * 2.0)
        x.register_hook(lambda g: None)
        y.sum().backward()

    assert_no_leak(work)


def test_errors_do_not_leak(device: str) -> None:
    def work() -> None:
        x = gpunet.ones(3, requires_grad=True)
        y = x.exp()
        loss = y.sum()
        y.detach().mul_(2.0)
        for wrong in (loss.backward, y.backward, lambda: x @ gpunet.ones(2), lambda: y.reshape(2, 2)):
            try:
                wrong()
            except GpunetError:
                pass
            else:
                raise AssertionError("expected an error")

    assert_no_leak(work)


def test_deleting_the_loss_frees_the_graph(device: str) -> None:
    hidden = (gpunet.ones(4, requires_grad=True) * 2.0).exp()
    watched = weakref.ref(hidden)
    loss = hidden.sum()
    del hidden
    assert watched() is None, "the graph must keep arrays, not the tensors that ops returned"
    before = live_nodes_and_tensors()
    del loss
    assert live_nodes_and_tensors() < before


def test_backward_frees_the_graph(device: str) -> None:
    """After backward, the loss keeps no other node and no residuals alive."""
    loss = (gpunet.ones(4, requires_grad=True) * 2.0).exp().sum()
    before = live_nodes_and_tensors()
    loss.backward()
    assert live_nodes_and_tensors() < before
    assert loss.grad_fn.next_functions == ()


# ---- depth ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [5_000, pytest.param(50_000, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(
    "link",
    [lambda x: x + 1.0, lambda x: x * 1.0, lambda x: F.relu(x), lambda x: x.exp().log()],
    ids=["add", "mul", "relu", "exp log"],
)
def test_deep_chain(link: Callable[[Tensor], Tensor], depth: int, device: str) -> None:
    """Forward, backward and deletion of a chain far deeper than Python's recursion limit."""
    assert depth > sys.getrecursionlimit()
    x = gpunet.ones(1, requires_grad=True)
    y = x
    for _ in range(depth):
        y = link(y)
    y.backward(retain_graph=True)
    assert x.grad.item() == pytest.approx(1.0, rel=1e-2)  # exp and log round, 50,000 times
    del y


def test_deep_chain_is_freed_without_backward(device: str) -> None:
    y = gpunet.ones(1, requires_grad=True)
    for _ in range(50_000):
        y = y * 1.0
    (g,) = gpunet.grad(y, y)
    del y
    assert g.item() == 1.0


def test_deep_graph_of_the_gradient(device: str) -> None:
    x = gpunet.ones(1, requires_grad=True)
    y = x
    for _ in range(5_000):
        y = y * 1.0
    (g,) = gpunet.grad(y * x, x, create_graph=True)
    (h,) = gpunet.grad(g, x)
    assert (g.item(), h.item()) == (2.0, 2.0)


def test_wide_graph(device: str) -> None:
    """A tensor with many consumers, and an op with many inputs."""
    x = gpunet.ones(1, requires_grad=True)
    gpunet.cat([x * float(i) for i in range(1_000)]).sum().backward()
    assert x.grad.item() == 999 * 1000 / 2


def test_registered_ops_hold_no_tensor(device: str) -> None:
    held = [name for name, op in OPS.items() for value in vars(op).values() if isinstance(value, Tensor)]
    assert held == []
