"""Hooks of what nodes save for backward."""

from __future__ import annotations

import weakref
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.autograd.graph import save_on_cpu, saved_tensors_hooks
from gpunet.errors import ArgumentError, DtypeError, GradientError, InPlaceError, ShapeError
from tests.ops.test_ops import run, tensors, to_numpy
from tests.samples import SAMPLES, Sample

FIRST_OF_EACH_OP = [*{sample.op: sample for sample in SAMPLES}.values()]


def gradients(context: Any, module: Any, second: bool) -> list[Any]:
    """Gradients, or second derivatives, of a function of a primitive, a fused op and an output that is saved."""
    x = module.linspace(-1, 1, 6, dtype=module.float64).reshape(2, 3).requires_grad_()
    w = module.linspace(1, 2, 12, dtype=module.float64).reshape(4, 3).requires_grad_()
    with context:
        y = (module.nn.functional.linear((x * x).tanh(), w).sigmoid() * 2.0).exp().sum()
    found = module.autograd.grad(y, (x, w), create_graph=second)
    if second:
        found = module.autograd.grad(sum((g * g).sum() for g in found), (x, w))
    return [g.detach().numpy() for g in found]


@pytest.mark.parametrize("second", [False, True])
def test_what_the_hooks_store_reaches_the_gradient(second: bool, torch: Any) -> None:
    pack, unpack = lambda t: 2.0 * t, lambda t: t * 0.5  # exact
    found = gradients(saved_tensors_hooks(pack, unpack), gpunet, second)
    expected = gradients(torch.autograd.graph.saved_tensors_hooks(pack, unpack), torch, second)
    for a, b in zip(found, expected, strict=True):
        numpy.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("sample", FIRST_OF_EACH_OP, ids=lambda sample: sample.name)
def test_every_op_takes_copies_of_what_it_saved(sample: Sample) -> None:
    arrays, found = sample.arrays(), []
    for context in (save_on_cpu(), saved_tensors_hooks(lambda t: t.tolist() and t.clone(), lambda t: t)):
        with context:
            found.append(run(sample, tensors(sample, arrays, "float64", "cpu"))[1])
    for a, b in zip(*found, strict=True):
        assert (a is None and b is None) or to_numpy(a).tobytes() == to_numpy(b).tobytes()  # type: ignore[arg-type]


def test_a_lossy_pack_hook_changes_the_gradient() -> None:
    x = gpunet.tensor([1.26, 2.0], requires_grad=True)
    with saved_tensors_hooks(lambda t: t.round(), lambda t: t):
        y = (x * x).sum()
    y.backward()
    assert x.grad.tolist() == [2.0, 4.0]  # type: ignore[union-attr]


def test_the_hooks_are_called_as_by_torch(torch: Any) -> None:
    calls: dict[str, list[str]] = {}
    for module in (gpunet, torch):
        seen = calls[module.__name__] = []
        x, y = module.ones(2, requires_grad=True), module.ones(2, requires_grad=True)
        graph = module.autograd.graph
        with graph.saved_tensors_hooks(lambda t: seen.append("outer") or t, lambda t: t):  # noqa: B023
            with graph.saved_tensors_hooks(lambda t: seen.append("pack") or t, lambda t: seen.append("unpack") or t):  # noqa: B023
                z = x * y
            z = z.exp()
            x.sum()
        z.sum().backward()
    assert calls["gpunet"] == calls["torch"] == ["pack", "pack", "outer", "unpack", "unpack"]


def test_packed_tensors_are_released() -> None:
    x = gpunet.ones(3, requires_grad=True)
    with saved_tensors_hooks(lambda t: t.tolist(), gpunet.tensor):
        y = x.exp()
        kept = weakref.ref(y.array)
        z = y.sin().sum()
        del y
    assert kept() is None
    z.backward(retain_graph=True)
    z.backward()
    numpy.testing.assert_allclose(x.grad.numpy(), 2 * numpy.cos(numpy.e) * numpy.e * numpy.ones(3), rtol=1e-6)  # type: ignore[union-attr]
    with pytest.raises(GradientError, match="second time"):
        z.backward()


def test_save_on_cpu_moves_to_the_device_of_backward(device: str) -> None:
    x = gpunet.randn(4, 3, device=device, requires_grad=True)
    layer = gpunet.nn.Linear(3, 2).to(device)
    with save_on_cpu(pin_memory=True):
        y = layer(x).relu()
        assert all(p.device.type == "cpu" for p in saved_values(y))
    y.sum().backward()
    expected = gpunet.grad(layer(x).relu().sum(), x)[0]
    assert to_numpy(x.grad).tobytes() == to_numpy(expected).tobytes()  # type: ignore[arg-type]


def saved_values(y: Any) -> list[Any]:
    packed, _ = y.grad_fn.packed
    return [p._value[1] for p in (packed.values() if isinstance(packed, dict) else packed) if p is not None]


class Cube(gpunet.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        y = x * x * x
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        x, y = ctx.saved_tensors
        return 3 * g * y / x


def test_a_function_of_the_user_saves_packed_tensors() -> None:
    x = gpunet.tensor([2.0], requires_grad=True)
    seen: list[Any] = []
    with saved_tensors_hooks(lambda t: seen.append(t.item()) or t.item(), lambda number: gpunet.tensor([number])):
        y = Cube.apply(x)
    assert seen == [2.0, 8.0]
    (g,) = gpunet.grad(y, x, create_graph=True)
    assert g.tolist() == [12.0]
    assert gpunet.grad(g, x)[0].tolist() == [12.0]


def test_a_captured_step_saves_on_the_cpu() -> None:
    x = gpunet.tensor([1.0, 2.0], requires_grad=True)

    @gpunet.capture
    def step(factor: Any) -> Any:
        x.grad = None
        with save_on_cpu():
            y = (x * factor).exp().sum()
        y.backward()
        return y

    for factor in (1.0, 2.0, 0.5):
        step(gpunet.tensor(factor))
        numpy.testing.assert_allclose(x.grad.numpy(), factor * numpy.exp(factor * x.detach().numpy()), rtol=1e-6)  # type: ignore[union-attr]


def test_errors_say_what_a_hook_did() -> None:
    x = gpunet.ones(2, requires_grad=True)
    with pytest.raises(ArgumentError, match="saved_tensors_hooks: unpack_hook=3; expected a function"):
        saved_tensors_hooks(lambda t: t, 3)  # type: ignore[arg-type]
    with pytest.raises(InPlaceError, match="pack_hook changed the saved tensor"), saved_tensors_hooks(lambda t: t.mul_(2), abs):
        x.exp()
    for error, unpack, message in (
        (DtypeError, lambda t: None, "unpack_hook returned None; expected a tensor of float32 on cpu"),
        (DtypeError, lambda t: t.double(), "unpack_hook returned a tensor of float64 on cpu"),
        (ShapeError, lambda t: t[:1], r"unpack_hook returned a tensor of shape \(1,\); expected \(2,\)"),
    ):
        with saved_tensors_hooks(lambda t: t, unpack):
            y = x.exp().sum()
        with pytest.raises(error, match=message):
            y.backward()
