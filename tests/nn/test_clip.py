"""Gradient clipping: PyTorch's numbers, many tensors, NaN and inf, and recorded steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.backend import devices
from gpunet.errors import ArgumentError, CaptureError, DeviceError, GradientError, InPlaceError, ShapeError
from gpunet.launch.list_kernel import max_tensors
from gpunet.launch.tape import Tape, record
from gpunet.nn import utils

#: PyTorch's float32 norm of 70 000 elements has errors up to 1e-5; ours is compared with the exact norm more tightly.
TOLERANCE = {"float32": {"rtol": 2e-5, "atol": 1e-7}, "float64": {"rtol": 1e-13, "atol": 1e-15}}
EXACT = {"float32": 5e-7, "float64": 1e-14}
SHAPES: list[tuple[int, ...]] = [(40, 70), (3,), (), (1, 5, 2), (0,), (70_001,)]
ORDERS = [2.0, 1.0, math.inf, 3.0, 0.5]


def gradients(dtype: str, shapes: list[tuple[int, ...]] = SHAPES) -> list[numpy.ndarray]:
    generator = numpy.random.default_rng(4)
    return [generator.normal(size=shape).astype(dtype) for shape in shapes]


def parameters(module: Any, grads: list[numpy.ndarray], **place: str) -> list[Any]:
    """Tensors with these gradients, after one without a gradient."""
    params = [module.zeros(g.shape, dtype=getattr(module, str(g.dtype)), requires_grad=True, **place) for g in grads]
    for p, g in zip(params, grads):
        p.grad = module.tensor(g, **place).reshape(g.shape)
    return [module.zeros((2,), requires_grad=True, **place), *params]


def grads_of(params: list[Any]) -> list[numpy.ndarray]:
    return [p.grad.cpu().numpy() for p in params if p.grad is not None]


def assert_same(mine: list[Any], theirs: list[Any], dtype: str) -> None:
    for a, b in zip(grads_of(mine), grads_of(theirs), strict=True):
        numpy.testing.assert_allclose(a, b, **TOLERANCE[dtype])


@pytest.mark.parametrize("order", [2.0, 3.0, math.inf, 0.0, -1.0, -math.inf])
def test_gradients_of_several_dtypes(order: float, device: str, torch: Any) -> None:
    """As of half a network in float16: the norm has the widest dtype, with the accuracy of the others' accumulators."""
    grads = [g for dtype in ("float32", "float16", "float64", "float32") for g in gradients(dtype, [(40, 7), (3,)])]
    mine, theirs = parameters(gpunet, grads), parameters(torch, grads)
    norm, expected = utils.clip_grad_norm_(mine, 0.5, order), torch.nn.utils.clip_grad_norm_(theirs, 0.5, order)
    assert norm.dtype == gpunet.float64
    numpy.testing.assert_allclose(norm.item(), expected.item(), rtol=3e-3)  # PyTorch sums float16 in float16
    exact = numpy.concatenate([g.ravel().astype("float64") for g in grads])
    if order > 0:
        numpy.testing.assert_allclose(norm.item(), numpy.linalg.norm(exact, order), rtol=3e-7)
    for a, b in zip(grads_of(mine), grads_of(theirs), strict=True):
        numpy.testing.assert_allclose(a, b, rtol=5e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", ORDERS)
def test_norms_and_gradients_match_torch(order: float, dtype: str, device: str, torch: Any) -> None:
    shapes = [s for s in SHAPES if order < math.inf or 0 not in s]  # PyTorch raises for the maximum of an empty tensor
    grads = gradients(dtype, shapes)
    exact = float(numpy.linalg.norm(numpy.concatenate([g.ravel() for g in grads]).astype("float64"), order))
    for max_norm in (0.0, 0.5, 1e13):
        mine, theirs = parameters(gpunet, grads), parameters(torch, grads)
        norm = utils.clip_grad_norm_(iter(mine), max_norm, order)
        expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, order)
        assert (norm.shape, str(norm.dtype), norm.device) == ((), dtype, gpunet.device(device))
        numpy.testing.assert_allclose(norm.item(), exact, rtol=EXACT[dtype])
        numpy.testing.assert_allclose(norm.item(), expected.item(), **TOLERANCE[dtype])
        assert_same(mine, theirs, dtype)
    assert grads_of(mine)[0].tobytes() == grads[0].tobytes()  # below max_norm: no bit changes


def test_get_total_norm_and_clip_grads_with_norm_match_clip_grad_norm(device: str, torch: Any) -> None:
    mine, theirs = parameters(gpunet, gradients("float32")), parameters(torch, gradients("float32"))
    norm = utils.get_total_norm([p.grad for p in mine if p.grad is not None])
    utils.clip_grads_with_norm_(mine, 2.0, norm)
    torch.nn.utils.clip_grad_norm_(theirs, 2.0)
    assert_same(mine, theirs, "float32")
    one = parameters(gpunet, gradients("float32"))
    utils.clip_grad_norm_(one, 2.0)
    assert [g.tobytes() for g in grads_of(one)] == [g.tobytes() for g in grads_of(mine)]


def test_clipped_values_match_torch(device: str, torch: Any) -> None:
    special = [numpy.array([math.nan, math.inf, -math.inf, 0.5, -3.0, 0.25], "float32")]
    grads = [*gradients("float32"), *special, *gradients("float64")]
    mine, theirs = parameters(gpunet, grads), parameters(torch, grads)
    utils.clip_grad_value_(mine, 0.5)
    torch.nn.utils.clip_grad_value_(theirs, 0.5)
    for a, b in zip(grads_of(mine), grads_of(theirs), strict=True):
        numpy.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("special", [math.nan, math.inf])
def test_nan_and_inf_propagate_as_in_torch(special: float, order: float, device: str, torch: Any) -> None:
    grads = gradients("float32", [(5,), (300,), (2,)])
    grads[1][7] = special
    mine, theirs = parameters(gpunet, grads), parameters(torch, grads)
    norm = utils.clip_grad_norm_(mine, 1.0, order)
    torch.nn.utils.clip_grad_norm_(theirs, 1.0, order)
    numpy.testing.assert_equal(norm.item(), special)
    for a, b in zip(grads_of(mine), grads_of(theirs), strict=True):
        numpy.testing.assert_array_equal(a, b)
    with pytest.raises(GradientError, match=f"is {special}"):
        utils.clip_grad_norm_(parameters(gpunet, grads), 1.0, order, error_if_nonfinite=True)


@pytest.mark.parametrize("order", [0, -1, -2.5, -math.inf])
@pytest.mark.parametrize("foreach", [None, True, False])
def test_norms_of_other_orders_match_torch(order: float, foreach: bool | None, device: str, torch: Any) -> None:
    cases = [[[1.0, 0.0, 3.0], [0.0, 0.0], [2.0, -4.0]], [[1.0, 3.0], [2.0, -4.0]], [[math.nan, 1.0], [2.0]], [[math.inf], [2.0]]]
    for values in cases:
        grads = [numpy.array(v, "float32") for v in values]
        mine, theirs = parameters(gpunet, grads), parameters(torch, grads)
        norm = utils.clip_grad_norm_(mine, 0.5, norm_type=order, foreach=foreach)
        expected = torch.nn.utils.clip_grad_norm_(theirs, 0.5, norm_type=order, foreach=foreach)
        assert str(norm.dtype) == "float32" and norm.shape == ()
        numpy.testing.assert_allclose(norm.item(), expected.item(), rtol=1e-6)
        assert_same(mine, theirs, "float32")


def test_more_tensors_than_one_launch_takes(device: str, torch: Any) -> None:
    limit = max_tensors(gpunet.zeros(1, device=device).array)
    grads = gradients("float64", [(1 + i % 7,) for i in range(2 * limit + 3)])
    for order in (2.0, math.inf):
        mine, theirs = parameters(gpunet, grads), parameters(torch, grads)
        with record(Tape()) as tape:
            norm = utils.clip_grad_norm_(mine, 0.3, order)
        assert [launch.kernel.name for launch in tape.launches] == ["gradient_norm"] * 3 + ["clip_by_norm"] * 3
        expected = torch.nn.utils.clip_grad_norm_(theirs, 0.3, order)
        numpy.testing.assert_allclose(norm.item(), expected.item(), **TOLERANCE["float64"])
        assert_same(mine, theirs, "float64")


def test_clipping_takes_two_launches_and_is_deterministic(device: str) -> None:
    found = []
    for _ in range(2):
        params = parameters(gpunet, gradients("float32"))
        with record(Tape()) as tape:
            norm = utils.clip_grad_norm_(params, 1.0)
        assert len(tape) == 2
        found.append([norm.cpu().numpy().tobytes(), *(g.tobytes() for g in grads_of(params))])
    assert found[0] == found[1]


def test_clipping_without_gradients_or_of_a_single_tensor(device: str) -> None:
    assert utils.clip_grad_norm_([gpunet.zeros(2, requires_grad=True)], 1.0).item() == 0.0
    assert utils.get_total_norm([]).item() == 0.0
    single = parameters(gpunet, gradients("float32", [(3,)]))[1]
    utils.clip_grad_value_(single, 0.0)
    assert single.grad.tolist() == [0.0, 0.0, 0.0]


def test_a_replay_clips_the_new_gradients(device: str) -> None:
    """For each norm type, replays on changing gradients have the bits of eager steps."""
    x = gpunet.zeros(6, 4)
    weight = gpunet.rand(3, 4, requires_grad=True)
    for act in (
        *(lambda order=order: utils.clip_grad_norm_(weight, 0.5, order) for order in ORDERS),
        lambda: utils.clip_grad_value_(weight, 0.25) or gpunet.zeros(()),
    ):

        def step(x: Any, act: Callable[[], Any] = act) -> Any:
            weight.grad = None
            gpunet.nn.functional.linear(x, weight).square().sum().backward()
            return act(), weight.grad * 1.0

        tape, captured = Tape(), gpunet.capture(step)
        with record(tape):
            taped = step(x)
        for number in range(20):
            batch = gpunet.tensor(numpy.random.default_rng(number).normal(size=(6, 4)).astype("float32"))
            expected = [t.cpu().numpy().tobytes() for t in step(batch)]
            devices.assign(x.array, batch.array)
            tape.replay()
            assert [t.cpu().numpy().tobytes() for t in taped] == expected
            if device == "cpu":
                assert [t.numpy().tobytes() for t in captured(batch)] == expected
        if device == "cpu":
            assert len(captured.recordings) == 1


def test_backward_detects_clipped_gradients() -> None:
    x = gpunet.tensor([3.0, 4.0], requires_grad=True)
    (x * x).sum().backward(create_graph=True)
    dependent = (x.grad * x.grad).sum()
    utils.clip_grad_norm_(x, 1.0)
    with pytest.raises(InPlaceError):
        dependent.backward()


def test_errors(device: str) -> None:
    params = parameters(gpunet, gradients("float32", [(3,)]))
    wrong: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (ArgumentError, "max_norm=-1.0", lambda: utils.clip_grad_norm_(params, -1.0)),
        (ArgumentError, "norm_type=nan", lambda: utils.clip_grad_norm_(params, 1.0, math.nan)),
        (ShapeError, r"norm_type=-1 .*\(0,\)", lambda: utils.clip_grad_norm_(parameters(gpunet, [numpy.zeros(0)]), 1.0, -1)),
        (ArgumentError, "clip_value=nan", lambda: utils.clip_grad_value_(params, math.nan)),
    ]
    for error, match, act in wrong:
        with pytest.raises(error, match=match):
            act()
    with pytest.raises(CaptureError, match="error_if_nonfinite=True"), record(Tape(strict=True)):
        utils.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    other = "emulated" if device == "cpu" else "cpu"
    elsewhere = parameters(gpunet, gradients("float32", [(3,)]), device=other)
    with pytest.raises(DeviceError, match=f"on {gpunet.device(device)} and on {other}; clip the parameters of each device"):
        utils.clip_grad_norm_([*params, *elsewhere], 1.0)


@pytest.mark.parametrize("clip", ["clip_grad_norm_", "clip_grad_value_"])
def test_strided_gradients_are_clipped_in_place(clip: str, device: str, torch: Any) -> None:
    results = []
    for module, place in ((gpunet, {"device": device}), (torch, {})):
        p, gradient = module.zeros(4, 3, requires_grad=True, **place), module.tensor(gradients("float32", [(3, 4)])[0], **place)
        p.grad = gradient.T
        getattr(module.nn.utils, clip)(p, 0.5)
        results.append([p.grad.cpu().numpy(), gradient.cpu().numpy(), module.nn.utils.get_total_norm([gradient.T]).item()])
    for mine, theirs in zip(*results, strict=True):
        numpy.testing.assert_allclose(mine, theirs, **TOLERANCE["float32"])
